"""What `edge-compress inspect --groups` shows: which slices of which parameters a cut takes together."""

from __future__ import annotations

import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from compress.errors import ModelError
from compress.model.core import Model
from compress.model.screen import sniff
from compress.passes.prune.groups import Analysis, Group, analyse
from compress.report.text import plain, shorten

_NAME_LENGTH = 60


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
    """Prints the groups of a file; what cannot be cut comes last, with the reason.

    Args:
        path: A `.pt2` or `.onnx` file.
        console: Where to print.
        members: Whether to list every parameter that a group reaches.
    """
    model = load_file(path)
    start = time.perf_counter()
    analysis = analyse(model)
    seconds = time.perf_counter() - start
    console.print(_table(analysis, members))
    console.print(
        f"\n{len(analysis.prunable)} of {len(analysis.groups)} groups can be cut; found in {seconds:.2f} s.",
        highlight=False,
    )
    for node, operator in analysis.found.unknown:
        said = f"the operator {operator!r} ({node}) has no rule: what it reads is not cut"
        console.print(plain(said), highlight=False, markup=False)
    console.print('Cut them with [[passes]] kind = "prune" in a recipe.', highlight=False, markup=False)


def _table(analysis: Analysis, members: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("group")
    table.add_column("positions", justify="right")
    table.add_column("slices", justify="right")
    table.add_column("can be cut", overflow="fold")
    if members:
        table.add_column("goes together in", overflow="fold")
    for group in sorted(analysis.groups, key=lambda group: bool(group.frozen)):
        reached = ", ".join(f"{member.parameter}[{member.dimension}]" for member in group.members)
        table.add_row(
            plain(shorten(group.name, _NAME_LENGTH)),
            str(group.size),
            str(len(group.members)),
            plain(_said(group)),
            *([plain(reached)] if members else []),
        )
    return table


def _said(group: Group) -> str:
    if group.frozen:
        return f"no: {group.frozen}"
    return f"yes; across it: {group.mixed}" if group.mixed else "yes"
