"""From the message to the graph: functions put where they are called, constants collected, names made unique."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.model.onnx_beside import text
from compress.model.onnx_import.graph import Block, Graph, Input, Node
from compress.model.onnx_import.order import ordered
from compress.model.onnx_import.proto import EXPORT_AGAIN, STANDARD_DOMAINS, opset_of
from compress.registry import require

# Functions that call functions multiply: a small file can ask for any number of nodes.
MAX_NODES = 100_000
MAX_DEPTH = 32
_SCOPES = "pkg.torch.onnx.name_scopes"
_MAX_SCOPES_LENGTH = 4096
# Names grow with each function around them.
_MAX_NAME = 400
# onnx.AttributeProto.AttributeType
_FLOAT, _INT, _STRING, _TENSOR, _GRAPH, _FLOATS, _INTS, _STRINGS = 1, 2, 3, 4, 5, 6, 7, 8
# onnx.TensorProto.DataType
_FLOAT_TENSOR, _INT64_TENSOR = 1, 7
_CONSTANT_FORMS = ("value", "value_float", "value_floats", "value_int", "value_ints")


def build(model: Any, path: Path) -> Graph:
    """Returns the graph of a ModelProto. No constant is read, no operator judged.

    Raises:
        ModelError: If the graph is cyclic, gives a value twice or never, is too deep or too large.
    """
    builder = _Builder(model, str(path))
    proto = model.graph
    if proto.sparse_initializer:
        raise ModelError(f"{path}: it holds sparse constants", "export it with dense weights.")
    for tensor in proto.initializer:
        builder.hold(text(tensor.name), tensor)
    inputs = tuple(_input(item) for item in proto.input if text(item.name) not in builder.constants)
    for item in inputs:
        builder.take(item.name)
    outputs = tuple(text(item.name) for item in proto.output)
    nodes = builder.nodes(proto.node, ChainMap(), {}, 0)
    given = {*builder.constants, *(item.name for item in inputs)}
    graph = Graph(opset_of(model), inputs, outputs, builder.constants, ordered(nodes, given, str(path)))
    known = given.union(*(node.outputs for node in graph.nodes))
    for name in outputs:
        if name not in known:
            raise ModelError(f"{path}: nothing gives its output {name!r}", EXPORT_AGAIN)
    return graph


class _Builder:
    """Collects constants and gives names; the names of nested scopes are mapped to those of the flat graph."""

    def __init__(self, model: Any, where: str) -> None:
        self.constants: dict[str, Any] = {}
        self._where = where
        self._functions = {(text(item.domain), text(item.name), text(item.overload)): item for item in model.functions}
        self._values = _Names()
        self._node_names = _Names()

    def hold(self, name: str, tensor: Any) -> None:
        if name in self.constants:
            raise ModelError(f"{self._where}: it holds two constants named {name!r}", EXPORT_AGAIN)
        self.constants[name] = tensor
        self._values.add(name)

    def take(self, name: str) -> str:
        """Returns the name, numbered if it is in use."""
        return self._values.take(name)

    def nodes(
        self, protos: Any, scope: ChainMap[str, str], references: Mapping[str, Any], depth: int, prefix: str = ""
    ) -> tuple[Node, ...]:
        """Returns the nodes of one graph, block or function body, `Constant` nodes taken out, functions put in."""
        if depth > MAX_DEPTH:
            raise ModelError(f"{self._where}: it is nested more than {MAX_DEPTH} levels deep", "flatten the model.")
        result: list[Node] = []
        # Outputs are named first: a file's order may be any. Those of the outermost graph keep their names.
        for name in (text(name) for proto in protos for name in proto.output if name):
            if not depth:
                self._values.add(name)
            elif name not in scope.maps[0]:
                scope[name] = self.take(name)
        for proto in protos:
            result += self._node(proto, scope, references, depth, prefix)
            if len(self._node_names) > MAX_NODES:
                raise ModelError(f"{self._where}: it has more than {MAX_NODES} operators", "split the model.")
        return tuple(result)

    def _node(
        self, proto: Any, scope: ChainMap[str, str], references: Mapping[str, Any], depth: int, prefix: str
    ) -> Sequence[Node]:
        attributes = _resolved(proto, references)
        domain, kind = text(proto.domain), text(proto.op_type)
        inputs = tuple(scope.get(text(name), text(name)) for name in proto.input)
        outputs = tuple(scope.get(text(name), text(name)) for name in proto.output)
        name = self._node_names.take((prefix + (text(proto.name) or kind))[-_MAX_NAME:])
        function = self._functions.get((domain, kind, text(getattr(proto, "overload", ""))))
        if function is not None:
            return self._call(function, inputs, outputs, attributes, depth, name)
        if domain in STANDARD_DOMAINS and kind == "Constant" and len(outputs) == 1:
            tensor = _constant(attributes)
            if tensor is not None:
                self.hold(outputs[0], tensor)
                return ()
        operator = kind if domain in STANDARD_DOMAINS else f"{domain}.{kind}"
        values = {key: self._value(item, scope, references, depth) for key, item in attributes.items()}
        return (Node(operator, name, inputs, outputs, values, _scope(proto)),)

    def _call(
        self,
        function: Any,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, Any],
        depth: int,
        name: str,
    ) -> Sequence[Node]:
        """Returns a function's body with the caller's names; its other values get names of their own."""
        formal_inputs = [text(item) for item in function.input]
        formal_outputs = [text(item) for item in function.output]
        scope: dict[str, str] = dict.fromkeys(formal_inputs, "")
        scope |= dict(zip(formal_inputs, inputs, strict=False))
        direct: dict[str, str] = {}
        for formal, actual in zip(formal_outputs, outputs, strict=False):
            if formal in formal_inputs:
                direct[actual] = scope[formal]
            elif actual:
                scope[formal] = actual
        defaults = {text(item.name): item for item in function.attribute_proto}
        body = self.nodes(function.node, ChainMap(scope), {**defaults, **attributes}, depth + 1, f"{name}/")
        copies = [Node("Identity", f"{name}/{actual}", (source,), (actual,)) for actual, source in direct.items()]
        return (*body, *copies)

    def _value(self, proto: Any, scope: ChainMap[str, str], references: Mapping[str, Any], depth: int) -> Any:
        kind = proto.type
        if kind == _FLOAT:
            return float(proto.f)
        if kind == _INT:
            return int(proto.i)
        if kind == _STRING:
            return text(proto.s)
        if kind == _TENSOR:
            return proto.t
        if kind == _GRAPH:
            return self._block(proto.g, scope, references, depth + 1)
        if kind in (_FLOATS, _INTS):
            return tuple(proto.floats if kind == _FLOATS else proto.ints)
        return tuple(text(item) for item in proto.strings) if kind == _STRINGS else None

    def _block(self, proto: Any, scope: ChainMap[str, str], references: Mapping[str, Any], depth: int) -> Block:
        inner = scope.new_child()
        given: set[str] = set()
        for tensor in proto.initializer:
            name = inner[text(tensor.name)] = self.take(text(tensor.name))
            self.constants[name] = tensor
        for item in proto.input:
            given.add(inner.setdefault(text(item.name), self.take(text(item.name))))
        nodes = self.nodes(proto.node, inner, references, depth)
        return Block(nodes, tuple(inner.get(text(item.name), text(item.name)) for item in proto.output))


class _Names:
    """Names in use; one that is asked for again gets a number."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._last)

    def add(self, name: str) -> None:
        self._last.setdefault(name, 1)

    def take(self, name: str) -> str:
        free = name
        while free in self._last:
            self._last[name] += 1
            free = f"{name}~{self._last[name]}"
        self._last[free] = 1
        return free


def _resolved(proto: Any, references: Mapping[str, Any]) -> dict[str, Any]:
    """Returns attributes by name; one that stands for an attribute of the calling function is replaced by it."""
    found = {}
    for attribute in proto.attribute:
        reference = text(attribute.ref_attr_name)
        actual = references.get(reference) if reference else attribute
        if actual is not None:
            found[text(attribute.name)] = actual
    return found


def _constant(attributes: Mapping[str, Any]) -> Any | None:
    """Returns what a `Constant` node holds as a TensorProto; None for texts and sparse tensors."""
    form = next((name for name in _CONSTANT_FORMS if name in attributes), None)
    if form is None:
        return None
    attribute = attributes[form]
    if form == "value":
        return attribute.t
    scalar = form in ("value_float", "value_int")
    tensor = require("onnx").TensorProto()
    if "float" in form:
        tensor.data_type = _FLOAT_TENSOR
        tensor.float_data.extend([attribute.f] if scalar else attribute.floats)
    else:
        tensor.data_type = _INT64_TENSOR
        tensor.int64_data.extend([attribute.i] if scalar else attribute.ints)
    if not scalar:
        tensor.dims.append(len(tensor.float_data) + len(tensor.int64_data))
    return tensor


def _input(proto: Any) -> Input:
    kind = proto.type.tensor_type
    shape: tuple[int | str, ...] | None = None
    if kind.HasField("shape"):
        shape = tuple(
            int(dim.dim_value) if dim.HasField("dim_value") else text(dim.dim_param) for dim in kind.shape.dim
        )
    return Input(text(proto.name), int(kind.elem_type), shape)


def _scope(proto: Any) -> str:
    """Returns the path of the module that made a call: the exporter notes all paths from the root down."""
    noted = next((text(item.value) for item in proto.metadata_props if item.key == _SCOPES), "")
    if not noted or len(noted) > _MAX_SCOPES_LENGTH:
        return ""
    paths = [part.strip().strip("'\"") for part in noted.strip("[]").split(",")]
    return paths[-2] if len(paths) > 1 else ""
