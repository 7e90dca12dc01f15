"""With very many rows other methods give the intervals; they must cover what they say, and say what they are."""

from __future__ import annotations

import numpy as np

from compress.evaluate import quality
from compress.evaluate.quality import compare


def made(random, rows):
    labels = random.random(rows) < 0.3
    logit = random.normal(0, 1, rows) + 1.2 * labels - 1
    before = 1 / (1 + np.exp(-logit))
    after = 1 / (1 + np.exp(-(logit + random.normal(0, 0.4, rows))))
    return labels, before, after


def found(labels, before, after, resamples=200):
    return {item.name: item for item in compare(labels, before, after, cutoff=0.5, resamples=resamples, seed=0)}


def test_methods_of_many_rows_are_named():
    metrics = found(*made(np.random.default_rng(0), 25_000))
    assert metrics["auc"].interval.method == "DeLong"
    assert "Poisson" in metrics["ks"].interval.method
    assert {metrics[name].interval.method for name in ("log_loss", "brier")} == {"paired normal"}
    assert "Poisson" not in found(*made(np.random.default_rng(0), 2000))["ks"].interval.method


def test_the_intervals_of_many_rows_cover_what_they_say(monkeypatch):
    labels, before, after = made(np.random.default_rng(1), 300_000)
    truths = {name: item.difference for name, item in found(labels, before, after, 100).items()}
    monkeypatch.setattr(quality, "ROWS_MAX", 100)
    random = np.random.default_rng(2)
    covered, runs = dict.fromkeys(("auc", "log_loss", "brier", "accuracy", "ks"), 0), 150
    for _ in range(runs):
        rows = random.integers(0, labels.size, 2500)
        metrics = found(labels[rows], before[rows], after[rows], 100)
        for name in covered:
            covered[name] += metrics[name].interval.low <= truths[name] <= metrics[name].interval.high
    for name, times in covered.items():
        assert 0.885 <= times / runs <= 0.995, name


def test_equal_scores_of_many_rows_change_nothing():
    labels, before, _ = made(np.random.default_rng(3), 25_000)
    for metric in found(labels, before, before).values():
        if metric.difference is not None:
            assert (metric.difference, metric.interval.low, metric.interval.high) == (0, 0, 0)


def test_one_class_among_many_rows_has_no_ranking():
    _, before, after = made(np.random.default_rng(4), 25_000)
    metrics = found(np.ones(25_000, dtype=bool), before, after)
    assert (metrics["auc"].value, metrics["ks"].value) == (None, None)
    assert metrics["brier"].interval.method == "paired normal"
