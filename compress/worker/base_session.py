"""What every Session shares: inputs checked, rows dealt to a fixed batch, one call or a chain of them bound."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from .arrays import Array
from .errors import JobError
from .feed import check_inputs, join, portions
from .session import OperatorTime, TensorSpec


class BaseSession(ABC):
    """A Session but for what its runtime does: a subclass sets `inputs` and `outputs`, and runs or binds one call.

    Where a batch that is free has an upper bound in the file, it sets `_most`, too: more rows are run in portions.
    """

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    _most: int | None = None

    def __exit__(self, *exception: object) -> None:
        """Closes the session."""
        self.close()

    @classmethod
    def processor(cls, provider: str) -> str:
        """Returns what computes beside the CPU, and starts it; empty where nothing does.

        Raises:
            JobError: If the runtime has no such provider, or it does not work here.
        """
        if provider != "cpu":
            raise JobError(f"this runtime computes on the CPU only; the job asks for {provider!r}")
        return ""

    @abstractmethod
    def close(self) -> None:
        """Frees what the runtime holds."""

    @abstractmethod
    def _call(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Runs checked arrays in one call."""

    @abstractmethod
    def _bind(self, feed: Mapping[str, Array]) -> Callable[[], None]:
        """Returns a call that hands over checked arrays, runs, and makes the outputs readable."""

    def profile(self, inputs: Mapping[str, Array], calls: int) -> tuple[OperatorTime, ...]:
        """Refuses: a subclass whose runtime has a profiler answers; see `Session.profile`."""
        raise JobError(
            "the runtime's Python package exposes no operator profiler",
            "its times are those of whole calls; profile with the runtime's native tool.",
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns every output `[rows, ...]`; see `Session.run`."""
        feed = check_inputs(self.inputs, inputs)
        parts = portions(self.inputs, feed, self._most)
        if len(parts) == 1 and all(parts[0][name].shape == array.shape for name, array in feed.items()):
            return self._call(parts[0])
        return join([(_rows(part), self._call(part)) for part in parts], _rows(feed))

    def prepare(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """Returns the call for a timed loop; see `Session.prepare`."""
        calls = [self._bind(part) for part in portions(self.inputs, check_inputs(self.inputs, inputs), self._most)]
        if len(calls) == 1:
            return calls[0]

        def call_all() -> None:
            for call in calls:
                call()

        return call_all


def _rows(feed: Mapping[str, Array]) -> int:
    rows: int = next(array.shape[0] for array in feed.values() if array.ndim)
    return rows
