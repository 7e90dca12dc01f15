"""Which layers hurt a scheme most, and which should go back to float first. Pure: figures in, an order out."""

from __future__ import annotations

from collections.abc import Sequence

from compress.evidence import LayerEffect

# A layer whose return to float costs less time than this share of a millisecond is taken to cost this much: a time
# below the noise of the measurement, or a gain, must not make its worth infinite.
_LEAST_MS = 1e-3


def noise(effect: LayerEffect) -> float:
    """Returns the power of the error that a layer makes alone, over the power of the output."""
    return 0.0 if effect.sqnr_db is None else float(10 ** (-effect.sqnr_db / 10))


def most_harmful_first(effects: Sequence[LayerEffect]) -> tuple[LayerEffect, ...]:
    """Returns layers by the error that each makes alone, the largest first; those without a figure last."""
    return tuple(sorted(effects, key=lambda item: (bool(item.error), -noise(item), item.layer)))


def back_to_float(effects: Sequence[LayerEffect]) -> tuple[str, ...]:
    """Returns the layers in the order in which they should go back to float: by error saved per millisecond spent.

    Layers that were not timed come behind those that were, by their error alone.
    """
    usable = [item for item in effects if not item.error and noise(item) > 0]
    timed = [item for item in usable if item.float_ms is not None]
    untimed = [item for item in usable if item.float_ms is None]
    timed.sort(key=lambda item: (-noise(item) / max(item.float_ms or 0.0, _LEAST_MS), item.layer))
    return tuple(item.layer for item in (*timed, *most_harmful_first(untimed)))
