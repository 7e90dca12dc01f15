"""From the graph to a float32 `.pte`, with the table of where each layer went."""

from __future__ import annotations

from torch.fx import GraphModule

from compress.model.core import Model
from compress.model.layers import layers
from compress.registry import require
from compress.runtimes.base import Lowered, Placed, refuse_shared
from compress.runtimes.executorch.program import BACKEND, Lowering, failing, place, to_edge
from compress.runtimes.executorch.rewrite import rewrite
from compress.runtimes.quiet import quiet

# Activations that the backend makes part of the operator before them; it clamps with others by themselves.
_FUSED = ("aten.relu.", "aten.relu_.", "aten.relu6.", "aten.relu6_.", "aten.hardtanh.", "aten.hardtanh_.")


def export(model: Model) -> Lowered:
    """Lowers a Model, one row at a time.

    An open batch would cost: the backend reshapes and cuts only what has a fixed size, so that a Transformer falls
    into twice as many parts.

    Raises:
        LoweringError: If ExecuTorch cannot take an operator, or an output is an input.
        MissingPackageError: If executorch is not installed.
    """
    with quiet():
        require("executorch.exir", why="ExecuTorch targets")
        require("torchao.quantization.pt2e", why="ExecuTorch targets")
        _check_outputs(model)
        with failing("ExecuTorch lowering failed"):
            lowering = to_edge(prepared(model), model)
            data = lowering.data(model)
    found = layers(model)
    homes = place(lowering, [(layer, layer.weight) for layer in found])
    fused = _activations(model)
    placed = tuple(
        Placed(
            layer=layer,
            node=home,
            input=layer.input,
            output=layer.output if layer.fused in fused else layer.node,
            fused=layer.fused in fused,
        )
        for layer, home in zip(found, homes, strict=True)
        if home
    )
    missing = tuple(
        (layer, "ExecuTorch folded it into other operators")
        for layer, home in zip(found, homes, strict=True)
        if not home
    )
    return Lowered(
        data=data,
        suffix=".pte",
        inputs=tuple(item.name for item in model.signature.inputs),
        outputs=tuple(item.name for item in model.signature.outputs),
        placed=placed,
        missing=missing,
        notes=told(lowering),
        graph=model,
    )


def prepared(model: Model) -> GraphModule:
    """Returns a copy of the graph as a module, in the form that is lowered."""
    module: GraphModule = model.program.module(check_guards=False)
    rewrite(module)
    return module


def told(lowering: Lowering) -> tuple[str, ...]:
    """Returns how much of a program the backend took, in how many parts, and why not the rest."""
    inside, outside = sum(lowering.taken.values()), sum(item.count for item in lowering.left)
    many = "1 part" if len(lowering.parts) == 1 else f"{len(lowering.parts)} parts"
    share = f"{BACKEND} runs {inside} of {inside + outside} operators, in {many}; one row at a time"
    return (share, *(f"not on {BACKEND}: {item.count} {item.operator}: {item.reason}" for item in lowering.left))


def _activations(model: Model) -> set[str]:
    return {node.name for node in model.program.graph.nodes if str(node.target).startswith(_FUSED)}


def _check_outputs(model: Model) -> None:
    graph, names = model.program.graph_signature, model.signature
    refuse_shared(
        zip(graph.user_inputs, (item.name for item in names.inputs), strict=True),
        zip(graph.user_outputs, (item.name for item in names.outputs), strict=True),
        "ExecuTorch lowering failed",
    )
