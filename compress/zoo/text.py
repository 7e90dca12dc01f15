"""A compact text classifier of BERT's shape.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019,
arXiv:1810.04805.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.zoo.arguments import at_least, divides, fraction, one_of
from compress.zoo.transformer import Block, padding_mask


class CompactBert(nn.Module):
    """Token and position embeddings, post-norm Transformer blocks, a linear head on the pooled tokens."""

    def __init__(
        self,
        vocabulary: int,
        positions: int,
        token_types: int,
        width: int,
        layers: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        pooling: str,
        classes: int,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(positions, width))
        self.token_types = nn.Embedding(token_types, width) if token_types else None
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, feed_forward, dropout, pre_norm=False) for _ in range(layers))
        self.head = nn.Linear(width, classes)
        for table in (self.tokens.weight, self.positions, *(self.token_types.parameters() if self.token_types else ())):
            nn.init.normal_(table, std=0.02)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Gives `{"scores": [batch, classes]}`.

        Args:
            input_ids: int64 `[batch, tokens]`, below the size of the vocabulary.
            attention_mask: int64 `[batch, tokens]`, 1 for a real token, 0 for padding, which changes no answer.
            token_type_ids: int64 `[batch, tokens]`; type 0 throughout if not given.

        Raises:
            ModelError: If there are more tokens than positions, or token types in a model without them.
        """
        length = input_ids.shape[1]
        if length > len(self.positions):
            raise ModelError(
                f"the input has {length} tokens, the model {len(self.positions)} positions",
                "cut texts at fewer tokens, or set model.arguments.positions.",
            )
        if token_type_ids is not None and self.token_types is None:
            raise ModelError("token types are fed to a model without them", "set model.arguments.token_types.")
        embedded = self.tokens(input_ids) + self.positions[:length]
        if self.token_types is not None:
            embedded = embedded + (
                self.token_types.weight[0] if token_type_ids is None else self.token_types(token_type_ids)
            )
        real = attention_mask.to(embedded.dtype)
        hidden, mask = self.dropout(self.norm(embedded)), padding_mask(real)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return {"scores": self.head(self.dropout(self._pooled(hidden, real)))}

    def _pooled(self, hidden: Tensor, real: Tensor) -> Tensor:
        if self.pooling == "cls":
            return hidden[:, 0]
        return (hidden * real[:, :, None]).sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1.0)


def compact_bert(
    vocabulary: int = 30522,
    width: int = 256,
    layers: int = 4,
    heads: int = 4,
    feed_forward: int = 1024,
    positions: int = 128,
    classes: int = 2,
    pooling: str = "mean",
    token_types: int = 0,
    dropout: float = 0.1,
) -> CompactBert:
    """Builds a compact text classifier, untrained. The number of tokens is fixed by the data it is exported for.

    Args:
        vocabulary: Number of token ids of the tokenizer.
        width: Width of a token.
        layers: Number of blocks.
        heads: Attention heads; they divide `width`.
        feed_forward: Width between the two linear layers of a block.
        positions: Most tokens that a text may have.
        classes: Scores a text; 1 for a binary model.
        pooling: `mean` over the real tokens, or `cls`, the first token.
        token_types: Kinds of tokens (2 for pairs of texts); 0 for a model without them.
        dropout: Share of values dropped in training.

    Raises:
        ModelError: If an argument is out of its range.
    """
    at_least(1, vocabulary=vocabulary, layers=layers, feed_forward=feed_forward, positions=positions, classes=classes)
    at_least(0, token_types=token_types)
    divides(width, heads)
    fraction(dropout=dropout)
    one_of(("mean", "cls"), pooling=pooling)
    return CompactBert(
        vocabulary, positions, token_types, width, layers, heads, feed_forward, dropout, pooling, classes
    )
