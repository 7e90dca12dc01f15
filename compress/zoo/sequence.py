"""Models of a series of transactions: a Transformer and an LSTM baseline.

Raw values go in, `[batch, steps, features]`; the scales are inside the graph, fitted by `scale.fit`. NaN is a missing
value, a step of nothing but NaN is padding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.zoo.arguments import at_least, divides, fraction
from compress.zoo.scale import Standardise
from compress.zoo.transformer import Block, normal, padding_mask


class TransactionTransformer(nn.Module):
    """A series of transactions as tokens, CLS before them, through Transformer blocks.

    Positions are learned; put the latest transaction last and padding first, so that "latest" is one position.
    """

    def __init__(
        self, features: int, steps: int, width: int, layers: int, heads: int, dropout: float, outputs: int
    ) -> None:
        super().__init__()
        self.scale = Standardise(features)
        self.step = nn.Linear(features, width)
        self.position = nn.Parameter(normal(steps, width))
        self.cls = nn.Parameter(normal(1, width))
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, transactions: Tensor) -> dict[str, Tensor]:
        """Gives `{"scores": [batch, outputs]}` for raw float32 `transactions` `[batch, steps, features]`.

        NaN is a missing value; a step of nothing but NaN is padding and changes no answer.
        """
        _check_steps(transactions, len(self.position))
        real = _real_steps(transactions)
        mask = padding_mask(torch.cat([torch.ones_like(real[:, :1]), real], dim=1))
        steps = self.step(self.scale(transactions)) + self.position
        tokens = torch.cat([self.cls.expand(steps.shape[0], 1, -1), steps], dim=1)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return {"scores": self.head(self.norm(tokens[:, 0]))}


class LstmLayer(nn.Module):
    """One layer of long short-term memory (Hochreiter and Schmidhuber 1997; forget gate of Gers et al. 2000).

    It is unrolled over the steps and made of linear layers, `nn.LSTM` being one operator whose weights no
    quantizer here reaches.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, 4 * hidden)
        self.recurrent = nn.Linear(hidden, 4 * hidden, bias=False)
        # Remember at first: a forget gate near one half loses what is ten steps ago.
        nn.init.ones_(self.input.bias[hidden : 2 * hidden])

    def forward(self, series: Tensor, real: Tensor) -> Tensor:
        """Gives the state after each step, `[batch, steps, hidden]`; padding leaves it as it was.

        Args:
            series: `[batch, steps, inputs]`.
            real: float32 `[batch, steps, 1]`, 0 for padding.
        """
        projected = self.input(series).unbind(dim=1)
        states: list[Tensor] = []
        cell = state = None
        for step, gates in enumerate(projected):
            take, keep, value, give = (gates if state is None else gates + self.recurrent(state)).chunk(4, dim=-1)
            added = torch.sigmoid(take) * torch.tanh(value)
            new_cell = added if cell is None else torch.sigmoid(keep) * cell + added
            new_state = torch.sigmoid(give) * torch.tanh(new_cell)
            now = real[:, step]
            cell = now * new_cell if cell is None else cell + now * (new_cell - cell)
            state = now * new_state if state is None else state + now * (new_state - state)
            states.append(state)
        return torch.stack(states, dim=1)


class LstmBaseline(nn.Module):
    """LSTM layers over a series of transactions, a linear head on the last state."""

    def __init__(self, features: int, steps: int, hidden: int, layers: int, dropout: float, outputs: int) -> None:
        super().__init__()
        self.steps = steps
        self.scale = Standardise(features)
        self.layers = nn.ModuleList(LstmLayer(hidden if index else features, hidden) for index in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, transactions: Tensor) -> dict[str, Tensor]:
        """Gives what `TransactionTransformer` gives for the same input."""
        _check_steps(transactions, self.steps)
        real = _real_steps(transactions)[:, :, None]
        states = self.scale(transactions)
        for layer in self.layers:
            states = self.dropout(layer(states, real))
        return {"scores": self.head(states[:, -1])}


def transaction_transformer(
    features_per_step: int,
    steps: int,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    classes: int = 1,
    dropout: float = 0.1,
) -> TransactionTransformer:
    """Builds a Transformer over transactions, untrained.

    Args:
        features_per_step: Numbers that describe one transaction.
        steps: Transactions a series, padding included.
        width: Width of a token.
        layers: Number of blocks.
        heads: Attention heads; they divide `width`.
        classes: Scores a series; 1 for a binary or a regression model.
        dropout: Share of values dropped in training.

    Raises:
        ModelError: If an argument is out of its range.
    """
    at_least(1, features_per_step=features_per_step, steps=steps, layers=layers, classes=classes)
    divides(width, heads)
    fraction(dropout=dropout)
    return TransactionTransformer(features_per_step, steps, width, layers, heads, dropout, classes)


def lstm_baseline(
    features_per_step: int, steps: int, hidden: int = 64, layers: int = 1, classes: int = 1, dropout: float = 0.0
) -> LstmBaseline:
    """Builds an LSTM over transactions, untrained. The exported graph grows with `steps` times `layers`.

    Args:
        features_per_step: Numbers that describe one transaction.
        steps: Transactions a series, padding included.
        hidden: Width of the state.
        layers: Number of LSTM layers.
        classes: Scores a series; 1 for a binary or a regression model.
        dropout: Share of values dropped behind a layer in training.

    Raises:
        ModelError: If an argument is out of its range.
    """
    at_least(1, features_per_step=features_per_step, steps=steps, hidden=hidden, layers=layers, classes=classes)
    fraction(dropout=dropout)
    return LstmBaseline(features_per_step, steps, hidden, layers, dropout, classes)


def _check_steps(transactions: Tensor, steps: int) -> None:
    if transactions.shape[1] != steps:
        raise ModelError(
            f"a series of {transactions.shape[1]} steps is fed to a model of {steps}", "set model.arguments.steps."
        )


def _real_steps(transactions: Tensor) -> Tensor:
    """Tells steps from padding: float32 `[batch, steps]`, 1 where any feature of a step is known."""
    return (~torch.isnan(transactions)).to(transactions.dtype).amax(dim=-1)
