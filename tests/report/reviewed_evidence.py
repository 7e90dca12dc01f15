"""A synthetic Evidence with a review of every kind: decisions, bands, curves, segments, explanations, periods."""

from __future__ import annotations

import math
from dataclasses import replace

from compress.evidence import Candidate, Evidence, Leak, TargetEvidence
from compress.review import (
    Bands,
    Calibration,
    ClassFigures,
    Decisions,
    Explanation,
    Fairness,
    FeatureAttribution,
    Figure,
    Interval,
    Lift,
    Period,
    Ranking,
    ReliabilityPoint,
    Review,
    Robustness,
    RocPoint,
    Segment,
    Share,
)

ROWS = 6000
SEGMENTS = (
    ("SEX", "female", 3610, 742),
    ("SEX", "male", 2390, 585),
    ("AGE", "below 30", 1920, 430),
    ("AGE", "30 to 45", 2900, 600),
    ("AGE", "45 to 60", 1100, 270),
    ("AGE", "60 and above", 80, 27),
    ("EDUCATION", "graduate school", 2120, 410),
    ("EDUCATION", "university", 2810, 660),
    ("EDUCATION", "high school", 970, 245),
    ("EDUCATION", "others", 41, 3),
)


def reviewed(evidence: Evidence) -> Evidence:
    """Returns the evidence with a review of every candidate that was measured and is not the baseline."""
    targets = tuple(_target(target) for target in evidence.targets)
    leaks = (Leak("test", "train", 12, ROWS),)
    return replace(evidence, targets=targets, data=replace(evidence.data, leaks=leaks))


def _target(target: TargetEvidence) -> TargetEvidence:
    candidates = tuple(
        item if item.error or item is target.baseline else replace(item, reviews=(review(_harm(target, item)),))
        for item in target.candidates
    )
    return replace(target, candidates=candidates)


def _harm(target: TargetEvidence, candidate: Candidate) -> float:
    return 0.0004 if candidate.scheme == target.choice.scheme else 0.006


def review(harm: float) -> Review:
    """A review whose differences are about that large."""
    return Review(
        task="defaulted",
        kind="binary",
        rows=ROWS,
        decisions=(_decisions(0.5, harm, task_cutoff=True), _decisions(0.3, harm * 2, task_cutoff=False)),
        bands=_bands(harm),
        ranking=_ranking(harm),
        calibration=_calibration(harm),
        classes=(ClassFigures(1, "late", 1327, (_figure("precision", 0.66, -harm),)),),
        segments=tuple(_segment(index, harm) for index in range(len(SEGMENTS))),
        fairness=tuple(_fairness(column, harm) for column in dict.fromkeys(item[0] for item in SEGMENTS)),
        worst_segment="AGE 45 to 60",
        periods=tuple(_period(f"2025-{month:02}", month, harm) for month in range(1, 7)),
        folds=(_figure("auc", 0.781, -harm),),
        explanations=(_explanation(harm),),
        robustness=(
            Robustness(
                "noise of 0.01 standard deviations", 1000, 0.0021, 0.0024, 0.997, 0.996, 0.995, 1000, 1000, True
            ),
            Robustness(
                "NaN in one column", 1000, None, None, None, None, None, 0, 1000, False, "one answers, one does not"
            ),
        ),
        flips_file="flips.phone.int8-static.csv",
        notes=("2 segments have fewer than 100 rows and are not judged",),
    )


def _interval(value: float, half: float) -> Interval:
    return Interval(value - half, value + half, 0.95, "paired bootstrap")


def _figure(name: str, baseline: float, change: float) -> Figure:
    return Figure(name, baseline + change, baseline, change, _interval(change, 0.002))


def _decisions(cutoff: float, harm: float, *, task_cutoff: bool) -> Decisions:
    flips = round(harm * ROWS * 5) + 10
    up = flips // 3

    def share(count: int) -> Share:
        return Share(count, ROWS, Interval(count / ROWS * 0.7, count / ROWS * 1.4, 0.95, "Clopper-Pearson"))

    figures = (
        _figure("approval_rate", 0.871, -harm),
        _figure("precision", 0.664, -harm),
        _figure("recall", 0.362, harm),
        Figure("expected_cost", 1284.4, 1279.1, 5.3, _interval(5.3, 7.0)),
    )
    return Decisions(cutoff, task_cutoff, share(flips), share(up), share(flips - up), figures)


def _bands(harm: float) -> Bands:
    size = 10
    moved = max(1, round(harm * 4000))
    matrix = tuple(
        tuple(
            600 - moved * ((row > 0) + (row < size - 1)) if row == column else moved if abs(row - column) == 1 else 0
            for column in range(size)
        )
        for row in range(size)
    )
    edges = tuple(round(0.06 * 1.3**index, 3) for index in range(size - 1))
    return Bands(edges, matrix, harm / 10, Interval(0, harm / 5, 0.95, "bootstrap"), 0.9991, 0.9788)


def _roc(bend: float) -> tuple[RocPoint, ...]:
    return tuple(RocPoint(1 - step / 50, (step / 50) ** (1 / bend), (step / 50) ** bend) for step in range(51))


def _ranking(harm: float) -> Ranking:
    lift = tuple(Lift(decile, 600, 3.1 * 0.75**decile, 3.1 * 0.75**decile - harm) for decile in range(1, 11))
    return Ranking((_figure("average_precision", 0.561, -harm),), _roc(0.52), _roc(0.52 + harm * 3), lift)


def _curve(shift: float) -> tuple[ReliabilityPoint, ...]:
    points = []
    for index in range(10):
        mean = 0.05 + 0.085 * index
        rate = min(0.98, mean + 0.02 * math.sin(index) + shift)
        half = 0.01 + 0.006 * index
        points.append(ReliabilityPoint(mean - 0.04, mean + 0.04, 600, mean, rate, _interval(rate, half)))
    return tuple(points)


def _calibration(harm: float) -> Calibration:
    figures = (
        _figure("ece", 0.0142, harm),
        _figure("calibration_gap", -0.0031, harm),
        _figure("reliability", 0.0004, harm / 10),
        _figure("resolution", 0.0371, -harm / 10),
        _figure("uncertainty", 0.1722, 0.0),
    )
    return Calibration(
        figures, _interval(0.0142, 0.004), _interval(0.0142 + harm, 0.004), _curve(0.0), _curve(harm * 4)
    )


def _segment(index: int, harm: float) -> Segment:
    column, name, rows, positives = SEGMENTS[index]
    worst = (column, name) == ("AGE", "45 to 60")
    change = -harm * (4 if worst else 0.5 + 0.2 * index)
    small = rows < 100
    half = 0.1 / math.sqrt(rows)
    figures = tuple(
        Figure(figure, base + change, base, change, Interval(change - half, change + half, 0.95, "paired bootstrap"))
        for figure, base in (
            ("auc", 0.78),
            ("approval_rate", 0.87),
            ("agreement", 0.99),
            ("true_positive_rate", 0.36),
            ("false_positive_rate", 0.05),
            ("calibration_gap", 0.002),
        )
    )
    if positives < 5:
        figures = (Figure("auc", None, None, note="fewer than 5 positive rows"), *figures[1:])
    p = 0.00002 if worst and harm > 0.001 else 0.2 + 0.05 * index
    return Segment(
        column, name, rows, positives, small, figures, p, min(1.0, p * 10), "few positives" if positives < 5 else ""
    )


def _fairness(column: str, harm: float) -> Fairness:
    figures = (
        _figure("demographic_parity_difference", 0.031, harm),
        _figure("demographic_parity_ratio", 0.962, -harm),
        _figure("equal_opportunity_difference", 0.044, harm),
        _figure("equalized_odds_difference", 0.044, harm),
    )
    return Fairness(column, tuple(item[1] for item in SEGMENTS if item[0] == column and item[2] >= 100), figures)


def _period(name: str, month: int, harm: float) -> Period:
    return Period(
        name, 1000 + month, 220, (_figure("auc", 0.78, -harm * month / 6), _figure("approval_rate", 0.87, harm))
    )


def _explanation(harm: float) -> Explanation:
    names = ("PAY_0", "LIMIT_BAL", "PAY_AMT1", "BILL_AMT1", "AGE", "EDUCATION")
    features = tuple(
        FeatureAttribution(name, 0.2 / (index + 1), 0.2 / (index + 1) + harm, 0.999 - harm * index)
        for index, name in enumerate(names)
    )
    changed = Share(round(harm * 2000), 800, Interval(0.0, harm * 6, 0.95, "Clopper-Pearson"))
    return Explanation("kernel SHAP", 200, 50, 4, 0.991, 0.978, harm * 3, Share(3, 800), changed, features)
