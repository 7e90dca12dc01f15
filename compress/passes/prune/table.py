"""The operator-cost table: parts of a graph timed at some widths on a target, and what is made of it at others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from compress.model.core import Model
from compress.model.cost import macs_of
from compress.passes.base import Meter
from compress.passes.prune.axes import Cut
from compress.passes.prune.costs import Costs, Priced, cut_to
from compress.passes.prune.groups import Analysis, Group
from compress.passes.prune.parts import Part, elements, find_parts, part_model
from compress.passes.prune.work import sizes_under

# Shares of the inputs' and of the result's widths at which a part is timed beside its full size.
_BOTH = ((1.0, 0.5), (0.5, 1.0), (0.25, 0.25))
_ONE = ((0.5, 0.5), (0.25, 0.25))
# The process is the sample, and neighbouring widths of a part share in its fit: one process a width.
PROCESSES = 1


@dataclass(frozen=True)
class Entry:
    """One line of the table: a part with its groups at some widths, and what a call took."""

    part: Part
    widths: Mapping[str, int]
    ms: float


def measure_costs(analysis: Analysis, groups: Sequence[Group], round_to: int, meter: Meter, whole_ms: float) -> Costs:
    """Returns the milliseconds of a graph on a target, as a cost by the widths of some groups.

    Of a part that was timed alone only what depends on widths counts: the constant is mostly what a call of a graph
    costs at all. What the parts do not account for is fixed. They also pay for more than they do inside the graph
    (each is handed its inputs in the layout of the file), so where they add up to more than the whole, all of them are
    scaled down to it.

    Args:
        analysis: Of the graph.
        groups: The groups that may be cut.
        round_to: The multiple of the widths that are timed.
        meter: What times.
        whole_ms: What a call of the whole graph takes.

    Raises:
        LoweringError: If the target's runtime cannot take a part.
        WorkerError: If a worker fails.
    """
    parts = find_parts(analysis, groups)
    entries = measure_table(analysis, groups, parts, round_to, meter)
    fitted = [_fitted(analysis, groups, part, entries[part]) for part in parts]
    full = {group.name: group.size for group in groups}
    together = Costs(fitted).total(full)
    scale = min(1.0, whole_ms / together) if together > 0 else 1.0
    scaled = [
        Priced(item.groups, lambda widths, item=item: scale * item.price(widths))  # type: ignore[misc]
        for item in fitted
    ]
    return Costs(scaled, max(0.0, whole_ms - together))


def measure_table(
    analysis: Analysis, groups: Sequence[Group], parts: Sequence[Part], round_to: int, meter: Meter
) -> dict[Part, list[Entry]]:
    """Times every part at its full size and at some widths; parts of one kind and size are timed once.

    Each width runs in turns with the full size, so that what disturbs one disturbs the other.
    """
    known = {group.name: group for group in groups}
    wanted: list[tuple[Part, dict[str, int], tuple[Model, Model]]] = []
    made: dict[str, Model] = {}
    for part in parts:
        full = {name: known[name].size for name in part.groups}
        whole = part_model(analysis, part, cut_to(known, full), made)
        for widths in _points(part, known, round_to):
            wanted.append((part, widths, (whole, part_model(analysis, part, cut_to(known, widths), made))))
    distinct = {(one.digest, other.digest): (one, other) for _, _, (one, other) in wanted}
    title = f"{len(distinct)} widths of {len({one for one, _ in distinct})} parts of the model"
    timings = dict(zip(distinct, meter.race(title, list(distinct.values()), PROCESSES), strict=True))
    found: dict[Part, list[Entry]] = {part: [] for part in parts}
    for part in parts:
        mine = [(widths, timings[one.digest, other.digest]) for own, widths, (one, other) in wanted if own is part]
        if not mine:
            continue
        whole_ms = float(np.median([timing.baseline_ms for _, timing in mine]))
        found[part].append(Entry(part, {name: known[name].size for name in part.groups}, whole_ms))
        found[part] += [Entry(part, widths, whole_ms * timing.ratio) for widths, timing in mine]
    return found


def _points(part: Part, known: Mapping[str, Group], round_to: int) -> list[dict[str, int]]:
    """The widths at which a part is timed, each once; none where its groups have nothing to lose."""
    separate = bool(part.read_groups and part.made_groups) and set(part.read_groups) != set(part.made_groups)
    found: dict[tuple[int, ...], dict[str, int]] = {}
    for read, made in _BOTH if separate else _ONE:
        widths = {}
        for name in part.groups:
            # A group on both sides goes with the result: what is added to it has its width.
            share = made if name in part.made_groups else read
            size = known[name].size
            unit = round_to if size >= 2 * round_to else 1
            widths[name] = min(size, max(1, round(size * share / unit) * unit))
        if any(width < known[name].size for name, width in widths.items()):
            found[tuple(widths.values())] = widths
    return list(found.values())


def _fitted(analysis: Analysis, groups: Sequence[Group], part: Part, entries: Sequence[Entry]) -> Priced:
    """What of a part's time depends on widths.

    The time is fitted as a sum, with factors that are not negative, of a constant, the multiply-adds, and the numbers
    that are read and written: what bounds a kernel is arithmetic or memory (Williams et al. 2009, the roofline model).
    """
    known = {group.name: group for group in groups}

    def features(widths: Mapping[str, int]) -> NDArray[np.float64]:
        cut = cut_to(known, widths)
        return np.array([1.0, _macs(analysis, part, cut), *elements(analysis, part, cut)], dtype=np.float64)

    if not entries:
        return Priced(part.groups, lambda widths: 0.0)
    rows = np.array([features(entry.widths) for entry in entries])
    scale = np.maximum(rows[0], 1.0)
    times = np.array([entry.ms for entry in entries])
    # Relative errors count: the smallest width says as much as the full one.
    factors, _ = nnls(rows / scale / times[:, None], np.ones(len(times)))

    def price(widths: tuple[int, ...]) -> float:
        found = features(dict(zip(part.groups, widths, strict=True))) / scale
        return float(found[1:] @ factors[1:])

    return Priced(part.groups, price)


def _macs(analysis: Analysis, part: Part, cut: Cut) -> int:
    sizes = sizes_under(analysis, cut)
    return sum(macs_of(node, sizes) for node in part.nodes)
