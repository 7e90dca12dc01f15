"""Finds attention that is written in standard operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compress.runtimes.onnxruntime.view import View, attribute, permutes

# Behind the addition of a float32 logit this is still the same number: masking by choice equals masking by sum.
_LOWEST = -1e30
_SPLIT = (0, 2, 1, 3)


@dataclass(frozen=True)
class Found:
    """One attention: softmax(scale * Q K^T + mask) V, heads split off by a reshape and put together by another.

    Attributes:
        softmax: Its `Softmax` node, which stands for the attention.
        query, key, value: `[batch, tokens, heads, width]`, before the transposition that brings heads forward.
        mask: What is added to the logits, or decides over them; empty without one.
        how: How the mask works: "sum"; "keep" where a logit stays where the mask is true; "drop" where it goes.
        scale: Factor of the logits.
        joined: The `Reshape` that puts the heads together.
    """

    softmax: Any
    query: str
    key: str
    value: str
    mask: str
    how: str
    scale: float
    joined: Any


def find(view: View, softmax: Any) -> Found | str:
    """Returns the attention around a `Softmax`, or why there is none that can be taken."""
    logits = view.shape(softmax.input[0])
    last = len(logits) - 1 if logits is not None else -1
    if attribute(softmax, "axis", -1) not in (-1, last):
        return "its softmax is not over the last dimension"
    mixed = view.reader(softmax.output[0], "MatMul")
    if mixed is None or mixed.input[0] != softmax.output[0]:
        return "its weights do more than mix the values"
    back = view.reader(mixed.output[0], "Transpose")
    joined = view.reader(back.output[0], "Reshape") if back is not None and permutes(back, _SPLIT) else None
    if joined is None:
        return "its heads are not put together by a transposition and a reshape"
    value = _split(view, mixed.input[1])
    masked = _masked(view, softmax.input[0])
    if masked is None:
        return "its mask is of another form"
    scores, mask, how = masked
    scores, scale = _unscaled(view, scores)
    product = view.made(scores, "MatMul")
    if product is None or not _private(view, scores):
        return "its logits are not a product of queries and keys"
    query_name, of_query = _unscaled(view, product.input[0])
    key_name, of_key = _unscaled(view, product.input[1])
    query, key, again = _split(view, query_name), *_key(view, key_name)
    if not query or not key or not value:
        return "its heads are not split off by a transposition"
    return Found(softmax, query, key, value, mask, how, scale * of_query * of_key * again, joined)


def _masked(view: View, logits: str) -> tuple[str, str, str] | None:
    """Parts logits into the scores before the mask, the mask, and how it works."""
    node = view.made(logits, "Add", "Where")
    if node is None:
        return logits, "", ""
    if not _private(view, logits):
        return None
    if node.op_type == "Add":
        sides = [name for name in node.input if _is_product(view, name)]
        if len(sides) != 1:
            return None
        return sides[0], next(name for name in node.input if name != sides[0]), "sum"
    condition, yes, no = node.input
    for scores, other, how in ((yes, no, "keep"), (no, yes, "drop")):
        low = view.number(other)
        if low is not None and low <= _LOWEST and _is_product(view, scores):
            return scores, condition, how
    return None


def _is_product(view: View, name: str) -> bool:
    return view.made(_unscaled(view, name)[0], "MatMul") is not None and _private(view, name)


def _unscaled(view: View, name: str) -> tuple[str, float]:
    """A value before it was multiplied or divided by constants, and their product."""
    factor = 1.0
    while (node := view.made(name, "Mul", "Div")) is not None and _private(view, name):
        first, second = (view.number(item) for item in node.input)
        if second is not None and (node.op_type == "Mul" or second != 0):
            name, factor = node.input[0], factor * second if node.op_type == "Mul" else factor / second
        elif first is not None and node.op_type == "Mul":
            name, factor = node.input[1], factor * first
        else:
            break
    return name, factor


def _split(view: View, name: str) -> str:
    """`[batch, tokens, heads, width]` behind which heads come forward, or nothing."""
    node = view.made(name, "Transpose")
    return str(node.input[0]) if node is not None and permutes(node, _SPLIT) else ""


def _key(view: View, name: str) -> tuple[str, float]:
    """Likewise for keys, whose transposition may be merged with that of the heads; and a factor in between."""
    node = view.made(name, "Transpose")
    if node is None:
        return "", 1.0
    if permutes(node, (0, 2, 3, 1)):
        return str(node.input[0]), 1.0
    if not permutes(node, (0, 1, 3, 2)):
        return "", 1.0
    inner, factor = _unscaled(view, node.input[0])
    return _split(view, inner), factor


def _private(view: View, name: str) -> bool:
    """Whether one node alone reads a value: else it must stay, and taking it in would compute it twice."""
    return len(view.readers.get(name, [])) == 1 and name not in view.outputs
