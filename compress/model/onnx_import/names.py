"""Which constants are weights, and a readable name for each: the file's own, or the path of the node that reads it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch

from compress.model.onnx_import.fold import Draft
from compress.model.onnx_import.graph import Node, walk
from compress.model.onnx_import.ops_recurrent import FIRST_WEIGHT, GRU, LSTM
from compress.model.onnx_import.paths import clean, generated, last, readable, split, stripped
from compress.model.onnx_import.table import OPERATORS
from compress.model.onnx_import.values import MAX_NUMBERS

_AFFINE = {1: "weight", 2: "bias"}
# Operator -> input -> leaf of the weight's name.
_SLOTS: dict[str, dict[int, str]] = {
    **dict.fromkeys(("Linear", "Conv", "ConvTranspose", "Gemm"), _AFFINE),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), _AFFINE),
    "BatchNormalization": {**_AFFINE, 3: "running_mean", 4: "running_var"},
    "PRelu": {1: "weight"},
    "MatMul": {0: "weight", 1: "weight"},
    "Gather": {0: "weight"},
    "Mul": {0: "weight", 1: "weight"},
    "Add": {0: "bias", 1: "bias"},
    "Sub": {0: "bias", 1: "bias"},
}
# Always tensors, whatever their size. The others are weights from two elements on.
_LAYERS = frozenset(_SLOTS) - {"Mul", "Add", "Sub", "Gather"} | {LSTM, GRU}
_STATISTICS = frozenset({"running_mean", "running_var"})
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Cast", "Clip", "Identity"})
# What computes with numbers that were chosen, not trained.
_NO_WEIGHTS = frozenset(
    {"Where", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Min", "Max", "Pad", "Clip"}
)
_NUMBERS = {("Resize", 1), ("Resize", 2), ("Resize", 3)}
# What a name without a path says of the leaf: `fc1_weight`, `dense/kernel`.
_LEAF = re.compile(r"[_/](weights?|kernel|bias|gamma|beta)$")
_NUMBERED = re.compile(r"(.*?)_?(\d+)?")


@dataclass(frozen=True)
class Weight:
    """A constant that becomes a tensor of the module.

    Attributes:
        value: Its name in the graph.
        name: Its full name in the module, dotted, unique.
        is_parameter: Whether training changes it; else it is a buffer.
    """

    value: str
    name: str
    is_parameter: bool


def name_weights(draft: Draft, inputs: Collection[str]) -> tuple[Weight, ...]:
    """Returns the constants that the nodes read as tensors, in the order in which they are read.

    Args:
        draft: With every constant in its final form.
        inputs: What is fed. Constants that meet it element by element are pre-processing, not trained.
    """
    roles: dict[int, list[_Role]] = {}
    raw = set(inputs)
    for node in walk(draft.nodes):
        for role in _roles(node, draft, raw):
            roles.setdefault(id(draft.constants[role.value]), []).append(role)
    names = _Names()
    found: list[Weight] = []
    for read in roles.values():
        value = read[0].value
        is_parameter = draft.constants[value].is_floating_point() and any(role.trained for role in read)
        name = names.of(read[0], draft)
        # Several names of one tensor are one weight.
        found += [Weight(alias, name, is_parameter) for alias in dict.fromkeys(role.value for role in read)]
    return tuple(found)


@dataclass(frozen=True)
class _Role:
    """One read of a constant; `is_layer` where it is the weight or the bias of a layer."""

    value: str
    node: Node
    leaf: str
    is_layer: bool
    trained: bool


def _roles(node: Node, draft: Draft, raw: set[str]) -> Iterator[_Role]:
    """Yields the tensors among a node's constants.

    Args:
        node: In the order in which nodes run.
        draft: With the constants.
        raw: Values that are inputs with no more than constants applied to them; it grows.
    """
    computed = [name for name in node.inputs if name and name not in draft.constants]
    preprocessing = node.operator in _ELEMENTWISE and bool(computed) and raw.issuperset(computed)
    if preprocessing:
        raw.update(node.outputs)
    for at, value in enumerate(node.inputs):
        tensor = draft.constants.get(value) if value else None
        if tensor is None or (node.operator, at) in _NUMBERS:
            continue
        leaf = _leaf(node, at, value)
        is_layer = node.operator in _LAYERS and bool(leaf)
        if is_layer or not _is_number(tensor) or (tensor.is_floating_point() and readable(draft.origin(value))):
            trained = leaf not in _STATISTICS and node.operator not in _NO_WEIGHTS and not preprocessing
            yield _Role(value, node, leaf or "constant", is_layer, trained)


def _leaf(node: Node, at: int, value: str) -> str:
    if node.operator in (LSTM, GRU):
        return value.rpartition("@")[2] if at >= FIRST_WEIGHT else ""
    return _SLOTS.get(node.operator, {}).get(at, "")


def _is_number(tensor: torch.Tensor) -> bool:
    """Whether a constant is a number, or a list of sizes: what stands in the graph itself."""
    if tensor.is_floating_point():
        return tensor.numel() == 1
    return tensor.numel() <= (MAX_NUMBERS if tensor.dim() < 2 else 1)


class _Names:
    """Gives each weight a name that no other has, under a module that no other layer has."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._modules: set[str] = set()
        self._owners: dict[str, str] = {}
        self._layers: dict[str, list[str]] = {}

    def of(self, role: _Role, draft: Draft) -> str:
        own = stripped(draft.origin(role.value))
        for candidate in (own, _beside(role, draft)):
            parts = clean(candidate.split("."))
            plain = not role.is_layer and candidate.isidentifier() and not generated(candidate)
            if (readable(candidate) or plain) and self._is_free(parts):
                return self._take(parts, role)
        return self._take(self._free([*self._path(role, draft), role.leaf]), role)

    def _path(self, role: _Role, draft: Draft) -> list[str]:
        """Returns the module's path; one that another node has already is made longer by this node's own name."""
        if role.node.name in self._layers:
            return self._layers[role.node.name]
        path = clean(_module_path(role, draft))
        if self._owners.setdefault(".".join(path), role.node.name) != role.node.name:
            path = [*path, *clean([last(role.node.name)])]
        return path

    def _take(self, parts: list[str], role: _Role) -> str:
        self._names.add(".".join(parts))
        self._modules |= {".".join(parts[:count]) for count in range(1, len(parts))}
        self._layers.setdefault(role.node.name, parts[:-1] or parts)
        return ".".join(parts)

    def _free(self, parts: list[str]) -> list[str]:
        """Returns a path that neither is a name, nor a module, nor lies below a name."""
        while any(".".join(parts[:count]) in self._names for count in range(1, len(parts))):
            parts = [f"{parts[0]}_", *parts[1:]]
        candidate, number = parts, 1
        while not self._is_free(candidate):
            number += 1
            candidate = [*parts[:-2], f"{parts[-2]}_{number}", parts[-1]]
        return candidate

    def _is_free(self, parts: list[str]) -> bool:
        full = ".".join(parts)
        prefixes = {".".join(parts[:count]) for count in range(1, len(parts))}
        return full not in self._names and full not in self._modules and not prefixes & self._names


def _beside(role: _Role, draft: Draft) -> str:
    """Returns the name that belongs to a readable name of the same layer: `query.weight` to `query.bias`."""
    other = {"weight": "bias", "bias": "weight"}.get(role.leaf, "")
    for name in role.node.inputs:
        path, _, leaf = draft.origin(name).rpartition(".")
        if other and path and name in draft.constants and name != role.value and other in leaf:
            return f"{path}.{leaf.replace(other, role.leaf)}"
    return ""


def _module_path(role: _Role, draft: Draft) -> list[str]:
    """Returns where a nameless weight belongs: beside its layer's other weights, in the module that made the call."""
    node = role.node
    for name in node.inputs:
        origin = draft.origin(name)
        if name != role.value and name in draft.constants and readable(origin):
            return origin.split(".")[:-1]
    if node.scope:
        return node.scope.split(".")
    if "/" in node.name:
        parts = split(node.name)
        return parts[:-1] if len(parts) > 1 and _is_operator(parts[-1]) else parts
    own = _LEAF.sub("", stripped(draft.origin(role.value)))
    return [last(node.name)] if generated(own) else split(own)


def _is_operator(part: str) -> bool:
    match = _NUMBERED.fullmatch(part)
    return match is not None and match.group(1) in OPERATORS
