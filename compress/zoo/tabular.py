"""FT-Transformer, a Transformer over the features of a row.

Gorishniy, Rubachev, Khrulkov and Babenko, "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021,
arXiv:2106.11959. Raw values go in; the scales are inside the graph, fitted by `trunk.scale.fit`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.zoo.arguments import at_least, divides, fraction
from compress.zoo.scale import Standardise
from compress.zoo.transformer import Block, normal


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
        """Gives `[batch, features, width]` for int64 `codes` `[batch, features]`; a code out of range is unknown.

        Raises:
            ModelError: If there are not as many features as `categories`.
        """
        if codes.shape[-1] != len(self.counts):
            raise ModelError(
                f"{codes.shape[-1]} features of codes are fed to a model of {len(self.counts)}",
                "set model.arguments.categories: the number of codes of each.",
            )
        known = (codes >= 0) & (codes < self.counts)
        embedded: Tensor = self.table(torch.where(known, codes + 1, 0) + self.offsets)
        return embedded


class FtTrunk(nn.Module):
    """A row as tokens, one a feature and CLS before them, through Transformer blocks.

    Feed-forward parts are GELU of 4 × width here, the common kind, instead of the paper's ReGLU.

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
        self.slopes = nn.Parameter(normal(numeric, width))
        self.bias = nn.Parameter(normal(numeric, width))
        self.codes = CodeEmbedding(categories, width) if categories else None
        self.cls = nn.Parameter(normal(1, width))
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
    at_least(1, classes=classes)
    return FtTransformer(ft_trunk(numeric, categories, width, layers, heads, dropout), classes)


def ft_trunk(numeric: int, categories: Sequence[int], width: int, layers: int, heads: int, dropout: float) -> FtTrunk:
    """Builds the part of an FT-Transformer below its head. Arguments and errors as `ft_transformer`."""
    at_least(1, numeric=numeric, layers=layers)
    for index, count in enumerate(categories):
        at_least(1, **{f"categories[{index}]": count})
    divides(width, heads)
    fraction(dropout=dropout)
    return FtTrunk(numeric, categories, width, layers, heads, dropout)
