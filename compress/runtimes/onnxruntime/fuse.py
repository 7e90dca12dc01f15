"""Attention as one operator, and sums that ONNX Runtime shall leave alone: what makes Transformers faster in it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from compress.runtimes.base import Lowered
from compress.runtimes.onnxruntime.attention_match import find
from compress.runtimes.onnxruntime.edit import drop_unread
from compress.runtimes.onnxruntime.view import Shape, View

OPERATOR = "Attention"
# The first opset with that operator, the version of the format that goes with it, and the opset since which a graph
# means the same there.
OPSET = 23
_IR_VERSION = 11
_SAME_SINCE = 20
_FLOAT = 1
# Numbers in a constant that inference may have to read: a shape, an axis.
_SMALL = 1024


def fuse(lowered: Lowered) -> Lowered:
    """Returns the file with every attention that can be taken as one `Attention`, and a note that says so.

    1. No node with a weight is touched and no value around one is renamed, so the layer table stays true: layers before
       and behind attention are quantized, left out and looked up as before.
    2. What a `LayerNormalization` reads as a sum becomes a `Sum`. ONNX Runtime would fuse an `Add` there into its
       `SkipLayerNormalization`, whose kernel takes about four times as long as the two apart.
    3. Where there is neither, the file stays as it is.
    """
    import onnx

    proto = onnx.load_from_string(lowered.data)
    softmaxes = [node for node in proto.graph.node if node.op_type == "Softmax" and not node.domain]
    reasons = Counter[str]()
    if softmaxes:
        try:
            newer = _in_opset(proto)
            typed = onnx.shape_inference.infer_shapes(_without_weights(newer), data_prop=True).graph
            softmaxes = [node for node in newer.graph.node if node.op_type == "Softmax" and not node.domain]
            masks: dict[tuple[str, str, Shape], str] = {}
            for softmax in softmaxes:
                reasons[_fused(newer.graph, View(newer.graph, typed), softmax, masks)] += 1
        except RuntimeError as error:  # onnx's converter has no way up for an operator
            reasons[f"the file cannot be written in opset {OPSET}: {str(error)[:100]}"] = len(softmaxes)
    fused = reasons.pop("", 0)
    if fused:
        drop_unread(newer.graph)
        proto = newer
    elif softmaxes:
        proto = onnx.load_from_string(lowered.data)
    if not _sums(proto.graph) and not fused:
        return lowered
    notes = lowered.notes
    if fused:
        said = [
            f"{fused} of {len(softmaxes)} attentions are one operator each ({OPERATOR}, ONNX opset {OPSET})",
            *(f"{number} kept as it was: {why}" for why, number in sorted(reasons.items())),
            "engines without that opset do not open the file; fusion = false in the target keeps to the older one",
        ]
        notes = (*notes, "; ".join(said))
    return replace(lowered, data=proto.SerializeToString(deterministic=True), notes=notes)


def _in_opset(proto: Any) -> Any:
    """Returns a model in the opset that has attention: the same one, changed, wherever that can be.

    Between 20 and that one only `GroupNormalization` got another meaning. Other cases are left to onnx's converter,
    which copies every weight more than once.
    """
    import onnx

    version = next((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), 0)
    if version >= OPSET:
        return proto
    if version < _SAME_SINCE or any(node.op_type == "GroupNormalization" for node in proto.graph.node):
        return onnx.version_converter.convert_version(proto, OPSET)
    for item in proto.opset_import:
        if item.domain in ("", "ai.onnx"):
            item.version = OPSET
    proto.ir_version = max(proto.ir_version, _IR_VERSION)
    return proto


def _without_weights(proto: Any) -> Any:
    """Returns a copy whose large constants are inputs: shapes follow from theirs, and inference copies all it gets."""
    import onnx
    from onnx import helper

    graph = proto.graph
    light = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
    light.graph.name = graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(light.graph, field).extend(getattr(graph, field))
    given = {item.name for item in graph.input}
    for item in graph.initializer:
        if math.prod(item.dims) <= _SMALL:
            light.graph.initializer.append(item)
        elif item.name not in given:
            light.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, item.dims))
    return light


def _sums(graph: Any) -> int:
    """Lets sums that a normalisation reads be `Sum`; returns how many there are."""
    normed = {node.input[0] for node in graph.node if node.op_type == "LayerNormalization" and not node.domain}
    found = [node for node in graph.node if node.op_type == "Add" and not node.domain and node.output[0] in normed]
    for node in found:
        node.op_type = "Sum"
    return len(found)


def _fused(graph: Any, view: View, softmax: Any, masks: dict[tuple[str, str, Shape], str]) -> str:
    """Puts the operator in the place of the attention around a `Softmax`; returns why not, where it cannot."""
    from onnx import helper

    found = find(view, softmax)
    if isinstance(found, str):
        return found
    query, key, value = (view.shape(name) or () for name in (found.query, found.key, found.value))
    if view.kind(found.query) != _FLOAT or not len(query) == len(key) == len(value) == 4:
        return "its shapes are not known, or it is not in float32"
    heads, width = query[2], value[3]
    if not isinstance(heads, int) or not isinstance(width, int) or not heads == key[2] == value[2]:
        return "its heads are not the same number for queries, keys and values"
    whole = found.joined.output[0]
    if (view.shape(whole) or ())[1:] != (query[1], heads * width):
        return "its heads are put together to another shape"
    nodes: list[Any] = []
    name = softmax.name or softmax.output[0]
    inputs = [_flat(graph, view, item, nodes) for item in (found.query, found.key, found.value)]
    if found.mask:
        kind = (found.mask, found.how, (query[1], key[1]))
        if kind not in masks:
            mask = _mask(graph, view, *kind, nodes, name)
            if not mask:
                return "its mask has a shape that cannot be told"
            masks[kind] = mask
        inputs.append(masks[kind])
    fields: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": heads, "scale": found.scale}
    nodes.append(helper.make_node(OPERATOR, inputs, [whole], name=f"{name}.attention", **fields))
    at = list(graph.node).index(found.joined)
    graph.node.remove(found.joined)
    for offset, node in enumerate(nodes):
        graph.node.insert(at + offset, node)
    return ""


def _flat(graph: Any, view: View, split: str, nodes: list[Any]) -> str:
    """The value `[batch, tokens, heads * width]` that a reshape made `split` of, else a reshape back to it."""
    from onnx import helper

    _, tokens, heads, width = view.shape(split) or ()
    source = view.made(split, "Reshape")
    if source is not None:
        before = view.shape(source.input[0]) or ()
        if isinstance(heads, int) and isinstance(width, int) and before[1:] == (tokens, heads * width):
            return str(source.input[0])
    flat = f"{split}.flat"
    shape = _constant(graph, f"{flat}.shape", np.array([0, 0, -1], np.int64))
    nodes.append(helper.make_node("Reshape", [split, shape], [flat], name=flat))
    return flat


def _mask(graph: Any, view: View, mask: str, how: str, logits: Shape, nodes: list[Any], name: str) -> str:
    """The operator's mask, `[batch or 1, heads or 1, queries, keys]`; empty where the shape cannot be told.

    Float is added to the logits, a boolean keeps them where it is true. ONNX Runtime repeats a mask over batch and
    heads by itself, over queries and keys it does not.
    """
    from onnx import helper

    def add(kind: str, *inputs: str) -> str:
        made = f"{name}.mask.{kind.lower()}"
        nodes.append(helper.make_node(kind, inputs, [made], name=made))
        return made

    shape = view.shape(mask)
    if shape is None or len(shape) > 4:
        return ""
    if how == "drop":
        mask = add("Not", mask)
    if len(shape) >= 2 and shape[-2:] == logits:
        return mask
    if not all(isinstance(size, int) for size in logits):
        return ""
    return add("Expand", mask, _constant(graph, f"{name}.mask.shape", np.array([1, 1, *logits], np.int64)))


def _constant(graph: Any, name: str, array: Any) -> str:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(array, name))
    return name
