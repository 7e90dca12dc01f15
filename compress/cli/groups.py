"""What `edge-compress inspect --groups` shows: which slices of which parameters a cut takes together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from compress.errors import ModelError
from compress.model.core import Model
from compress.model.screen import sniff
from compress.passes.prune.groups import Analysis, Group, Member, analyse
from compress.report.text import plain, shorten

_NAME_LENGTH = 60
_SHOWN = 4


def load_file(path: Path) -> Model:
    """Returns a file as a Model.

    Raises:
        ModelError: If its content is no exported program and no ONNX model, or it cannot become a graph.
        UnsafeFileError: If opening it would run code.
    """
    kind = sniff(path)
    if kind == "pt2":
        from compress.model.pt2 import load_pt2

        return load_pt2(path)
    if kind == "onnx":
        from compress.model.onnx_import import load_onnx

        return load_onnx(path)
    raise ModelError(
        f"{path}: groups are found in a graph, and this is none (its content is: {kind})",
        "name a .pt2 or .onnx file; torch.export.save makes a .pt2 of a module.",
    )


def render_groups(path: Path, console: Console, members: bool = False) -> None:
    """Prints the groups of a file: first what can be cut, then what cannot, by the reason.

    Args:
        path: A `.pt2` or `.onnx` file.
        console: Where to print.
        members: Whether to list every slice of a group instead of the first layers that it reaches.
    """
    analysis, seconds = _analysed(path)
    if analysis.prunable:
        console.print(_cuttable(analysis, members))
    whole = [group for group in analysis.groups if group.frozen]
    if whole:
        console.print(_whole(whole, members))
    if any("." in group.name.rpartition("[")[2] for group in analysis.groups):
        said = "[0.1] is the second part of dimension 0, outermost first: heads come before what is inside them."
        console.print(said, highlight=False, markup=False)
    counted = f"{len(analysis.prunable)} of {len(analysis.groups)} groups can be cut; found in {seconds:.2f} s."
    console.print(counted, highlight=False)
    for node, operator in analysis.found.unknown:
        said = f"the operator {operator!r} ({node}) has no rule: what it reads is not cut"
        console.print(plain(said), highlight=False, markup=False)
    console.print('Cut them with [[passes]] kind = "prune" in a recipe.', highlight=False, markup=False)


def groups_to_plain(path: Path) -> dict[str, Any]:
    """Returns the groups of a file as what JSON can hold: every slice, and the reason of what cannot be cut."""
    analysis, seconds = _analysed(path)
    return {
        "groups": [
            {
                "name": group.name,
                "positions": group.size,
                "can_be_cut": not group.frozen,
                "reason": group.frozen,
                "across": group.mixed,
                "slices": [
                    {
                        "parameter": member.parameter,
                        "dimension": member.dimension,
                        "elements_a_position": _elements(group, member),
                    }
                    for member in group.members
                ],
            }
            for group in analysis.groups
        ],
        "without_rule": [{"node": node, "operator": operator} for node, operator in analysis.found.unknown],
        "seconds": seconds,
    }


def _analysed(path: Path) -> tuple[Analysis, float]:
    model = load_file(path)
    start = time.perf_counter()
    analysis = analyse(model)
    return analysis, time.perf_counter() - start


def _cuttable(analysis: Analysis, members: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("group", overflow="fold")
    table.add_column("positions", justify="right")
    table.add_column("goes together in", overflow="fold")
    mixed = any(group.mixed for group in analysis.prunable)
    if mixed:
        table.add_column("computed across it", overflow="fold")
    for group in analysis.prunable:
        reached = _slices(group) if members else _layers(group)
        cells = (shorten(group.name, _NAME_LENGTH), str(group.size), reached, *([group.mixed] if mixed else []))
        table.add_row(*(plain(cell) for cell in cells))
    return table


def _whole(groups: Sequence[Group], members: bool) -> Table:
    """What cannot be cut, by the reason; the call that is the reason is named where it is the same for all."""
    by_reason: dict[str, list[Group]] = {}
    for group in groups:
        by_reason.setdefault(group.frozen if members else group.frozen.partition(" (")[0], []).append(group)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stays whole, because of", overflow="fold")
    table.add_column("groups", justify="right")
    table.add_column("these", overflow="fold")
    for reason, found in by_reason.items():
        names = [f"{group.name} ({group.size})" for group in found]
        table.add_row(plain(reason), str(len(found)), plain(", ".join(names) if members else _first(names)))
    return table


def _slices(group: Group) -> str:
    found = []
    for member in group.members:
        count = _elements(group, member)
        found.append(f"{member.parameter}[{member.dimension}]" + (f" x{count}" if count > 1 else ""))
    return ", ".join(found)


def _layers(group: Group) -> str:
    names = (member.parameter.rpartition(".")[0] or member.parameter for member in group.members)
    return _first(list(dict.fromkeys(names)))


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _elements(group: Group, member: Member) -> int:
    """How many elements along the dimension go with one position."""
    return len(member.positions(group.axis, np.zeros(1, np.int64)))
