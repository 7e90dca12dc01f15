"""What the teacher answers: computed once for all rows and kept, or anew for every batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.passes.train.feed import Batch
from compress.passes.train.network import Network
from compress.passes.train.rows import Pool
from compress.passes.train.views import Views
from compress.store.atomic import stated, write_atomic

Values = tuple[dict[str, Tensor], dict[str, Tensor]]
_DONE = "done.json"


@dataclass(eq=False)
class Answers:
    """A teacher's outputs and tapped values for the rows of a batch.

    Attributes:
        network: The teacher, in the form in which it is used.
        kept: Name of an output or of a tapped value -> `[rows, *shape]` over all that is fed; empty where every batch
            is asked anew.
    """

    network: Network
    kept: dict[str, NDArray[Any]] = field(default_factory=dict)

    def of(self, batch: Batch) -> Values:
        """Returns outputs and tapped values, without gradient."""
        if self.kept:
            found = {
                name: torch.from_numpy(np.ascontiguousarray(values[batch.positions])).to(self.network.device)
                for name, values in self.kept.items()
            }
            return (
                {name: found[f"output:{name}"] for name in self.network.outputs},
                {name: found[f"tap:{name}"] for name in self.network.taps},
            )
        with torch.no_grad():
            return self.network(batch.inputs)


def row_bytes(network: Network, pool: Pool | Views, arguments: Callable[[Any], tuple[Tensor, ...]]) -> int:
    """Returns the bytes that a teacher's answers take for one row."""
    return sum(values[0].numel() * values.element_size() for values in _ask(network, pool, arguments, 0, 2).values())


def keep_answers(
    network: Network,
    pool: Pool | Views,
    arguments: Callable[[Any], tuple[Tensor, ...]],
    batch: int,
    folder: Path | None,
    say: Callable[[str], None],
) -> Answers:
    """Asks the teacher about every row once, streamed; a run that was ended goes on where it stopped.

    Args:
        network: The teacher.
        pool: The rows.
        arguments: Turns named arrays into the graph's tensors.
        batch: Rows at a time.
        folder: Where the answers lie as `.npy` files, named by what determines them; None for memory.
        say: Told how far it is.

    Raises:
        StoreError: If the folder cannot be written.
    """
    first = _ask(network, pool, arguments, 0, min(2, len(pool)))
    names = list(first)
    arrays, done = _open(folder, names, [tuple(first[name].shape[1:]) for name in names], len(pool))
    kept = dict(zip(names, arrays, strict=True))
    started = done
    while done < len(pool):
        end = min(len(pool), done + batch)
        for name, values in _ask(network, pool, arguments, done, end).items():
            kept[name][done:end] = values.float().cpu().numpy()
        done = end
        if folder is not None:
            _mark(folder, arrays, done)
    say("the teacher's answers were there already" if started == done else f"the teacher answered {done:,} rows")
    return Answers(network, kept)


def _ask(
    network: Network, pool: Pool | Views, arguments: Callable[[Any], tuple[Tensor, ...]], start: int, end: int
) -> dict[str, Tensor]:
    with torch.no_grad():
        inputs = tuple(value.to(network.device) for value in arguments(pool.read(np.arange(start, end))))
        outputs, taps = network(inputs)
    return {f"output:{name}": value for name, value in outputs.items()} | {
        f"tap:{name}": value for name, value in taps.items()
    }


def _open(
    folder: Path | None, names: Sequence[str], shapes: Sequence[tuple[int, ...]], rows: int
) -> tuple[list[NDArray[Any]], int]:
    """The arrays to fill, and how many rows an earlier run has filled."""
    if folder is None:
        return [np.empty((rows, *shape), np.float32) for shape in shapes], 0
    paths = [folder / f"{index}.npy" for index in range(len(names))]
    done = _filled(folder, paths)
    with stated(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return [
            np.lib.format.open_memmap(path, mode="r+")
            if done
            else np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, *shape))
            for path, shape in zip(paths, shapes, strict=True)
        ], done


def _filled(folder: Path, paths: Sequence[Path]) -> int:
    try:
        done = int(json.loads((folder / _DONE).read_bytes())["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return done if all(path.is_file() for path in paths) else 0


def _mark(folder: Path, arrays: Sequence[NDArray[Any]], done: int) -> None:
    # Rows reach the disk before the number that says that they are there.
    for array in arrays:
        if isinstance(array, np.memmap):
            array.flush()
    write_atomic(folder / _DONE, json.dumps({"rows": done}).encode())
