"""A `.pt2` archive described: screened, loaded, and counted on its graph."""

from __future__ import annotations

from pathlib import Path

import torch

from compress.model.core import Model, TensorInfo, state
from compress.model.cost import cost
from compress.model.fileinfo import (
    NO_PARAMETERS,
    FileInfo,
    LayerRow,
    StoredTensor,
    Value,
    by_count,
    identify,
    precision_of,
)
from compress.model.layers import layers
from compress.model.pt2 import load_pt2


def describe_pt2(path: Path) -> FileInfo:
    """Describes an exported program without running it.

    Raises:
        UnsafeFileError: If opening the archive would run code.
        ModelError: If it cannot be read, is in training form, or its fixed batch cannot be opened.
    """
    identity = identify(path)
    model = load_pt2(path)
    total = cost(model)
    shapes = {layer.name: layer.shape for layer in layers(model)}
    return FileInfo(
        identity=identity,
        kind="pt2",
        inputs=tuple(_value(item) for item in model.signature.inputs),
        outputs=tuple(_value(item) for item in model.signature.outputs),
        parameters=total.parameters,
        macs=total.macs,
        operators=by_count(_kind(node) for node in model.program.graph.nodes if node.op == "call_function"),
        precision=precision_of(_weights(model)),
        layers=tuple(
            LayerRow(node.name, node.operator, shapes.get(node.name, ()), node.parameters, node.macs)
            for node in total.nodes
        ),
        notes=_notes(model),
    )


def _value(item: TensorInfo) -> Value:
    return Value(item.name, ("batch", *item.shape), item.dtype)


def _kind(node: torch.fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target).removeprefix("aten.").partition(".")[0]
    return str(getattr(target, "__name__", target))


def _weights(model: Model) -> list[StoredTensor]:
    """Every stored tensor that may be a weight; tied ones are one object and count once."""
    seen: dict[int, StoredTensor] = {}
    for name, tensor in state(model.program).items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in NO_PARAMETERS:
            shape = tuple(int(size) for size in tensor.shape)
            seen.setdefault(id(tensor), StoredTensor(name, dtype, shape, tensor.numel()))
    return list(seen.values())


def _notes(model: Model) -> tuple[str, ...]:
    signature = model.program.graph_signature
    notes = []
    names = {*signature.buffers, *signature.lifted_tensor_constants}
    if names:
        held = state(model.program)
        elements = sum(held[name].numel() for name in names if name in held)
        notes.append(f"{len(names)} buffers and constants of {elements} elements, not counted as parameters")
    tied = len(signature.parameters) - len({id(model.program.state_dict[name]) for name in signature.parameters})
    if tied:
        notes.append(f"{tied} tied weights, counted once")
    return tuple(notes)
