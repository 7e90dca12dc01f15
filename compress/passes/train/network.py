"""The graph of a Model as something that trains, and the way back to a Model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen

from compress.model.core import Model

# What an operator calls the argument that tells training from use.
_SWITCHES = ("train", "training")
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_DROPOUTS = ("aten.dropout.", "aten.dropout_.", "aten.feature_dropout.", "aten.alpha_dropout.")


@dataclass(frozen=True)
class _Switch:
    """One argument of one call, as it is in use and as it is in training."""

    node: Node
    name: str
    used: Any
    trained: Any

    def turn(self, training: bool) -> None:
        value = self.trained if training else self.used
        place = _place(self.node, self.name)
        if place is not None and place < len(self.node.args):
            self.node.update_arg(place, value)
        else:
            self.node.update_kwarg(self.name, value)


class Network:
    """A private copy of a Model's graph and weights, on a device.

    1. Names of parameters and buffers are those of the Model; a tied weight is one parameter.
    2. `train` turns on dropout, each with the share that its own node states, and batch normalisation's own statistics;
       `eval` turns them off again. Attention's share does not survive an export in eval form, so it is given.
    3. Every floating parameter learns, but those that `freeze` names.

    Args:
        model: Stays untouched.
        device: Where it trains.
        taps: Values of the graph that a call returns beside the outputs, by node name.
        dropout: Replaces the share of every dropout; None keeps each its own.
        attention_dropout: Share of attention weights dropped in training.
        frozen_statistics: Whether batch normalisation keeps the statistics that it has.
        prepare: Changes the copy before anything else: quantizers are put in this way.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        *,
        taps: Iterable[str] = (),
        dropout: float | None = None,
        attention_dropout: float = 0.0,
        frozen_statistics: bool = False,
        prepare: Callable[[GraphModule], None] | None = None,
    ) -> None:
        self.device = device
        self.outputs = tuple(item.name for item in model.signature.outputs)
        self.taps = tuple(taps)
        program = model.program
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(copy.deepcopy(program), device)
        self.module = _plain(program.module(check_guards=False))
        if prepare is not None:
            prepare(self.module)
        _tap(self.module, self.taps)
        self.module.to(device)
        # On a processor, too, convolutions train a third quicker with their channels side by side.
        for parameter in self.parameters.values():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        first: dict[int, str] = {}
        every = self.module.named_parameters(remove_duplicate=False)
        self._aliases = {name: first.setdefault(id(value), name) for name, value in every}
        self._switches = list(_switches(self.module, dropout, attention_dropout, frozen_statistics))
        for parameter in self.parameters.values():
            parameter.requires_grad_(parameter.is_floating_point())
        self.eval()

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by its name, a tied one once."""
        return dict(self.module.named_parameters())

    @property
    def moving(self) -> dict[str, Tensor]:
        """What training changes, by name: parameters that learn, and the statistics of batch normalisations."""
        buffers = dict(self.module.named_buffers())
        statistics = {
            str(node.target): buffers[str(node.target)]
            for switch in self._switches
            if "batch_norm" in str(switch.node.target)
            for node in switch.node.args[3:5]
            if isinstance(node, Node) and str(node.target) in buffers
        }
        learning = {name: value for name, value in self.parameters.items() if value.requires_grad}
        return {**learning, **statistics}

    def alias(self, name: str) -> str:
        """Returns the name that a parameter has here: of the names of a tied one, one is kept."""
        return self._aliases.get(name, name)

    def freeze(self, names: Iterable[str]) -> None:
        """Keeps these parameters as they are."""
        for name in names:
            self.parameters[name].requires_grad_(False)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over tensors by name; those that are not named stay."""
        held = {**self.parameters, **dict(self.module.named_buffers())}
        for name, value in weights.items():
            held[name].copy_(value)

    def train(self) -> None:
        """Puts the graph into training form."""
        self._turn(True)

    def eval(self) -> None:
        """Puts the graph into the form in which it is used."""
        self._turn(False)

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns outputs by name, and tapped values by node name."""
        values = self.module(*inputs)
        outputs = dict(zip(self.outputs, values, strict=False))
        return outputs, dict(zip(self.taps, values[len(self.outputs) :], strict=True))

    def _turn(self, training: bool) -> None:
        for switch in self._switches:
            switch.turn(training)
        self.module.recompile()


def with_weights(model: Model, weights: Mapping[str, Tensor], step: str) -> Model:
    """Returns the Model with other weights in the same graph; ties stay ties.

    Args:
        model: Stays untouched.
        weights: Name to tensor; names that are missing keep their weights. A tied weight may have any of its names.
        step: What was done, for the lineage.
    """
    program = copy.copy(model.program)
    by_tensor = {id(old): weights[name] for name, old in model.program.state_dict.items() if name in weights}
    made: dict[int, Tensor] = {}
    state = {}
    for name, old in model.program.state_dict.items():
        if id(old) not in made:
            made[id(old)] = _like(old, by_tensor[id(old)]) if id(old) in by_tensor else old
        state[name] = made[id(old)]
    program._state_dict = state
    program._constants = {
        name: _like(old, weights[name]) if name in weights and isinstance(old, Tensor) else old
        for name, old in model.program.constants.items()
    }
    return model.with_program(program, step)


def _like(old: Tensor, new: Tensor) -> Tensor:
    value = new.detach().to(device=old.device, dtype=old.dtype).contiguous().clone()
    return nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value


def _plain(base: GraphModule) -> GraphModule:
    """The graph as a function of its inputs in order, without checks around, on weights of its own."""
    graph = base.graph
    # They check what mixed precision changes on purpose.
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        graph.erase_node(node)
    # A view asks for one order of the values in memory, and layers here choose theirs.
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        node.target = torch.ops.aten.reshape.default
    graph.set_codegen(CodeGen())
    return copy.deepcopy(GraphModule(base, graph))


def _tap(module: GraphModule, taps: tuple[str, ...]) -> None:
    """Lets a call return its outputs in order, then the tapped values."""
    by_name = {node.name: node for node in module.graph.nodes}
    output = module.graph.output_node()
    leaves: list[Any] = []
    torch.fx.node.map_arg(output.args, leaves.append)
    output.args = ((*leaves, *(by_name[name] for name in taps)),)


def _switches(
    module: GraphModule, dropout: float | None, attention_dropout: float, frozen_statistics: bool
) -> Iterable[_Switch]:
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is _ATTENTION and attention_dropout:
            yield _Switch(node, "dropout_p", 0.0, attention_dropout)
        for name in _SWITCHES:
            if _place(node, name) is None or (frozen_statistics and "batch_norm" in str(node.target)):
                continue
            yield _Switch(node, name, False, True)
        if dropout is not None and str(node.target).startswith(_DROPOUTS):
            yield _Switch(node, "p", node.args[1] if len(node.args) > 1 else node.kwargs["p"], dropout)


def _place(node: Node, name: str) -> int | None:
    """Position of an argument in an operator's schema, None where it has none of that name."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    return names.index(name) if name in names else None
