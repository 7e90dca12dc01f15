"""A fitted function as operators of the graph: multiplications, sums, ReLU, minimum; every runtime has them in float.

No matrix product and no convolution: nothing here is a layer, so no scheme makes integers of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from compress.model.edit import set_parameter, unused_name
from compress.passes.recalibrate.fit import Affine, Curve, Fitted

_aten = torch.ops.aten
# The smallest probability that is taken apart into log-odds; 1 - 1e-6 is still told from 1 in float32.
EPSILON = 1e-6


def recalibrate_output(module: GraphModule, place: int, fitted: Fitted, *, is_probability: bool, classes: bool) -> None:
    """Puts a fitted function behind one output of a graph, in place.

    Args:
        module: The graph; its outputs are the leaves of what it returns.
        place: Which output.
        fitted: What is put there.
        is_probability: Whether the output holds probabilities; they are taken apart into log-odds and made again.
        classes: Whether it has a column a class.
    """
    (end,) = module.graph.find_nodes(op="output")
    leaves = list(end.args[0])
    with module.graph.inserting_before(end):
        value = leaves[place]
        dtype = value.meta["val"].dtype
        if is_probability:
            value = _log(module, value) if classes else _log_odds(module, value)
        value = _affine(module, value, fitted) if isinstance(fitted, Affine) else _curve(module, value, fitted, dtype)
        if is_probability:
            made = (_aten.softmax.int, value, -1) if classes else (_aten.sigmoid.default, value)
            value = _call(module, *made)
    leaves[place] = value
    end.args = (type(end.args[0])(leaves),)


def _affine(module: GraphModule, value: Node, fitted: Affine) -> Node:
    scaled = _call(module, _aten.mul.Tensor, value, fitted.scale)
    return _call(module, _aten.add.Tensor, scaled, fitted.shift) if fitted.shift else scaled


def _curve(module: GraphModule, value: Node, curve: Curve, dtype: torch.dtype) -> Node:
    """`y0 - relu(x0 - v) + relu(v - xn) + sum of slope_k min(relu(v - x_k), width_k)`: each term rises, and so the sum.

    That holds in floating point too, since rounding keeps an order.
    """
    widths = curve.x[1:] - curve.x[:-1]
    held = {"start": curve.x[:-1], "width": widths, "slope": (curve.y[1:] - curve.y[:-1]) / widths}
    start, width, slope = (_constant(module, f"recalibrate_{name}", values, dtype) for name, values in held.items())
    apart = _call(module, _aten.unsqueeze.default, value, -1)
    within = _call(module, _aten.relu.default, _call(module, _aten.sub.Tensor, apart, start))
    within = _call(module, _aten.mul.Tensor, _call(module, _aten.minimum.default, within, width), slope)
    inside = _call(module, _aten.sum.dim_IntList, within, [-1])
    first, last = float(curve.x[0]), float(curve.x[-1])
    below = _call(module, _aten.relu.default, _call(module, _aten.rsub.Scalar, value, first))
    above = _call(module, _aten.relu.default, _call(module, _aten.sub.Tensor, value, last))
    outside = _call(module, _aten.sub.Tensor, above, below)
    return _call(module, _aten.add.Tensor, _call(module, _aten.add.Tensor, inside, outside), float(curve.y[0]))


def _log_odds(module: GraphModule, value: Node) -> Node:
    safe = _call(module, _aten.clamp.default, value, EPSILON, 1 - EPSILON)
    other = _call(module, _aten.rsub.Scalar, safe, 1.0)
    return _call(
        module, _aten.sub.Tensor, _call(module, _aten.log.default, safe), _call(module, _aten.log.default, other)
    )


def _log(module: GraphModule, value: Node) -> Node:
    return _call(module, _aten.log.default, _call(module, _aten.clamp.default, value, EPSILON, 1.0))


def _constant(module: GraphModule, name: str, values: Any, dtype: torch.dtype) -> Node:
    name = unused_name(module, name)
    set_parameter(module, name, torch.tensor(values, dtype=dtype))
    return module.graph.get_attr(name)


def _call(module: GraphModule, target: Any, *arguments: Any) -> Node:
    return module.graph.call_function(target, arguments)
