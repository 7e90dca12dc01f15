"""Figures as text: digits that the figure carries, its unit beside it, and `-` where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable

from compress.evidence import Interval

MISSING = "-"

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")


def format_significant(value: float | None, digits: int) -> str:
    """Returns a number with `digits` significant digits, scientific below 1e-3 (`0.012`, `2.4e-07`, `132`).

    Args:
        value: Any number; None and what is not finite become `-`.
        digits: At least 1. Digits before the decimal point are never dropped.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    scientific = f"{value:.{digits - 1}e}"
    # The exponent after rounding: 9.996 with three digits is 10.0, not 10.00.
    exponent = int(scientific.partition("e")[2])
    if exponent < -3:
        return scientific
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def format_bytes(value: int | None) -> str:
    """Returns bytes with a decimal unit: `912 B`, `123 kB`, `3.21 MB` (1 MB = 1,000,000 bytes)."""
    if value is None:
        return MISSING
    scaled = float(value)
    unit = 0
    # 999.5 is the first number that three digits would round into the next unit.
    while abs(scaled) >= 999.5 and unit < len(_BYTE_UNITS) - 1:
        scaled /= 1000
        unit += 1
    return f"{value} B" if unit == 0 else f"{format_significant(scaled, 3)} {_BYTE_UNITS[unit]}"


def format_ms(value: float | None) -> str:
    """Returns milliseconds: three significant digits from 1 ms on, two below (`12.3 ms`, `0.31 ms`)."""
    text = format_significant(value, 3 if value is not None and value >= 1 else 2)
    return text if text == MISSING else f"{text} ms"


def format_ratio(value: float | None) -> str:
    """Returns a ratio: `0.62x`, `1.08x`, `12.3x`, `0.026x`."""
    text = _ratio_number(value)
    return text if text == MISSING else f"{text}x"


def format_ratio_interval(interval: Interval | None) -> str:
    """Returns the interval of a ratio: `[0.60, 0.65]`."""
    return _format_interval(interval, _ratio_number)


def format_value(value: float | None, decimals: int = 4) -> str:
    """Returns a metric's value with fixed decimals: `0.7791`. What rounds to zero has no sign."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def format_difference(value: float | None, decimals: int = 4) -> str:
    """Returns a difference with its sign: `-0.0003`, `+0.0005`, and `0.0000` where it rounds to zero."""
    text = format_value(value, decimals)
    return text if value is None or text == MISSING or text.startswith("-") or float(text) == 0 else f"+{text}"


def format_difference_interval(interval: Interval | None, decimals: int = 4) -> str:
    """Returns the interval of a difference: `[-0.0011, +0.0005]`."""
    return _format_interval(interval, lambda value: format_difference(value, decimals))


def format_value_interval(interval: Interval | None, decimals: int = 4) -> str:
    """Returns the interval of a value: `[0.9879, 0.9931]`."""
    return _format_interval(interval, lambda value: format_value(value, decimals))


def format_decibel(value: float | None) -> str:
    """Returns decibel with one decimal: `34.1 dB`."""
    text = format_value(value, 1)
    return text if text == MISSING else f"{text} dB"


def format_share(share: float | None) -> str:
    """Returns a share as whole percent; `100 %` and `0 %` are said only of all and of none."""
    if share is None or not math.isfinite(share):
        return MISSING
    percent = round(share * 100)
    if percent == 100 and share < 1:
        return ">99 %"
    if percent == 0 and share > 0:
        return "<1 %"
    return f"{percent} %"


def format_level(level: float) -> str:
    """Returns the level of an interval: `95 %`, `99.5 %`."""
    return f"{level * 100:.6g} %"


def format_count(value: int | None) -> str:
    """Returns a whole number with thousands separated: `3,504,872`."""
    return MISSING if value is None else f"{value:,}"


def plural(count: int, noun: str) -> str:
    """Returns a count with its noun: `1 layer`, `5 layers`."""
    return f"{format_count(count)} {noun}" if count == 1 else f"{format_count(count)} {noun}s"


def _ratio_number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return MISSING
    # Below 0.1 two decimals would leave one digit or none.
    return f"{value:.2f}" if 0.1 <= abs(value) < 9.995 else format_significant(value, 3 if abs(value) >= 1 else 2)


def _format_interval(interval: Interval | None, number: Callable[[float], str]) -> str:
    return MISSING if interval is None else f"[{number(interval.low)}, {number(interval.high)}]"
