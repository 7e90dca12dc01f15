"""How a graph is edited: on a copy with the weights inside, exported again."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from compress.model.core import MAX_BATCH, Model, tie


def edited(model: Model, edit: Callable[[torch.fx.GraphModule], None], step: str) -> Model:
    """Returns the Model after an edit of a copy of its graph.

    Args:
        model: Stays untouched.
        edit: Changes a graph module in place. Parameters and buffers are `get_attr` nodes under their full names.
        step: What was done, for the lineage.
    """
    module = unlifted(model)
    edit(module)
    module.graph.eliminate_dead_code(_has_effect)
    _drop_unread(module)
    module.graph.lint()
    module.recompile()
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    program = torch.export.export(
        module, model.example(), dynamic_shapes=tuple({0: batch} for _ in model.signature.inputs), strict=False
    )
    tie(program)
    return model.with_program(program, step)


def _has_effect(node: torch.fx.Node) -> bool:
    """Whether a call that nothing reads must stay. Attention and dropout count as such: they may draw, if not here."""
    return node.is_impure() and torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ())


def unlifted(model: Model) -> torch.fx.GraphModule:
    """Returns a copy of a Model's graph with the weights inside, as `get_attr` nodes; calls keep their names."""
    return copy.deepcopy(model.program.module(check_guards=False))


def _drop_unread(module: torch.fx.GraphModule) -> None:
    """Takes out what nothing reads any more: the export would carry it along, and every file of the Model with it."""
    read = {str(node.target) for node in module.graph.find_nodes(op="get_attr")}
    held = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, _ in held:
        if name not in read:
            owner, _, leaf = name.rpartition(".")
            delattr(module.get_submodule(owner), leaf)


def get_parameter(module: torch.nn.Module, name: str) -> torch.Tensor:
    """Returns the parameter or buffer of a full name."""
    owner, _, leaf = name.rpartition(".")
    value = getattr(module.get_submodule(owner), leaf)
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is not a tensor")
    return value


def batch_norms(module: torch.fx.GraphModule | torch.export.ExportedProgram) -> list[torch.fx.Node]:
    """Returns the calls of batch normalisation, in the order in which they run."""
    return list(module.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default))


def readers(module: torch.fx.GraphModule, name: str) -> list[torch.fx.Node]:
    """Returns the calls that read a parameter or buffer, under this name or another one, in no particular order."""
    place = get_parameter(module, name).untyped_storage().data_ptr()
    same = [
        node
        for node in module.graph.find_nodes(op="get_attr")
        if get_parameter(module, str(node.target)).untyped_storage().data_ptr() == place
    ]
    return [user for node in same for user in node.users]


def unused_name(module: torch.nn.Module, name: str) -> str:
    """Returns a full name for a parameter that nothing has yet: the given one, or one like it."""
    owner, _, leaf = name.rpartition(".")
    while hasattr(module.get_submodule(owner), leaf):
        leaf += "_"
    return f"{owner}.{leaf}" if owner else leaf


def set_parameter(module: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    """Sets or adds a parameter under a full name."""
    owner, _, leaf = name.rpartition(".")
    holder = module.get_submodule(owner)
    if leaf not in holder._parameters and hasattr(holder, leaf):
        delattr(holder, leaf)
    holder.register_parameter(leaf, torch.nn.Parameter(value, requires_grad=False))


def set_buffer(module: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    """Adds a constant under a full name that nothing has yet; it is kept with the weights but never trained."""
    owner, _, leaf = name.rpartition(".")
    module.get_submodule(owner).register_buffer(leaf, value)


def attribute_name(node: object) -> str:
    """Returns the full name of what a `get_attr` node reads; empty for what is no node."""
    return str(node.target) if isinstance(node, torch.fx.Node) else ""


def own_bias(module: torch.fx.GraphModule, layer: torch.fx.Node, *, add: bool = False) -> str | None:
    """Returns the name of a bias that only this layer reads; one that is shared is copied for it.

    Args:
        module: What holds the layer.
        layer: A convolution or linear layer: input, weight, bias are its first arguments.
        add: Gives a layer without bias one of zeros; else the answer is None.
    """
    bias = layer.args[2] if len(layer.args) > 2 else None
    if isinstance(bias, torch.fx.Node) and len(readers(module, attribute_name(bias))) == 1:
        return attribute_name(bias)
    weight_name = attribute_name(layer.args[1])
    weight = get_parameter(module, weight_name)
    if isinstance(bias, torch.fx.Node):
        value = get_parameter(module, attribute_name(bias)).detach().clone()
    elif add:
        value = torch.zeros(weight.shape[0], dtype=weight.dtype)
    else:
        return None
    name = unused_name(module, f"{weight_name.rpartition('.')[0]}.bias".lstrip("."))
    set_parameter(module, name, value)
    with module.graph.inserting_before(layer):
        attribute = module.graph.get_attr(name)
    arguments = list(layer.args) + [None] * (3 - len(layer.args))
    arguments[2] = attribute
    layer.args = tuple(arguments)
    return name
