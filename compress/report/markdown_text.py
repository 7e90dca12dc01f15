"""Markdown from plain strings: escaped text, tables whose columns hold, fences and folded parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from compress.report.text import plain

LONG_TABLE = 12
"""Tables of more rows than this are folded away."""

# Character references are text wherever they stand: in a paragraph, in a table cell and inside HTML alike, where a
# backslash would not be. An underscore inside a word and a lone bracket mean nothing and stay readable.
_SPECIAL = re.compile(
    r"[&<>|`\\*~#]"
    r"|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])"
    r"|\](?=[(\[:])"
    r"|:(?=//)"
    r"|(?<=www)\.",
    re.IGNORECASE,
)
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape(text: str) -> str:
    """Returns text that Markdown (CommonMark, GitHub's) shows as it is: one line, no markup, no HTML, no link.

    It must not begin a paragraph: put a word or a mark of the report's own before it. In a list, see `bullets`.
    """
    return _SPECIAL.sub(lambda match: _NAMED.get(match[0], f"&#{ord(match[0])};"), plain(text))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; every cell is escaped, so that no content can add or end a column.

    Args:
        headings: One a column.
        rows: As many cells each as there are headings.

    Raises:
        ValueError: If a row has another number of cells.
    """
    lines = [_table_line(headings), "|" + " --- |" * len(headings)]
    for row in rows:
        if len(row) != len(headings):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(headings)} columns")
        lines.append(_table_line(row))
    return "\n".join(lines)


def folded_table(summary: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table with its summary, inside `<details>` where it is long."""
    if len(rows) <= LONG_TABLE:
        return f"{escape(summary)}\n\n{table(headings, rows)}"
    return details(summary, table(headings, rows))


def details(summary: str, body: str) -> str:
    """Returns a part that a reader opens; the body is Markdown, the summary plain text."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n\n{body}\n\n</details>"


def fence(text: str) -> str:
    """Returns text of several lines as a code block that its content cannot end."""
    lines = [plain(line) for line in text.splitlines()]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    mark = "`" * max(3, longest + 1)
    return "\n".join([f"{mark}text", *lines, mark])


def bullets(items: Iterable[str]) -> str:
    """Returns a list; each item is escaped, and none can begin a block inside its item (a list, a heading, code)."""
    return "\n".join(f"- {_inline(escape(item).strip())}" for item in items)


def _inline(text: str) -> str:
    # As a character reference the first sign is text; as itself it could be a bullet, a number, a rule or a check box.
    return f"&#{ord(text[0])};{text[1:]}" if re.match(r"[-+=\[:]|\d+[.)]", text) else text


def _table_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape(cell).strip() or " " for cell in cells) + " |"
