"""A small Transformer that reads one credit-card client and gives the log-odds of default next month.

The layout follows the FT-Transformer (Gorishniy, Rubachev, Khrulkov and Babenko, "Revisiting Deep Learning
Models for Tabular Data", NeurIPS 2021, arXiv:2106.11959): one token per feature, a CLS token, pre-norm blocks.
It differs in one point: the columns of one month share a token, so that the six months read as a sequence.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MONTHS = 6
CLIENT = ["LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE"]
STATUS = ["PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"]
AMOUNTS = [f"{kind}_AMT{month}" for kind in ("BILL", "PAY") for month in range(1, MONTHS + 1)]
COLUMNS = CLIENT + STATUS + AMOUNTS


class NumericFeatures(nn.Module):
    """Standardised numbers out of the raw vector; the scales are buffers and travel with the checkpoint."""

    static_mean: Tensor
    static_std: Tensor
    month_mean: Tensor
    month_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, count in (("static", 2), ("month", 3)):
            self.register_buffer(f"{name}_mean", torch.zeros(count))
            self.register_buffer(f"{name}_std", torch.ones(count))

    def transform(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the numbers before standardisation, for raw `features` `[batch, 23]`.

        Returns:
            `[batch, 2]` log limit and age; `[batch, 6, 3]` signed-log bill and payment, bill over limit.
        """
        limit, bill, payment = features[:, 0:1], features[:, 11:17], features[:, 17:23]
        static = torch.cat([_signed_log(limit), features[:, 4:5]], dim=1)
        return static, torch.stack([_signed_log(bill), _signed_log(payment), bill / limit], dim=2)

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Sets the scales from raw training rows `[rows, 23]` without missing values; months share theirs."""
        static, months = self.transform(features)
        for name, values in (("static", static), ("month", months.flatten(0, 1))):
            getattr(self, f"{name}_mean").copy_(values.mean(dim=0))
            getattr(self, f"{name}_std").copy_(values.std(dim=0))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the shapes of `transform`, standardised; a missing value becomes 0, the training mean.

        Outliers end at eight standard deviations.
        """
        static, months = self.transform(features)
        static = (static - self.static_mean) / self.static_std
        months = (months - self.month_mean) / self.month_std
        return _bounded(static), _bounded(months)


class CodeEmbedding(nn.Module):
    """Looks up integer codes that arrive as floats; code 0 of the table is kept for missing or too low values.

    Args:
        low: Smallest valid code.
        high: Largest valid code; larger ones count as this one.
        width: Width of an embedding.
    """

    def __init__(self, low: int, high: int, width: int) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.table = nn.Embedding(high - low + 2, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, codes: Tensor) -> Tensor:
        """Gives `[..., width]` for float `codes` `[...]`."""
        index = codes.clamp(max=self.high) - (self.low - 1)
        # NaN compares false, so one comparison serves both kinds of unknown and no cast ever sees a NaN.
        return self.table(torch.where(codes >= self.low, index, 0.0).to(torch.int64))


class Block(nn.Module):
    """A pre-norm Transformer block: self-attention over the tokens, then a feed-forward part."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.head_width = width // heads
        self.attention_norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps `tokens` `[batch, tokens, width]` to the same shape."""
        normed = self.attention_norm(tokens)
        q, k, v = (
            project(normed).unflatten(-1, (-1, self.head_width)).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        dropout = self.dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        tokens = tokens + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        hidden = F.gelu(self.up(self.feed_forward_norm(tokens)))
        return tokens + self.dropout(self.down(self.dropout(hidden)))


class CreditTransformer(nn.Module):
    """Credit-default model on the raw vector; it prepares the features itself, so a phone feeds what it has.

    Twelve tokens: CLS, limit, age, sex, education, marriage, and one per month, the latest first.
    """

    def __init__(self, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.numbers = NumericFeatures()
        self.cls = nn.Parameter(torch.empty(1, 1, width).normal_(std=width**-0.5))
        self.limit = nn.Linear(1, width)
        self.age = nn.Linear(1, width)
        self.sex = CodeEmbedding(1, 2, width)
        self.education = CodeEmbedding(0, 6, width)
        self.marriage = CodeEmbedding(0, 3, width)
        self.status = CodeEmbedding(-2, 8, width)
        self.month = nn.Linear(width + 3, width)
        self.position = nn.Parameter(torch.empty(1, MONTHS, width).normal_(std=width**-0.5))
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Gives `{"logit": [batch, 1]}` for raw float32 `features` `[batch, 23]` in the order of `COLUMNS`.

        A missing number (NaN) counts as the training mean, a missing code as "unknown".
        """
        static, months = self.numbers(features)
        clients = [
            self.limit(static[:, 0:1]),
            self.age(static[:, 1:2]),
            self.sex(features[:, 1]),
            self.education(features[:, 2]),
            self.marriage(features[:, 3]),
        ]
        history = self.month(torch.cat([self.status(features[:, 5:11]), months], dim=2)) + self.position
        cls = self.cls.expand(features.shape[0], -1, -1)
        tokens = torch.cat([cls, torch.stack(clients, dim=1), history], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return {"logit": self.head(self.norm(tokens[:, 0]))}


def build(width: int = 128, layers: int = 4, heads: int = 4, dropout: float = 0.1) -> CreditTransformer:
    """Builds the untrained model; `heads` must divide `width`."""
    if width % heads:
        raise ValueError(f"`heads` must divide `width`; got heads={heads}, width={width}.")
    return CreditTransformer(width, layers, heads, dropout)


def _signed_log(values: Tensor) -> Tensor:
    return torch.sign(values) * torch.log1p(values.abs())


def _bounded(values: Tensor) -> Tensor:
    # Missing values first: min and max on a NaN are not the same in every runtime.
    return torch.where(torch.isnan(values), 0.0, values).clamp(-8.0, 8.0)
