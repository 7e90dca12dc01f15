"""Recurrent layers with constant weights, through torch's own.

`fuse.py` has put the weights into torch's order before: `weight_ih, weight_hh, bias_ih, bias_hh` a direction.
Source: ONNX Operators.md, LSTM and GRU; torch.nn.LSTM and torch.nn.GRU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from compress.model.onnx_import.call import Call
from compress.model.onnx_import.errors import NotImportable
from compress.model.onnx_import.graph import Node
from compress.model.onnx_import.ops_math import Function

LSTM, GRU = "TorchLSTM", "TorchGRU"
# Inputs before the weights: values, initial hidden and cell state.
FIRST_WEIGHT = 3
# A loop that is written out: this many steps make a graph of a thousand nodes, which takes its time in every tool.
MAX_STEPS = 64
_ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh")}
_REFUSED = ("clip", "input_forget")


def _lstm(call: Call) -> tuple[torch.Tensor, ...]:
    value, directions = _steps_first(call), _directions(call)
    hidden, cell = _state(call, 1, value), _state(call, 2, value)
    result, last_hidden, last_cell = torch.lstm(
        value, (hidden, cell), call.tensors(FIRST_WEIGHT), True, 1, 0.0, False, directions == 2, False
    )
    return _outputs(call, result, last_hidden, last_cell)


def _gru(call: Call) -> tuple[torch.Tensor, ...]:
    value, directions = _steps_first(call), _directions(call)
    hidden = _state(call, 1, value)
    weights = call.tensors(FIRST_WEIGHT)
    if call.attribute("linear_before_reset", 0):
        result, last = torch.gru(value, hidden, weights, True, 1, 0.0, False, directions == 2, False)
        return _outputs(call, result, last)
    each = len(weights) // directions
    runs = [
        _reset_before(value if not at else value.flip(0), hidden[at], weights[at * each : (at + 1) * each])
        for at in range(directions)
    ]
    results = [run if not at else run.flip(0) for at, run in enumerate(runs)]
    return _outputs(call, torch.cat(results, -1), torch.stack([run[-1] for run in runs]))


def _reset_before(value: torch.Tensor, hidden: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """A GRU that resets the hidden state before it is multiplied (Cho et al. 2014, equation 8), step by step."""
    weight_ih, weight_gates, weight_new, bias_ih, bias_gates, bias_new = weights
    if value.shape[0] > MAX_STEPS:
        raise NotImportable(f"linear_before_reset=0 over {value.shape[0]} steps")
    gates_in = functional.linear(value, weight_ih, bias_ih)
    size = hidden.shape[-1]
    states = []
    for step in range(value.shape[0]):
        from_input = gates_in[step]
        gates = torch.sigmoid(from_input[:, : 2 * size] + functional.linear(hidden, weight_gates, bias_gates))
        reset, update = gates[:, :size], gates[:, size:]
        new = torch.tanh(from_input[:, 2 * size :] + functional.linear(reset * hidden, weight_new, bias_new))
        hidden = (1 - update) * new + update * hidden
        states.append(hidden)
    return torch.stack(states)


def _steps_first(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    value = value.transpose(0, 1) if call.attribute("layout", 0) else value
    return value.flip(0) if call.attribute("direction", "forward") == "reverse" else value


def _directions(call: Call) -> int:
    return 2 if call.attribute("direction", "forward") == "bidirectional" else 1


def _state(call: Call, index: int, value: torch.Tensor) -> torch.Tensor:
    """Returns an initial state `[directions, batch, hidden]`, zeros where none is given."""
    rows, state = value.shape[1], call.optional(index)
    if state is None:
        return torch.zeros(_directions(call), rows, call.attribute("hidden_size"), dtype=value.dtype)
    state = state.transpose(0, 1) if call.attribute("layout", 0) else state
    one_row = isinstance(state.shape[1], int) and state.shape[1] == 1
    return state.expand(-1, rows, -1) if one_row and call.batch.opens and call.batch.fixed == 1 else state


def _outputs(call: Call, result: torch.Tensor, *last: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Returns ONNX's outputs: all steps `[steps, directions, batch, hidden]`, then the last states."""
    if call.attribute("direction", "forward") == "reverse":
        result = result.flip(0)
    steps, rows, width = result.shape
    directions = _directions(call)
    result = result.reshape(steps, rows, directions, width // directions)
    if call.attribute("layout", 0):
        return result.transpose(0, 1), *(state.transpose(0, 1) for state in last)
    return result.transpose(1, 2), *last


def _computed_weights(call: Call) -> torch.Tensor:
    raise NotImportable("with weights that are computed")


def _refusal(node: Node) -> str:
    wanted = _ACTIVATIONS[node.operator]
    given = [name.lower() for name in node.attributes.get("activations") or ()]
    if given and given != list(wanted) * (len(given) // len(wanted)):
        return f"activations {given}"
    if node.attributes.get("direction", "forward") not in ("forward", "reverse", "bidirectional"):
        return f"direction {node.attributes['direction']!r}"
    refused = next((name for name in _REFUSED if node.attributes.get(name)), "")
    if refused:
        return refused
    if len(node.inputs) > 4 and node.inputs[4]:
        return "with sequence_lens"
    return "with peepholes" if node.operator == "LSTM" and any(node.inputs[7:]) else ""


TABLE: Mapping[str, Function] = {LSTM: _lstm, GRU: _gru, "LSTM": _computed_weights, "GRU": _computed_weights}
REFUSALS: Mapping[str, Callable[[Node], str]] = {"LSTM": _refusal, "GRU": _refusal}
