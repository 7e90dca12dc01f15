"""What is known of a model file that was read and not run: signature, weights, operators, arithmetic."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compress.errors import ModelError

MAX_FILE_BYTES = 2 << 30
# A weight type that holds this share of the weights names the file; below, the file is `mixed`.
DOMINANT_SHARE = 0.9
# Indices, shapes, masks and counters are constants of a model, not parameters.
NO_PARAMETERS = frozenset({"int64", "int32", "uint64", "uint32", "bool", "string"})
_FAMILIES = {"uint8": "int8", "uint4": "int4", "uint2": "int2", "uint16": "int16"}
_INTEGERS = frozenset(_FAMILIES.values())


@dataclass(frozen=True)
class Value:
    """An input or output. A dynamic dimension is its name or `?`; `shape` is None where the file gives none."""

    name: str
    shape: tuple[int | str, ...] | None
    dtype: str


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that the file holds. `elements` differs from the product of `shape` where it is stored sparsely."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int


@dataclass(frozen=True)
class LayerRow:
    """One operator that multiplies or reads a weight: multiply-adds for one row, None where shapes are unknown.

    A tied weight's `parameters` count at the row that reads it first.
    """

    name: str
    operator: str
    weight: tuple[int, ...]
    parameters: int
    macs: int | None


@dataclass(frozen=True)
class Precision:
    """The types of the weights: `shares` of their elements by dtype, and a summary such as `int8 (dynamic)`."""

    summary: str
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Identity:
    """Which file was read: its name without folders, its length, the sha256 of its bytes."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class FileInfo:
    """Everything that `inspect` says of a file.

    Attributes:
        identity: The file itself; data that lies in other files is told in `notes`.
        kind: `onnx`, `ort`, `tflite`, `pt2`, `safetensors` or `state_dict`.
        inputs: In the order of the file; none for a file of weights.
        outputs: Likewise.
        parameters: Elements of the constants that are weights, biases or tables. Not counted: single numbers, indices
            and shapes, and the scales and zero points of quantization operators.
        macs: Multiply-adds for one row with every dynamic dimension 1, over the operators whose shapes are known;
            None where none is known, and for a file of weights.
        unknown_macs: Operators that multiply, or may, and are not in `macs`.
        operators: Kind to count, the most frequent first, those of subgraphs included.
        precision: Of the tensors with two dimensions or more, or of all parameters where there is no such tensor.
        tensors: For a file of weights, every tensor in the order of the file; else empty.
        layers: In the order of the file; empty for a file of weights.
        notes: Facts beside the figures, one sentence each.
        beside: Other files that hold its weights, and their lengths in bytes.
    """

    identity: Identity
    kind: str
    parameters: int
    precision: Precision
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    macs: int | None = None
    unknown_macs: int = 0
    operators: Mapping[str, int] = field(default_factory=dict)
    tensors: tuple[StoredTensor, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    notes: tuple[str, ...] = ()
    beside: Mapping[str, int] = field(default_factory=dict)


def read_bounded(path: Path, max_bytes: int = MAX_FILE_BYTES) -> tuple[bytes, Identity]:
    """Returns a file's bytes and what identifies them.

    Raises:
        ModelError: If it is missing, unreadable, or longer than `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > max_bytes:
        raise ModelError(
            f"{path}: it is longer than {max_bytes} bytes, the most that a file of its kind may have.",
            "keep large weights in a file of their own (external data).",
        )
    return data, Identity(path.name, len(data), hashlib.sha256(data).hexdigest())


def identify(path: Path) -> Identity:
    """Returns what identifies a file, read piece by piece.

    Raises:
        ModelError: If it is missing or unreadable.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Identity(path.name, file.tell(), digest)
    except OSError as error:
        raise _unreadable(path, error) from error


def by_count(kinds: Iterable[str]) -> dict[str, int]:
    """Returns kind to count, the most frequent first, then by name."""
    return dict(sorted(Counter(kinds).items(), key=lambda item: (-item[1], item[0])))


def precision_of(parameters: Iterable[StoredTensor], scheme: str = "") -> Precision:
    """Returns the types of the weights and the summary.

    Args:
        parameters: Everything that counts as a parameter.
        scheme: How integer weights are used (`dynamic`, `static, QDQ` …), for the summary.
    """
    every = list(parameters)
    weights = [tensor for tensor in every if len(tensor.shape) > 1] or every
    total = sum(tensor.elements for tensor in weights)
    if not total:
        return Precision("none", {})
    elements: Counter[str] = Counter()
    families: Counter[str] = Counter()
    for tensor in weights:
        if tensor.elements:
            elements[tensor.dtype] += tensor.elements
            families[family(tensor.dtype)] += tensor.elements
    most, count = families.most_common(1)[0]
    summary = most if count >= DOMINANT_SHARE * total else "mixed"
    if scheme and summary in _INTEGERS:
        summary = f"{summary} ({scheme})"
    return Precision(summary, {dtype: found / total for dtype, found in elements.most_common()})


def family(dtype: str) -> str:
    """Returns the signed name of an integer weight type, any other type as it is."""
    return _FAMILIES.get(dtype, dtype)


def is_integer_weight(dtype: str) -> bool:
    """Whether a type is one that weights are quantized to."""
    return family(dtype) in _INTEGERS


def bits_of(dtype: str) -> int:
    """Returns the bits of an element by the type's name (`float8_e4m3fn`: 8); 0 for what has no fixed length."""
    if dtype == "bool":
        return 8
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 0


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(f"{path}: it cannot be read ({error.strerror}).", "check the path and its permissions.")
