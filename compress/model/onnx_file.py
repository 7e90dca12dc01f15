"""A trained `.onnx` file that cannot become a graph of torch: ONNX Runtime runs it as it is, no pass can change it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.errors import ModelError, did_you_mean
from compress.model.core import Signature, TensorInfo
from compress.model.onnx_beside import EXTERNAL, DataFile, byte_length, name_files, spans_of, tensors_of
from compress.model.onnx_import.build import build
from compress.model.onnx_import.graph import Graph
from compress.model.onnx_import.proto import read_model
from compress.model.onnx_import.quantized import refuse_quantized
from compress.model.onnx_import.signature import input_infos
from compress.model.onnx_import.tensors import DTYPES, TensorReader

# Weights in other files that are longer together are not read into a graph, which has them in memory several times.
MAX_BYTES = (1 << 31) - 1
# Weights in other files that are longer together stay there: they would be in memory several times.
INSIDE_BYTES = 1 << 30
# A constant that is shorter is always inside: shapes are read from such ones.
_SMALL_BYTES = 1024


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A model in the form of its file.

    Attributes:
        data: The `.onnx` file, made self-contained: data of other files is inside unless it is long, constants are
            initializers, every node has a name of its own, and inputs that nothing reads are gone. Its arithmetic is
            untouched.
        signature: Inputs and outputs; an output's shape is empty where the file leaves it open.
        lineage: The source first.
        unsupported: `(operator, node name)` of what keeps it from becoming a graph.
        attachments: Files that ship beside it, by name.
        beside: Files that hold its long weights.
        too_large: Why it stays a file although every operator could be imported; empty otherwise.
    """

    data: bytes
    signature: Signature
    lineage: tuple[str, ...]
    unsupported: tuple[tuple[str, str], ...]
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    beside: tuple[DataFile, ...] = ()
    too_large: str = ""

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the file, which names what lies beside it by its content."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def reason(self) -> str:
        """Why it is no graph, in one line."""
        if self.too_large:
            return self.too_large
        kinds = list(dict.fromkeys(operator for operator, _ in self.unsupported))
        more = f" and {len(kinds) - 3} more kinds" if len(kinds) > 3 else ""
        return f"operators that cannot be imported: {', '.join(kinds[:3])}{more}"

    def with_attachments(self, attachments: Mapping[str, bytes]) -> OnnxFile:
        """Returns the same model with more files beside it; a name that is there already is replaced."""
        return replace(self, attachments={**self.attachments, **attachments})


def too_large(path: Path) -> str:
    """Returns why a file's weights are too long for a graph, empty where they are not.

    Raises:
        UnsafeFileError: If external data leaves the model's folder or passes through a link.
        ModelError: If the file is damaged or its data is missing.
    """
    spans = spans_of(read_model(path).graph, path)
    # Many may point to one region.
    total = sum({(span.location, span.offset): span.length for _, span in spans}.values())
    if total <= MAX_BYTES:
        return ""
    return f"its weights are {total:,} bytes; at most {MAX_BYTES:,} are read into a graph"


def take_file(
    path: Path,
    outputs: tuple[str, ...],
    sizes: Mapping[str, tuple[int, ...]],
    unsupported: tuple[tuple[str, str], ...] = (),
    why: str = "",
) -> OnnxFile:
    """Takes a file as it is.

    Args:
        path: The `.onnx` file.
        outputs: Which of its outputs to keep; without it, all.
        sizes: Input name to shape without batch, for dimensions that the file leaves open.
        unsupported: Operators and nodes that the importer refused.
        why: Why it is taken as it is although none was.

    Raises:
        ModelError: If an output does not exist, or sizes stay open.
        UnsafeFileError: If external data leaves the model's folder or passes through a link.
    """
    where = str(path)
    proto = read_model(path)
    graph = build(proto, path)
    refuse_quantized(graph, where)
    kept = _chosen(graph, outputs, where)
    inputs = input_infos(graph, sizes, where)
    long = sum(span.length for _, span in spans_of(proto.graph, path)) > INSIDE_BYTES
    _constants_inside(proto.graph, TensorReader(path), _SMALL_BYTES if long else None)
    beside = name_files(proto.graph, path)
    _name_nodes(proto.graph)
    _keep(proto.graph.output, kept)
    # Constants that are listed as inputs, too, stay: old files need it.
    constants = {item.name for item in proto.graph.initializer}
    _keep(proto.graph.input, {item.name for item in inputs} | constants)
    shapes = {item.name: _shape(item) for item in proto.graph.output}
    given = tuple(TensorInfo(name, shapes[name][1:], "float32") for name in kept)
    dropped = [item.name for item in graph.inputs if item.name not in {info.name for info in inputs}]
    lineage = [path.name, *([f"without the inputs {', '.join(dropped)}, which nothing reads"] if dropped else [])]
    data = proto.SerializeToString()
    return OnnxFile(data, Signature(inputs, given), tuple(lineage), unsupported, beside=beside, too_large=why)


def _chosen(graph: Graph, outputs: tuple[str, ...], where: str) -> tuple[str, ...]:
    for name in outputs:
        if name not in graph.outputs:
            raise ModelError(f"{where}: the model has no output {name!r}", did_you_mean(name, graph.outputs))
    return outputs or graph.outputs


def _constants_inside(graph: Any, reader: TensorReader, limit: int | None) -> None:
    """Reads external data in, and turns `Constant` nodes into initializers, where the quantizers look for weights.

    Args:
        graph: The file's.
        reader: Of its constants.
        limit: In bytes; a longer constant stays where it is. None: all are read.
    """
    nodes = []
    for node in graph.node:
        value = node.attribute[0] if node.op_type == "Constant" and len(node.attribute) == 1 else None
        if value is None or value.name != "value" or value.t.data_type not in DTYPES:
            nodes.append(node)
            continue
        value.t.name = node.output[0]
        graph.initializer.append(value.t)
    _replace(graph.node, nodes)
    for item in tensors_of(graph):
        if item.data_location == EXTERNAL and (limit is None or byte_length(item) <= limit):
            _inside(item, item.name, reader)


def _inside(item: Any, name: str, reader: TensorReader) -> None:
    import torch

    value = reader.read(name, item)
    item.raw_data = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
    item.ClearField("external_data")
    item.data_location = 0


def _name_nodes(graph: Any) -> None:
    """Gives every node a name of its own: the quantizers choose nodes by name."""
    known = {node.name for node in graph.node}
    seen: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}.{number}"
            while node.name in known:
                node.name += "_"
            known.add(node.name)
        seen.add(node.name)


def _keep(values: Any, names: Any) -> None:
    _replace(values, [item for item in values if item.name in names])


def _replace(values: Any, items: list[Any]) -> None:
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del values[:]
    values.extend(copies)


def _shape(value: Any) -> tuple[int, ...]:
    sizes = [item.dim_value for item in value.type.tensor_type.shape.dim]
    return tuple(sizes) if all(size > 0 for size in sizes[1:]) else (0,)
