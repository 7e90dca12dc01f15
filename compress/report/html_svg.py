"""Plots as SVG from plain numbers: scales, axes and marks as small pure functions. Colours are classes of the page."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 400, 290
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 12, 44

# Width of a character of a tick, rather more than less.
_CHARACTER = 6.6

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """A linear map from data [low, high] to positions [start, end] of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Returns the position of a value, kept within the drawing."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def scales(x: tuple[float, float], y: tuple[float, float], height: int = HEIGHT) -> tuple[Scale, Scale]:
    """Returns the scales of a plot of standard size for data of these ranges."""
    return Scale(*x, LEFT, WIDTH - RIGHT), Scale(*y, height - BOTTOM, TOP)


def padded(values: Iterable[float], share: float = 0.08) -> tuple[float, float]:
    """Returns a range that holds all finite values with some room; of one value, or none, a range around it."""
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Returns round numbers within a range, about that many: steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return []
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.7)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(values: Sequence[float]) -> Callable[[float], str]:
    """Returns how ticks are written: with as many decimals as their step needs."""
    step = min((after - before for before, after in itertools.pairwise(values)), default=1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return lambda value: f"{value:z,.{min(decimals, 12)}f}"


def axes(x: Scale, y: Scale, x_title: str, y_title: str) -> Markup:
    """Returns grid, ticks and titles of a plot."""
    parts = []
    for scale, is_x in ((x, True), (y, False)):
        marks = ticks(scale.low, scale.high)
        written = tick_text(marks)
        parts += [_tick(scale(mark), written(mark), x, y, is_x=is_x) for mark in marks]
    bottom = max(y.start, y.end)
    middle = (min(y.start, y.end) + bottom) / 2
    parts.append(text((x.start + x.end) / 2, bottom + 36, x_title, "title", "middle"))
    parts.append(
        Markup('<text class="title" text-anchor="middle" transform="translate(12 {}) rotate(-90)">{}</text>').format(
            _round(middle), y_title
        )
    )
    return Markup("").join(parts)


def _tick(place: float, written: str, x: Scale, y: Scale, *, is_x: bool) -> Markup:
    bottom = max(y.start, y.end)
    if is_x:
        line = segment((place, min(y.start, y.end)), (place, bottom), "grid")
        return line + below(place, bottom + 16, written)
    return segment((x.start, place), (x.end, place), "grid") + text(x.start - 6, place + 4, written, "tick", "end")


def curve(points: Iterable[Point], mark: str) -> Markup:
    """Returns a line through points."""
    path = " ".join(f"{_round(x)},{_round(y)}" for x, y in points)
    return Markup('<polyline class="{}" points="{}"/>').format(mark, path)


def segment(start: Point, end: Point, mark: str) -> Markup:
    """Returns a straight line."""
    places = (_round(value) for value in (*start, *end))
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(mark, *places)


def dot(at: Point, radius: float, mark: str, title: str = "") -> Markup:
    """Returns a disc; its title shows when it is pointed at."""
    inside = Markup("<title>{}</title>").format(title) if title else Markup("")
    return Markup('<circle class="{}" cx="{}" cy="{}" r="{}">{}</circle>').format(
        mark, _round(at[0]), _round(at[1]), _round(radius), inside
    )


def text(x: float, y: float, words: str, mark: str, anchor: str = "start") -> Markup:
    """Returns words at a place; `anchor` is start, middle or end."""
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        mark, _round(x), _round(y), anchor, words
    )


def below(x: float, y: float, words: str) -> Markup:
    """Returns the words of a tick under its line, moved aside where they would leave the drawing."""
    half = _CHARACTER * len(words) / 2
    return text(min(max(x, half), WIDTH - half), y, words, "tick", "middle")


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Returns places moved as little as order allows so that labels are `gap` apart and within [low, high]."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [0.0] * len(places)
    last = low - gap
    for index in order:
        last = moved[index] = max(places[index], last + gap)
    last = high + gap
    for index in reversed(order):
        last = moved[index] = min(moved[index], last - gap)
    return moved


def _round(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
