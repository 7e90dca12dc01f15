"""Where rows moved between score bands: the migration matrix, the population stability index, rank correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from compress.evaluate.binary_counts import centred, draw
from compress.evaluate.discrimination import midranks
from compress.review import Bands, Interval

Floats = NDArray[np.float64]

# Kendall's tau beyond so many rows is that of as many rows, evenly spaced in the order of the baseline's scores.
KENDALL_ROWS_MAX = 100_000
CORRECTED = "multinomial bootstrap of the migration matrix, percentile, corrected for its bias"
# An empty band counts as half a row: its logarithm would be infinite.
EMPTY = 0.5


def compare_bands(baseline: Floats, candidate: Floats, *, bands: int, resamples: int, seed: int, level: float) -> Bands:
    """Returns the bands of both scores of the same rows.

    1. Edges are the quantiles of the baseline's scores; equal ones are one edge, so ties may leave fewer bands.
    2. PSI is the sum over bands of (candidate's share - baseline's share) ln(candidate's / baseline's share), an empty
       band counting half a row (Siddiqi 2006, Credit Risk Scorecards, ch. 12). It is overstated where rows are few: its
       interval, from draws of the migration matrix, lies around the estimate less the bias that the draws show.
    3. A baseline whose scores are all equal has one band: PSI and correlations are None, with a note.

    Args:
        baseline: Scores by the baseline, `[rows]`, finite.
        candidate: The same by the candidate.
        bands: Number of bands, 2 or more.
        resamples: Number of draws.
        seed: Of the draws.
        level: The confidence level.
    """
    edges = np.unique(np.quantile(baseline, np.arange(1, bands) / bands))
    edges = edges[edges > baseline.min()]
    before, after = (np.searchsorted(edges, scores, side="right") for scores in (baseline, candidate))
    size = edges.size + 1
    matrix = np.bincount(before * size + after, minlength=size * size).reshape(size, size)
    if not edges.size:
        note = "undefined: the baseline gives every row the same score"
        return Bands((), _plain(matrix), None, None, None, None, note)
    estimate = float(psi(matrix.sum(axis=1)[None], matrix.sum(axis=0)[None])[0])
    drawn = draw(matrix, resamples, seed)
    replicates = psi(drawn.sum(axis=2), drawn.sum(axis=1))
    bias = float(replicates.mean()) - estimate
    found = centred(estimate - bias, replicates, level, CORRECTED)
    interval = found and Interval(max(0.0, found.low), max(estimate, found.high), level, found.method)
    note = "" if np.ptp(candidate) else "rank correlation undefined: the candidate gives every row the same score"
    return Bands(
        edges=tuple(edges.tolist()),
        matrix=_plain(matrix),
        psi=estimate,
        psi_interval=interval,
        spearman=spearman(baseline, candidate),
        kendall=kendall(baseline, candidate),
        note=note,
    )


def psi(baseline: NDArray[np.generic], candidate: NDArray[np.generic]) -> Floats:
    """Returns the population stability index of counts by band, `[any, bands]` each; see `compare_bands`."""
    before, after = (np.maximum(counts.astype(np.float64), EMPTY) for counts in (baseline, candidate))
    shares = [counts / counts.sum(axis=1, keepdims=True) for counts in (before, after)]
    index: Floats = ((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum(axis=1)
    return index


def spearman(a: Floats, b: Floats) -> float | None:
    """Returns Spearman's correlation, Pearson's of the midranks; None where one has equal numbers only."""
    ranks = [midranks(scores) - (scores.size + 1) / 2 for scores in (a, b)]
    spread = float(np.sqrt(np.square(ranks[0]).sum() * np.square(ranks[1]).sum()))
    return min(1.0, max(-1.0, float(ranks[0] @ ranks[1]) / spread)) if spread else None


def kendall(a: Floats, b: Floats) -> float | None:
    """Returns Kendall's tau-b, of at most `KENDALL_ROWS_MAX` rows; None where one has equal numbers only."""
    if a.size > KENDALL_ROWS_MAX:
        chosen = np.argsort(a, kind="stable")[np.linspace(0, a.size - 1, KENDALL_ROWS_MAX).astype(np.int64)]
        a, b = a[chosen], b[chosen]
    if not np.ptp(a) or not np.ptp(b):
        return None
    return float(kendalltau(a, b).statistic)


def _plain(matrix: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
