"""A `.pte` program described without running it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.model.fileinfo import FileInfo, StoredTensor, Value, by_count, precision_of, read_bounded
from compress.registry import require

_METHOD, _ABOUT = "forward", "about"
_EXPORT_AGAIN = "export or copy the program again; the file is damaged, or of another version of ExecuTorch."
_DTYPES = {
    "BYTE": "uint8",
    "CHAR": "int8",
    "SHORT": "int16",
    "INT": "int32",
    "LONG": "int64",
    "HALF": "float16",
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "BOOL": "bool",
}


def describe_pte(path: Path) -> FileInfo:
    """Describes an ExecuTorch program.

    What a backend took is its own format: those weights and operators are told by their bytes and not counted.

    Raises:
        ModelError: If it cannot be parsed.
        MissingPackageError: If executorch is not installed.
    """
    reader = require("executorch.exir._serialize._program", why="reading .pte files")
    data, identity = read_bounded(path)
    try:
        read = reader.deserialize_pte_binary(data)
        program = getattr(read, "program", read)
        (plan,) = [item for item in program.execution_plan if item.name == _METHOD]
        about = _about(program)
        constants = list(_constants(plan))
        operators = list(_operators(plan))
        inputs = [plan.values[index].val for index in plan.inputs]
        outputs = [plan.values[index].val for index in plan.outputs]
        described = [
            tuple(_value(name, item) for name, item in zip(_names(about, kind, len(items)), items, strict=True))
            for kind, items in (("input", inputs), ("output", outputs))
        ]
        delegated = _delegated(program, plan)
        bounds = sorted({item.sizes[0] for item in inputs if _is_open(item)})
    except Exception as error:  # the reader is foreign code over a stranger's bytes: it may raise anything
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise ModelError(f"{path}: it cannot be read as one ExecuTorch program: {what}", _EXPORT_AGAIN) from error
    notes = [
        f"{count} parts delegated to {name} ({size} bytes): their weights and operators are not counted"
        for name, (count, size) in sorted(delegated.items())
    ]
    notes += [f"a batch of at most {size}" for size in bounds]
    return FileInfo(
        identity=identity,
        kind="pte",
        parameters=sum(tensor.elements for tensor in constants),
        precision=precision_of(constants),
        inputs=described[0],
        outputs=described[1],
        unknown_macs=len(operators),
        operators=by_count(operators),
        notes=tuple(notes),
    )


def _about(program: Any) -> dict[str, Any]:
    """What a file of ours says of itself, as the session reads it: a method that gives a text."""
    for plan in program.execution_plan:
        if plan.name == _ABOUT:
            text = getattr(plan.values[plan.outputs[0]].val, "string_val", "")
            read = json.loads(text) if text else {}
            return read if isinstance(read, dict) else {}
    return {}


def _names(about: dict[str, Any], kind: str, count: int) -> list[str]:
    found = about.get(f"{kind}s")
    if isinstance(found, list) and len(found) == count and all(isinstance(name, str) for name in found):
        return found
    return [f"{kind}_{index}" for index in range(count)]


def _operators(plan: Any) -> Iterator[str]:
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if hasattr(call, "delegate_index"):
                yield f"{plan.delegates[call.delegate_index].id} (delegated)"
            elif hasattr(call, "op_index"):
                yield str(plan.operators[call.op_index].name)


def _constants(plan: Any) -> Iterator[StoredTensor]:
    """The tensors that the file holds outside of delegated parts."""
    for index, item in enumerate(plan.values):
        value = item.val
        if getattr(value, "data_buffer_idx", 0) and value.allocation_info is None:
            sizes = tuple(int(size) for size in value.sizes)
            yield StoredTensor(f"constant_{index}", _dtype(value), sizes, math.prod(sizes))


def _delegated(program: Any, plan: Any) -> dict[str, tuple[int, int]]:
    """Backend -> how many parts it took, and their bytes as far as they lie in the program itself."""
    parts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for item in plan.delegates:
        parts[item.id] += 1
        inside = program.backend_delegate_data
        sizes[item.id] += len(inside[item.processed.index].data) if item.processed.index < len(inside) else 0
    return {name: (count, sizes[name]) for name, count in parts.items()}


def _value(name: str, tensor: Any) -> Value:
    first: tuple[int | str, ...] = ("?",) if _is_open(tensor) else tuple(int(size) for size in tensor.sizes[:1])
    return Value(name, (*first, *(int(size) for size in tensor.sizes[1:])), _dtype(tensor))


def _is_open(tensor: Any) -> bool:
    return bool(tensor.sizes) and tensor.shape_dynamism.name != "STATIC"


def _dtype(tensor: Any) -> str:
    name = str(tensor.scalar_type.name)
    return _DTYPES.get(name, name.lower())
