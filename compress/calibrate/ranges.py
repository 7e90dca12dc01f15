"""What calibration gives: two numbers a value, under the names of the graph."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from compress.errors import InternalError


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest number that integers must hold of every float activation, by the name of its value.

    `source` says how they were found (`min-max over 512 rows`).
    """

    values: Mapping[str, tuple[float, float]]
    source: str

    def of(self, name: str) -> tuple[float, float]:
        """Returns the range of a value, widened to contain zero: zero must be exact in integer arithmetic.

        A value that was always zero gets `(0, 1)`: a range without width has no step to count in.

        Raises:
            InternalError: If the value was not observed.
        """
        if name not in self.values:
            raise InternalError(
                f"no range was observed for the value {name!r}", "calibrate the same graph that is lowered."
            )
        low, high = self.values[name]
        return min(low, 0.0), max(high, 0.0) if low or high else 1.0

    def learned(self, values: Mapping[str, tuple[float, float]]) -> Ranges:
        """Returns the ranges with those of some values replaced by what training found."""
        return Ranges({**self.values, **values}, f"{len(values)} learned, others {self.source}")

    @property
    def digest(self) -> str:
        """sha256 over the names and the bits of the ranges."""
        # Adding zero turns -0.0 into 0.0: which of them is met first depends on the batches.
        text = "\n".join(
            f"{name} {(low + 0.0).hex()} {(high + 0.0).hex()}" for name, (low, high) in sorted(self.values.items())
        )
        return hashlib.sha256(text.encode()).hexdigest()
