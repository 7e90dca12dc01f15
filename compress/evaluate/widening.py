"""How much a gap between groups may have widened: the bad end of the interval of a change of a spread.

A spread, the largest share less the smallest, is overstated where the groups are alike, so that its change is
understated, by as much as a harm may be. But the candidate decides about the same people: how each group's share moved
is known far better than the shares are. A gap that was none becomes one by just what the groups moved apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]


def widest_increase(shares: tuple[Floats, Floats], drawn: tuple[Floats, Floats], level: float) -> float:
    """Returns the upper end of the interval of (largest spread after) - (largest spread before).

    For groups a and b with the largest spread after, it is `moved + (gap before - largest spread before)`: `moved`, how
    far they moved apart, at its upper end; the rest at most 0, and less only where the rows say so.

    Args:
        shares: By baseline and candidate, `[groups, figures]` each; the largest spread is that over all figures.
        drawn: The same on every draw, `[draws, groups, figures]` each; NaN where a draw does not define it.
        level: Of the interval.
    """
    tail = (1 - level) / 2
    gaps, drawn_gaps = _gaps(shares[0]), _gaps(drawn[0])
    moved = _gaps(shares[1]) - gaps
    spread_of_moved = np.nanstd(_gaps(drawn[1]) - drawn_gaps, axis=0)
    widest = int(np.argmax(gaps))
    of_widest = drawn_gaps.reshape(drawn_gaps.shape[0], -1)[:, widest]
    behind = np.nanstd(drawn_gaps - of_widest[:, None, None, None], axis=0)
    # Which gap is the widest was chosen by the rows: the others lie below it with an interval for all of them.
    below = np.minimum(0.0, gaps - gaps.flat[widest] + ndtri(1 - tail / gaps.size) * behind)
    return float((below + moved + ndtri(1 - tail) * spread_of_moved).max())


def _gaps(shares: Floats) -> Floats:
    """Every group's share less every other's: `[..., groups, groups, figures]`."""
    gaps: Floats = shares[..., :, None, :] - shares[..., None, :, :]
    return gaps
