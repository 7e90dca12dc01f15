"""Files of weights described: safetensors by their header, state dictionaries through torch's restricted reader."""

from __future__ import annotations

import math
from pathlib import Path

from compress.errors import ModelError
from compress.model.fileinfo import NO_PARAMETERS, FileInfo, Identity, StoredTensor, identify, precision_of
from compress.model.screen import screen_weights

_KINDS = {"F": "float", "BF": "bfloat", "C": "complex", "I": "int", "U": "uint"}


def describe_weights(path: Path) -> FileInfo:
    """Describes a safetensors file or a state dictionary.

    Raises:
        UnsafeFileError: If it is a pickle that would run code, or claims more than it holds.
        ModelError: If it is missing, truncated or no table of tensors.
    """
    kind = screen_weights(path)
    identity = identify(path)
    tensors, notes = _safetensors(path) if kind == "safetensors" else _state_dict(path)
    return _info(identity, kind, tensors, notes)


def _info(identity: Identity, kind: str, tensors: list[StoredTensor], notes: tuple[str, ...]) -> FileInfo:
    counted = [tensor for tensor in tensors if tensor.dtype not in NO_PARAMETERS]
    return FileInfo(
        identity=identity,
        kind=kind,
        parameters=sum(tensor.elements for tensor in counted),
        precision=precision_of(counted),
        tensors=tuple(tensors),
        notes=notes,
    )


def _safetensors(path: Path) -> tuple[list[StoredTensor], tuple[str, ...]]:
    from safetensors import SafetensorError, safe_open

    tensors = []
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.offset_keys():
                part = file.get_slice(name)
                shape = tuple(int(size) for size in part.get_shape())
                tensors.append(StoredTensor(name, _dtype(part.get_dtype()), shape, math.prod(shape)))
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}", "save it again; it may be truncated.") from error
    return tensors, tuple(f"metadata {key} = {value}" for key, value in sorted(metadata.items()))


def _dtype(word: str) -> str:
    """Returns the usual name of a safetensors type: `F32`, `BF16`, `F8_E4M3`, `I8`."""
    letters = word.rstrip("0123456789")
    if letters in _KINDS:
        return _KINDS[letters] + word[len(letters) :]
    return word.lower().replace("f8", "float8")


def _state_dict(path: Path) -> tuple[list[StoredTensor], tuple[str, ...]]:
    from compress.model.weights import read_weights

    tensors = []
    seen = set()
    shared = 0
    for name, tensor in read_weights(path).items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = tuple(int(size) for size in tensor.shape)
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), shape, tensor.stride())
        again = tensor.numel() > 0 and key in seen
        seen.add(key)
        shared += again
        tensors.append(StoredTensor(name, dtype, shape, 0 if again else tensor.numel()))
    return tensors, (f"{shared} tied tensors, counted once",) if shared else ()
