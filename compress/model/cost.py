"""What a model costs, exactly and without noise: parameters, multiply-adds, bytes, per layer and in total."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from compress.evidence import ModelInfo
from compress.model.core import Model, state
from compress.model.layers import held_names, layers


@dataclass(frozen=True)
class NodeCost:
    """One call: multiply-adds for one row, and the parameters and bytes that only it reads first."""

    name: str
    operator: str
    macs: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Cost:
    """Totals and the calls behind them. A tied weight counts once, at the call that reads it first."""

    parameters: int
    macs: int
    bytes: int
    nodes: tuple[NodeCost, ...]


def cost(model: Model) -> Cost:
    """Counts parameters, bytes and multiply-adds for one row (batch 1).

    Counted as multiply-adds: linear, convolution, matrix products, attention (two products of `[L, S, E]`
    a head). Everything else is bandwidth, not arithmetic.
    """
    program = model.program
    held = held_names(program)
    tensors = state(program)
    names = {layer.node: layer.name for layer in layers(model)}
    parameters = set(program.graph_signature.inputs_to_parameters.values())
    seen: set[tuple[int, int]] = set()
    nodes: list[NodeCost] = []
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        own_parameters = own_bytes = 0
        for argument in node.all_input_nodes:
            full = held.get(argument.name)
            if full is None:
                continue
            tensor = tensors[full]
            key = (tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()))
            if key in seen:
                continue
            seen.add(key)
            own_bytes += tensor.numel() * tensor.element_size()
            own_parameters += tensor.numel() if full in parameters else 0
        macs = macs_of(node, _traced)
        if macs or own_bytes:
            operator = str(node.target).removeprefix("aten.").partition(".")[0]
            nodes.append(NodeCost(names.get(node.name, node.name), operator, macs, own_parameters, own_bytes))
    return Cost(
        parameters=sum(item.parameters for item in nodes),
        macs=sum(item.macs for item in nodes),
        bytes=sum(item.bytes for item in nodes),
        nodes=tuple(nodes),
    )


def describe(model: Model) -> ModelInfo:
    """Returns the figures that stand in the evidence."""
    total = cost(model)
    return ModelInfo(
        digest=model.digest,
        parameters=total.parameters,
        macs=total.macs,
        bytes=total.bytes,
        layers=len(layers(model)),
        inputs=tuple(f"{item.name}: {item.dtype}[batch{_dims(item.shape)}]" for item in model.signature.inputs),
        outputs=tuple(f"{item.name}: {item.dtype}[batch{_dims(item.shape)}]" for item in model.signature.outputs),
    )


def shape_for_one(value: object) -> tuple[int, ...]:
    """Returns a traced value's shape with every dynamic dimension set to 1; `()` for what is no tensor."""
    if not isinstance(value, torch.Tensor):
        return ()
    sizes = []
    for size in value.shape:
        if isinstance(size, torch.SymInt):
            expression = size.node.expr
            sizes.append(int(expression.subs(dict.fromkeys(expression.free_symbols, 1))))
        else:
            sizes.append(int(size))
    return tuple(sizes)


def _dims(shape: tuple[int, ...]) -> str:
    return "".join(f", {size}" for size in shape)


def macs_of(node: torch.fx.Node, shape: Callable[[object], tuple[int, ...]]) -> int:
    """Returns the multiply-adds of a call.

    Args:
        node: The call.
        shape: Gives the sizes of an argument, or of the node itself; `()` for what is no tensor.
    """
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    result = math.prod(shape(node))
    shapes = [shape(item) for item in node.args]
    if name == "linear":
        return result * shapes[1][-1]
    if name in ("conv1d", "conv2d", "conv3d", "convolution"):
        return result * math.prod(shapes[1][1:])
    if name.startswith("conv_transpose"):
        return math.prod(shapes[0]) * math.prod(shapes[1][1:])
    if name in ("matmul", "mm", "bmm"):
        return result * shapes[0][-1]
    if name in ("addmm", "baddbmm"):
        return result * shapes[1][-1]
    if name == "einsum":
        return _einsum_macs(str(node.args[0]), [shape(item) for item in node.all_input_nodes])
    if name == "scaled_dot_product_attention":
        query, key, value = shapes[:3]
        return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return 0


def _traced(value: object) -> tuple[int, ...]:
    return shape_for_one(value.meta.get("val")) if isinstance(value, torch.fx.Node) else ()


def _einsum_macs(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """The size of the space of all indices; the dimensions behind `...` are indices, too, counted from the right."""
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.replace(" ", "").partition("->")[0].split(","), shapes, strict=True):
        spread = "".join(chr(index) for index in reversed(range(len(shape) - len(term.replace("...", "")))))
        for label, size in zip(term.replace("...", spread), shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values()) if len(shapes) > 1 else 0
