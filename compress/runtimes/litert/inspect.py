"""A `.tflite` file described without running it."""

from __future__ import annotations

import struct
from pathlib import Path

from compress.errors import ModelError
from compress.model.fileinfo import FileInfo, Value, by_count, precision_of, read_bounded
from compress.runtimes.litert.inspect_graph import Walk
from compress.runtimes.litert.inspect_reader import Flat, Signature, Tensor, read_flat

_EXPORT_AGAIN = "convert or copy the model again; the file is damaged, or no .tflite model."
# What the generated accessors raise where an offset of the file points outside of it.
_GARBAGE = (struct.error, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, AssertionError)


def describe_tflite(path: Path) -> FileInfo:
    """Describes a LiteRT model. Operators of all its graphs count, multiply-adds of the first signature's alone.

    Raises:
        ModelError: If it cannot be parsed, or a tensor claims bytes that are not there.
        MissingPackageError: If ai-edge-litert is not installed.
    """
    data, identity = read_bounded(path)
    try:
        flat = read_flat(data, path)
    except _GARBAGE as error:
        what = f"one of its offsets or lengths points nowhere ({type(error).__name__})"
        raise ModelError(f"{path}: it is truncated or damaged: {what}", _EXPORT_AGAIN) from error
    first = _first(flat)
    tensors = flat.subgraphs[first.subgraph].tensors
    walk = Walk(_rows(first, tensors))
    others = {item.subgraph for item in flat.signatures[1:]} - {first.subgraph}
    for number, graph in enumerate(flat.subgraphs):
        walk.graph(graph, counted=number not in others)
    macs = [row.macs for row in walk.layers if row.macs is not None]
    scheme = walk.schemes.most_common(1)[0][0] if walk.schemes else ""
    return FileInfo(
        identity=identity,
        kind="tflite",
        inputs=tuple(_value(name, tensors[number]) for name, number in first.inputs),
        outputs=tuple(_value(name, tensors[number]) for name, number in first.outputs),
        parameters=sum(tensor.elements for tensor in walk.parameters.values()),
        macs=sum(macs) if macs or not walk.unknown else None,
        unknown_macs=walk.unknown.total(),
        operators=by_count(walk.operators.elements()),
        precision=precision_of(walk.parameters.values(), scheme),
        layers=tuple(walk.layers),
        notes=_notes(flat, walk),
    )


def _first(flat: Flat) -> Signature:
    """The first signature; for a file without one, the tensors' own names."""
    if flat.signatures:
        return flat.signatures[0]
    graph = flat.subgraphs[0]
    inputs, outputs = (
        tuple((graph.tensors[number].name, number) for number in numbers if number >= 0)
        for numbers in (graph.inputs, graph.outputs)
    )
    return Signature("", 0, inputs, outputs)


def _rows(signature: Signature, tensors: tuple[Tensor, ...]) -> int:
    """Returns how many rows the shapes stand for: a dynamic batch has the size with which it was traced."""
    batches = {tensors[number].shape[0] for _, number in signature.inputs if tensors[number].declared[:1] == (-1,)}
    return max(1, batches.pop()) if len(batches) == 1 else 1


def _value(name: str, tensor: Tensor) -> Value:
    shape = tuple(size if size >= 0 else ("batch" if axis == 0 else "?") for axis, size in enumerate(tensor.declared))
    return Value(name, shape, tensor.dtype)


def _notes(flat: Flat, walk: Walk) -> tuple[str, ...]:
    notes = [f"schema {flat.version}"]
    if not flat.signatures:
        notes.append("no signature: the names of inputs and outputs are those of the tensors")
    elif len(flat.signatures) > 1:
        notes.append(f"signatures: {', '.join(item.key for item in flat.signatures)}; described is the first")
    if len(flat.subgraphs) > 1:
        notes.append(f"{len(flat.subgraphs)} graphs, each counted once")
    if walk.per_channel or walk.per_tensor:
        notes.append(f"already quantized: {walk.per_channel} weights per channel, {walk.per_tensor} per tensor")
    if walk.dequantized:
        notes.append(f"{walk.dequantized} DEQUANTIZE on integer weights; arithmetic is float32")
    if walk.widened:
        notes.append(f"float16 weights widened by {walk.widened} DEQUANTIZE; arithmetic is float32")
    if walk.sparse:
        notes.append(f"{walk.sparse} sparse weights, counted as if dense")
    if walk.unknown:
        kinds = ", ".join(f"{count} {kind}" for kind, count in walk.unknown.most_common())
        notes.append(f"MACs of {walk.unknown.total()} operators unknown: {kinds}")
    return tuple(notes)
