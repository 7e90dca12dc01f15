"""What the Transformers share: self-attention, the block, the mask of padded tokens.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv:1706.03762.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Far below every logit, so that its exponential is 0 in float16 as well, and yet finite: a row without any real
# token gives even weights, not NaN.
_MASKED = -1e4


class SelfAttention(nn.Module):
    """Multi-head self-attention with one linear layer each for query, key, value and output.

    Args:
        width: Width of a token; `heads` divides it.
        heads: Number of heads.
        dropout: Share of attention weights dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.head_width = width // heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = dropout

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps `tokens` `[batch, tokens, width]` to the same shape; `mask` is what `padding_mask` gives."""
        q, k, v = (
            project(tokens).unflatten(-1, (-1, self.head_width)).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        mixed: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Self-attention over the tokens, then two linear layers on each, both added to what went in.

    Args:
        width: Width of a token.
        heads: Number of heads.
        hidden: Width between the two linear layers.
        dropout: Share of values dropped in training.
        pre_norm: Whether normalisation stands before a part (it trains without a warm-up), or, as in BERT, behind
            the addition.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, pre_norm: bool = True) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = SelfAttention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps `tokens` `[batch, tokens, width]` to the same shape; `mask` is what `padding_mask` gives."""
        if self.pre_norm:
            tokens = tokens + self.dropout(self.attention(self.attention_norm(tokens), mask))
            added: Tensor = tokens + self.dropout(self._feed_forward(self.feed_forward_norm(tokens)))
            return added
        tokens = self.attention_norm(tokens + self.dropout(self.attention(tokens, mask)))
        normed: Tensor = self.feed_forward_norm(tokens + self.dropout(self._feed_forward(tokens)))
        return normed

    def _feed_forward(self, tokens: Tensor) -> Tensor:
        mapped: Tensor = self.down(F.gelu(self.up(tokens)))
        return mapped


def padding_mask(real: Tensor) -> Tensor:
    """Returns what is added to attention's logits, `[batch, 1, 1, tokens]`: 0 for real tokens, far below for padding.

    Args:
        real: float32 `[batch, tokens]`, 1 for a real token and 0 for padding.
    """
    return ((1 - real) * _MASKED)[:, None, None, :]


def normal(rows: int, width: int) -> Tensor:
    """Returns random parameters `[rows, width]` of the size that attention expects of tokens."""
    return torch.empty(rows, width).normal_(std=width**-0.5)
