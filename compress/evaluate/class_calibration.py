"""Calibration of a multi-class task: of the class decided for, and of every class against all others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.evaluate.ece_change import ece_figure, gaps_of
from compress.evaluate.means import mean_figure
from compress.evaluate.reliability import curve, ece_interval
from compress.review import Calibration

Floats = NDArray[np.float64]


def compare_class_calibration(
    labels: NDArray[np.int64], before: Floats, after: Floats, *, bins: int, resamples: int, seed: int, level: float
) -> Calibration:
    """Returns how well two models' probabilities of classes are calibrated.

    1. `ece` is that of the class decided for: whether answers of 0.8 are right in 8 of 10 rows (Guo et al. 2017,
       ICML). The curves show the same.
    2. `classwise_ece` is the mean over classes of the error of each against all others (Kull et al. 2019, NeurIPS).
    3. `calibration_gap` is the mean probability of the class decided for minus the share of right answers.

    Args:
        labels: Numbers of classes, `[rows]`.
        before: Probabilities by the baseline, `[rows, classes]`.
        after: The same by the candidate.
        bins: Number of bins, 2 or more.
        resamples: Number of draws for the interval of each error itself.
        seed: Of the draws.
        level: The confidence level.
    """
    decided = [probability.argmax(axis=1) for probability in (before, after)]
    right = [classes == labels for classes in decided]
    sure = [probability.max(axis=1) for probability in (before, after)]
    of_classes = (gaps_of(labels == label, before[:, label], after[:, label], bins) for label in range(before.shape[1]))
    figures = [
        ece_figure("ece", [gaps_of(right[0], sure[0], sure[1], bins, right[1])], bins, level),
        ece_figure("classwise_ece", of_classes, bins, level),
        mean_figure("calibration_gap", sure[0] - right[0], sure[1] - right[1], level),
    ]
    drawn: dict[str, Any] = {"bins": bins, "resamples": resamples, "seed": seed, "level": level}
    return Calibration(
        figures=tuple(figures),
        baseline_ece_interval=ece_interval(right[0], sure[0], **drawn),
        candidate_ece_interval=ece_interval(right[1], sure[1], **drawn),
        baseline_curve=curve(right[0], sure[0], bins, level),
        candidate_curve=curve(right[1], sure[1], bins, level),
    )
