"""Parity: how far an artifact's outputs are from those of its reference, on the same real rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compress.errors import DataError, did_you_mean
from compress.evaluate.decisions import Decision, decide_rows
from compress.evaluate.scores import Link
from compress.evidence import Parity

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[np.generic]]

# What stands for minus infinity, a reference of zeros that was not met: JSON has no word for infinity.
NO_SIGNAL_DB = -1000.0
_LARGEST = float(np.finfo(np.float64).max)


def parity(
    reference: Arrays,
    got: Arrays,
    *,
    name: str,
    decisions: Mapping[str, Decision | tuple[Link, float]] | None = None,
    place: str = "",
) -> tuple[Parity, ...]:
    """Compares every output of an artifact with its reference.

    NaN, and infinity of the same sign, at the same place in both count as equal and stay out of the figures.

    Args:
        reference: Output name to array, first axis rows.
        got: The same from the artifact.
        name: What the reference is, e.g. `model`; it stands in the result and in errors.
        decisions: Output name to how it decides, for outputs that do; their label agreement is given. The pair (link,
            cut-off) stands for a binary decision.
        place: Where the artifact ran, if not on its target's own host.

    Returns:
        One `Parity` an output, in the order of the reference.

    Raises:
        DataError: If there is no output or no row, an output is missing, added or of another shape, or NaN and
            infinity are not at the same places, or an output has not the shape that its decision needs.
    """
    _same_names(reference, got, name)
    known = {
        output: item if isinstance(item, Decision) else Decision("binary", *item)
        for output, item in (decisions or {}).items()
    }
    for output in known:
        if output not in reference:
            raise DataError(f"there is no output {output!r} to decide by", did_you_mean(output, reference))
    return tuple(
        _of_output(output, reference[output], got[output], name, known.get(output), place) for output in reference
    )


def sqnr_db(reference: Floats, got: Floats) -> float | None:
    """Returns the signal-to-quantization-noise ratio 10 log10(sum ref^2 / sum (ref - got)^2), dB.

    None where both are equal; -1000 where the reference is all zeros and the other is not.
    """
    with np.errstate(over="ignore"):
        overflows = not np.isfinite(reference - got).all()
    if overflows:
        # The ratio does not depend on the scale, and halves cannot overflow.
        reference, got = reference / 2, got / 2
    noise = _energy_db(reference - got)
    if noise is None:
        return None
    signal = _energy_db(reference)
    return NO_SIGNAL_DB if signal is None else signal - noise


def _of_output(
    output: str,
    reference: NDArray[np.generic],
    got: NDArray[np.generic],
    name: str,
    decision: Decision | None,
    place: str,
) -> Parity:
    expected, actual = _real(reference, output), _real(got, output)
    if expected.shape != actual.shape:
        raise DataError(
            f"output {output!r}: the shape is {list(actual.shape)}, that of {name} is {list(expected.shape)}",
            "run both on the same rows; if the rows are the same, the lowering changed the output.",
        )
    if not expected.ndim or not expected.size:
        raise DataError(f"output {output!r}: there are no rows to compare", "run both on rows of the hold-out.")
    finite = _finite_in_both(expected, actual, output, name)
    ref, new = expected[finite], actual[finite]
    with np.errstate(over="ignore"):
        difference = float(np.abs(ref - new).max(initial=0.0))
        spread = float(np.ptp(ref)) if ref.size else 0.0
    decided, flips = (0, 0) if decision is None else _flips(expected, actual, output, decision)
    return Parity(
        reference=name,
        rows=expected.shape[0],
        output=output,
        max_abs=min(difference, _LARGEST),
        sqnr_db=sqnr_db(ref, new),
        label_agreement=(decided - flips) / decided if decided else None,
        reference_range=min(spread, _LARGEST),
        flips=flips if decided else None,
        place=place,
    )


def _same_names(reference: Arrays, got: Arrays, name: str) -> None:
    missing, added = [key for key in reference if key not in got], [key for key in got if key not in reference]
    if missing:
        raise DataError(
            f"the output {missing[0]!r} of {name} is missing in what is compared with it",
            f"its outputs are {', '.join(got) or 'none'}.",
        )
    if added:
        raise DataError(
            f"the output {added[0]!r} is not one of {name}", f"its outputs are {', '.join(reference) or 'none'}."
        )
    if not reference:
        raise DataError(f"{name} has no outputs to compare", "name the model's outputs with model.outputs.")


def _real(values: NDArray[np.generic], output: str) -> Floats:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"output {output!r}: must hold real numbers; got dtype {array.dtype}", "drop this output.")
    return array.astype(np.float64)


def _finite_in_both(expected: Floats, actual: Floats, output: str, name: str) -> NDArray[np.bool_]:
    """Where both are finite; elsewhere both must be the same NaN or infinity."""
    finite = np.isfinite(expected) & np.isfinite(actual)
    alike = finite | (np.isnan(expected) & np.isnan(actual)) | (expected == actual)
    if not alike.all():
        rows = int(np.count_nonzero(~alike.reshape(alike.shape[0], -1).all(axis=1)))
        raise DataError(
            f"output {output!r}: in {rows:,} of {expected.shape[0]:,} rows NaN or infinity stands in only one of "
            f"{name} and what is compared with it",
            "the artifact treats missing or extreme values differently: keep normalisation in float32, and look at "
            "those rows.",
        )
    return finite


def _flips(expected: Floats, actual: Floats, output: str, decision: Decision) -> tuple[int, int]:
    """Rows that decide, and those of them with another decision; rows that are not finite decide nothing."""
    decided = np.isfinite(expected).reshape(expected.shape[0], -1).all(axis=1)
    if not decided.any():
        return 0, 0
    where = f"output {output!r}"
    before, after = (decide_rows(values[decided], decision, where) for values in (expected, actual))
    if before is None or after is None:
        return 0, 0
    return before.size, int(np.count_nonzero(before != after))


def _energy_db(values: Floats) -> float | None:
    """10 log10 of the sum of squares, scaled first so that nothing over- or underflows; None where all are zero."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0:
        return None
    return float(20 * np.log10(largest) + 10 * np.log10(np.square(values / largest).sum()))
