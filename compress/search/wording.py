"""How figures are written in the reasons of the gate and of the choice."""

from __future__ import annotations

import math


def span(low: float, high: float, decimals: int) -> str:
    """Returns an interval as `(0.0042-0.0080)`; with `to` where a minus sign would be mistaken for the dash."""
    between = "-" if round(low, decimals) >= 0 else " to "
    return f"({low:z.{decimals}f}{between}{high:z.{decimals}f})"


def ratio(value: float) -> str:
    """Returns a ratio as `0.41x`."""
    return f"{value:.2f}x"


def percent(share: float) -> str:
    """Returns a share as `97.54 %`."""
    return f"{100 * share:.2f} %"


def decimals_for(bound: float) -> int:
    """Returns how many decimals tell figures from a bound of that size: 4, more for a bound below 0.001."""
    if not 0 < bound < 0.001:
        return 4
    return min(12, math.ceil(-math.log10(bound)) + 1)
