"""Models in which a converter or a quantizer is known to go wrong, each a corner that real models have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tiny_models import Arrays, built, engine, exported, folded, normal, raw_rows, target
from torch import Tensor, nn
from torch.nn import functional as F

from compress.calibrate import Ranges, calibrate
from compress.model.core import Model
from compress.recipe import QuantScheme
from compress.runtimes.base import Lowered


class Shared(nn.Module):
    """One vector feeds a layer and a look-up; a layer is called twice; the table is the head's weight, too.

    The outputs have the names of values inside, and one of them is read by a layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 12)
        self.lift = nn.Linear(5, 12)
        self.again = nn.Linear(12, 12)
        self.head = nn.Linear(12, 6, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        codes = self.table(x[:, 0].to(torch.int64))
        hidden = self.again(torch.tanh(self.again(torch.tanh(self.lift(x) + codes))))
        return {"linear": hidden, "mul": self.head(hidden) * 2}


class Dead(nn.Module):
    """Channels that batch normalisation switched off but for a constant, and a layer that never fires."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.silent = nn.Linear(4, 8)
        self.behind = nn.Linear(8, 8)
        self.head = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pooled = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return {"score": self.head(pooled), "rest": self.behind(torch.relu(self.silent(pooled)))}


def dead() -> nn.Module:
    """Gives `Dead` with its channels switched off."""
    module = built(Dead)
    with torch.no_grad():
        module.norm.weight[:] = torch.tensor([0.0, 1.0, 1e-9, 0.5])
        module.norm.bias[:] = torch.tensor([1.5, 0.1, 2.0, -0.2])
        module.silent.bias[:] = -100.0
    return module


class Shapes(nn.Module):
    """Convolutions of every kind, each with another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 6, 3, padding="same")
        self.grouped = nn.Conv2d(6, 6, 3, groups=2)
        self.multiplied = nn.Conv2d(6, 12, 3, groups=6)
        self.transposed = nn.ConvTranspose2d(12, 4, 2, stride=2)
        self.dilated = nn.Conv2d(4, 4, 3, dilation=2, padding=2)
        self.line = nn.Conv1d(4, 4, 3)
        self.head = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(F.hardswish(self.same(x))))
        x = F.hardtanh(self.dilated(torch.relu(self.transposed(self.multiplied(x).clamp(max=2.0)))))
        return self.head(self.line(x.mean(3)).clamp(min=-0.5).mean(2)).clamp(-0.2, 0.7)


class Encoder(nn.Module):
    """Torch's own encoder: a block reads its residual and its layers from one value, and the blocks start equal."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Scalars(nn.Module):
    """Weights of one number, multiples of each other, and layers with the names that tensors get."""

    def __init__(self) -> None:
        super().__init__()
        self.tensor_1 = nn.Linear(1, 1)
        self.tensor_2 = nn.Linear(1, 1)
        self.tensor_0 = nn.Linear(1, 1)
        self.wide = nn.Linear(2, 64)

    def forward(self, tensor_5: Tensor) -> dict[str, Tensor]:
        left, right = tensor_5[:, :1], tensor_5[:, 1:]
        return {
            "p": torch.tanh(self.tensor_1(left)),
            "q": torch.sigmoid(self.tensor_2(right)),
            "r": self.tensor_0(torch.tanh(right)),
            "s": self.wide(tensor_5),
        }


def scalars() -> nn.Module:
    """Gives `Scalars` with weights 1, 2 and -3."""
    module = built(Scalars)
    with torch.no_grad():
        for layer, value in ((module.tensor_1, 1.0), (module.tensor_2, 2.0), (module.tensor_0, -3.0)):
            layer.weight.fill_(value)
    return module


class Residual(nn.Module):
    """Sums of branches: one behind the other, one behind an activation, one that only a pooling reads; strides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.first, self.second, self.last = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        x = x + self.first(x)
        x = F.relu(x + self.second(x))
        x = self.down(x)
        return self.head((x + self.last(x)).mean((2, 3)))


CORNERS: dict[str, tuple[Callable[[], nn.Module], str, Callable[[np.random.Generator, int], Any]]] = {
    "shared": (lambda: built(Shared), "x", raw_rows),
    "dead": (dead, "x", normal(3, 6, 6)),
    "shapes": (lambda: built(Shapes), "x", normal(3, 10, 10)),
    "residual": (lambda: built(Residual), "x", normal(3, 16, 16)),
    "encoder": (lambda: built(Encoder), "x", normal(5, 16)),
    "scalars": (scalars, "tensor_5", normal(2)),
}


@dataclass(frozen=True)
class Corner:
    """A Model of `CORNERS`, folded, with rows, what it answers, their ranges, and its float32 file."""

    runtime: str
    model: Model
    rows: Arrays
    answers: Arrays
    ranges: Ranges
    lowered: Lowered
    made: dict[tuple[QuantScheme, str], Lowered] = field(default_factory=dict)

    def quantized(self, scheme: QuantScheme, cpu: str = "any") -> Lowered:
        """Gives the file with a scheme realised."""
        if scheme.dtype == "float32":
            return self.lowered
        if (scheme, cpu) not in self.made:
            place = target(self.runtime, cpu)
            self.made[scheme, cpu] = engine(self.runtime).quantize(self.lowered, scheme, self.ranges, place)
        return self.made[scheme, cpu]


def corner(runtime: str, name: str) -> Corner:
    """Builds, exports, folds, calibrates and lowers."""
    factory, given, make = CORNERS[name]
    rows = {given: make(np.random.default_rng(5), 64)}
    model = folded(exported(factory(), rows))
    return Corner(runtime, model, rows, model.run(rows), calibrate(model, [rows]), engine(runtime).lower(model))
