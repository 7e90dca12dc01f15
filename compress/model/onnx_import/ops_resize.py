"""Resizing of images and feature maps.

Source: ONNX Operators.md, Resize (its formulas of coordinates and of rounding).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import MixesRows, NotImportable
from compress.model.onnx_import.graph import Node
from compress.model.onnx_import.ops_index import MAX_PLACES, select
from compress.model.onnx_import.ops_math import Function

_Places = NDArray[np.float32]
# ONNX Runtime computes coordinates in single precision; where a place lies between two elements, that decides.
_ONE, _HALF = np.float32(1), np.float32(0.5)
_ROUNDINGS: Mapping[str, Callable[[_Places], _Places]] = {
    "round_prefer_floor": lambda places: np.ceil(places - _HALF),
    "round_prefer_ceil": lambda places: np.floor(places + _HALF),
    "floor": np.floor,
    "ceil": np.ceil,
}
_COORDINATES = (
    *(
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_half_pixel_for_nn",
    ),
)
_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


def _resize(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    axes = [axis % value.dim() for axis in call.attribute("axes", tuple(range(value.dim())))]
    scales, sizes = _factors(call, value, axes)
    changed = {axis: (sizes[at], scales[at]) for at, axis in enumerate(axes) if sizes[at] != value.shape[axis]}
    if any(not isinstance(value.shape[axis], int) for axis in changed):
        raise MixesRows("it resizes the batch")
    if any(not isinstance(size, int) or not 1 <= size <= MAX_PLACES for size, _ in changed.values()):
        raise NotImportable(f"to the sizes {sizes}")
    coordinates = call.attribute("coordinate_transformation_mode", "half_pixel")
    places = {
        axis: _places(coordinates, value.shape[axis], size, np.float32(scale))
        for axis, (size, scale) in changed.items()
    }
    if not places:
        return value
    if call.attribute("mode", "nearest") == "nearest":
        rounding = _ROUNDINGS[call.attribute("nearest_mode", "round_prefer_floor")]
        return _nearest(value, {axis: rounding(found) for axis, found in places.items()})
    return _interpolated(value, places, changed, coordinates)


def _factors(call: Call, value: torch.Tensor, axes: Sequence[int]) -> tuple[list[float], list[int]]:
    """Returns the scale and the new size of each axis."""
    scales = call.numbers(2) if call.has(2) else []
    old = [value.shape[axis] for axis in axes]
    if scales:
        return [float(scale) for scale in scales], [
            size if scale == 1 else math.floor(size * float(np.float32(scale)))
            for size, scale in zip(old, scales, strict=True)
        ]
    sizes = call.numbers(3)
    return [1.0 if new is size else new / size for new, size in zip(sizes, old, strict=True)], sizes


def _places(mode: str, old: int, new: int, scale: np.float32) -> _Places:
    """Returns where in the old axis each element of the new one lies."""
    index = np.arange(new, dtype=np.float32)
    if mode == "align_corners":
        return index * np.float32(old - 1) / np.float32(new - 1) if new > 1 else index * 0
    if mode == "asymmetric":
        return index / scale
    if mode == "tf_half_pixel_for_nn":
        return (index + _HALF) / scale
    if mode == "pytorch_half_pixel" and new == 1:
        return index * 0
    middle = (index + _HALF) / scale - _HALF
    if mode == "half_pixel_symmetric":
        return middle + np.float32(old / 2) * (_ONE - np.float32(new) / (scale * np.float32(old)))
    return middle


def _nearest(value: torch.Tensor, places: Mapping[int, _Places]) -> torch.Tensor:
    clipped = {axis: np.clip(found, 0, value.shape[axis] - 1).astype(np.int64) for axis, found in places.items()}
    if min(clipped) >= 2 and value.dim() in _LINEAR and value.is_floating_point():
        same = all(
            np.array_equal(found, np.floor(np.arange(len(found)) * np.float32(value.shape[axis] / len(found))))
            for axis, found in clipped.items()
        )
        if same:
            sizes = [len(clipped[axis]) if axis in clipped else value.shape[axis] for axis in range(2, value.dim())]
            return functional.interpolate(value, size=sizes, mode="nearest")
    for axis, found in clipped.items():
        value = select(value, axis, found.tolist())
    return value


def _interpolated(
    value: torch.Tensor, places: Mapping[int, _Places], changed: Mapping[int, tuple[int, float]], coordinates: str
) -> torch.Tensor:
    exact = all(
        np.float32(scale) == np.float32(size / value.shape[axis]) and size > 1
        for axis, (size, scale) in changed.items()
    )
    torch_has_it = coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners")
    if exact and torch_has_it and min(places) >= 2 and value.dim() in _LINEAR:
        sizes = [changed[axis][0] if axis in changed else value.shape[axis] for axis in range(2, value.dim())]
        return functional.interpolate(
            value, size=sizes, mode=_LINEAR[value.dim()], align_corners=coordinates == "align_corners"
        )
    for axis, found in places.items():
        last = value.shape[axis] - 1
        clipped = np.clip(found, 0, last)
        low = np.floor(clipped).astype(np.int64)
        share = torch.tensor((clipped - low).tolist(), dtype=value.dtype).reshape([-1] + [1] * (value.dim() - axis - 1))
        below = select(value, axis, low.tolist())
        above = select(value, axis, np.minimum(low + 1, last).tolist())
        value = below + (above - below) * share
    return value


def _refusal(node: Node) -> str:
    attributes = node.attributes
    mode = attributes.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        return f"mode {mode!r}"
    coordinates = attributes.get("coordinate_transformation_mode", "half_pixel")
    if coordinates not in _COORDINATES:
        return f"coordinate_transformation_mode {coordinates!r}"
    if attributes.get("nearest_mode", "floor") not in _ROUNDINGS:
        return f"nearest_mode {attributes['nearest_mode']!r}"
    if attributes.get("antialias"):
        return "antialias"
    policy = attributes.get("keep_aspect_ratio_policy", "stretch")
    return "" if policy == "stretch" else f"keep_aspect_ratio_policy {policy!r}"


TABLE: Mapping[str, Function] = {"Resize": _resize}
REFUSALS: Mapping[str, Callable[[Node], str]] = {"Resize": _refusal}
