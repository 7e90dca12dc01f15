"""From the graph to a float32 `.onnx`, with the table of where each layer went."""

from __future__ import annotations

import logging
import re
from typing import Any

import torch

from compress.errors import LoweringError, StoreError
from compress.model.core import Model
from compress.model.layers import Layer, held_names, layers
from compress.model.onnx_beside import DataFile, Scratch, name_files
from compress.registry import require
from compress.runtimes.base import Lowered, Placed, cause_of
from compress.runtimes.onnxruntime.attention import translations
from compress.runtimes.onnxruntime.edit import name_outside
from compress.runtimes.onnxruntime.joined import find_joined
from compress.runtimes.quiet import quiet

OPSET = 20
# What protobuf can write.
MAX_BYTES = (1 << 31) - 1
_FX_NODE = "pkg.torch.onnx.fx_node"
_COMPUTE = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"}
_ACTIVATIONS = {"Relu", "Clip"}


def export(model: Model) -> Lowered:
    """Exports a Model. Input and output names are the Model's; traces of the source code are stripped.

    Raises:
        LoweringError: If an operator has no ONNX form.
        MissingPackageError: If onnx or onnxscript are not installed.
    """
    require("onnx", why="ONNX Runtime targets")
    require("onnxscript", why="ONNX Runtime targets")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    inputs = tuple(item.name for item in model.signature.inputs)
    outputs = tuple(item.name for item in model.signature.outputs)
    try:
        with quiet():
            program = torch.onnx.export(
                model.program,
                (),
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                # Names that nothing inside has; the real ones come when all values are known.
                input_names=[f"{number}.input" for number in range(len(inputs))],
                output_names=[f"{number}.output" for number in range(len(outputs))],
                custom_translation_table=translations(model.program),
            )
    except Exception as error:
        raise LoweringError(
            f"ONNX export failed: {cause_of(error)}",
            "replace that operator in the model, or leave this target out.",
        ) from error
    assert program is not None
    proto, beside = _written(program)
    name_outside(proto, inputs, outputs)
    placed, missing = _place(model, proto)
    _anonymise(proto)
    return Lowered(
        data=proto.SerializeToString(),
        suffix=".onnx",
        inputs=inputs,
        outputs=outputs,
        placed=placed,
        missing=missing,
        joined=find_joined(model, proto.graph, placed),
        beside=beside,
    )


def _written(program: torch.onnx.ONNXProgram) -> tuple[Any, tuple[DataFile, ...]]:
    """The file; with its weights in another one where they are more than a file can hold."""
    values = program.model.graph.initializers.values()
    held = sum(value.const_value.nbytes for value in values if value.const_value is not None)
    if held <= MAX_BYTES:
        return program.model_proto, ()
    import onnx

    folder = Scratch()
    path = folder.path / "model.onnx"
    try:
        program.save(path, external_data=True)
    except OSError as error:
        raise StoreError(
            f"{path.parent}: {held:,} bytes of weights cannot be written there: {error.strerror or error}",
            "let TMPDIR point to a disk with room for the model.",
        ) from error
    proto = onnx.load(path, load_external_data=False)
    return proto, name_files(proto.graph, path, folder)


def _place(model: Model, proto: Any) -> tuple[tuple[Placed, ...], tuple[tuple[Layer, str], ...]]:
    """Finds each layer's node by the weight that the exporter noted on it, calls of one weight in order."""
    placeholders = {full: name for name, full in held_names(model.program).items()}
    readers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        if node.op_type not in _COMPUTE:
            continue
        noted = next((item.value for item in node.metadata_props if item.key == _FX_NODE), "")
        for name in set(re.findall(r"%(\w+)", noted.partition("args =")[2])):
            readers.setdefault(name, []).append(node)
    consumers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    taken: set[str] = set()
    placed, missing = [], []
    for layer in layers(model):
        candidates = [node for node in readers.get(placeholders[layer.weight], []) if node.name not in taken]
        if not candidates:
            missing.append((layer, "the exporter folded it into other nodes"))
            continue
        node = candidates[0]
        taken.add(node.name)
        after = consumers.get(node.output[0], [])
        activation = after[0] if layer.fused and len(after) == 1 and after[0].op_type in _ACTIVATIONS else None
        placed.append(
            Placed(
                layer=layer,
                node=node.name,
                input=node.input[1] if node.op_type == "Gather" else node.input[0],
                output=activation.output[0] if activation is not None else node.output[0],
                fused=activation is not None,
                activation=activation.name if activation is not None else None,
            )
        )
    return tuple(placed), tuple(missing)


def _anonymise(proto: Any) -> None:
    """Takes out what the exporter notes about the source code; none of it is needed to run."""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
        value.doc_string = ""
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
    proto.graph.doc_string = proto.doc_string = ""
    proto.graph.name = "main"
    # The quantizers infer shapes again; stale ones make them fail ("inferred and existing shape differ").
    del proto.graph.value_info[:]
