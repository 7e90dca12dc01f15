"""Three risks of a credit-card client from five months of history: a multi-task network on the raw vector.

The network is the zoo's, with hard or soft sharing; in front of it stand the logarithms, the shares of the limit and
the codes, so that a phone feeds what it has.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.zoo.multitask import multitask_mlp

TASKS = ("default:binary", "delinquency:3", "growth:regression")
MONTHS = 5
# 2 numbers, 1 + 3 + 2 flags of the client; 4 numbers of status and 4 of money a month.
PREPARED = 8 + 8 * MONTHS


class CreditRisks(nn.Module):
    """A head a task on prepared features; scales are inside and travel with the checkpoint.

    Args:
        tasks: As `multitask_mlp` takes them.
        sharing: `hard` or `soft`.
        hidden: Width of each layer of a trunk.
        dropout: Share of values dropped in training.
    """

    def __init__(self, tasks: Sequence[str], sharing: str, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.net = multitask_mlp(PREPARED, tasks, sharing, hidden, dropout)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Gives an output a task for raw float32 `features` `[batch, 20]`, in the order of `data.INPUTS`.

        Returns:
            `default` `[batch, 1]`, log-odds; `delinquency` `[batch, 3]`, logits; `growth` `[batch, 1]`, share of the
            limit. A missing number (NaN) counts as the training mean, a missing code as none of those known.
        """
        outputs: dict[str, Tensor] = self.net(prepare(features))
        return outputs

    def fit_scale(self, features: Tensor) -> None:
        """Sets the scales from raw training rows `[rows, 20]`."""
        self.net.fit_scale(prepare(features))


def build(
    sharing: str = "hard", tasks: Sequence[str] = TASKS, hidden: Sequence[int] = (256, 128), dropout: float = 0.1
) -> CreditRisks:
    """Builds the model, untrained; 46,085 parameters with hard sharing, 136,965 with soft."""
    return CreditRisks(tasks, sharing, hidden, dropout)


def prepare(features: Tensor) -> Tensor:
    """Gives what the trunks see, float32 `[batch, 48]`, not yet standardised, for raw `features` `[batch, 20]`."""
    client, history = features[:, :5], features[:, 5:]
    limit, sex, education, marriage, age = client.split(1, dim=1)
    status, bills, payments = history.split(MONTHS, dim=1)
    return torch.cat(
        [
            _signed_log(limit),
            age,
            *_flags(sex, (2,)),
            *_flags(education, (1, 2, 3)),
            *_flags(marriage, (1, 2)),
            *_flags(status, (-2, -1, 0)),
            # A comparison with NaN is false, so an unknown status is no month late and has no flag.
            torch.where(status > 0, status, 0.0),
            _signed_log(bills),
            _signed_log(payments),
            bills / limit,
            payments / limit,
        ],
        dim=1,
    )


def _flags(codes: Tensor, known: Sequence[int]) -> list[Tensor]:
    return [(codes == code).to(torch.float32) for code in known]


def _signed_log(values: Tensor) -> Tensor:
    return torch.sign(values) * torch.log1p(values.abs())
