"""Transpositions that run in an artifact beside those that its graph asks for."""

from __future__ import annotations

from compress.evidence import Placement
from compress.model.core import Model
from compress.model.onnx_file import OnnxFile
from compress.report.numbers import plural

# What changes the order of axes, in the words of the runtimes; ONNX Runtime reorders for its blocked convolutions.
RUN = frozenset({"Transpose", "ReorderInput", "ReorderOutput", "TRANSPOSE", "permute_copy", "transpose_copy"})
_ASKED = ("aten.permute.", "aten.transpose.", "aten.t.", "aten.movedim.", "aten.numpy_T.", "aten.swapaxes.")


def transpositions(placement: Placement, graph: Model | OnnxFile) -> str:
    """Returns a note on the transpositions of an artifact, empty where none runs.

    A conversion inserts them where the runtime keeps images or matrices in another order than the graph; each copies
    its value at every call.

    Args:
        placement: What runs.
        graph: What was lowered.
    """
    run = sum(item.count for item in placement.operators if item.operator in RUN)
    if not run:
        return ""
    asked = _asked(graph)
    inserted = f", {run - asked} inserted by the conversion" if run > asked else ""
    return f"{plural(run, 'transposition')} at every call ({asked} in the graph{inserted})"


def _asked(graph: Model | OnnxFile) -> int:
    if isinstance(graph, Model):
        calls = (str(node.target) for node in graph.program.graph.nodes if node.op == "call_function")
        return sum(call.startswith(_ASKED) for call in calls)
    import onnx

    return sum(node.op_type == "Transpose" for node in onnx.ModelProto.FromString(graph.data).graph.node)
