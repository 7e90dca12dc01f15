"""Models of rows and of transaction series: FT-Transformer, a Transformer over transactions, an LSTM baseline.

All take raw values; scales are inside the graph, fitted by `scale.fit` and saved with the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.zoo.arguments import at_least, divides, fraction
from compress.zoo.scale import Standardise, real_steps
from compress.zoo.transformer import Block, padding_mask


class CodeEmbedding(nn.Module):
    """Looks up integer codes of several features, all in one table; each feature has a row for unknown codes.

    Args:
        categories: Number of codes of each feature; codes count from 0.
        width: Width of an embedding.
    """

    counts: Tensor
    offsets: Tensor

    def __init__(self, categories: Sequence[int], width: int) -> None:
        super().__init__()
        counts = torch.tensor(categories)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("offsets", torch.cumsum(counts + 1, 0) - counts - 1, persistent=False)
        self.table = nn.Embedding(int((counts + 1).sum()), width)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, codes: Tensor) -> Tensor:
        """Gives `[batch, features, width]` for int64 `codes` `[batch, features]`; a code out of range is unknown."""
        known = (codes >= 0) & (codes < self.counts)
        embedded: Tensor = self.table(torch.where(known, codes + 1, 0) + self.offsets)
        return embedded


class FtTrunk(nn.Module):
    """A row as tokens, one a feature and CLS before them, through Transformer blocks.

    Gorishniy, Rubachev, Khrulkov and Babenko, "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021,
    arXiv:2106.11959. Feed-forward parts are GELU of 4 × width here, which runtimes fuse, instead of ReGLU.

    Args:
        numeric: Number of numeric features.
        categories: Number of codes of each categorical feature.
        width: Width of a token.
        layers: Number of blocks.
        heads: Attention heads; they divide `width`.
        dropout: Share of values dropped in training.
    """

    def __init__(
        self, numeric: int, categories: Sequence[int], width: int, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.width = width
        self.scale = Standardise(numeric)
        self.slopes = nn.Parameter(_normal(numeric, width))
        self.bias = nn.Parameter(_normal(numeric, width))
        self.codes = CodeEmbedding(categories, width) if categories else None
        self.cls = nn.Parameter(_normal(1, width))
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, numeric: Tensor, categories: Tensor | None = None) -> Tensor:
        """Gives `[batch, width]`, the CLS token, for the inputs of `FtTransformer`."""
        if (categories is None) != (self.codes is None):
            raise ModelError(
                "the input 'categories' is fed without being declared, or declared without being fed",
                "declare the number of codes of each feature in model.arguments.categories, and feed them.",
            )
        tokens = [self.cls.expand(numeric.shape[0], 1, -1), self.scale(numeric)[:, :, None] * self.slopes + self.bias]
        if self.codes is not None:
            tokens.append(self.codes(categories))
        row = torch.cat(tokens, dim=1)
        for block in self.blocks:
            row = block(row)
        normed: Tensor = self.norm(row[:, 0])
        return normed


class FtTransformer(nn.Module):
    """`FtTrunk` with a linear head."""

    def __init__(self, trunk: FtTrunk, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.width, outputs)

    def forward(self, numeric: Tensor, categories: Tensor | None = None) -> dict[str, Tensor]:
        """Gives `{"scores": [batch, outputs]}`.

        Args:
            numeric: Raw float32 `[batch, numeric]`; NaN is missing.
            categories: int64 codes `[batch, features]`; a code out of range, such as -1, is unknown.
        """
        return {"scores": self.head(self.trunk(numeric, categories))}


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
        self.position = nn.Parameter(_normal(steps, width))
        self.cls = nn.Parameter(_normal(1, width))
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, transactions: Tensor) -> dict[str, Tensor]:
        """Gives `{"scores": [batch, outputs]}` for raw float32 `transactions` `[batch, steps, features]`.

        NaN is a missing value; a step of nothing but NaN is padding and changes no answer.
        """
        real = real_steps(transactions)
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

    def forward(self, series: Tensor, real: Tensor) -> list[Tensor]:
        """Gives the state after each step, `[batch, hidden]` each; padding leaves it as it was.

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
        return states


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
        if transactions.shape[1] != self.steps:
            raise ModelError(
                f"the series has {transactions.shape[1]} steps, the model {self.steps}", "set model.arguments.steps."
            )
        real = real_steps(transactions)[:, :, None]
        series = self.scale(transactions)
        state = series[:, -1]
        for layer in self.layers:
            states = layer(series, real)
            series, state = self.dropout(torch.stack(states, dim=1)), states[-1]
        return {"scores": self.head(self.dropout(state))}


def ft_transformer(
    numeric: int,
    categories: Sequence[int] = (),
    width: int = 64,
    layers: int = 3,
    heads: int = 4,
    classes: int = 1,
    dropout: float = 0.1,
) -> FtTransformer:
    """Builds an FT-Transformer, untrained.

    Args:
        numeric: Number of numeric features, at least one.
        categories: Number of codes of each categorical feature; the model has no input `categories` without any.
        width: Width of a token.
        layers: Number of blocks.
        heads: Attention heads; they divide `width`.
        classes: Scores a row; 1 for a binary or a regression model.
        dropout: Share of values dropped in training.

    Raises:
        ModelError: If an argument is out of its range.
    """
    return FtTransformer(ft_trunk(numeric, categories, width, layers, heads, dropout), _counted(classes=classes))


def ft_trunk(
    numeric: int, categories: Sequence[int], width: int, layers: int, heads: int, dropout: float
) -> FtTrunk:
    """Builds the part of an FT-Transformer below its head. Arguments and errors as `ft_transformer`."""
    at_least(1, numeric=numeric, layers=layers)
    for index, count in enumerate(categories):
        at_least(1, **{f"categories[{index}]": count})
    divides(width, heads)
    fraction(dropout=dropout)
    return FtTrunk(numeric, categories, width, layers, heads, dropout)


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


def _normal(rows: int, width: int) -> Tensor:
    return torch.empty(rows, width).normal_(std=width**-0.5)


def _counted(classes: int) -> int:
    at_least(1, classes=classes)
    return classes
