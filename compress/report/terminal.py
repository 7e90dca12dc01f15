"""The end of a run on the terminal: the table by target, what ships and why, and what to know beside it."""

from __future__ import annotations

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compress.evidence import Evidence, TargetEvidence
from compress.report.numbers import MISSING, format_count
from compress.report.places import MEANING, matrix
from compress.report.quality import Figure
from compress.report.summary import notes, verdict_line, why_not
from compress.report.table import COLUMNS, headings, legend, table_rows, target_rows
from compress.report.text import plain

WITH_REASONS = 140
"""From this many columns on, the table also says why a scheme does not ship; below, the lines after it do."""

_MAX_SCHEME_WIDTH = 18
_MAX_TARGET_WIDTH = 24
_GAP = 2
_WIDTHS = {"size": 8, "latency": 20, "memory": 7, "quality": 19, "parity": 11, "accelerated": 11, "ships": 5}
# What goes first when columns are wanting; the outcome stays, and the lines after the table give ratios and reasons.
_DROPPED = (("memory", "parity", "accelerated"), ("size",), ("quality",))

# A cell is broken before this mark, so that an interval or a bracket is never torn apart.
_FOLD = {"size": " (", "latency": " [", "quality": " [", "parity": "  ", "accelerated": " ("}
_ROW_STYLE = {"ships": "green", "no": "", "error": "red"}


def render(evidence: Evidence, console: Console) -> None:
    """Prints the table grouped by target, one line a target that says what ships, and the notes.

    Cells are folded at their brackets. A console too narrow for every column loses memory, parity and the accelerated
    share first, then size and quality; the legend names what was left out. 80 columns hold all but the first three.

    Args:
        evidence: What one run measured.
        console: Where to print; its width decides the layout.
    """
    widths = _widths(evidence, console)
    for target in evidence.targets:
        console.print(_text(_heading(target, evidence), console), style="bold")
        console.print(_table(target, widths, dict(zip(COLUMNS, headings(evidence), strict=True)), console))
        console.print()
    if not evidence.targets:
        console.print("no target was measured")
    console.print(_text(_legend(evidence, widths), console), style="dim")
    console.print()
    console.print(_hanging([line for target in evidence.targets for line in _verdict(target, console)], console))
    titles, rows = matrix(evidence)
    if rows:
        console.print()
        console.print("parity on other processors", style="bold")
        console.print(_matrix(titles, rows, console))
        console.print(_text(MEANING, console), style="dim")
    found = notes(evidence)
    if found:
        console.print()
        console.print("notes", style="bold")
        console.print(_hanging([("-", note) for note in found], console))


def _matrix(titles: tuple[str, ...], rows: list[tuple[str, ...]], console: Console) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for title in titles:
        table.add_column(_text(title, console), overflow="fold")
    for row in rows:
        table.add_row(*(_text(cell, console) for cell in row))
    return table


def _verdict(target: TargetEvidence, console: Console) -> list[tuple[str, str]]:
    """What ships, then the reason for each of the others that neither this line nor the table gives in full."""
    lines = [(plain(target.target), verdict_line(target))]
    for row in why_not(target):
        if console.width < WITH_REASONS or not row.ships.endswith(row.reason):
            lines.append(("", f"not {row.scheme}: {row.reason}"))
    return lines


def _heading(target: TargetEvidence, evidence: Evidence) -> str:
    rows = evidence.data.splits.get("test")
    tested = f", {format_count(rows)} test rows" if rows is not None else ""
    return f"{plain(evidence.name)} on {plain(target.target)} ({plain(target.runs_on)}{tested})"


def _table(target: TargetEvidence, widths: dict[str, int], titles: dict[str, str], console: Console) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name, width in widths.items():
        # With its reasons the last column takes what is left; without, it is as wide as its longest word.
        table.add_column(titles[name], width=None if name == "ships" else width, min_width=width, overflow="fold")
    for row in target_rows(target):
        cells = dict(zip(COLUMNS, row.cells, strict=True))
        if console.width < WITH_REASONS:
            cells["ships"] = row.outcome
        folded = {name: _fold(name, cell) for name, cell in cells.items()}
        folded["quality"] = "\n".join(map(_fold_figure, row.quality)) or MISSING
        table.add_row(*(_text(folded[name], console) for name in widths), style=_ROW_STYLE[row.outcome])
    return table


def _widths(evidence: Evidence, console: Console) -> dict[str, int]:
    """The columns that the console has room for, in order, with their widths."""
    longest = max((cell_len(row.scheme) for row in table_rows(evidence)), default=0)
    widths = {"scheme": min(_MAX_SCHEME_WIDTH, max(longest, len("scheme"))), **_WIDTHS}
    for names in _DROPPED:
        if sum(widths.values()) + _GAP * (len(widths) - 1) > console.width:
            widths = {name: width for name, width in widths.items() if name not in names}
    return widths


def _legend(evidence: Evidence, widths: dict[str, int]) -> str:
    meanings, titles = legend(evidence), dict(zip(COLUMNS, headings(evidence), strict=True))
    said = ". ".join(f"{titles[name]}: {meanings[titles[name]]}" for name in widths if titles[name] in meanings)
    left_out = [titles[name] for name in _WIDTHS if name not in widths]
    return f"{said}. Left out for want of columns: {', '.join(left_out)}." if left_out else f"{said}."


def _fold(column: str, cell: str) -> str:
    if column not in _FOLD:
        return cell
    head, mark, tail = cell.partition(_FOLD[column])
    return f"{head}\n{mark.strip()}{tail}" if mark else cell


def _fold_figure(figure: Figure) -> str:
    """The lines of a figure: its label, on a line of its own unless all of it fits on one, the value, its interval."""
    value = _fold("quality", figure.value)
    if not figure.label:
        return value
    fits = value == figure.value and cell_len(figure.text) <= _WIDTHS["quality"]
    return figure.text if fits else f"{figure.label}\n{value}"


def _text(text: str, console: Console) -> Text:
    """Text without markup, in characters that the console's encoding has."""
    return Text(text.encode(console.encoding, "backslashreplace").decode(console.encoding))


def _hanging(lines: list[tuple[str, str]], console: Console) -> Table:
    """Paragraphs beside what they belong to, wrapped within their own column."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(overflow="fold", max_width=_MAX_TARGET_WIDTH)
    grid.add_column(overflow="fold")
    for mark, text in lines:
        grid.add_row(_text(mark, console), _text(text, console))
    return grid
