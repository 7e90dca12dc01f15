"""Several risks from one row: binary, multi-class and regression heads on shared or tied trunks.

Hard sharing: one trunk, a head a task (Caruana 1997). Soft sharing: a trunk a task, their parameters drawn together
by a penalty in training (Duong, Cohn, Bird and Cook, "Low Resource Dependency Parsing", ACL 2015).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.zoo.arguments import at_least, fraction, one_of
from compress.zoo.scale import Standardise
from compress.zoo.tabular import FtTrunk, ft_trunk

SHARING = ("hard", "soft")
# What stands in `tasks` for a head of one score; a number of classes stands for itself.
ONE_SCORE = ("binary", "regression")


class MlpTrunk(nn.Module):
    """Standardised features through linear layers with ReLU.

    Args:
        features: Number of features.
        hidden: Width of each layer.
        dropout: Share of values dropped behind each layer in training.
    """

    def __init__(self, features: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.width = hidden[-1]
        self.scale = Standardise(features)
        sizes = itertools.pairwise((features, *hidden))
        self.layers = nn.ModuleList(nn.Linear(below, above) for below, above in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Maps raw float32 `features` `[batch, features]` to `[batch, width]`; NaN is missing."""
        values: Tensor = self.scale(features)
        for layer in self.layers:
            values = self.dropout(torch.relu(layer(values)))
        return values


class MultiTask(nn.Module):
    """A head a task, on one trunk (`hard`) or on a trunk of its own (`soft`).

    Args:
        tasks: Name to `"binary"`, `"regression"` or the number of classes; names are those of the outputs.
        sharing: `hard` or `soft`.
        trunk: Gives a new trunk: `[batch, features]` to `[batch, trunk.width]`, with a `scale` to fit.

    Raises:
        ModelError: If there is no task, or a name or kind of task cannot be.
    """

    def __init__(self, tasks: Mapping[str, str | int], sharing: str, trunk: Callable[[], MlpTrunk | FtTrunk]) -> None:
        super().__init__()
        one_of(SHARING, sharing=sharing)
        self.tasks = dict(tasks)
        self.sharing = sharing
        scores = {name: _scores(name, kind) for name, kind in self.tasks.items()}
        if not scores:
            raise ModelError("model.arguments.tasks: there is no task", 'write tasks = ["default:binary"].')
        first = trunk()
        width = int(first.width)
        # Trunks start equal: parameters at the same place mean the same, and the penalty starts at 0.
        names = list(self.tasks) if sharing == "soft" else ["shared"]
        self.trunks = nn.ModuleDict({name: copy.deepcopy(first) for name in names})
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in scores.items()})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Gives `{task: [batch, scores]}` for raw float32 `features` `[batch, features]`; NaN is missing.

        One logit for a binary task, one value for a regression, a logit a class otherwise.
        """
        if self.sharing == "hard":
            shared = self.trunks["shared"](features)
            return {name: head(shared) for name, head in self.heads.items()}
        return {name: head(self.trunks[name](features)) for name, head in self.heads.items()}

    def fit_scale(self, features: Tensor) -> None:
        """Sets the scales of every trunk from raw training rows `[rows, features]`."""
        for module in self.trunks.modules():
            if isinstance(module, Standardise):
                module.fit(features)


def soft_sharing_penalty(model: MultiTask) -> Tensor:
    """Returns the squared L2 distance of corresponding trunk parameters, summed over all pairs of trunks.

    Add it to the loss, times a weight to choose. It is 0 with one trunk. Duong et al. 2015, section 3: there it ties
    two parsers; here every pair of tasks. Scales are buffers and stay out of it.
    """
    trunks = [dict(trunk.named_parameters()) for trunk in model.trunks.values()]
    penalty = torch.zeros((), device=next(model.parameters()).device)
    for one, other in itertools.combinations(trunks, 2):
        for name, parameter in one.items():
            penalty = penalty + (parameter - other[name]).square().sum()
    return penalty


def multitask_mlp(
    features: int,
    tasks: Sequence[str] | Mapping[str, str | int],
    sharing: str = "hard",
    hidden: Sequence[int] = (128, 64),
    dropout: float = 0.1,
) -> MultiTask:
    """Builds a multi-task model on linear layers, untrained.

    Args:
        features: Number of numeric features.
        tasks: `["default:binary", "delinquency:3", "growth:regression"]`, or the same as a dictionary.
        sharing: `hard` (one trunk) or `soft` (a trunk a task; train it with `soft_sharing_penalty`).
        hidden: Width of each layer.
        dropout: Share of values dropped in training.

    Raises:
        ModelError: If an argument is out of its range.
    """
    at_least(1, features=features, hidden=len(hidden))
    for index, width in enumerate(hidden):
        at_least(1, **{f"hidden[{index}]": width})
    fraction(dropout=dropout)
    return MultiTask(read_tasks(tasks), sharing, lambda: MlpTrunk(features, hidden, dropout))


def multitask_transformer(
    features: int,
    tasks: Sequence[str] | Mapping[str, str | int],
    sharing: str = "hard",
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.1,
) -> MultiTask:
    """Builds a multi-task model on the FT-Transformer, untrained.

    Args:
        features: Number of numeric features.
        tasks: As `multitask_mlp`.
        sharing: As `multitask_mlp`.
        width: Width of a token.
        layers: Number of blocks.
        heads: Attention heads; they divide `width`.
        dropout: Share of values dropped in training.

    Raises:
        ModelError: If an argument is out of its range.
    """
    at_least(1, features=features)
    return MultiTask(read_tasks(tasks), sharing, lambda: ft_trunk(features, (), width, layers, heads, dropout))


def read_tasks(tasks: Sequence[str] | Mapping[str, str | int]) -> dict[str, str | int]:
    """Reads `name:kind` entries, as a recipe's list holds them.

    Raises:
        ModelError: If an entry has no kind, or two have one name.
    """
    if isinstance(tasks, Mapping):
        return dict(tasks)
    result: dict[str, str | int] = {}
    for entry in tasks:
        name, colon, kind = entry.partition(":")
        if not colon:
            raise ModelError(
                f"model.arguments.tasks: {entry!r} has no kind",
                "write 'default:binary', 'growth:regression' or 'kind:3'.",
            )
        if name in result:
            raise ModelError(f"model.arguments.tasks: {name!r} is there twice", "name each task once.")
        result[name] = int(kind) if kind.isdecimal() else kind
    return result


def _scores(name: str, kind: str | int) -> int:
    # An output is called like its task, and `nn.ModuleDict` has attributes of its own (`keys`, `train`).
    if not name.isidentifier() or hasattr(nn.ModuleDict, name) or name == "features":
        raise ModelError(
            f"model.arguments.tasks: {name!r} cannot be the name of a task",
            "letters, digits and underscores; not the name of the input or of a method of a torch module.",
        )
    if kind in ONE_SCORE:
        return 1
    if not isinstance(kind, int) or kind < 2:
        raise ModelError(
            f"model.arguments.tasks: {name!r} is of the kind {kind!r}", "binary, regression, or 2 or more classes."
        )
    return kind
