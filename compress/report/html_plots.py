"""The plots of the report: each a pure function from evidence to a drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from compress.evidence import Candidate, Metric, TargetEvidence
from compress.report import html_svg as svg
from compress.report.html_blocks import Key, Plot, clean
from compress.report.numbers import format_bytes, format_ms, format_significant, format_value
from compress.report.quality import name as metric_name
from compress.report.quality import several_tasks
from compress.report.text import plain, shorten
from compress.review import Calibration, Interval, Ranking, ReliabilityPoint, RocPoint

_CURVE_POINTS = 120
_LABEL = 18
_LABEL_WIDTH, _LABEL_HEIGHT = 80, 14
_FOREST_LABEL = 150
_FOREST_ROWS = 40
_ROW = 22
# The candidate that ships is drawn in the accent, its baseline dashed; others are told apart by their dashes.
_OTHERS = ("other1", "other2", "other3")


@dataclass(frozen=True)
class Change:
    """One line of a forest plot: a difference with its interval."""

    label: str
    difference: float
    interval: Interval | None
    is_marked: bool = False


def roc(ranking: Ranking, scheme: str, baseline: str) -> Plot | None:
    """Returns the ROC curves of candidate and baseline, each with the gap that is its KS."""
    # The dashes of the baseline on top: where both are equal, both are seen.
    curves = ((ranking.candidate_roc, "lead"), (ranking.baseline_roc, "base"))
    if not all(points for points, _ in curves):
        return None
    x, y = svg.scales((0.0, 1.0), (0.0, 1.0))
    parts = [svg.axes(x, y, "false positive rate", "true positive rate")]
    parts.append(svg.segment((x(0), y(0)), (x(1), y(1)), "chance"))
    gaps = []
    for points, mark in curves:
        known = sorted((item.false_positive_rate, item.true_positive_rate) for item in points)
        parts.append(svg.curve(((x(across), y(up)) for across, up in [(0.0, 0.0), *known, (1.0, 1.0)]), mark))
        widest = _widest(points)
        gaps.append(widest.true_positive_rate - widest.false_positive_rate)
        if mark == "lead":
            across = x(widest.false_positive_rate)
            parts.append(
                svg.segment((across, y(widest.false_positive_rate)), (across, y(widest.true_positive_rate)), "gap")
            )
            middle = (widest.false_positive_rate + widest.true_positive_rate) / 2
            parts.append(svg.text(across + 6, y(middle), f"KS {gaps[-1]:.3f}", "label"))
    return Plot(
        "ROC and KS",
        f"ROC curves. The widest gap between true and false positive rate (KS) is {gaps[0]:.4f} for {clean(scheme)} "
        f"and {gaps[1]:.4f} for {clean(baseline)}.",
        Markup("").join(parts),
        svg.WIDTH,
        svg.HEIGHT,
        (Key("lead", clean(scheme)), Key("base", clean(baseline)), Key("chance", "no discrimination")),
    )


def reliability(calibration: Calibration, scheme: str, baseline: str) -> Plot | None:
    """Returns the reliability curves of candidate and baseline with the interval of each bin."""
    both = (calibration.baseline_curve, calibration.candidate_curve)
    if not any(both):
        return None
    highest = max(max(point.mean_score, point.positive_rate, point.interval.high) for curve in both for point in curve)
    limit = min(1.0, max(0.05, highest * 1.05))
    x, y = svg.scales((0.0, limit), (0.0, limit))
    parts = [svg.axes(x, y, "mean predicted probability", "observed share of positives")]
    parts.append(svg.segment((x(0), y(0)), (x(limit), y(limit)), "chance"))
    for points, line, mark, shift in ((both[0], "base", "hollow", -2.0), (both[1], "lead", "full", 2.0)):
        parts.append(svg.curve(((x(item.mean_score), y(item.positive_rate)) for item in points), f"{line} thin"))
        parts += [_bin(item, x, y, mark, shift) for item in points]
    return Plot(
        "Reliability",
        f"Observed against predicted shares in {len(both[1])} bins; on the diagonal a probability means what it says. "
        "Bars are the intervals of the observed shares.",
        Markup("").join(parts),
        svg.WIDTH,
        svg.HEIGHT,
        (Key("full", clean(scheme)), Key("hollow", clean(baseline)), Key("chance", "calibrated")),
    )


def _bin(item: ReliabilityPoint, x: svg.Scale, y: svg.Scale, mark: str, shift: float) -> Markup:
    across = x(item.mean_score) + shift
    bar = svg.segment((across, y(item.interval.low)), (across, y(item.interval.high)), f"{mark}bar")
    said = f"{item.rows:,} rows: predicted {item.mean_score:.3f}, observed {item.positive_rate:.3f}"
    return bar + svg.dot((across, y(item.positive_rate)), 3.2, mark, said)


def latency_ecdf(target: TargetEvidence) -> Plot | None:
    """Returns which share of the calls of each candidate took at most how long."""
    samples = {
        item.scheme: sorted(time for process in item.latency.samples for time in process if math.isfinite(time))
        for item in target.candidates
        if item.latency is not None
    }
    samples = {scheme: times for scheme, times in samples.items() if times}
    if not samples:
        return None
    # The longest hundredth is the machine's, not the artifact's, and would press all curves to one side.
    high = max(times[min(len(times) - 1, int(0.99 * len(times)))] for times in samples.values())
    low = min(times[0] for times in samples.values())
    x, y = svg.scales(svg.padded((low, high), 0.05), (0.0, 1.0))
    marks = _marks(target, list(samples))
    parts = [svg.axes(x, y, "milliseconds a call", "share of the samples")]
    parts += [svg.curve(_steps(times, x, y), marks[scheme]) for scheme, times in samples.items()]
    return Plot(
        f"Latency on {clean(target.target)}",
        "Share of the samples that took at most so long, up to the 99th percentile. The medians in the table are taken "
        "over processes, so that a disturbed one counts once.",
        Markup("").join(parts),
        svg.WIDTH,
        svg.HEIGHT,
        tuple(Key(mark, clean(scheme)) for scheme, mark in marks.items()),
    )


def pareto(target: TargetEvidence, task: str) -> Plot | None:
    """Returns quality over latency of every candidate of a task, the area of each disc its bytes."""
    found = [
        (item, metric, item.latency.median_ms, item.artifact.size_bytes)
        for item in target.candidates
        for metric in item.primary
        if metric.task == task and metric.value is not None and item.latency is not None and item.artifact is not None
    ]
    if len(found) < 2:
        return None
    bounds = [_bounds(metric) for _, metric, _, _ in found]
    largest = max(size for *_, size in found) or 1
    times = [time for _, _, time, _ in found]
    # Room to the right for the label of the slowest.
    x, y = svg.scales((0.0, max(times) * 1.3 or 1.0), svg.padded([value for pair in bounds for value in pair], 0.12))
    name = metric_name(found[0][1], several_tasks(target))
    parts = [svg.axes(x, y, "median latency, ms", name)]
    marks = _marks(target, [item.scheme for item, *_ in found])
    places = [(x(time), y(metric.value or 0.0)) for _, metric, time, _ in found]
    heights = svg.spread([height + 4 for _, height in places], 13, svg.TOP + 8, svg.HEIGHT - svg.BOTTOM - 4)
    for (item, metric, time, size), (low, high), at, height in zip(found, bounds, places, heights, strict=True):
        radius = 3 + 9 * math.sqrt(size / largest)
        kind = {"base": "hollow", "lead": "full"}.get(marks[item.scheme], "faint")
        said = f"{clean(item.scheme)}: {format_ms(time)}, {name} {format_value(metric.value)}, {format_bytes(size)}"
        parts.append(svg.segment((at[0], y(low)), (at[0], y(high)), f"{kind}bar"))
        parts.append(svg.dot(at, radius, kind, said))
        side, anchor = (-1, "end") if _is_crowded(at, places) else (1, "start")
        label = shorten(plain(item.scheme), _LABEL)
        parts.append(svg.text(at[0] + side * (radius + 5), height, label, "label", anchor))
    best = [clean(item.scheme) for item, *rest in found if not _is_beaten(item, found)]
    return Plot(
        f"{name}, latency and bytes on {clean(target.target)}",
        f"Up and to the left is better; a larger disc is a larger file; bars are the intervals of the difference. "
        f"Not beaten in all three at once: {', '.join(best)}.",
        Markup("").join(parts),
        svg.WIDTH,
        svg.HEIGHT,
        (Key("full", "ships"), Key("hollow", "baseline"), Key("faint", "others")),
    )


def forest(title: str, description: str, changes: Sequence[Change]) -> Plot | None:
    """Returns differences with their intervals, one line each, around the line of no change."""
    shown = [item for item in changes if math.isfinite(item.difference)][:_FOREST_ROWS]
    if not shown:
        return None
    height = _ROW * len(shown) + svg.TOP + svg.BOTTOM
    ends = [0.0, *(item.difference for item in shown)]
    ends += [end for item in shown if item.interval is not None for end in (item.interval.low, item.interval.high)]
    low, high = svg.padded(ends, 0.06)
    x = svg.Scale(low, high, _FOREST_LABEL, svg.WIDTH - svg.RIGHT)
    bottom = height - svg.BOTTOM
    marks = svg.ticks(low, high, 4)
    written = svg.tick_text(marks)
    parts = []
    for mark in marks:
        parts.append(svg.segment((x(mark), svg.TOP), (x(mark), bottom), "grid"))
        parts.append(svg.below(x(mark), bottom + 16, written(mark)))
    parts.append(svg.segment((x(0.0), svg.TOP), (x(0.0), bottom), "zero"))
    parts.append(
        svg.text(
            (_FOREST_LABEL + svg.WIDTH - svg.RIGHT) / 2, bottom + 36, "candidate minus baseline", "title", "middle"
        )
    )
    for index, item in enumerate(shown):
        at = svg.TOP + _ROW * (index + 0.5)
        kind = "bad" if item.is_marked else "full"
        label = shorten(plain(item.label), 24)
        parts.append(svg.text(_FOREST_LABEL - 8, at + 4, label, "label bold" if item.is_marked else "label", "end"))
        if item.interval is not None:
            parts.append(svg.segment((x(item.interval.low), at), (x(item.interval.high), at), f"{kind}bar"))
        said = f"{clean(item.label)}: {format_significant(item.difference, 3)}"
        parts.append(svg.dot((x(item.difference), at), 3.6, kind, said))
    return Plot(title, description, Markup("").join(parts), svg.WIDTH, height)


def _is_crowded(at: svg.Point, places: Sequence[svg.Point]) -> bool:
    """Whether another disc stands where the label to the right of this one would be."""
    return any(0 < x - at[0] < _LABEL_WIDTH and abs(y - at[1]) < _LABEL_HEIGHT for x, y in places)


def _widest(points: Sequence[RocPoint]) -> RocPoint:
    return max(points, key=lambda item: item.true_positive_rate - item.false_positive_rate)


def _steps(times: Sequence[float], x: svg.Scale, y: svg.Scale) -> list[svg.Point]:
    """An empirical distribution as a line of bounded length: exact below that many samples."""
    count = len(times)
    picked = sorted({round(index * (count - 1) / max(1, _CURVE_POINTS - 1)) for index in range(_CURVE_POINTS)})
    points: list[svg.Point] = [(x(times[0]), y(0.0))]
    for index in picked:
        points += [(x(times[index]), points[-1][1]), (x(times[index]), y((index + 1) / count))]
    return points


def _marks(target: TargetEvidence, schemes: Iterable[str]) -> dict[str, str]:
    """Scheme -> class of its line: the baseline, what ships, and the others in turn."""
    base = target.baseline.scheme if target.baseline is not None else None
    marks: dict[str, str] = {}
    for scheme in schemes:
        if scheme == target.choice.scheme:
            marks[scheme] = "lead"
        elif scheme == base:
            marks[scheme] = "base"
        else:
            marks[scheme] = _OTHERS[sum(mark in _OTHERS for mark in marks.values()) % len(_OTHERS)]
    return marks


def _bounds(metric: Metric) -> tuple[float, float]:
    """Where the value may lie beside its baseline: the baseline and the interval of the difference."""
    value = metric.value or 0.0
    if metric.interval is None or metric.baseline is None or metric.difference is None:
        return value, value
    return metric.baseline + metric.interval.low, metric.baseline + metric.interval.high


def _is_beaten(item: Candidate, found: Sequence[tuple[Candidate, Metric, float, int]]) -> bool:
    """Whether another candidate is at least as good in quality, time and bytes, and better in one of them."""

    def rank(metric: Metric, time: float, size: int) -> tuple[float, float, int]:
        return (-(metric.value or 0.0) * (1 if metric.higher_is_better else -1), time, size)

    own = next(rank(metric, time, size) for other, metric, time, size in found if other is item)
    return any(
        others != own and all(theirs <= mine for theirs, mine in zip(others, own, strict=True))
        for other, metric, time, size in found
        if other is not item
        for others in [rank(metric, time, size)]
    )
