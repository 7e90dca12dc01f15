"""Markdown keeps its structure whatever the names and errors say, and shows them as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from compress.evidence import Choice, Evidence
from compress.report import render_markdown
from compress.report.markdown_text import LONG_TABLE, bullets, details, escape, fence, folded_table, table
from compress.report.text import plain

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

SIGNS = (
    *(
        "|",
        "\\",
        "\\|",
        "\n",
        "\r\n",
        "```",
        "~~",
        "**",
        "_",
        "<b>",
        "</details>",
        "<!--",
        "](http://a.b)",
        "![",
        "[x]: y",
    ),
    *("&lt;", "&#124;", "# ", "- ", "1. ", "> ", "---", "    ", "[ ] ", "http://a.b", "www.a.b", "$", "\x1b[0m", "="),
)

# What Markdown, HTML and a terminal could trip over, mixed with anything else.
HOSTILE = st.lists(
    st.one_of(
        st.sampled_from(SIGNS),
        st.text(st.characters(), max_size=4),
    ),
    max_size=8,
).map("".join)


def inline_text(token: Token) -> str:
    return "".join(child.content for child in token.children or [])


@settings(max_examples=200, deadline=None)
@given(HOSTILE)
def test_escaped_text_shows_as_it_is_and_is_only_text(text: str) -> None:
    document = PARSER.parse(f"x{escape(text)}x")
    assert [token.type for token in document] == ["paragraph_open", "inline", "paragraph_close"]
    assert {child.type for child in document[1].children or []} <= {"text", "text_special"}
    assert inline_text(document[1]) == f"x{plain(text)}x"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE), max_size=4))
def test_a_table_keeps_its_columns_and_its_content(rows: list[tuple[str, str, str]]) -> None:
    text = table(("a", "b", "c"), rows)
    assert {line.count("|") for line in text.splitlines()} == {4}
    parsed = [token for token in PARSER.parse(text) if token.type == "inline"]
    cells = [plain(cell).strip() for row in rows for cell in row]
    assert [inline_text(token) for token in parsed] == ["a", "b", "c", *cells]


@settings(max_examples=100, deadline=None)
@given(st.lists(HOSTILE, min_size=1, max_size=4))
def test_a_list_has_as_many_items_as_given_and_nothing_else(items: list[str]) -> None:
    kinds = [token.type for token in PARSER.parse(bullets(items))]
    assert kinds.count("list_item_open") == len(items)
    allowed = {"bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"}
    assert set(kinds) <= allowed | {"paragraph_open", "paragraph_close", "inline"}


@settings(max_examples=100, deadline=None)
@given(HOSTILE)
def test_a_code_block_ends_where_it_should(text: str) -> None:
    document = PARSER.parse(f"{fence(text)}\n\nafter")
    assert [token.type for token in document] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert document[0].content == "".join(f"{plain(line)}\n" for line in text.splitlines())


def test_a_summary_cannot_close_its_element() -> None:
    text = details("</summary><script>|`", "body")
    assert text.splitlines()[1] == "<summary>&lt;/summary&gt;&lt;script&gt;&#124;&#96;</summary>"


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 2 cells in a table of 1 columns"):
        table(("a",), [("b", "c")])


def test_only_long_tables_are_folded() -> None:
    rows = [("x",)] * LONG_TABLE
    assert "<details>" not in folded_table("s", ("a",), rows)
    assert folded_table("s", ("a",), [*rows, ("x",)]).startswith("<details>\n<summary>s</summary>")


def poison(value: Any, text: str) -> Any:
    """The same evidence with `text` around every string that says something, keys included."""
    if isinstance(value, str):
        return value if value in CLOSED_WORDS or not value else f"{text}{value}{text}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{field.name: poison(getattr(value, field.name), text) for field in dataclasses.fields(value)}
        )
    if isinstance(value, Mapping):
        return {poison(key, text): poison(item, text) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(poison(item, text) for item in value)
    return value


CLOSED_WORDS = {
    *("PASS", "FAIL", "INCONCLUSIVE", "INCOMPARABLE", "FASTER", "SLOWER"),
    *("auc", "top_1", "r2", "mae", "float32"),
}


@pytest.mark.parametrize("tasks", ["one", "three"])
def test_no_string_of_the_evidence_changes_the_structure_of_the_report(
    tasks: str, evidence: Evidence, three_tasks: Evidence
) -> None:
    evidence = evidence if tasks == "one" else three_tasks
    expected = _structure(PARSER.parse(render_markdown(evidence)))

    # No shrinking: a whole report takes 0.1 s, and the tests above shrink the same faults on a single string.
    @settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
    @given(HOSTILE)
    def check(text: str) -> None:
        report = render_markdown(poison(evidence, text))
        tokens = PARSER.parse(report)
        assert _structure(tokens) == expected
        assert all(len({line.count("|") for line in block}) == 1 for block in _table_blocks(report))
        inline = {child.type for token in tokens for child in token.children or []}
        assert inline <= {"text", "text_special", "strong_open", "strong_close"}

    check()


def _structure(tokens: list[Token]) -> list[tuple[str, int]]:
    """Blocks and how deep they stand, without what they say."""
    return [(token.type, token.level) for token in tokens]


def _table_blocks(text: str) -> list[list[str]]:
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]


def test_the_verdict_comes_first(evidence: Evidence) -> None:
    headings = [line for line in render_markdown(evidence).splitlines() if line.startswith("## ")]
    assert headings[0] == "## Verdict"
    assert headings[1] == "## Results"
    assert headings[-1] == "## Limits of this evidence"


def test_every_figure_has_its_place(evidence: Evidence) -> None:
    text = render_markdown(evidence)
    for line in (
        "| int8-dynamic | auc | higher | 0.7791 | 0.7794 | -0.0003 | [-0.0011, +0.0005] | 6,000 | - |",
        "| float16 | ks | higher | - | 0.4283 | - | - | 6,000 | undefined: all scores are equal |",
        "| float16 | FAIL | latency | FAIL | SLOWER: 1.08x [1.05, 1.12] |",
        "| int8-dynamic | logit | torch | 1,000 | 34.1 dB | 0.012 | 6.21 | 0.9950 |",
        "| int8-dynamic | float32 | 0.62x | [0.60, 0.65] 99 %, bootstrap | FASTER | 2 % | 9 |",
        "| float32 | 12.3 MB | 61.2 MB | 48.9 MB |",
        "| Gather | 3 | no | no kernel on &lt;XNNPACK&gt; |",
        "| norm&#124;final | layer_norm | float32 | no int8 kernel for layer_norm |",
        "| parameters | 812,033 | 611,329 | 0.75x |",
        "| test | 6,000 | 1,327 | 22 % | dd04 |",
        "| onnxruntime | 1.31.1 |",
        "| load.before | 0.61 |",
    ):
        assert line in text
    assert "0.9908 | - | - | [0.9881, 0.9930] |" in text
    assert "- interval of auc, gini: 95 %, DeLong" in text
    assert "- (45 samples of 64 needed) | - (45 samples of 662 needed)" in text


def test_several_tasks_stand_in_a_column_of_their_own(three_tasks: Evidence) -> None:
    text = render_markdown(three_tasks)
    for line in (
        "| scheme | task | metric | better | value | baseline | difference | interval | rows | note |",
        "| int8-dynamic | delinquency | top_1 | higher | 0.8300 | 0.8312 | -0.0012 | [-0.0043, +0.0019] | 6,000 | - |",
        "| int8-dynamic | bill_growth | mae | lower | 1290.1 | 1287.4 | +2.7 | [-0.4, +5.8] | 6,000 | - |",
        "| test | 6,000 | dd04 |",
    ):
        assert line in text
    assert "- interval of top_1: 95 %, Tango score" in text


def test_a_run_that_measured_nothing_still_reports(evidence: Evidence) -> None:
    failed = replace(
        evidence.targets[0], candidates=(), verdicts={}, choice=Choice(None, ""), error="WorkerError: gone\nHint: x"
    )
    text = render_markdown(replace(evidence, targets=(failed,), steps=()))
    assert "**onnxruntime-cpu** ships: nothing - WorkerError: gone" in text
    assert "### Quality\n\nNot measured." in text
    assert "No pass was applied" in text
    assert "Nothing ships: no target was measured." in render_markdown(replace(evidence, targets=()))


def test_the_same_evidence_gives_the_same_text(evidence: Evidence) -> None:
    assert render_markdown(evidence) == render_markdown(replace(evidence))


def test_a_reason_is_not_said_twice(evidence: Evidence) -> None:
    target = evidence.targets[0]
    choice = Choice("float32", "float32: float16 is 1.08x slower", {"float16": "is 1.08x slower"})
    text = render_markdown(replace(evidence, targets=(replace(target, choice=choice),)))
    verdict = text.partition("## Results")[0]
    assert verdict.count("1.08x slower") == 1
    assert "why:" not in verdict
