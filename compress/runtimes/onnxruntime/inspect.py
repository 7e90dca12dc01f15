"""An `.onnx` file described without running it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.model.fileinfo import FileInfo, Identity, by_count, precision_of, read_bounded
from compress.model.onnx_beside import text
from compress.registry import require
from compress.runtimes.onnxruntime.inspect_graph import Walk
from compress.runtimes.onnxruntime.inspect_operators import DEQUANTIZED, SCHEMES
from compress.runtimes.onnxruntime.inspect_order import sort_nodes
from compress.runtimes.onnxruntime.inspect_shapes import (
    Native,
    described,
    dynamic_names,
    native,
    one_row,
    real_inputs,
)
from compress.runtimes.onnxruntime.inspect_tensors import Constants, drop_weights, graphs_of

MAX_NODES = 1_000_000
EXPORT_AGAIN = "export or copy the model again; the file is damaged, or no ONNX model."
_UNORDERED = "its operators are not in the order that ONNX requires, which ONNX Runtime takes all the same"
# What reading a damaged graph can raise in Python; native code runs in a process of its own.
GARBAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, MemoryError)


def describe_onnx(path: Path, run: Native = native) -> FileInfo:
    """Describes an ONNX model. Subgraphs count once: both branches of an `If`, one turn of a `Loop`.

    Args:
        path: The file, at most 2 GiB; larger weights lie in other files of its folder.
        run: What runs onnx's own graph code, by default a process of its own.

    Raises:
        UnsafeFileError: If external data leaves the model's folder or passes through a link.
        ModelError: If it cannot be parsed, or a constant claims bytes that are not there.
        MissingPackageError: If onnx is not installed.
    """
    return _described(*read_bounded(path), path, run)


def describe_bytes(data: bytes, name: str, run: Native = native) -> FileInfo:
    """Describes an ONNX model that was read before; what it keeps in other files is not looked for.

    Raises:
        ModelError: If it cannot be parsed.
        MissingPackageError: If onnx is not installed.
    """
    return _described(data, Identity(name, len(data), hashlib.sha256(data).hexdigest()), None, run)


def _described(data: bytes, identity: Identity, path: Path | None, run: Native) -> FileInfo:
    onnx = require("onnx", why="reading .onnx files")
    decode_error = require("google.protobuf.message").DecodeError
    where = path or identity.name
    try:
        model = onnx.ModelProto.FromString(data)
        _check_form(model, where)
        beside = without_weights(model, path)
        model, functions = _inlined(model, run)
        order = (_UNORDERED,) if sort_nodes(model.graph) else ()
        # Functions that could not be expanded would stall the inference of shapes as well.
        info = describe_graph(model, None if model.functions else one_row(model, run), identity)
    except (*GARBAGE, decode_error) as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise ModelError(f"{where}: it cannot be read: {what}", EXPORT_AGAIN) from error
    said = (f"external data: {name} ({size} bytes)" for name, size in sorted(beside.items()))
    return replace(info, notes=(*info.notes, *order, *functions, *said), beside=beside)


def _check_form(model: Any, where: Path | str) -> None:
    if not model.ir_version or not (model.graph.node or model.graph.output):
        raise ModelError(f"{where}: it holds no ONNX graph", EXPORT_AGAIN)
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    if sum(_count_nodes(nodes) for nodes in bodies) > MAX_NODES:
        raise ModelError(f"{where}: it has more than {MAX_NODES} operators", "split the model.")


def _count_nodes(nodes: Any) -> int:
    inside = graphs_of(nodes) if len(nodes) <= MAX_NODES else ()
    return len(nodes) + sum(_count_nodes(graph.node) for graph in inside)


def without_weights(model: Any, path: Path | None) -> dict[str, int]:
    """Checks every constant, then takes out the content of the large ones. Returns the files of external data.

    Raises:
        UnsafeFileError: If external data leaves the model's folder or passes through a link.
        ModelError: If a constant claims bytes that are not there.
    """
    constants = Constants(path) if path is not None else None
    bodies = [(model.graph.node, model.graph), *((function.node, None) for function in model.functions)]
    for nodes, graph in bodies:
        if constants is not None:
            constants.check(nodes, graph)
        drop_weights(nodes, graph)
    return constants.external if constants is not None else {}


def _inlined(model: Any, run: Native) -> tuple[Any, tuple[str, ...]]:
    """Puts the bodies of local functions where they are called, so that their operators are counted."""
    count = len(model.functions)
    if not count:
        return model, ()
    data = run("inline", model.SerializeToString())
    if data is None:
        return model, (f"{count} local functions could not be expanded; each call counts as one operator",)
    return type(model).FromString(data), (f"{count} local functions, expanded",)


def describe_graph(model: Any, inferred: Any | None, identity: Identity) -> FileInfo:
    """Describes a model whose constants were checked, with its shapes for one row, None where they are unknown."""
    walk = Walk()
    walk.graph(model.graph, inferred.graph if inferred is not None else None)
    parameters = [constant.tensor for constant in walk.constants if constant.is_parameter]
    macs = [row.macs for row in walk.layers if row.macs is not None]
    return FileInfo(
        identity=identity,
        kind="onnx",
        inputs=tuple(described(value) for value in real_inputs(model.graph)),
        outputs=tuple(described(value) for value in model.graph.output),
        parameters=sum(tensor.elements for tensor in parameters),
        macs=sum(macs) if macs or not walk.unknown else None,
        unknown_macs=walk.unknown.total(),
        operators=by_count(walk.operators.elements()),
        precision=precision_of(parameters, _scheme(walk)),
        layers=tuple(walk.layers),
        notes=_notes(model, inferred, walk),
    )


def _scheme(walk: Walk) -> str:
    if not walk.schemes:
        return ""
    scheme = walk.schemes.most_common(1)[0][0]
    if scheme == "dynamic" and walk.quantized_activations and not any("Dynamic" in kind for kind in walk.operators):
        # What ONNX Runtime makes of a product between QuantizeLinear and DequantizeLinear.
        return "static"
    if scheme != DEQUANTIZED:
        return scheme
    return "static, QDQ" if walk.quantized_activations else "weight only"


def _notes(model: Any, inferred: Any | None, walk: Walk) -> tuple[str, ...]:
    # Exporters import domains of which they use nothing.
    used = [item for item in model.opset_import if text(item.domain) in {"", "ai.onnx", *walk.domains}]
    opsets = (f"{text(item.domain)} {item.version}".strip() for item in used)
    notes = [f"opset {', '.join(opsets) or 1}"]
    maker = f"{text(model.producer_name)} {text(model.producer_version)}".strip()
    if maker:
        notes.append(f"made by {maker}")
    if walk.dequantized:
        notes.append(f"already quantized: {walk.dequantized} DequantizeLinear on weights")
    integer = [f"{count} {kind}" for kind, count in walk.operators.items() if kind in SCHEMES]
    if integer:
        notes.append(f"already quantized: {', '.join(integer)}")
    if walk.quantized_weights:
        notes.append(f"{walk.quantized_weights} QuantizeLinear on weights: they are quantized when the file is opened")
    if walk.scaled:
        notes.append(f"already quantized: integer weights, widened by {walk.scaled} Cast and Mul as the file is opened")
    if walk.widened:
        notes.append(f"float16 weights widened by {walk.widened} Cast; arithmetic is float32")
    if walk.tree_nodes:
        notes.append(f"decision trees of {walk.tree_nodes} nodes, not counted as parameters")
    if walk.subgraphs:
        notes.append(f"{walk.subgraphs} subgraphs, each counted once")
    others = dynamic_names(model.graph)
    if others:
        notes.append(f"MACs with these dynamic dimensions at 1: {', '.join(others)}")
    if inferred is None:
        notes.append("onnx could not infer the shapes")
    if walk.unknown:
        kinds = ", ".join(f"{count} {kind}" for kind, count in walk.unknown.most_common())
        notes.append(f"MACs of {walk.unknown.total()} operators unknown: {kinds}")
    return tuple(notes)
