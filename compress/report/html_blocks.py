"""What a page is made of: headings, paragraphs, tables, plots. Plain data that the template lays out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from compress.evidence import GateStatus
from compress.report.numbers import MISSING
from compress.report.text import plain, shorten

MOST_ROWS = 150
"""Rows that a table prints; the rest is in evidence.json, and the table says so."""

LONGEST = 400
"""Characters of one cell or sentence; a name from a file may have any length."""

Tone = Literal["", "pass", "fail", "unsure", "strong", "quiet", "lead"]
TONES: dict[GateStatus, Tone] = {"PASS": "pass", "FAIL": "fail", "INCONCLUSIVE": "unsure", "INCOMPARABLE": "unsure"}

_NUMBER = re.compile(r"[-+<>\[]?[\d.,]+(?:e[-+]?\d+)?( ?(%|x|ms|us|s|B|kB|MB|GB|TB|dB))?( ?[\[(].*)?|-|equal|\[.*\]")


@dataclass(frozen=True)
class Cell:
    """A cell that stands out: by its tone, or by its shade, 0 (none) to 9 (full) in a heat table."""

    text: str
    tone: Tone = ""
    shade: int = 0


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Lines:
    """Text of several lines as it is: an error that a runtime gave."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table: its first column names the rows. `left_out` counts rows that were too many."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[bool, ...]
    left_out: int = 0
    is_heat: bool = False


@dataclass(frozen=True)
class Key:
    """One entry of a plot's legend: the class of its line or mark, and what it is."""

    mark: str
    text: str


@dataclass(frozen=True)
class Plot:
    """A drawing: what it shows in words (`description`), its legend, and the inside of the `svg` element."""

    title: str
    description: str
    body: Markup
    width: int
    height: int
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Status:
    """A verdict with the sentence that goes with it."""

    status: GateStatus
    title: str
    text: str = ""
    items: tuple[str, ...] = ()

    @property
    def tone(self) -> Tone:
        """The tone of the status."""
        return TONES[self.status]


@dataclass(frozen=True)
class Plots:
    """Plots side by side where there is room."""

    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Fold:
    """Blocks that a reader opens; `summary` says enough not to."""

    summary: str
    blocks: tuple[Block, ...]
    is_open: bool = False


Block = Text | Heading | Bullets | Lines | Table | Plots | Status | Fold


@dataclass(frozen=True)
class Section:
    """A section of the page; `key` is its anchor."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def table(
    caption: str, headings: Sequence[str], rows: Iterable[Sequence[str | Cell]], *, is_heat: bool = False
) -> Table:
    """Returns a table of bounded length; columns of figures only are set to the right.

    Args:
        caption: What it shows, for eyes and for screen readers.
        headings: One a column.
        rows: As many cells each as there are headings.
        is_heat: Whether the shades of the cells mean something.

    Raises:
        ValueError: If a row has another number of cells.
    """
    whole = [tuple(cell if isinstance(cell, Cell) else Cell(clean(cell)) for cell in row) for row in rows]
    for row in whole:
        if len(row) != len(headings):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(headings)} columns")
    # A column of notes that nobody wrote tells nothing.
    kept = len(headings) - (headings[-1] == "note" and all(row[-1].text == MISSING for row in whole))
    shown = tuple(row[:kept] for row in whole[:MOST_ROWS])
    numeric = tuple(index > 0 and _is_numeric([row[index].text for row in shown]) for index in range(kept))
    return Table(
        plain(caption),
        tuple(clean(title) for title in headings[:kept]),
        shown,
        numeric,
        len(whole) - len(shown),
        is_heat,
    )


def clean(text: str) -> str:
    """Returns a string from a file on one line, printable, of bounded length."""
    return shorten(plain(text), LONGEST)


def cleaned(rows: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Returns rows of strings with every one of them made fit to print."""
    return [tuple(clean(cell) for cell in row) for row in rows]


def _is_numeric(cells: Sequence[str]) -> bool:
    return any(cell != MISSING for cell in cells) and all(_NUMBER.fullmatch(cell) for cell in cells)


def verdict_cell(status: GateStatus) -> Cell:
    """Returns a cell with a verdict."""
    return Cell(status, TONES[status])
