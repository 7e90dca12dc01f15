"""How close probabilities are to what happened, as one figure a row: the mean over rows is the metric."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# log(0) would make one wrong certain row infinite. With this bound a row costs at most 36.04, as in scikit-learn.
EPSILON = float(np.finfo(np.float64).eps)


def log_losses(labels: NDArray[np.bool_], probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the negative log-likelihood of every row, nats, shape `[rows]`.

    Probabilities are clipped to [eps, 1 - eps] with float64's eps, 2.2e-16.
    """
    of_label = np.where(labels, probability, 1 - probability)
    losses: NDArray[np.float64] = -np.log(np.clip(of_label, EPSILON, 1 - EPSILON))
    return losses


def brier_scores(labels: NDArray[np.bool_], probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the squared error of every row, shape `[rows]` (Brier 1950, the form for two classes)."""
    return np.square(probability - labels)


def class_log_losses(labels: NDArray[np.int64], probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the negative log-likelihood of every row, nats, of probabilities `[rows, classes]`, 2.2e-16 at least."""
    losses: NDArray[np.float64] = -np.log(np.maximum(probability[np.arange(labels.size), labels], EPSILON))
    return losses


def log_loss(labels: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
    """Returns the mean negative log-likelihood, nats; see `log_losses` for the clipping."""
    return float(log_losses(labels, probability).mean())


def brier(labels: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
    """Returns the Brier score, the mean squared error of the probability."""
    return float(brier_scores(labels, probability).mean())
