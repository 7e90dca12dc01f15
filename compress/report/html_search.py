"""The section on what a search found: which layers hurt, drawn, and what a repair tried."""

from __future__ import annotations

from markupsafe import Markup

from compress.evidence import Evidence, Sensitivity, TargetEvidence
from compress.report import html_svg as svg
from compress.report.html_blocks import (
    Block,
    Bullets,
    Cell,
    Fold,
    Heading,
    Key,
    Plot,
    Plots,
    Section,
    clean,
    cleaned,
    table,
    verdict_cell,
)
from compress.report.search_rows import (
    REPAIR,
    repair_rows,
    repair_sentences,
    sensitivity_headings,
    sensitivity_rows,
    sensitivity_title,
)
from compress.report.text import plain, shorten

# Layers that are drawn; the table has all.
_MOST = 30
_ROW, _LABEL, _NAME = 18, 150, 24


def search_section(evidence: Evidence) -> tuple[Section, ...]:
    """Returns the section, or nothing where nothing was searched."""
    blocks: list[Block] = []
    for target in evidence.targets:
        found = _target(target)
        if found:
            blocks += [Heading(f"{clean(target.target)} ({clean(target.runtime)})"), *found]
    return (Section("search", "Sensitivity and repair", tuple(blocks)),) if blocks else ()


def _target(target: TargetEvidence) -> list[Block]:
    blocks: list[Block] = []
    for found in target.sensitivities:
        drawn = sensitivity_plot(found)
        blocks += [Plots((drawn,))] if drawn else []
        caption = clean(sensitivity_title(found))
        inside = table(caption, sensitivity_headings(found), cleaned(sensitivity_rows(found)))
        blocks.append(Fold(caption, (inside,)))
    for repair in target.repairs:
        blocks.append(Bullets(tuple(clean(text) for text in repair_sentences(repair))))
        if repair.steps:
            rows: list[tuple[str | Cell, ...]] = []
            for step, cells in zip(repair.steps, cleaned(repair_rows(repair)), strict=True):
                verdict = Cell(cells[2]) if step.status is None else verdict_cell(step.status)
                rows.append((*cells[:2], verdict, *cells[3:]))
            blocks.append(table(f"Attempts to repair {clean(repair.scheme)}, in order", REPAIR, rows))
    return blocks


def sensitivity_plot(found: Sensitivity) -> Plot | None:
    """Returns a row a layer with its SQNR, the most harmful on top; nothing where no layer has a figure."""
    shown = [item for item in found.layers if item.sqnr_db is not None and not item.error][:_MOST]
    if not shown:
        return None
    height = svg.TOP + svg.BOTTOM + _ROW * len(shown)
    x = svg.Scale(*svg.padded([item.sqnr_db or 0.0 for item in shown]), _LABEL, svg.WIDTH - svg.RIGHT)
    y = svg.Scale(0, len(shown), svg.TOP, height - svg.BOTTOM)
    parts = [svg.text((x.start + x.end) / 2, height - 8, "SQNR, dB (less is worse)", "title", "middle")]
    for mark in svg.ticks(x.low, x.high):
        parts.append(svg.segment((x(mark), svg.TOP), (x(mark), height - svg.BOTTOM), "grid"))
        parts.append(svg.text(x(mark), height - svg.BOTTOM + 16, f"{mark:g}", "tick", "middle"))
    for index, item in enumerate(shown):
        middle, value = y(index + 0.5), item.sqnr_db or 0.0
        # The end of a module's path tells more than its beginning.
        name = plain(item.layer)
        parts.append(
            svg.text(_LABEL - 8, middle + 4, name if len(name) <= _NAME else f"…{name[1 - _NAME :]}", "tick", "end")
        )
        parts.append(svg.segment((x.end, middle), (x(value), middle), "grid"))
        timed = f", {item.float_ms:+.3g} ms in float" if item.float_ms is not None else ""
        said = shorten(f"{name}: {value:.1f} dB{timed}", 200)
        parts.append(svg.dot((x(value), middle), 4, "full" if item.float_ms is not None else "hollow", said))
    more = f" The {len(shown)} most harmful of {len(found.layers)} layers." if len(found.layers) > len(shown) else ""
    return Plot(
        f"Layers of {clean(found.scheme)}",
        f"{clean(sensitivity_title(found))}.{more}",
        Markup("").join(parts),
        svg.WIDTH,
        height,
        (Key("full", "timed, too"), Key("hollow", "not timed")),
    )
