"""How the page names and writes what a review holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from compress.evidence import Candidate, Evidence, TargetEvidence
from compress.report.html_blocks import Block, Cell, Fold, Heading, Table, clean, table
from compress.report.numbers import (
    MISSING,
    format_count,
    format_difference,
    format_difference_interval,
    format_level,
    format_share,
    format_significant,
    format_value,
    format_value_interval,
)
from compress.review import Figure, Interval, Review, Share
from compress.search.wording import title as metric_title

_NAMES = {
    "ece": "expected calibration error",
    "classwise_ece": "classwise calibration error",
    "auc": "AUC",
    "f1": "F1",
    "demographic_parity_ratio": "demographic parity, ratio",
    "demographic_parity_difference": "demographic parity, difference",
    "equal_opportunity_difference": "equal opportunity, difference",
    "equalized_odds_difference": "equalised odds, difference",
    "reliability": "Brier: reliability",
    "resolution": "Brier: resolution",
    "uncertainty": "Brier: uncertainty",
}
FIGURE_HEADINGS = ("figure", "candidate", "baseline", "difference", "interval", "note")


def figure_name(name: str) -> str:
    """Returns what a figure is called in a table."""
    return _NAMES.get(name) or clean(metric_title(name).replace("_", " "))


def figures_table(caption: str, figures: Iterable[Figure]) -> Table:
    """Returns figures with the baseline's beside them."""
    return table(caption, FIGURE_HEADINGS, [(figure_name(item.name), *figure_cells(item)) for item in figures])


def figure_cells(figure: Figure) -> tuple[str, str, str, str, str]:
    """Returns a figure's cells: candidate, baseline, difference, interval, note."""
    digits = decimals(figure)
    interval = (
        format_difference_interval(figure.interval, digits)
        if figure.difference is not None
        else format_value_interval(figure.interval, digits)
    )
    return (
        format_value(figure.value, digits),
        format_value(figure.baseline, digits),
        format_difference(figure.difference, digits),
        interval,
        clean(figure.note) or MISSING,
    )


def decimals(figure: Figure) -> int:
    """Returns the decimals of a figure: 4 for shares and scores, fewer for what is in the unit of money or labels."""
    largest = max((abs(value) for value in (figure.value, figure.baseline) if value is not None), default=0.0)
    return 4 if largest < 10 or not math.isfinite(largest) else max(0, 4 - math.floor(math.log10(largest)))


def change_cell(figure: Figure | None) -> Cell:
    """Returns a difference in one cell, its interval on the line below."""
    if figure is None or figure.difference is None:
        return Cell(MISSING)
    digits = decimals(figure)
    interval = f"\n{format_difference_interval(figure.interval, digits)}" if figure.interval is not None else ""
    return Cell(f"{format_difference(figure.difference, digits)}{interval}")


def share_text(share: Share) -> str:
    """Returns a count with its share and interval: `55 of 6,012 (0.91 %, 0.69 to 1.19 %)`."""
    if share.share is None:
        return "no rows"
    between = f", {percent_interval(share.interval)}" if share.interval is not None else ""
    return f"{format_count(share.count)} of {format_count(share.rows)} ({100 * share.share:.2f} %{between})"


def percent_interval(interval: Interval) -> str:
    """Returns the interval of a share in percent: `0.69 to 1.19 %`."""
    return f"{100 * interval.low:.2f} to {100 * interval.high:.2f} %"


def p_text(value: float | None) -> str:
    """Returns a p-value: three digits, `< 0.0001` below."""
    if value is None or not math.isfinite(value):
        return MISSING
    return "< 0.0001" if value < 0.0001 else f"{value:.{4 if value < 0.01 else 3}f}"


def or_missing(value: float | None, digits: int = 4) -> str:
    """Returns a number with some decimals, or the sign for a missing one."""
    return format_value(value, digits)


def share_or_missing(value: float | None) -> str:
    """Returns a share in percent."""
    return format_share(value) if value is None else f"{100 * value:.2f} %"


def level_of(intervals: Iterable[Interval | None]) -> str:
    """Returns the level and method that intervals share, as a sentence; empty where there are none."""
    said = sorted({f"{format_level(item.level)}, {item.method}" for item in intervals if item is not None})
    return f"Intervals: {'; '.join(clean(text) for text in said)}." if said else ""


def significant(value: float | None) -> str:
    """Returns three significant digits."""
    return format_significant(value, 3)


def is_main(target: TargetEvidence, candidate: Candidate) -> bool:
    """Returns whether a candidate is what the reader came for: it ships, or nothing does."""
    return candidate.scheme == target.choice.scheme


def reviews_of(target: TargetEvidence) -> Iterator[tuple[Candidate, Review]]:
    """Yields every review of a target, that of what ships first."""
    for candidate in sorted(target.candidates, key=lambda item: not is_main(target, item)):
        for review in candidate.reviews:
            yield candidate, review


def place(target: TargetEvidence, candidate: Candidate, review: Review) -> str:
    """Returns what a review is about: `int8-static on phone`, with its task where there are several."""
    tasks = {item.task for other in target.candidates for item in other.reviews}
    said = f"{clean(candidate.scheme)} on {clean(target.target)}"
    return f"{said}, task {clean(review.task)}" if len(tasks) > 1 else said


def shown_or_folded(
    target: TargetEvidence, candidate: Candidate, title: str, summary: str, blocks: Iterable[Block]
) -> list[Block]:
    """Returns what ships as it is and the others folded; all of them open where nothing ships."""
    inside = tuple(blocks)
    if not inside:
        return []
    if is_main(target, candidate):
        return [Heading(title), *inside]
    return [Fold(f"{title}: {summary}" if summary else title, inside, is_open=target.choice.scheme is None)]


def has_reviews(evidence: Evidence) -> bool:
    """Returns whether any candidate was reviewed."""
    return any(candidate.reviews for target in evidence.targets for candidate in target.candidates)
