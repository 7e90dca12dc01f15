"""The layers of a graph: each call that reads a weight, with the names of what goes in and out."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.export import ExportedProgram

from compress.errors import CompressError, did_you_mean
from compress.model.core import Model, state

# Operators whose second (or first, for embedding) argument is the weight: name -> (kind, input, weight, bias).
_WEIGHTED: dict[str, tuple[str, int, int, int | None]] = {
    "aten.linear.default": ("linear", 0, 1, 2),
    "aten.conv1d.default": ("conv1d", 0, 1, 2),
    "aten.conv2d.default": ("conv2d", 0, 1, 2),
    "aten.conv1d.padding": ("conv1d", 0, 1, 2),
    "aten.conv2d.padding": ("conv2d", 0, 1, 2),
    "aten.conv3d.default": ("conv3d", 0, 1, 2),
    "aten.conv3d.padding": ("conv3d", 0, 1, 2),
    "aten.conv_transpose1d.default": ("conv_transpose1d", 0, 1, 2),
    "aten.conv_transpose2d.input": ("conv_transpose2d", 0, 1, 2),
    "aten.conv_transpose3d.input": ("conv_transpose3d", 0, 1, 2),
    "aten.addmm.default": ("addmm", 1, 2, 0),
    "aten.mm.default": ("matmul", 0, 1, None),
    "aten.matmul.default": ("matmul", 0, 1, None),
    "aten.embedding.default": ("embedding", 1, 0, None),
}
# The kinds that multiply a weight with an activation: what integer kernels exist for.
MULTIPLYING = frozenset({kind for kind, *_ in _WEIGHTED.values()} - {"embedding"})
# Activations that converters fuse into the layer before them: the range that counts is the one behind.
_FUSED = (
    "aten.relu.",
    "aten.relu_.",
    "aten.relu6.",
    "aten.relu6_.",
    "aten.hardtanh.",
    "aten.hardtanh_.",
    "aten.clamp.",
)


@dataclass(frozen=True)
class Layer:
    """One call that reads a weight.

    Attributes:
        name: The module's path (`blocks.0.q`); a second call of the same module is `blocks.0.q#2`.
        operator: `linear`, `conv2d`, `embedding` …
        node: Name of the call in the graph, and of its output value.
        weight: Full name of the weight. `[out, in, …]` for `linear` and convolutions.
        bias: Full name of the bias, or None.
        input: Name of the activation that goes in.
        fused: Name of the only reader when that is a clipping activation (ReLU, ReLU6), else None.
        shape: Shape of the weight.
    """

    name: str
    operator: str
    node: str
    weight: str
    bias: str | None
    input: str
    fused: str | None
    shape: tuple[int, ...]

    @property
    def output(self) -> str:
        """Name of the value that leaves the layer, behind a fused activation."""
        return self.fused or self.node


def layers(model: Model) -> tuple[Layer, ...]:
    """Returns the layers of a Model in the order in which they run."""
    program = model.program
    held = held_names(program)
    tensors = state(program)
    calls: Counter[str] = Counter()
    found: list[Layer] = []
    for node in program.graph.nodes:
        known = _WEIGHTED.get(str(node.target)) if node.op == "call_function" else None
        if known is None:
            continue
        kind, at_input, at_weight, at_bias = known
        weight = _held(node, at_weight, held)
        value = node.args[at_input]
        if weight is None or not isinstance(value, torch.fx.Node):
            continue
        name = weight.rpartition(".")[0] or weight
        calls[name] += 1
        found.append(
            Layer(
                name=name if calls[name] == 1 else f"{name}#{calls[name]}",
                operator=kind,
                node=node.name,
                weight=weight,
                bias=_held(node, at_bias, held) if at_bias is not None else None,
                input=without_dropout(value).name,
                fused=fused_activation(node),
                shape=tuple(int(size) for size in tensors[weight].shape),
            )
        )
    return tuple(found)


# What the value of a layer normalisation is called before its own scale and shift.
NORMALIZED = ".normalized"


def norm_scales(program: ExportedProgram) -> dict[str, str]:
    """Returns layer normalisation -> full name of its scale: what a converter may fold into the layers behind."""
    held = held_names(program)
    found = {}
    for node in program.graph.nodes:
        if node.op == "call_function" and str(node.target) == "aten.layer_norm.default":
            scale = _held(node, 2, held)
            if scale is not None:
                found[node.name] = scale
    return found


def held_names(program: ExportedProgram) -> dict[str, str]:
    """Returns placeholder name -> full name of the parameter, buffer or constant it stands for."""
    signature = program.graph_signature
    return {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }


class Named(Protocol):
    """What a pattern on names can choose."""

    @property
    def name(self) -> str:
        """What the pattern is held against."""


def select(found: Iterable[Named], include: tuple[str, ...], exclude: tuple[str, ...], where: str) -> dict[str, str]:
    """Applies layer patterns; of two patterns that match, the later wins, and `exclude` comes after `include`.

    Args:
        found: The layers to choose from.
        include: Shell-style patterns on layer names; `operator:conv2d` matches by the kind of the layer.
        exclude: Likewise.
        where: Key of the patterns, for the message.

    Returns:
        Layer name -> "" when chosen, else the reason why not.

    Raises:
        CompressError: If a pattern matches no layer.
    """
    listed = list(found)
    names = [layer.name for layer in listed]
    reasons = dict.fromkeys(names, "matched by no include pattern")
    for key, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            matched = match(listed, pattern, f"{where}.{key}")
            for name in matched:
                reasons[name] = "" if key == "include" else f"excluded by {pattern!r}"
    return reasons


_OF_KIND = "operator:"


def match(found: Iterable[Named], pattern: str, where: str) -> list[str]:
    """Returns the names of what a pattern matches, by name or, of layers, by `operator:KIND`.

    Raises:
        CompressError: If there are layers and it matches none.
    """
    wanted = pattern.removeprefix(_OF_KIND)
    by_kind = wanted != pattern
    known = {item.name: item.operator if by_kind and isinstance(item, Layer) else item.name for item in found}
    matched = [name for name, text in known.items() if fnmatch.fnmatchcase(text, wanted)]
    if not matched and known:
        raise CompressError(
            f"{where}: the pattern {pattern!r} matches no layer", did_you_mean(wanted, set(known.values()))
        )
    return matched


def _held(node: torch.fx.Node, index: int, held: dict[str, str]) -> str | None:
    argument = node.args[index] if index < len(node.args) else None
    return held.get(argument.name) if isinstance(argument, torch.fx.Node) else None


def without_dropout(value: torch.fx.Node) -> torch.fx.Node:
    """What a value is before dropouts, which do nothing in eval form: converters drop them and fold past them."""
    while str(value.target).startswith("aten.dropout.") and isinstance(value.args[0], torch.fx.Node):
        value = value.args[0]
    return value


def fused_activation(node: torch.fx.Node) -> str | None:
    """Returns the name of a node's only reader if that is a clipping activation, else None."""
    users = list(node.users)
    if len(users) != 1 or not str(users[0].target).startswith(_FUSED):
        return None
    return users[0].name
