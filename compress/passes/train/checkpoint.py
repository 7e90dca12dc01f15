"""The state of a training run on disk: tensors as safetensors, all else as JSON in its header. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from compress.store.atomic import write_atomic

_SCHEMA = 1


def write_state(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Writes tensors and JSON-able values in one step: a reader sees the old state or the new, never a part.

    Raises:
        StoreError: If the file cannot be written.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps({"schema": _SCHEMA, **values}, allow_nan=False)
    write_atomic(path, safetensors.torch.save(plain, {"state": text}))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Returns what `write_state` wrote; None where there is nothing, or nothing of this version that can be read."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            values = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a handle is no mapping
    except (OSError, ValueError, KeyError, safetensors.SafetensorError):
        return None
    return (tensors, values) if isinstance(values, dict) and values.get("schema") == _SCHEMA else None


def optimizer_tensors(optimizer: AdamW, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Returns AdamW's moments and counts as `parameter@moment` to tensor."""
    return {
        f"{name}@{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: AdamW, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave."""
    for full, value in tensors.items():
        name, _, key = full.rpartition("@")
        # The count of steps stays on the processor, where AdamW keeps it.
        parameter = parameters[name]
        # The moments lie in memory as their parameter does, as AdamW makes them.
        optimizer.state[parameter][key] = value.clone() if key == "step" else torch.empty_like(parameter).copy_(value)
