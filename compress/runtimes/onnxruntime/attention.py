"""Attention as ONNX operators that carry no shape arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram

_TARGET = torch.ops.aten.scaled_dot_product_attention.default


def translations(program: ExportedProgram) -> dict[Any, Callable[..., Any]]:
    """Returns how the exporter shall write attention, or nothing where its own way is needed.

    The exporter's translation reshapes keys by their run-time shape: eight operators an attention that a dynamic
    batch keeps from being folded. Keys `[batch, heads, keys, width]` are transposed by a constant permutation instead.
    """
    nodes = [node for node in program.graph.nodes if node.op == "call_function" and node.target is _TARGET]
    return {_TARGET: _attention} if nodes and all(_plain(node) for node in nodes) else {}


def _plain(node: torch.fx.Node) -> bool:
    names = [argument.name for argument in _TARGET._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    parts = [given[name] for name in ("query", "key", "value")]
    shaped = all(isinstance(part, torch.fx.Node) and part.meta["val"].dim() == 4 for part in parts)
    return shaped and not given.get("is_causal") and not given.get("enable_gqa") and not given.get("dropout_p")


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Softmax(scale · Q Kᵀ + mask) V (Vaswani et al. 2017, equation 1); a boolean mask keeps where it is true."""
    import onnx_ir
    from onnxscript import opset20 as op

    factor = scale if scale is not None else 1 / math.sqrt(query.shape[-1])
    scores = op.MatMul(op.Mul(query, op.Constant(value_float=factor)), op.Transpose(key, perm=[0, 1, 3, 2]))
    if attn_mask is not None and attn_mask.dtype == onnx_ir.DataType.BOOL:
        scores = op.Where(attn_mask, scores, op.Constant(value_float=-math.inf))
    elif attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)
