"""Progress on the standard error stream: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress_bar import ProgressBar
from rich.text import Text


class _Bar(BarColumn):
    """A bar only where it is known how long it is."""

    def render(self, task: Task) -> ProgressBar | Text:  # type: ignore[override]
        return Text() if task.total is None else super().render(task)


class _Count(MofNCompleteColumn):
    """A count only where it is known of how many."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class Shown:
    """Shows the steps of a run. On a terminal the current step spins; each finished one leaves a line."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._title = ""
        self._since = time.monotonic()

    def __enter__(self) -> Shown:
        if self._console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                _Bar(bar_width=20),
                _Count(),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        if self._live is not None:
            self._live.stop()

    def step(self, title: str) -> None:
        """Ends the step before and begins the next."""
        self._finish()
        self._title, self._since = title, time.monotonic()
        if self._live is not None:
            if self._task is not None:
                self._live.remove_task(self._task)
            self._task = self._live.add_task(title, total=None)

    def advance(self, done: int, total: int) -> None:
        """Moves the bar of the current step."""
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=done, total=total)

    def _finish(self) -> None:
        if not self._title:
            return
        took = time.monotonic() - self._since
        # A step that was reused takes no time worth a line.
        if took >= 0.05:
            self._console.print(Text.assemble((f"{took:6.1f} s", "dim"), "  ", self._title))
        self._title = ""
