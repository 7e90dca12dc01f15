"""What an `.onnx` file is, as far as importing it goes, told without reading its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.model.onnx_import.build import build
from compress.model.onnx_import.graph import Graph, Input, live, reads
from compress.model.onnx_import.proto import read_model
from compress.model.onnx_import.quantized import describe_quantized
from compress.model.onnx_import.table import histogram, unsupported


@dataclass(frozen=True)
class OnnxSummary:
    """An `.onnx` file.

    Attributes:
        opset: Version of the standard operators.
        operators: Kind to count, the most frequent first, those of subgraphs and functions included.
        unsupported: `(operator, node name)` of what cannot be imported, as far as that shows without running it.
        quantized: What says that the model is quantized already; empty for a float model.
        inputs: Names of the inputs that something reads, in order.
        orphans: Names of the inputs that nothing reads; an imported Model does not have them.
        outputs: Names, in order.
        batch: The batch size that the file is made for; None where it is open.
        dynamic: `(input, dimension name)` of the dimensions behind the batch that need a size.
    """

    opset: int
    operators: Mapping[str, int]
    unsupported: tuple[tuple[str, str], ...]
    quantized: str
    inputs: tuple[str, ...]
    orphans: tuple[str, ...]
    outputs: tuple[str, ...]
    batch: int | None
    dynamic: tuple[tuple[str, str], ...]


def check_onnx(path: Path) -> OnnxSummary:
    """Describes an `.onnx` file for import.

    Raises:
        ModelError: If it is missing, damaged, too large, cyclic, or of an opset that is not known.
        MissingPackageError: If onnx is not installed.
    """
    return summarize(build(read_model(path), path))


def summarize(graph: Graph) -> OnnxSummary:
    """Returns what there is to say of a graph."""
    read = read_inputs(graph)
    used = [item for item in graph.inputs if item.name in read]
    first = [item.shape[0] for item in used if item.shape]
    return OnnxSummary(
        opset=graph.opset,
        operators=histogram(graph.nodes),
        unsupported=unsupported(graph),
        quantized=describe_quantized(graph),
        inputs=tuple(item.name for item in used),
        orphans=tuple(item.name for item in graph.inputs if item.name not in read),
        outputs=graph.outputs,
        batch=fixed_batch(first),
        dynamic=tuple((item.name, name) for item in used for name in open_sizes(item)),
    )


def open_sizes(item: Input) -> tuple[str, ...]:
    """Returns the names of an input's dimensions behind the batch that have no size; `?` where they have no name."""
    if item.shape is None:
        return ("?",)
    return tuple(str(size) or "?" for size in item.shape[1:] if not isinstance(size, int))


def read_inputs(graph: Graph) -> set[str]:
    """Returns the names of the inputs that the outputs need."""
    needed = set(graph.outputs).union(*(reads(node) for node in live(graph.nodes, graph.outputs)))
    return {item.name for item in graph.inputs} & needed


def fixed_batch(first: list[Any]) -> int | None:
    """Returns the batch size that is written into the inputs' first dimensions; None where all leave it open."""
    return next((size for size in first if isinstance(size, int)), None)
