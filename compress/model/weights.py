"""Trained weights from a file into a module, without running anything that the file holds."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch

from compress.errors import ModelError
from compress.model.screen import screen_weights


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads a `.safetensors` file or a plain state dictionary, judged by content and not by ending.

    Raises:
        UnsafeFileError: If the file would run code.
        ModelError: If it is missing, truncated or not a table of tensors.
    """
    kind = screen_weights(path)
    try:
        if kind == "safetensors":
            from safetensors.torch import load_file

            loaded: object = load_file(path)
        else:
            # Not by its path: torch believes a name that ends in .safetensors.
            with path.open("rb") as file:
                loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path}: cannot be read: {error}", "save it again; it may be truncated.") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ModelError(
            f"{path}: not a table of tensors",
            "save weights alone: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors').",
        )
    return {str(key): value for key, value in loaded.items()}


def load_into(module: torch.nn.Module, path: Path, ignored: Collection[str] = ()) -> None:
    """Loads a file's weights into a module, all of them and nothing else.

    Args:
        module: What takes them.
        path: The file.
        ignored: Names that may be in the file though the module does not store them.

    Raises:
        ModelError: Naming the keys that are missing, unknown or of another shape.
    """
    own = module.state_dict()
    weights = {name: value for name, value in read_weights(path).items() if name in own or name not in ignored}
    weights = _tied(own, weights)
    missing = sorted(own.keys() - weights.keys())
    unknown = sorted(weights.keys() - own.keys())
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, the model wants {tuple(own[name].shape)}"
        for name in sorted(own.keys() & weights.keys())
        if weights[name].shape != own[name].shape
    ]
    parts = []
    if missing:
        parts.append(f"missing: {_some(missing)}")
    if unknown:
        parts.append(f"unknown to the model: {_some(unknown)}")
    if shapes:
        parts.append(f"other shape: {_some(shapes)}")
    if parts:
        raise ModelError(
            f"{path}: the weights do not fit the model; {'; '.join(parts)}",
            "check model.source and model.arguments: the factory must build the model that was trained.",
        )
    module.load_state_dict(weights)


def _tied(own: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Adds what a file leaves out because it is the same tensor as one that it holds (`safetensors.save_model`)."""
    held = {_place(own[name]): value for name, value in weights.items() if name in own}
    left_out = {name: held[_place(own[name])] for name in own.keys() - weights.keys() if _place(own[name]) in held}
    return {**weights, **left_out}


def _place(tensor: torch.Tensor) -> tuple[int, int, tuple[int, ...]]:
    return (tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()), tuple(tensor.shape))


def _some(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
