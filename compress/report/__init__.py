"""Evidence to words: one table and one set of sentences, rendered for the terminal and as Markdown.

1. Every report is a pure function of `compress.evidence.Evidence`; nothing is measured or read here.
2. Figures become text once (`numbers`, `table`, `summary`, `limits`); a renderer only lays that text out.
3. Strings that come from files are made harmless by the renderer that prints them, never trusted.

`compress.report.terminal` is imported by name, because only it needs the package `rich`.
"""

from compress.report.markdown import render_markdown
from compress.report.table import COLUMNS, Row, headings, table_rows

__all__ = ["COLUMNS", "Row", "headings", "render_markdown", "table_rows"]
