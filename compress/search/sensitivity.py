"""Which layers hurt a scheme most, and which should go back to float first. Pure: figures in, an order out."""

from __future__ import annotations

from collections.abc import Sequence

from compress.evidence import LayerEffect

# A layer whose return to float costs less than this share of a call is taken to cost this much: what lies below the
# noise of the measurement, or is a gain, must not make a layer that hardly errs worth more than one that does.
_LEAST_SHARE = 0.02


def noise(effect: LayerEffect) -> float:
    """Returns the power of the error that a layer makes alone, over the power of the output."""
    return 0.0 if effect.sqnr_db is None else float(10 ** (-effect.sqnr_db / 10))


def most_harmful_first(effects: Sequence[LayerEffect]) -> tuple[LayerEffect, ...]:
    """Returns layers by the error that each makes alone, the largest first; those without a figure last."""
    return tuple(sorted(effects, key=lambda item: (bool(item.error), -noise(item), item.layer)))


def back_to_float(effects: Sequence[LayerEffect]) -> tuple[str, ...]:
    """Returns the layers in the order in which they should go back to float: by error saved per time spent.

    Layers that were not timed come behind those that were, by their error alone.
    """
    usable = [item for item in effects if not item.error and noise(item) > 0]
    timed = [item for item in usable if item.float_ratio is not None]
    untimed = [item for item in usable if item.float_ratio is None]
    timed.sort(key=lambda item: (-noise(item) / max((item.float_ratio or 1.0) - 1, _LEAST_SHARE), item.layer))
    return tuple(item.layer for item in (*timed, *most_harmful_first(untimed)))
