"""Figures as text: digits, units, signs, and `-` for what is missing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.evidence import Interval
from compress.report import numbers

FINITE = st.floats(min_value=-1e12, max_value=1e12, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (861_000, "861 kB"), (3_263_000, "3.26 MB"), (10**13, "10.0 TB")],
)
def test_bytes(value: int, text: str) -> None:
    assert numbers.format_bytes(value) == text


@pytest.mark.parametrize("value", [999, 9_999, 999_499, 999_500, 999_999, 999_500_000])
def test_bytes_never_show_a_thousand_of_a_unit(value: int) -> None:
    assert not numbers.format_bytes(value).startswith("1000")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.3104, "0.31 ms"),
        (0.0484, "0.048 ms"),
        (1.234, "1.23 ms"),
        (9.996, "10.0 ms"),
        (123.4, "123 ms"),
        (2e-5, "2.0e-05 ms"),
    ],
)
def test_ms(value: float, text: str) -> None:
    assert numbers.format_ms(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.62, "0.62x"),
        (1.084, "1.08x"),
        (9.996, "10.0x"),
        (12.34, "12.3x"),
        (0.0257, "0.026x"),
        (0.0, "0x"),
        (250.2, "250x"),
    ],
)
def test_ratio(value: float, text: str) -> None:
    assert numbers.format_ratio(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.0003, "-0.0003"),
        (0.0005, "+0.0005"),
        (0.0, "0.0000"),
        (-0.0, "0.0000"),
        (-0.00004, "0.0000"),
        (0.00004, "0.0000"),
    ],
)
def test_difference_has_a_sign_unless_it_rounds_to_zero(value: float, text: str) -> None:
    assert numbers.format_difference(value) == text


def test_intervals() -> None:
    assert numbers.format_difference_interval(Interval(-0.0011, 0.0005, 0.95, "DeLong")) == "[-0.0011, +0.0005]"
    assert numbers.format_ratio_interval(Interval(0.6, 0.65, 0.99, "bootstrap")) == "[0.60, 0.65]"
    assert numbers.format_value_interval(Interval(0.9879, 0.9931, 0.95, "Wilson")) == "[0.9879, 0.9931]"
    assert numbers.format_ratio_interval(None) == "-"


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100 %"), (0.999, ">99 %"), (0.955, "96 %"), (0.001, "<1 %"), (0.0, "0 %")]
)
def test_share_says_all_and_none_only_of_all_and_none(share: float, text: str) -> None:
    assert numbers.format_share(share) == text


@pytest.mark.parametrize(("level", "text"), [(0.95, "95 %"), (0.99, "99 %"), (0.995, "99.5 %")])
def test_level(level: float, text: str) -> None:
    assert numbers.format_level(level) == text


def test_counts_and_decibel() -> None:
    assert numbers.format_count(3_504_872) == "3,504,872"
    assert numbers.plural(1, "layer") == "1 layer"
    assert numbers.plural(1200, "layer") == "1,200 layers"
    assert numbers.format_decibel(34.06) == "34.1 dB"


@pytest.mark.parametrize(
    "formatter",
    [
        numbers.format_ms,
        numbers.format_ratio,
        numbers.format_value,
        numbers.format_difference,
        numbers.format_decibel,
        numbers.format_share,
    ],
)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_missing_or_not_finite_is_a_dash(formatter, value) -> None:
    assert formatter(value) == "-"


@given(FINITE, st.integers(min_value=1, max_value=6))
def test_significant_digits_keep_the_value(value: float, digits: int) -> None:
    # Half a unit of the last printed digit, relative to the value.
    assert math.isclose(float(numbers.format_significant(value, digits)), value, rel_tol=0.5001 * 10 ** (1 - digits))


@given(FINITE)
def test_a_difference_reads_back_with_its_sign(value: float) -> None:
    text = numbers.format_difference(value)
    assert math.isclose(float(text), value, abs_tol=0.5001e-4, rel_tol=1e-12)
    assert text != "-0.0000"
    assert text.startswith("+") == (float(text) > 0)
