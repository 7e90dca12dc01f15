"""Who is treated differently: decisions, segments, explanations, disturbed inputs and periods."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from compress.evidence import Candidate, Evidence, TargetEvidence
from compress.report.html_blocks import Block, Bullets, Cell, Plots, Section, Text, clean, table
from compress.report.html_plots import Change, forest
from compress.report.html_words import (
    FIGURE_HEADINGS,
    change_cell,
    figure_cells,
    figure_name,
    figures_table,
    level_of,
    or_missing,
    p_text,
    place,
    reviews_of,
    share_or_missing,
    share_text,
    shown_or_folded,
    significant,
)
from compress.report.numbers import MISSING, format_count, format_value
from compress.review import Bands, Decisions, Explanation, Figure, Period, Review, Robustness, Segment

_TOP_FEATURES = 20
# The figure that a segment is drawn by: the first that its task has.
_DRAWN = ("auc", "approval_rate", "top_1", "mae")

_Part = Callable[[Review], Iterator[Block]]


def decisions_section(evidence: Evidence) -> Section:
    """Returns what is decided otherwise than before: flips, score bands, costs."""
    blocks = _each(evidence, _decisions, _flips_said)
    if not blocks:
        blocks = [Text("Decisions were not reviewed row by row."), *_agreements(evidence)]
    return Section("decisions", "Decisions", tuple(blocks))


def segments_section(evidence: Evidence) -> Section:
    """Returns every figure by segment, fairness between segments, and periods where there is a time column."""
    blocks = _each(evidence, _segments, _worst_said)
    missing = "Nothing was measured by segment: name columns with `data.sensitive` or `[segments]` in the recipe."
    return Section("segments", "Segments and fairness", tuple(blocks) or (Text(missing),))


def explanations_section(evidence: Evidence) -> Section:
    """Returns whether the reasons given to customers are the same, and what disturbed inputs do."""
    blocks = _each(evidence, _explanations, lambda review: "")
    if not any(review.explanations for _, review in _all(evidence)):
        blocks.insert(0, Text("Attributions were not compared: ask for them with `[explain]` in the recipe."))
    return Section("explanations", "Explanations and robustness", tuple(blocks))


def _all(evidence: Evidence) -> Iterator[tuple[Candidate, Review]]:
    return (pair for target in evidence.targets for pair in reviews_of(target))


def _each(evidence: Evidence, part: _Part, summary: Callable[[Review], str]) -> list[Block]:
    blocks: list[Block] = []
    for target in evidence.targets:
        for candidate, review in _in_order(target):
            blocks += shown_or_folded(
                target, candidate, place(target, candidate, review), summary(review), part(review)
            )
    return blocks


def _in_order(target: TargetEvidence) -> Iterator[tuple[Candidate, Review]]:
    # The baseline beside itself tells nothing here.
    return ((item, review) for item, review in reviews_of(target) if item is not target.baseline)


def _agreements(evidence: Evidence) -> list[Block]:
    rows = [
        (
            clean(target.target),
            clean(item.scheme),
            clean(metric.task) or MISSING,
            format_value(metric.value),
            clean(metric.note),
        )
        for target in evidence.targets
        for item in target.candidates
        for metric in item.metrics
        if metric.name == "agreement"
    ]
    headings = ("target", "scheme", "task", "share decided alike", "note")
    return [table("Share of rows decided as the baseline decides", headings, rows)] if rows else []


def _flips_said(review: Review) -> str:
    main = next((item for item in review.decisions if item.task_cutoff), None)
    return f"{share_text(main.flipped)} decided otherwise" if main is not None else ""


def _decisions(review: Review) -> Iterator[Block]:
    if review.decisions:
        said = _flips_said(review)
        if said:
            yield Text(f"{said} than by the baseline.", "strong")
        headings = ("cut-off", "decided otherwise", "now positive", "now negative")
        rows = [
            (
                Cell(f"{item.cutoff:g}", "strong" if item.task_cutoff else ""),
                share_text(item.flipped),
                share_text(item.to_positive),
                share_text(item.to_negative),
            )
            for item in review.decisions
        ]
        yield table("Decisions that changed, with exact intervals", headings, rows)
        yield from (_at_cutoff(item) for item in review.decisions if item.figures)
        if review.flips_file:
            yield Text(f"The rows whose decision changed, for review: {clean(review.flips_file)}")
        said = level_of(item.flipped.interval for item in review.decisions)
        if said:
            yield Text(said, "quiet")
    if review.bands is not None:
        yield from _bands(review.bands)


def _at_cutoff(item: Decisions) -> Block:
    return figures_table(f"Figures at the cut-off {item.cutoff:g}", item.figures)


def _bands(bands: Bands) -> Iterator[Block]:
    psi = f"PSI {format_value(bands.psi)}" if bands.psi is not None else "PSI undefined"
    if bands.psi_interval is not None:
        psi += f" [{format_value(bands.psi_interval.low)}, {format_value(bands.psi_interval.high)}]"
    said = f"{psi}; rank correlation {or_missing(bands.spearman)} (Spearman), {or_missing(bands.kendall)} (Kendall)."
    yield Text(f"Score bands: {said}", "strong")
    if bands.note:
        yield Text(clean(bands.note))
    names = _band_names(bands.edges)
    if not bands.matrix or len(names) != len(bands.matrix):
        return
    rows: list[tuple[str | Cell, ...]] = [
        (
            f"{index + 1}: {names[index]}",
            *(_band_cell(count, sum(row), same=index == other) for other, count in enumerate(row)),
        )
        for index, row in enumerate(bands.matrix)
    ]
    headings = ("baseline \\ candidate", *(str(index + 1) for index in range(len(names))))
    yield table("Rows by band of the baseline (down) and of the candidate (across)", headings, rows, is_heat=True)


def _band_names(edges: tuple[float, ...]) -> list[str]:
    digits = 2 if all(abs(edge) >= 0.1 for edge in edges) else 3
    written = [f"{edge:.{digits}f}" for edge in edges]
    if not written:
        return ["all"]
    return [
        f"below {written[0]}",
        *(f"{low} to {high}" for low, high in itertools.pairwise(written)),
        f"from {written[-1]}",
    ]


def _band_cell(count: int, of_row: int, *, same: bool) -> Cell:
    shade = 0 if not count or not of_row else max(1, round(9 * (count / of_row) ** 0.5))
    return Cell(format_count(count) if count else "·", "strong" if same else "", shade)


def _worst_said(review: Review) -> str:
    return f"largest loss in {clean(review.worst_segment)}" if review.worst_segment else ""


def _segments(review: Review) -> Iterator[Block]:
    if review.segments:
        if review.worst_segment:
            yield Text(f"The segment with the largest loss is {clean(review.worst_segment)}.", "strong")
        yield from _segment_plots(review)
        figures = [figure for segment in review.segments for figure in segment.figures]
        names = list(dict.fromkeys(figure.name for figure in figures))
        changing = {figure.name for figure in figures if figure.difference is not None}
        changed = [name for name in names if name in changing]
        has_p = any(segment.p_value is not None for segment in review.segments)
        headings = ("segment", "rows", "positives", *(f"{figure_name(name)}, change" for name in changed))
        headings += ("p", "p (Holm)") if has_p else ()
        rows = [_segment(segment, changed, review.worst_segment, has_p) for segment in review.segments]
        yield table("Change by segment: candidate minus baseline", (*headings, "note"), rows)
        yield from _levels(review, names)
        said = level_of(figure.interval for segment in review.segments for figure in segment.figures)
        if said:
            yield Text(said, "quiet")
    if review.fairness:
        gaps = [
            (clean(item.column), figure_name(figure.name), *figure_cells(figure))
            for item in review.fairness
            for figure in item.figures
        ]
        yield table("Fairness: gaps between the segments of a column", ("column", *FIGURE_HEADINGS), gaps)
        yield from (Text(f"{clean(item.column)}: {clean(item.note)}") for item in review.fairness if item.note)
    if review.periods:
        yield _periods(review.periods)
    if review.notes:
        yield Bullets(tuple(clean(note) for note in review.notes))


def _segment(segment: Segment, names: Iterable[str], worst: str, has_p: bool) -> tuple[str | Cell, ...]:
    tests = (p_text(segment.p_value), p_text(segment.adjusted_p_value)) if has_p else ()
    is_worst = segment.title == worst
    mark = "\nlargest loss" if is_worst else "\nsmall, not judged" if segment.small else ""
    return (
        Cell(clean(segment.title) + mark, "strong" if is_worst else ""),
        format_count(segment.rows),
        format_count(segment.positives),
        *(change_cell(segment.figure(name)) for name in names),
        *tests,
        clean(segment.note) or MISSING,
    )


def _levels(review: Review, names: Iterable[str]) -> Iterator[Block]:
    """Values of both, a table a figure would be too many: candidate / baseline in one cell."""
    shown = list(names)
    rows = [(clean(segment.title), *(_both(segment.figure(name)) for name in shown)) for segment in review.segments]
    yield table("By segment: candidate / baseline", ("segment", *(figure_name(name) for name in shown)), rows)


def _both(figure: Figure | None) -> str:
    if figure is None:
        return MISSING
    # A share of rows on which both decide alike has no baseline.
    beside = f" / {or_missing(figure.baseline, 3)}" if figure.baseline is not None else ""
    return f"{or_missing(figure.value, 3)}{beside}"


def _segment_plots(review: Review) -> Iterator[Block]:
    plots = []
    for name in [item for item in _DRAWN if any(segment.figure(item) for segment in review.segments)][:2]:
        changes = [
            Change(segment.title, figure.difference, figure.interval, segment.title == review.worst_segment)
            for segment in review.segments
            if not segment.small and (figure := segment.figure(name)) is not None and figure.difference is not None
        ]
        described = (
            f"Change of {figure_name(name)} in every segment that is large enough to be judged, with its interval."
        )
        plot = forest(f"{figure_name(name)[:1].upper()}{figure_name(name)[1:]} by segment", described, changes)
        if plot is not None:
            plots.append(plot)
    if plots:
        yield Plots(tuple(plots))


def _periods(periods: tuple[Period, ...]) -> Block:
    names = list(dict.fromkeys(figure.name for period in periods for figure in period.figures))
    rows: list[tuple[str | Cell, ...]] = []
    for period in periods:
        found = {figure.name: figure for figure in period.figures}
        cells = [change_cell(found.get(name)) for name in names]
        rows.append((clean(period.name), format_count(period.rows), *cells, clean(period.note) or MISSING))
    headings = ("period", "rows", *(f"{figure_name(name)}, change" for name in names), "note")
    return table("Change by period, the oldest first", headings, rows)


def _explanations(review: Review) -> Iterator[Block]:
    for item in review.explanations:
        yield from _explanation(item)
    if review.robustness:
        headings = (
            "disturbance",
            "rows",
            "score moves, candidate",
            "baseline",
            "decisions kept, candidate",
            "baseline",
            "decided alike",
            "same answer",
            "note",
        )
        yield table("Disturbed inputs", headings, [_robustness(item) for item in review.robustness])


def _explanation(item: Explanation) -> Iterator[Block]:
    changed = item.reason_codes_changed
    if changed.rows:
        yield Text(f"Reasons told to declined customers changed for {share_text(changed)}.", "strong")
    rows = [
        ("rank correlation of the attributions", or_missing(item.rank_correlation)),
        (f"overlap of the top {item.top_k} features", share_or_missing(item.top_k_overlap)),
        ("drift: mean change over mean size", significant(item.drift)),
        ("signs that changed among the top features", share_text(item.sign_changes)),
        ("declined rows with other reason codes", share_text(changed)),
    ]
    used = f"{clean(item.method)}, {format_count(item.rows)} rows, {format_count(item.background_rows)} background rows"
    yield table(f"Attributions of candidate and baseline ({used})", ("figure", "value"), rows)
    features = sorted(item.features, key=lambda feature: -max(feature.baseline, feature.candidate))[:_TOP_FEATURES]
    if features:
        named = [
            (
                clean(feature.feature),
                significant(feature.candidate),
                significant(feature.baseline),
                or_missing(feature.correlation, 3),
            )
            for feature in features
        ]
        headings = ("feature", "candidate", "baseline", "correlation over rows")
        yield table(
            f"Mean absolute attribution, the {len(named)} largest of {len(item.features)} features", headings, named
        )
    if item.note:
        yield Text(clean(item.note))


def _robustness(item: Robustness) -> tuple[str | Cell, ...]:
    answers = "yes" if item.same_answer else "no"
    numbers = f" ({format_count(item.candidate_answers)} / {format_count(item.baseline_answers)} numbers)"
    return (
        clean(item.disturbance),
        format_count(item.rows),
        significant(item.candidate_shift),
        significant(item.baseline_shift),
        share_or_missing(item.candidate_kept),
        share_or_missing(item.baseline_kept),
        share_or_missing(item.agreement),
        Cell(answers + numbers, "" if item.same_answer else "fail"),
        clean(item.note) or MISSING,
    )
