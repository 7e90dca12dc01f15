"""Rising functions from log-odds to log-odds, fitted so that probabilities are what happened. Numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize, minimize_scalar
from scipy.special import expit, logit, logsumexp

from compress.errors import PassError

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]
Method = Literal["temperature", "platt", "isotonic"]

# A temperature outside says that the rows tell nothing about one: scores that separate the labels, or do not at all.
TEMPERATURE_MAX = 20.0
FOLDS = 5


@dataclass(frozen=True)
class Affine:
    """`scale * log-odds + shift`; of several classes the scale only. `scale` is above 0, so the order stays."""

    scale: float
    shift: float = 0.0

    def __call__(self, values: Floats) -> Floats:
        """Returns the recalibrated log-odds, in the shape given."""
        return self.scale * values + self.shift

    def __str__(self) -> str:
        return f"{self.scale:.4g} x log-odds{f' {self.shift:+.4g}' if self.shift else ''}"


@dataclass(frozen=True, eq=False)
class Curve:
    """Straight lines between the knots `(x, y)`, `[knots]` each, both rising; beyond the ends the slope is 1.

    It rises everywhere, so the order of scores stays and no two become one but for rounding: plain isotonic regression
    is a staircase, which makes ties.
    """

    x: Floats
    y: Floats

    def __call__(self, values: Floats) -> Floats:
        """Returns the recalibrated log-odds, in the shape given."""
        inside: Floats = np.interp(values, self.x, self.y)
        risen: Floats = inside + np.minimum(values - self.x[0], 0.0) + np.maximum(values - self.x[-1], 0.0)
        return risen

    def __str__(self) -> str:
        return f"{self.x.size} knots from log-odds {self.x[0]:.3g} to {self.x[-1]:.3g}"


Fitted = Affine | Curve
Fit = Callable[[Floats, Classes], Fitted]


def fit_temperature(values: Floats, labels: Classes) -> Affine:
    """Returns the temperature that makes the labels most likely (Guo et al. 2017, ICML, section 4).

    Args:
        values: Log-odds `[rows]`, or logits `[rows, classes]`.
        labels: 0 and 1, or numbers of classes, `[rows]`.

    Raises:
        PassError: If no temperature between 1/20 and 20 is best.
    """
    end = float(np.log(TEMPERATURE_MAX))
    found = minimize_scalar(
        lambda power: log_loss(values * np.exp(-power), labels), bounds=(-end, end), method="bounded"
    )
    if abs(found.x) > 0.99 * end:
        raise PassError(
            "the calibration rows do not tell a temperature: the best one lies outside 1/20 to 20",
            "the scores separate the labels, or say nothing about them; check the labels, or take another method.",
        )
    return Affine(float(np.exp(-found.x)))


def fit_platt(values: Floats, labels: Classes) -> Affine:
    """Returns the line through the log-odds that makes the labels most likely.

    Platt (1999), Advances in Large Margin Classifiers, with his targets, which keep it finite where scores separate
    the labels.

    Args:
        values: Log-odds, `[rows]`.
        labels: 0 and 1, `[rows]`.

    Raises:
        PassError: If positive rows have the lower scores.
    """
    targets = _targets(labels)

    def loss(line: Floats) -> tuple[float, Floats]:
        scaled = line[0] * values + line[1]
        error = expit(scaled) - targets
        cost = float((np.logaddexp(0, scaled) - targets * scaled).mean())
        return cost, np.array([(error * values).mean(), error.mean()])

    scale, shift = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    if not scale > 0:
        raise _falling()
    return Affine(float(scale), float(shift))


def fit_isotonic(values: Floats, labels: Classes, knots: int) -> Curve:
    """Returns the rising curve through the shares of positives of at most `knots` groups of about equal rows.

    Groups that run the wrong way are pooled (pool adjacent violators; Zadrozny & Elkan 2002, KDD). Shares are of
    Platt's targets, so that none is 0 or 1.

    Args:
        values: Log-odds, `[rows]`.
        labels: 0 and 1, `[rows]`.
        knots: Number of groups, 2 or more.

    Raises:
        PassError: If all groups are pooled: the share of positives does not rise with the score.
    """
    edges = np.unique(np.quantile(values, np.arange(1, knots) / knots, method="inverted_cdf"))
    group = np.searchsorted(edges, values)
    rows = np.bincount(group).astype(np.float64)
    taken = rows > 0
    sums = [np.bincount(group, weights=column)[taken] for column in (values, _targets(labels))]
    rows = rows[taken]
    pooled = isotonic_regression(sums[1] / rows, weights=rows)
    # Groups of equal shares are one knot, too: between two of them the curve would be flat.
    starts = np.flatnonzero(np.append(True, np.diff(pooled.x) > 1e-12))
    x, shares = (np.add.reduceat(column, starts) / np.add.reduceat(rows, starts) for column in sums)
    if x.size < 2:
        raise _falling()
    return Curve(x, logit(shares))


def log_loss(values: Floats, labels: Classes) -> float:
    """Returns the mean negative log-likelihood, nats, of log-odds `[rows]` or logits `[rows, classes]`."""
    if values.ndim == 1:
        return float(np.logaddexp(0, np.where(labels == 1, -values, values)).mean())
    return float((logsumexp(values, axis=1) - values[np.arange(labels.size), labels]).mean())


def held_out(fit: Fit, values: Floats, labels: Classes, seed: int) -> tuple[float, float]:
    """Returns the log-loss as it is, and recalibrated on rows that each fit did not see.

    Args:
        fit: Fits on some rows.
        values: Log-odds or logits, `[rows, ...]`.
        labels: `[rows]`.
        seed: Of the dealing into five folds.
    """
    fold = np.empty(labels.size, dtype=np.int64)
    fold[np.random.default_rng(seed).permutation(labels.size)] = np.arange(labels.size) % FOLDS
    after = np.empty_like(values)
    for index in range(FOLDS):
        after[fold == index] = fit(values[fold != index], labels[fold != index])(values[fold == index])
    return log_loss(values, labels), log_loss(after, labels)


def _targets(labels: Classes) -> Floats:
    """Platt's targets: the shares that Laplace's rule gives after so many positive, or negative, rows."""
    positives = int(np.count_nonzero(labels))
    negatives = labels.size - positives
    return np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def _falling() -> PassError:
    return PassError(
        "the share of positive calibration rows does not rise with the score, so there is nothing to recalibrate",
        "check that label 1 is what the output scores, and that the weights belong to the model.",
    )
