"""Graphs that hypothesis draws: layers of all kinds, joined at random, over pictures or over tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

SIDE, STEPS = 4, 5
# A step reads one value, or two; what it gives comes behind all others.
SINGLE = (
    "layer",
    "layer",
    "layer",
    "grouped",
    "scale",
    "curve",
    "gate",
    "views",
    "chunks",
    "split",
    "slice",
    "heads",
    "turn",
)
DOUBLE = ("add", "multiply", "join")


class Drawn(nn.Module):
    """A list of steps over a list of values, all `[rows, channels, 4, 4]` or `[rows, 5, channels]`.

    Args:
        pictures: Whether channels come behind the rows, or last.
        steps: `(kind, which values, a number)`, taken modulo what there is.
        width: Channels that come in.
    """

    def __init__(self, pictures, steps, width):
        super().__init__()
        self.pictures, self.width = pictures, width
        self.parts = nn.ModuleDict()
        self.plan, widths = [], [width]
        for number, (kind, sources, size) in enumerate(steps):
            read = [source % len(widths) for source in sources]
            given = [widths[place] for place in read]
            made = self._made(str(number), kind, given, size)
            self.plan.append((str(number), kind, read, size))
            widths += made
        # Whatever nothing reads would be dead.
        loose = [place for place in range(len(widths)) if not any(place in read for _, _, read, _ in self.plan)]
        self.loose, self.head = loose, nn.Linear(sum(widths[place] for place in loose), 3)

    def layer(self, before, behind, groups=1):
        if self.pictures:
            return nn.Conv2d(before, behind, 3 if groups > 1 else 1, padding=1 if groups > 1 else 0, groups=groups)
        return nn.Linear(before, behind)

    def _made(self, name, kind, given, size):
        """Builds the layers of a step and returns the widths of what it gives."""
        width, other = given[0], given[-1]
        if kind == "layer":
            self.parts[name] = self.layer(width, size + 1)
            return [size + 1]
        if kind == "grouped" and self.pictures:
            groups = divisor(width, size)
            self.parts[name] = self.layer(width, 2 * width if size % 2 else width, groups)
            return [2 * width if size % 2 else width]
        if kind == "scale" and self.pictures:
            self.parts[name] = nn.BatchNorm2d(width)
        elif kind == "gate":
            self.parts[name] = nn.ModuleList([self.layer(width, 1 + size % 4), self.layer(1 + size % 4, width)])
        elif kind == "heads" and not self.pictures:
            self.parts[name] = nn.ModuleList([*(self.layer(width, width) for _ in range(3)), self.layer(width, 4)])
            return [4]
        elif kind in ("add", "multiply") and width != other:
            self.parts[name] = self.layer(other, width)
        elif kind == "join":
            return [width + other]
        elif kind == "chunks":
            count = divisor(width, size)
            return [width // count] * count
        elif kind == "split" and width > 1:
            first = 1 + size % (width - 1)
            return [first, width - first]
        elif kind == "slice" and width > 2:
            return [width - 1 - size % 2]
        return [width]

    def forward(self, value):
        values = [value]
        for step in self.plan:
            values += self._stepped(*step, values)
        values = [values[place] for place in self.loose]
        return self.head(torch.cat([item.mean((2, 3) if self.pictures else 1) for item in values], dim=1))

    def _stepped(self, name, kind, read, size, values):
        value, other, dim = values[read[0]], values[read[-1]], 1 if self.pictures else 2
        width, part = value.shape[dim], dict(self.parts.items()).get(name)
        if kind in ("layer", "grouped", "scale") and part is not None:
            return [part(value)]
        if kind == "curve":
            return [(torch.relu, torch.sigmoid, F.silu, torch.tanh)[size % 4](value)]
        if kind == "gate":
            means = value.mean((2, 3), keepdim=True) if self.pictures else value.amax(1, keepdim=True)
            return [value * torch.sigmoid(part[1](torch.relu(part[0](means))))]
        if kind == "heads" and part is not None:
            return [self._attended(value, part, divisor(width, size))]
        if kind in ("add", "multiply"):
            other = other if part is None else part(other)
            return [value + other if kind == "add" else value * torch.sigmoid(other)]
        if kind == "join":
            return [torch.cat([value, other], dim=dim)]
        if kind == "chunks":
            return list(value.chunk(divisor(width, size), dim=dim))
        if kind == "split" and width > 1:
            first = 1 + size % (width - 1)
            return list(torch.split(value, [first, width - first], dim=dim))
        if kind == "slice" and width > 2:
            return [value[:, 1 : width - size % 2] if self.pictures else value[..., 1 : width - size % 2]]
        if kind == "views":
            return [self._shuffled(value, divisor(width, size))]
        if kind == "turn":
            return (
                [value.flatten(2).transpose(1, 2).reshape(-1, SIDE, SIDE, width).permute(0, 3, 1, 2)]
                if (self.pictures)
                else [value.transpose(1, 2).flip(-1).movedim(1, 2)]
            )
        return [value]

    def _shuffled(self, value, groups):
        if not self.pictures:
            rows, steps, width = value.shape
            return value.unflatten(-1, (groups, width // groups)).transpose(2, 3).reshape(rows, steps, width)
        rows, width, height, across = value.shape
        value = value.view(rows, groups, width // groups, height, across).transpose(1, 2)
        return value.flatten(1, 2)

    def _attended(self, value, part, heads):
        rows, steps, width = value.shape
        query, key, value = (
            layer(value).view(rows, steps, heads, width // heads).transpose(1, 2) for layer in part[:3]
        )
        got = F.scaled_dot_product_attention(query, key, value)
        return part[3](got.transpose(1, 2).reshape(rows, steps, width))


def divisor(width, number):
    """One of the divisors of a width."""
    every = [count for count in range(1, width + 1) if width % count == 0]
    return every[number % len(every)]


@st.composite
def drawn_modules(draw):
    """A module and the shape of its input."""
    torch.manual_seed(0)
    pictures = draw(st.booleans())
    width = draw(st.integers(3, 6))
    pick = st.integers(0, 30)
    step = st.one_of(
        st.tuples(st.sampled_from(SINGLE), st.tuples(pick), st.integers(0, 15)),
        st.tuples(st.sampled_from(DOUBLE), st.tuples(pick, pick), st.integers(0, 15)),
    )
    # Something to cut must come first: what comes in stays as it is.
    steps = [("layer", (0,), draw(st.integers(5, 15))), *draw(st.lists(step, min_size=2, max_size=9))]
    module = Drawn(pictures, steps, width)
    return module, ((width, SIDE, SIDE) if pictures else (STEPS, width))
