"""An `.ort` file described without running it: its graph is that of an `.onnx` in another form."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.model.fileinfo import FileInfo, read_bounded
from compress.registry import require
from compress.runtimes.onnxruntime.inspect import EXPORT_AGAIN, GARBAGE, describe_graph, without_weights
from compress.runtimes.onnxruntime.inspect_order import sort_nodes
from compress.runtimes.onnxruntime.inspect_shapes import Native, native, one_row

# Tables and strings that may be read: more than any real file has, and read in some seconds.
MAX_ENTRIES = 2_000_000
_MAX_DEPTH = 32
_TENSOR_TYPE = 1
_SIZE, _SYMBOL = 1, 2
_LAID_OUT = "com.microsoft.nchwc"


def describe_ort(path: Path, run: Native = native) -> FileInfo:
    """Describes a model in ONNX Runtime's own format, as `describe_onnx` does.

    Raises:
        ModelError: If it cannot be parsed, a constant claims bytes that are not there, or it holds too much.
        MissingPackageError: If onnx or onnxruntime are not installed.
    """
    require("onnx", why="reading .ort files")
    require("onnxruntime.tools.ort_format_model", why="reading .ort files")
    data, identity = read_bounded(path)
    try:
        reader = _Reader(data, path)
        model, version = reader.model()
        without_weights(model, path)
        sort_nodes(model.graph)
        found = describe_graph(model, one_row(model, run), identity)
    except (*GARBAGE, struct.error) as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise ModelError(f"{path}: it cannot be read: {what}", EXPORT_AGAIN) from error
    notes = [f"ORT format version {version}, optimised already"]
    if any(node.domain == _LAID_OUT for node in model.graph.node):
        notes.append("its convolutions are laid out for x86 processors like the one that converted it")
    return replace(found, kind="ort", notes=(*notes, *found.notes))


class _Reader:
    """Turns the flatbuffer into a ModelProto. Every claimed length is read at most once, and all of them are counted.

    Offsets outside the file raise `struct.error` or an error of `GARBAGE`.
    """

    def __init__(self, data: bytes, path: Path) -> None:
        self._data = data
        self._path = path
        self._entries = 0

    def model(self) -> tuple[Any, str]:
        """Returns the model and the version of the format."""
        import onnx
        from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

        if not InferenceSession.InferenceSessionBufferHasIdentifier(self._data, 0):
            raise ValueError("it has not the mark of an .ort file")
        session = InferenceSession.GetRootAs(self._data, 0)
        flat = session.Model()
        if flat is None or flat.Graph() is None:
            raise ValueError("it holds no graph")
        made = onnx.ModelProto(ir_version=flat.IrVersion())
        for item in self._each(flat.OpsetImport, flat.OpsetImportLength()):
            made.opset_import.add(domain=_text(item.Domain()), version=item.Version())
        self._graph(flat.Graph(), made.graph, 0)
        return made, _text(session.OrtVersion())

    def _graph(self, flat: Any, graph: Any, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError("its subgraphs are nested too deeply")
        graph.name = "graph"
        values = {}
        for item in self._each(flat.NodeArgs, flat.NodeArgsLength()):
            values[_text(item.Name())] = item
        inputs = [_text(name) for name in self._each(flat.Inputs, flat.InputsLength())]
        outputs = [_text(name) for name in self._each(flat.Outputs, flat.OutputsLength())]
        for name in inputs:
            self._value(name, values.get(name), graph.input.add())
        for name in outputs:
            self._value(name, values.get(name), graph.output.add())
        for name, item in values.items():
            if name and name not in inputs and name not in outputs and item.Type() is not None:
                self._value(name, item, graph.value_info.add())
        for item in self._each(flat.Initializers, flat.InitializersLength()):
            self._tensor(item, graph.initializer.add())
        for item in self._each(flat.Nodes, flat.NodesLength()):
            self._node(item, graph.node.add(), depth)

    def _node(self, flat: Any, node: Any, depth: int) -> None:
        node.name, node.op_type, node.domain = _text(flat.Name()), _text(flat.OpType()), _text(flat.Domain())
        node.input.extend(_text(name) for name in self._each(flat.Inputs, flat.InputsLength()))
        node.output.extend(_text(name) for name in self._each(flat.Outputs, flat.OutputsLength()))
        for item in self._each(flat.Attributes, flat.AttributesLength()):
            self._attribute(item, node.attribute.add(), depth)

    def _attribute(self, flat: Any, attribute: Any, depth: int) -> None:
        kind = flat.Type()
        attribute.name, attribute.type = _text(flat.Name()), kind
        if kind == 1:
            attribute.f = flat.F()
        elif kind == 2:
            attribute.i = flat.I()
        elif kind == 3:
            attribute.s = flat.S() or b""
        elif kind == 4:
            self._tensor(flat.T(), attribute.t)
        elif kind == 5:
            self._graph(flat.G(), attribute.g, depth + 1)
        elif kind == 6:
            attribute.floats.extend(self._each(flat.Floats, flat.FloatsLength()))
        elif kind == 7:
            attribute.ints.extend(self._each(flat.Ints, flat.IntsLength()))
        elif kind == 8:
            attribute.strings.extend(self._each(flat.Strings, flat.StringsLength()))
        elif kind == 9:
            for item in self._each(flat.Tensors, flat.TensorsLength()):
                self._tensor(item, attribute.tensors.add())
        elif kind == 10:
            for item in self._each(flat.Graphs, flat.GraphsLength()):
                self._graph(item, attribute.graphs.add(), depth + 1)

    def _tensor(self, flat: Any, tensor: Any) -> None:
        tensor.name, tensor.data_type = _text(flat.Name()), flat.DataType()
        tensor.dims.extend(self._each(flat.Dims, flat.DimsLength()))
        if flat.StringDataLength():
            tensor.string_data.extend(self._each(flat.StringData, flat.StringDataLength()))
        elif not flat.RawDataIsNone():
            tensor.raw_data = flat.RawDataAsNumpy().tobytes()
        elif flat.ExternalDataOffset() >= 0:
            raise ModelError(
                f"{self._path}: the constant {tensor.name!r} lies in another file, which is not read",
                "convert a model whose weights are inside.",
            )

    def _value(self, name: str, flat: Any, value: Any) -> None:
        from ort_flatbuffers_py.fbs.TensorTypeAndShape import TensorTypeAndShape

        value.name = name
        kind = flat.Type() if flat is not None else None
        if kind is None or kind.ValueType() != _TENSOR_TYPE or kind.Value() is None:
            return
        found = TensorTypeAndShape()
        found.Init(kind.Value().Bytes, kind.Value().Pos)
        value.type.tensor_type.elem_type = found.ElemType()
        shape = found.Shape()
        if shape is None:
            return
        # A shape without dimensions is that of a single number.
        value.type.tensor_type.shape.SetInParent()
        for item in self._each(shape.Dim, shape.DimLength()):
            size, made = item.Value(), value.type.tensor_type.shape.dim.add()
            if size is not None and size.DimType() == _SIZE:
                made.dim_value = size.DimValue()
            elif size is not None and size.DimType() == _SYMBOL:
                made.dim_param = _text(size.DimParam())

    def _each(self, read: Callable[[int], Any], length: int) -> Iterator[Any]:
        self._entries += length
        if self._entries > MAX_ENTRIES:
            raise ModelError(f"{self._path}: it claims more than {MAX_ENTRIES:,} entries", EXPORT_AGAIN)
        return map(read, range(length))


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8")
