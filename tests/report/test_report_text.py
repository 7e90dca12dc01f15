"""Strings from files become one printable line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from compress.report.text import first_line, plain, shorten

ANY_TEXT = st.text(st.characters(), max_size=80)


def test_plain_spells_out_what_does_not_print() -> None:
    assert plain("a\x1b[31mb\u202ec\ud800") == "a\\x1b[31mb\\u202ec\\ud800"
    assert plain("a\r\n\tb") == "a   b"


@given(ANY_TEXT)
def test_plain_prints_on_one_line_and_changes_nothing_twice(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)


def test_first_line_skips_empty_lines() -> None:
    assert first_line("\n  \n  LoweringError: x \nHint: y") == "LoweringError: x"
    assert first_line("\n\n") == ""


def test_shorten_cuts_at_a_word() -> None:
    assert shorten("short", 10) == "short"
    assert shorten("latency is SLOWER than float32", 20) == "latency is SLOWER..."
    assert shorten("x" * 30, 20) == "x" * 17 + "..."


@given(ANY_TEXT, st.integers(min_value=4, max_value=40))
def test_shorten_is_never_longer_than_asked(text: str, length: int) -> None:
    assert len(shorten(text, length)) <= length
