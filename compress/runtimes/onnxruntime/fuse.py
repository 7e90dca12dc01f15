"""Attention as ONNX Runtime's own operator: one node where the standard ones are nine."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from compress.runtimes.base import Lowered
from compress.runtimes.onnxruntime.attention_match import Found, find
from compress.runtimes.onnxruntime.edit import drop_unread
from compress.runtimes.onnxruntime.view import Shape, View

DOMAIN = "com.microsoft"
OPERATOR = "MultiHeadAttention"
_FLOAT = 1


def fuse(lowered: Lowered) -> Lowered:
    """Returns the file with every attention that can be taken as one `MultiHeadAttention`, and a note that says so.

    No node with a weight is touched and no value around one is renamed, so the layer table stays true: layers before
    and behind attention are quantized, left out and looked up as before. Without an attention the file stays as it is.
    """
    import onnx

    proto = onnx.load_from_string(lowered.data)
    graph = proto.graph
    softmaxes = [node for node in graph.node if node.op_type == "Softmax" and not node.domain]
    if not softmaxes:
        return lowered
    typed = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    masks: dict[tuple[str, str, Shape], str] = {}
    reasons = Counter(_fused(graph, View(graph, typed), softmax, masks) for softmax in softmaxes)
    count = reasons.pop("", 0)
    if not count:
        return lowered
    drop_unread(graph)
    if not any(item.domain == DOMAIN for item in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    said = [
        f"{count} of {len(softmaxes)} attentions are one operator of ONNX Runtime's own, {OPERATOR}",
        *(f"{number} kept as it was: {why}" for why, number in sorted(reasons.items())),
        "other engines do not open such a file; fusion = false in the target keeps to standard operators",
    ]
    data = proto.SerializeToString(deterministic=True)
    return replace(lowered, data=data, notes=(*lowered.notes, "; ".join(said)))


def _fused(graph: Any, view: View, softmax: Any, masks: dict[tuple[str, str, Shape], str]) -> str:
    """Puts the operator in the place of the attention around a `Softmax`; returns why not, where it cannot."""
    from onnx import TensorProto, helper

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
        inputs += ["", "", masks[kind]]
    fields = {"num_heads": heads, "scale": found.scale}
    nodes.append(helper.make_node(OPERATOR, inputs, [whole], name=f"{name}.attention", domain=DOMAIN, **fields))
    at = list(graph.node).index(found.joined)
    graph.node.remove(found.joined)
    for offset, node in enumerate(nodes):
        graph.node.insert(at + offset, node)
    if whole not in view.outputs and whole not in {item.name for item in graph.value_info}:
        # onnx does not know the operator; from here it can infer what follows.
        sizes = (None, query[1] if isinstance(query[1], int) else None, heads * width)
        graph.value_info.append(helper.make_tensor_value_info(whole, TensorProto.FLOAT, sizes))
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
    """What is added to the logits, `[batch or 1, heads or 1, queries, keys]`; empty where the shape cannot be told.

    The operator repeats a mask over batch and heads by itself, over queries and keys it does not.
    """
    from onnx import helper

    def add(kind: str, *inputs: str) -> str:
        made = f"{name}.mask.{kind.lower()}"
        nodes.append(helper.make_node(kind, inputs, [made], name=made))
        return made

    shape = view.shape(mask)
    if shape is None or len(shape) > 4:
        return ""
    if how != "sum":
        zero = _constant(graph, f"{name}.mask.zero", np.array(0, np.float32))
        low = _constant(graph, f"{name}.mask.low", np.array(-np.inf, np.float32))
        mask = add("Where", mask, *((zero, low) if how == "keep" else (low, zero)))
    if len(shape) < 4:
        missing = np.arange(4 - len(shape), dtype=np.int64)
        mask = add("Unsqueeze", mask, _constant(graph, f"{name}.mask.axes", missing))
    if (1, 1, *shape)[-2:] == logits:
        return mask
    if not all(isinstance(size, int) for size in logits):
        return ""
    return add("Expand", mask, _constant(graph, f"{name}.mask.shape", np.array([1, 1, *logits], np.int64)))


def _constant(graph: Any, name: str, array: Any) -> str:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(array, name))
    return name
