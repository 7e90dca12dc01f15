"""What `edge-compress inspect` finds out and shows: one description for every kind of model file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from compress.errors import ModelError
from compress.model.fileinfo import FileInfo, LayerRow, StoredTensor, Value
from compress.model.screen import screen_weights, sniff
from compress.report.numbers import MISSING, format_bytes, format_count, format_share, format_significant
from compress.report.text import plain, shorten
from compress.runtimes.describe import READERS, describe_file

_SHOWN_TENSORS = 12
_NOTE_LENGTH = 300
_NAME_LENGTH = 60
_UNITS = (("G", 10**9), ("M", 10**6), ("k", 10**3))
_SHOWN_HASH = 16
# What a file is that cannot be described: content -> (what it is, what can be done).
_OTHERS = {
    "torchscript": (
        "a TorchScript program, which carries code of its own",
        "where it is trusted, save its weights alone (torch.save(module.state_dict(), 'weights.pth')), "
        "or export the model again with torch.export.export and torch.export.save.",
    ),
    "hdf5": ("an HDF5 file, as Keras writes it", "convert it to .tflite with TensorFlow's converter and inspect that."),
    "zip": ("a zip archive that holds no model that is known here", "unpack it and name the model inside."),
    "empty": ("an empty file", "copy or download it again."),
}


def inspect_file(path: Path) -> FileInfo:
    """Describes a model file by its content, whatever its ending. Nothing in it is run.

    Raises:
        UnsafeFileError: If opening it would run code, or it claims more than it holds.
        ModelError: If it is missing, damaged, or of a kind that is not described.
        MissingPackageError: If the package that reads its kind is not installed.
    """
    kind = sniff(path)
    if kind in READERS:
        return describe_file(path, kind)
    if kind == "pt2":
        from compress.model.inspect_pt2 import describe_pt2

        return describe_pt2(path)
    if kind in ("safetensors", "state_dict"):
        from compress.model.inspect_weights import describe_weights

        return describe_weights(path)
    if kind == "pickle":
        # The screen knows which pickles are refused and how to convert them.
        screen_weights(path)
    what, remedy = _OTHERS.get(
        kind,
        ("of unknown content", "name a .pt2, .onnx, .ort or .tflite file, a .safetensors file or a state dictionary."),
    )
    raise ModelError(f"{path}: it is {what}; it cannot be described", remedy)


def render(info: FileInfo, console: Console, layers: bool = False) -> None:
    """Prints a description.

    Args:
        info: What `inspect_file` found.
        console: Where to print; names from the file are made harmless for it.
        layers: Whether to list every layer, or every tensor of a file of weights.
    """
    identity = info.identity
    head = f"{identity.name}: {info.kind}, {format_bytes(identity.size_bytes)}, sha256 {identity.sha256[:_SHOWN_HASH]}"
    console.print(_text(head, console), style="bold", soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for key, content in _rows(info, console, layers):
        grid.add_row(key, content)
    console.print(grid)
    if layers and info.layers:
        console.print()
        console.print(_layer_table(info.layers, console))


def to_plain(info: FileInfo) -> dict[str, Any]:
    """Returns a description as JSON takes it: dictionaries, lists, texts and numbers."""
    return {
        "schema": 1,
        "name": info.identity.name,
        "kind": info.kind,
        "size_bytes": info.identity.size_bytes,
        "sha256": info.identity.sha256,
        "inputs": [_plain_value(item) for item in info.inputs],
        "outputs": [_plain_value(item) for item in info.outputs],
        "parameters": info.parameters,
        "macs": info.macs,
        "unknown_macs": info.unknown_macs,
        "operators": dict(info.operators),
        "precision": {"summary": info.precision.summary, "shares": dict(info.precision.shares)},
        "tensors": [
            {"name": item.name, "dtype": item.dtype, "shape": list(item.shape), "elements": item.elements}
            for item in info.tensors
        ],
        "layers": [
            {
                "name": item.name,
                "operator": item.operator,
                "weight": list(item.weight),
                "parameters": item.parameters,
                "macs": item.macs,
            }
            for item in info.layers
        ],
        "notes": list(info.notes),
    }


def _rows(info: FileInfo, console: Console, every: bool) -> Iterable[tuple[str, RenderableType]]:
    for key, values in (("inputs", info.inputs), ("outputs", info.outputs)):
        if values:
            yield key, _text("\n".join(_value(item) for item in values), console)
    yield "parameters", _text(_count(info.parameters), console)
    if info.operators:
        yield "MACs", _text(_macs(info), console)
    yield "precision", _text(_precision(info), console)
    if info.tensors:
        yield "tensors", _text("\n".join(_tensors(info.tensors, every)), console)
    if info.operators:
        kinds = [_text(f"{format_count(count)} {kind}", console) for kind, count in info.operators.items()]
        yield "operators", Columns(kinds, padding=(0, 2), column_first=True)
    if info.notes:
        yield "notes", _text("\n".join(f"- {shorten(plain(note), _NOTE_LENGTH)}" for note in info.notes), console)


def _value(item: Value) -> str:
    shape = "[?]" if item.shape is None else f"[{', '.join(str(size) for size in item.shape)}]"
    return f"{plain(item.name)}: {item.dtype}{plain(shape)}"


def _macs(info: FileInfo) -> str:
    if info.macs is None:
        return "unknown"
    least = "at least " if info.unknown_macs else ""
    return f"{least}{_count(info.macs)} for one row"


def _precision(info: FileInfo) -> str:
    shares = ", ".join(f"{dtype} {format_share(share)}" for dtype, share in info.precision.shares.items())
    return f"{info.precision.summary}; weights: {shares}" if shares else info.precision.summary


def _tensors(tensors: tuple[StoredTensor, ...], every: bool) -> Iterable[str]:
    shown = tensors if every else tensors[:_SHOWN_TENSORS]
    yield format_count(len(tensors))
    for item in shown:
        yield f"{plain(item.name)}: {item.dtype}[{', '.join(str(size) for size in item.shape)}]"
    if len(shown) < len(tensors):
        yield f"and {format_count(len(tensors) - len(shown))} more (--layers lists them)"


def _layer_table(layers: tuple[LayerRow, ...], console: Console) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("operator", overflow="fold")
    table.add_column("weight")
    for name in ("parameters", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in layers:
        shape = f"[{', '.join(str(size) for size in item.weight)}]" if item.weight else MISSING
        name = plain(item.name)
        table.add_row(
            _text(name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 3]}...", console),
            _text(plain(item.operator), console),
            _text(shape, console),
            format_count(item.parameters),
            format_count(item.macs),
        )
    return table


def _count(value: int) -> str:
    """A whole number, and above a thousand its size in three digits: `100,591 (101 k)`."""
    for unit, size in _UNITS:
        if value >= size:
            return f"{format_count(value)} ({format_significant(value / size, 3)} {unit})"
    return format_count(value)


def _plain_value(item: Value) -> dict[str, Any]:
    return {"name": item.name, "shape": None if item.shape is None else list(item.shape), "dtype": item.dtype}


def _text(text: str, console: Console) -> Text:
    """Text without markup, in characters that the console's encoding has and that cannot drive the terminal."""
    visible = "\n".join(plain(line) for line in text.split("\n"))
    return Text(visible.encode(console.encoding, "backslashreplace").decode(console.encoding))
