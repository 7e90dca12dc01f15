"""The review of a candidate as plain tables, for Markdown and the terminal: who is treated differently, and how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compress.evidence import Candidate
from compress.report.numbers import (
    MISSING,
    format_count,
    format_difference,
    format_difference_interval,
    format_value,
    format_value_interval,
)
from compress.review import Bands, Calibration, Decisions, Explanation, Figure, Ranking, Review, Segment

# Segments show these; all of their figures are in the evidence.
_OF_SEGMENTS = ("auc", "approval_rate", "true_positive_rate", "agreement", "top_1", "mae", "r2")


@dataclass(frozen=True)
class Part:
    """One table of a review with its heading, and what must be said below it."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def review_parts(candidate: Candidate) -> list[Part]:
    """Returns the tables of every task's review, in the order in which they are read."""
    several = len(candidate.reviews) > 1
    found = []
    for review in candidate.reviews:
        name = f" of {review.task}" if several else ""
        found += [
            Part(f"{part.title}{name}", part.headings, part.rows, part.notes) for part in _parts(review) if part.rows
        ]
    return found


def _parts(review: Review) -> Iterator[Part]:
    yield _decisions(review)
    if review.bands is not None:
        yield _bands(review.bands)
    if review.ranking is not None:
        yield _figures("Ranking", review.ranking.figures)
        yield _lift(review.ranking)
    if review.calibration is not None:
        yield _calibration(review.calibration)
    yield _classes(review)
    yield _segments(review)
    yield _fairness(review)
    yield _periods(review)
    yield _figures("Folds", review.folds)
    for explanation in review.explanations:
        yield _explanation(explanation)
    yield _robustness(review)


def _decisions(review: Review) -> Part:
    rows: list[tuple[str, ...]] = []
    for item in review.decisions:
        where = f"{item.cutoff:g}{' (task)' if item.task_cutoff else ''}"
        rows += [(where, *cells) for cells in _flips(item)]
        rows += [(where, *_cells(figure)) for figure in item.figures]
    notes = (f"the rows that flipped: {review.flips_file}",) if review.flips_file else ()
    return Part("Decisions", ("cut-off", *_HEADINGS), tuple(rows), notes)


_HEADINGS = ("figure", "value", "baseline", "change", "interval", "note")


def _flips(item: Decisions) -> Iterator[tuple[str, ...]]:
    named = (("flipped", item.flipped), ("became positive", item.to_positive), ("became negative", item.to_negative))
    for name, share in named:
        count = f"{format_count(share.count)} of {format_count(share.rows)}"
        yield name, format_value(share.share), MISSING, MISSING, format_value_interval(share.interval), count


def _cells(figure: Figure) -> tuple[str, ...]:
    paired = figure.difference is not None
    interval = (format_difference_interval if paired else format_value_interval)(figure.interval)
    return (
        figure.name,
        format_value(figure.value),
        format_value(figure.baseline),
        format_difference(figure.difference),
        interval,
        figure.note or MISSING,
    )


def _figures(title: str, figures: Sequence[Figure]) -> Part:
    return Part(title, _HEADINGS, tuple(_cells(figure) for figure in figures))


def _bands(bands: Bands) -> Part:
    ends = [MISSING, *(format_value(edge) for edge in bands.edges), MISSING]
    rows = tuple(
        (
            str(index + 1),
            ends[index],
            ends[index + 1],
            format_count(before),
            format_count(after),
            format_count(bands.matrix[index][index]),
        )
        for index, (before, after) in enumerate(zip(bands.baseline_rows, bands.candidate_rows, strict=True))
    )
    notes = [
        f"PSI {format_value(bands.psi, 5)} {format_value_interval(bands.psi_interval, 5)}",
        f"Spearman {format_value(bands.spearman)}, Kendall {format_value(bands.kendall)}",
        bands.note,
    ]
    headings = ("band", "from", "to", "baseline rows", "candidate rows", "stayed")
    return Part("Score bands", headings, rows, tuple(note for note in notes if note))


def _lift(ranking: Ranking) -> Part:
    rows = tuple(
        (str(item.decile), format_count(item.rows), f"{item.candidate:.2f}", f"{item.baseline:.2f}")
        for item in ranking.lift
    )
    notes = ("rate of positives over the rate of all rows, highest scores first",) if rows else ()
    return Part("Lift by decile", ("decile", "rows", "value", "baseline"), rows, notes)


def _calibration(found: Calibration) -> Part:
    notes = (
        f"ECE of the baseline {format_value_interval(found.baseline_ece_interval)}, "
        f"of the candidate {format_value_interval(found.candidate_ece_interval)}",
    )
    return Part("Calibration", _HEADINGS, tuple(_cells(figure) for figure in found.figures), notes)


def _classes(review: Review) -> Part:
    rows = tuple(
        (item.name or str(item.label), format_count(item.rows), *_cells(figure))
        for item in review.classes
        for figure in item.figures
    )
    return Part("Classes", ("class", "rows", *_HEADINGS), rows)


def _segments(review: Review) -> Part:
    rows: list[tuple[str, ...]] = []
    for segment in review.segments:
        for figure in segment.figures:
            if figure.name in _OF_SEGMENTS:
                rows.append((segment.title, format_count(segment.rows), *_cells(figure)[:-1], _said(segment, figure)))
    notes = (f"worst segment: {review.worst_segment}",) if review.worst_segment else ()
    return Part("Segments", ("segment", "rows", *_HEADINGS), tuple(rows), notes)


def _said(segment: Segment, figure: Figure) -> str:
    adjusted = segment.adjusted_p_value
    changed = f"pattern changed, p {adjusted:.2g}" if adjusted is not None and adjusted < 0.05 else ""
    said = [figure.note, "small" if segment.small else "", changed if figure.name == "agreement" else ""]
    return "; ".join(text for text in said if text) or MISSING


def _fairness(review: Review) -> Part:
    rows = tuple((item.column, *_cells(figure)) for item in review.fairness for figure in item.figures)
    notes = tuple(f"{item.column}: {item.note}" for item in review.fairness if item.note)
    return Part("Fairness", ("column", *_HEADINGS), rows, notes)


def _periods(review: Review) -> Part:
    rows = tuple(
        (item.name, format_count(item.rows), *_cells(figure))
        for item in review.periods
        for figure in item.figures
        if figure.name in _OF_SEGMENTS
    )
    return Part("Periods", ("period", "rows", *_HEADINGS), rows)


def _explanation(found: Explanation) -> Part:
    codes, signs = found.reason_codes_changed, found.sign_changes
    rows = (
        ("rank correlation of attributions", format_value(found.rank_correlation), MISSING),
        (f"top {found.top_k} in common", format_value(found.top_k_overlap), MISSING),
        ("attribution drift", format_value(found.drift), MISSING),
        ("signs changed", f"{signs.count:,} of {signs.rows:,}", format_value_interval(signs.interval)),
        ("reason codes changed", f"{codes.count:,} of {codes.rows:,}", format_value_interval(codes.interval)),
    )
    notes = (f"{found.method}, {found.rows:,} rows, {found.background_rows:,} background rows", found.note)
    return Part("Explanations", ("figure", "value", "interval"), rows, tuple(note for note in notes if note))


def _robustness(review: Review) -> Part:
    rows = tuple(
        (
            item.disturbance,
            format_count(item.rows),
            f"{item.baseline_answers:,}",
            f"{item.candidate_answers:,}",
            "yes" if item.same_answer else "no",
            format_value(item.baseline_shift),
            format_value(item.candidate_shift),
            format_value(item.agreement),
            item.note or MISSING,
        )
        for item in review.robustness
    )
    headings = (
        "disturbance",
        "rows",
        "answered by baseline",
        "by candidate",
        "same rows",
        "shift of baseline",
        "of candidate",
        "agreement",
        "note",
    )
    return Part("Robustness", headings, rows)
