"""An `.onnx` file described without running it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.model.fileinfo import (
    NO_PARAMETERS,
    FileInfo,
    LayerRow,
    StoredTensor,
    by_count,
    is_integer_weight,
    precision_of,
    read_bounded,
)
from compress.registry import require
from compress.runtimes.onnxruntime.inspect_operators import BIASES, FORWARDING, SCALES, SCHEMES, macs_of, multiplies
from compress.runtimes.onnxruntime.inspect_shapes import (
    Native,
    Shapes,
    described,
    dynamic_names,
    native,
    one_row,
    real_inputs,
    shapes_of,
)
from compress.runtimes.onnxruntime.inspect_tensors import Constants, constants_of, drop_weights, graphs_of

MAX_NODES = 1_000_000
_EXPORT_AGAIN = "export or copy the model again; the file is damaged, or no ONNX model."
_GARBAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, RuntimeError)


def describe_onnx(path: Path, run: Native = native) -> FileInfo:
    """Describes an ONNX model. Subgraphs count once: both branches of an `If`, one turn of a `Loop`.

    Args:
        path: The file, at most 2 GiB; larger weights lie in other files of its folder.
        run: What runs onnx's own graph code, by default a process of its own.

    Raises:
        UnsafeFileError: If external data leaves the model's folder or passes through a link.
        ModelError: If it cannot be parsed, or a constant claims bytes that are not there.
        MissingPackageError: If onnx is not installed.
    """
    onnx = require("onnx", why="reading .onnx files")
    data, identity = read_bounded(path)
    constants = Constants(path)
    try:
        model = onnx.ModelProto.FromString(data)
        del data
        _check_form(model, path)
        constants.check(model.graph.node, model.graph)
        for function in model.functions:
            constants.check(function.node)
        drop_weights(model.graph.node, model.graph)
        for function in model.functions:
            drop_weights(function.node)
        model, notes = _inlined(model, run)
        info = _describe(model, run)
    except ModelError:
        raise
    except (*_GARBAGE, onnx.onnx_cpp2py_export.checker.ValidationError) as error:
        raise _unreadable(path, error) from error
    except Exception as error:
        # Not every build of protobuf derives its DecodeError from ValueError.
        if type(error).__name__ != "DecodeError":
            raise
        raise _unreadable(path, error) from error
    beside = tuple(f"external data: {name} ({size} bytes)" for name, size in sorted(constants.external.items()))
    return replace(info, identity=identity, notes=(*notes, *beside, *info.notes))
