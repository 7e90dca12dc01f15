"""What `parity.py` has recorded, machine by machine, and the page that shows it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from compress.processors import emulated
from compress.report.markdown_text import table
from compress.store.atomic import write_atomic

HEADINGS = ("model", "file", "weights", "here, against the graph")
NOT_THERE = "-"
_INTRODUCTION = """# The same files on other processors

```
python benchmarks/parity.py --rows 100 --write benchmarks/parity.md
```

Each cell is the largest difference of an output, its share of the output's range, and the number of test rows that
are decided otherwise. "Here" is the machine in the title: its answers are compared with the graph that the file was
made from. Every other column is the same file on the same rows, one a call, on an emulated processor, compared with
the answers here. A file that is the same for any processor and for those with a dot product stands once. A run adds
its rows to what is recorded in `parity.json`, and replaces those of the same machine, number of test rows and file.

"-" was not asked, or cannot be: ExecuTorch's Python package needs torch, whose Arm wheel needs CUDA's libraries, so
it runs on emulated processors of this machine's architecture only.
"""


@dataclass(frozen=True)
class Row:
    """A file's answers.

    Attributes:
        machine: The processor that is "here", with its instructions.
        asked: Test rows.
        emulator: What stands in for the others.
        runtime: With its version.
        model: Which example.
        file: Runtime and scheme.
        weights: How many bits they have.
        here: Against the graph.
        processors: Emulated processor -> against the answers here.
    """

    machine: str
    asked: int
    emulator: str
    runtime: str
    model: str
    file: str
    weights: str
    here: str
    processors: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str | int, ...]:
        """What it replaces an older row by."""
        return self.machine, self.asked, self.emulator, self.model, self.file, self.weights


def recorded(path: Path) -> list[Row]:
    """Returns the rows of a `parity.json`; none where there is no file."""
    return [Row(**item) for item in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def record(path: Path, rows: Iterable[Row]) -> list[Row]:
    """Adds rows to a `parity.json` and returns all that it has then. A replaced row keeps processors not asked now."""
    merged = {row.key: row for row in recorded(path)}
    for row in rows:
        old = merged.get(row.key)
        older = old.processors if old is not None and (old.runtime, old.here) == (row.runtime, row.here) else {}
        merged[row.key] = Row(**{**asdict(row), "processors": {**older, **row.processors}})
    kept = list(merged.values())
    write_atomic(path, (json.dumps([asdict(row) for row in kept], indent=1) + "\n").encode())
    return kept


def page(rows: Iterable[Row]) -> str:
    """Returns the page, one table a machine, number of test rows and emulator."""
    tables: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        tables.setdefault((row.machine, row.asked, row.emulator), []).append(row)
    return "\n".join([_INTRODUCTION, *(_section(*head, each) for head, each in tables.items())])


def _section(machine: str, asked: int, emulator: str, rows: list[Row]) -> str:
    known = [item.name for item in emulated()]
    columns = sorted({name for row in rows for name in row.processors}, key=known.index)
    cells = [
        (row.model, row.file, row.weights, row.here, *(row.processors.get(name, NOT_THERE) for name in columns))
        for row in sorted(rows, key=lambda row: (row.model, row.runtime))
    ]
    runtimes = ", ".join(sorted({row.runtime for row in rows}))
    return (
        f"## Here: {machine}\n\n{asked} test rows; {runtimes}; processors emulated by {emulator}.\n\n"
        f"{table((*HEADINGS, *columns), cells)}\n"
    )
