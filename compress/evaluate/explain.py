"""Shapley values of any model's output by walks from a background row to the row itself, without its gradients.

Each walk takes the features of a row one by one, in a random order, into a background row, and then out again in the
same order (Strumbelj & Kononenko 2014, Knowl. Inf. Syst. 41:647; shap's PermutationExplainer walks so). What the output
moves by is the feature's; over walks the mean is unbiased, and it adds up to output minus background output. Baseline
and candidate are sent on the same walks: what differs between them is theirs, not the draw's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.evaluate.bands import spearman
from compress.evaluate.probes import Arrays, Feature, Floats, blend
from compress.evaluate.shares import exact_interval
from compress.review import Explanation, FeatureAttribution, Interval, Share

METHOD = "Shapley values by permutation sampling, antithetic"
# A change of sign counts where the baseline's attribution is at least this share of the row's largest.
SIGN_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class Walks:
    """Inputs on all walks, and which feature each step takes: `order[rows, walks, features]`.

    `inputs` has `rows * walks * (2 * features)` rows: from the background with the first feature taken to the whole
    row, then back in the same order of taking away; the background itself is the last step of a walk.
    """

    inputs: dict[str, NDArray[np.generic]]
    order: NDArray[np.int64]

    @property
    def method(self) -> str:
        """How the attributions are found, in words."""
        return METHOD

    def attributions(self, outputs: Floats) -> Floats:
        """Returns the Shapley values, `[rows, features]`, in the unit of the output.

        Args:
            outputs: What the model answers on `inputs`, `[rows * walks * 2 * features]`.
        """
        rows, walks, count = self.order.shape
        path = outputs.reshape(rows, walks, 2 * count)
        # Forth from the background (the last step back) to the row, then back again.
        moves = np.diff(np.concatenate([path[:, :, -1:], path], axis=2), axis=2)
        of_step = (moves[:, :, :count] - moves[:, :, count:]) / 2
        found = np.zeros((rows, count))
        for walk in range(walks):
            np.add.at(found, (np.arange(rows)[:, None], self.order[:, walk]), of_step[:, walk])
        mean: Floats = found / walks
        return mean


def make_walks(inputs: Arrays, background: Arrays, features: Sequence[Feature], *, walks: int, seed: int) -> Walks:
    """Returns the walks of every row.

    Args:
        inputs: The rows to explain, `[rows, ...]` each.
        background: Rows that stand for "not known", `[background rows, ...]` each.
        features: What is taken; all else in the inputs stays as it is in the row.
        walks: Walks a row, each with a background row of its own.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    rows = next(iter(inputs.values())).shape[0]
    count = len(features)
    order = np.argsort(generator.random((rows, walks, count)), axis=2)
    drawn = generator.integers(0, next(iter(background.values())).shape[0], (rows, walks))
    # rank[r, w, f]: when feature f is taken on the walk; forth it is in from that step on, back it is out from then on.
    rank = np.argsort(order, axis=2)
    step = np.arange(count)
    taken = np.concatenate(
        [rank[:, :, None, :] <= step[None, None, :, None], rank[:, :, None, :] > step[None, None, :, None]], axis=2
    ).reshape(rows * walks * 2 * count, count)
    of_row = np.repeat(np.arange(rows), walks * 2 * count)
    of_background = np.repeat(drawn.reshape(-1), 2 * count)
    return Walks(blend(inputs, background, features, taken, of_row, of_background), order)


def compare_attributions(
    baseline: Floats,
    candidate: Floats,
    features: Sequence[Feature],
    *,
    towards_decline: int,
    declined: NDArray[np.bool_],
    top_k: int,
    background_rows: int,
    level: float,
    method: str,
) -> Explanation:
    """Returns how far the candidate gives the reasons of the baseline.

    Args:
        baseline: Attributions `[rows, features]`.
        candidate: The same of the candidate, on the same probes.
        features: Of the columns.
        towards_decline: 1 where a higher output speaks for a decline, -1 where a lower one does.
        declined: Rows that both decline, `[rows]`: those who are told reasons.
        top_k: How many reasons they are told.
        background_rows: For the record.
        level: Of the intervals.
        method: How the attributions were found, in words.
    """
    top_k = min(top_k, baseline.shape[1])
    sizes = np.abs(baseline), np.abs(candidate)
    ranked = [found for a, b in zip(*sizes, strict=True) if (found := spearman(a, b)) is not None]
    top = [np.argsort(-size, axis=1, kind="stable")[:, :top_k] for size in sizes]
    overlap = [len(set(a) & set(b)) / top_k for a, b in zip(top[0].tolist(), top[1].tolist(), strict=True)]
    largest = sizes[0].max(axis=1, keepdims=True)
    leading = (sizes[0] >= SIGN_SHARE * largest) & (largest > 0)
    changed = int(np.count_nonzero(leading & (np.sign(baseline) != np.sign(candidate))))
    codes = [reason_codes(towards_decline * values[declined], top_k) for values in (baseline, candidate)]
    others = sum(a != b for a, b in zip(*codes, strict=True))
    told = _share(others, len(codes[0]), level)
    if np.array_equal(baseline, candidate) and told.interval is not None:
        # The same model, not a model that happened to agree on these rows.
        told = Share(0, told.rows, Interval(0.0, 0.0, level, "equal attributions"))
    total = float(sizes[0].mean())
    return Explanation(
        method=method,
        rows=baseline.shape[0],
        background_rows=background_rows,
        top_k=top_k,
        rank_correlation=float(np.mean(ranked)) if ranked else None,
        top_k_overlap=float(np.mean(overlap)),
        drift=float(np.abs(candidate - baseline).mean()) / total if total else None,
        sign_changes=_share(changed, int(np.count_nonzero(leading)), level),
        reason_codes_changed=told,
        features=tuple(
            FeatureAttribution(
                feature=feature.name,
                baseline=float(sizes[0][:, index].mean()),
                candidate=float(sizes[1][:, index].mean()),
                correlation=_correlation(baseline[:, index], candidate[:, index]),
            )
            for index, feature in enumerate(features)
        ),
        note="" if total else "undefined: no feature moves the baseline's output",
    )


def reason_codes(towards_decline: Floats, top_k: int) -> list[frozenset[int]]:
    """Returns the features that speak most for a decline, at most `top_k` of each row `[rows, features]`."""
    ranked = np.argsort(-towards_decline, axis=1, kind="stable")[:, :top_k]
    return [
        frozenset(feature for feature in row if values[feature] > 0)
        for row, values in zip(ranked.tolist(), towards_decline, strict=True)
    ]


def _share(count: int, rows: int, level: float) -> Share:
    return Share(count, rows, exact_interval(count, rows, level) if rows else None)


def _correlation(a: Floats, b: Floats) -> float | None:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))
