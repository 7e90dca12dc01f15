"""What operators that regroup, turn and repeat dimensions make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.fx import Node

from compress.passes.prune.axes import UNIT, Cut, Dim, freeze, fresh, leaves, product, size, unify
from compress.passes.prune.trace import Call, Result, Rule, Shape, dims_size, listed, placed, refuse


def view(call: Call) -> Result:
    """`view`, `reshape`: dimensions are multiplied and divided, and sizes in the graph follow a cut."""
    value = call.shape("self") or ()
    result = regrouped(call, value, call.sizes())
    name = "size" if call.operator in ("view", "_unsafe_view") else "shape"
    call.rewrite(name, _sizes_after(call.get(name), result))
    return result


def flatten(call: Call) -> Result:
    """`flatten`: neighbouring dimensions are multiplied."""
    value = call.shape("self") or ()
    first, last = placed(call.get("start_dim", 0), value), placed(call.get("end_dim", -1), value)
    return (*value[:first], product(value[first : last + 1]), *value[last + 1 :])


def unflatten(call: Call) -> Result:
    """`unflatten`: a dimension is divided; its sizes follow a cut."""
    value = call.shape("self") or ()
    place, wanted = placed(call.get("dim"), value), call.get("sizes")
    sizes = call.sizes()[place : place + len(wanted)]
    inner = regrouped(call, (value[place],), sizes)
    call.rewrite("sizes", _sizes_after(wanted, inner))
    return (*value[:place], *inner, *value[place + 1 :])


def permute(call: Call) -> Result:
    """`permute`: another order."""
    value = call.shape("self") or ()
    return tuple(value[placed(place, value)] for place in call.get("dims"))


def transpose(call: Call) -> Result:
    """`transpose`, `swapaxes`, `t`: two dimensions change places."""
    value = list(call.shape("self") or ())
    first, second = (
        placed(call.get(f"dim{end}", call.get(f"axis{end}", default)), value) for end, default in ((0, 0), (1, -1))
    )
    value[first], value[second] = value[second], value[first]
    return tuple(value)


def movedim(call: Call) -> Result:
    """`movedim`: some dimensions move, the others keep their order."""
    value = call.shape("self") or ()
    sources = [placed(place, value) for place in listed(call.get("source"))]
    targets = [placed(place, value) for place in listed(call.get("destination"))]
    rest = iter(place for place in range(len(value)) if place not in sources)
    moved = dict(zip(targets, sources, strict=True))
    return tuple(value[moved[place] if place in moved else next(rest)] for place in range(len(value)))


def squeeze(call: Call) -> Result:
    """`squeeze`: dimensions of size 1 go. One that a cut might make 1 is not touched: its size is known now."""
    value = call.shape("self") or ()
    places = call.get("dim")
    chosen = {placed(place, value) for place in listed(places)} if places is not None else set(range(len(value)))
    return tuple(dim for place, dim in enumerate(value) if place not in chosen or size(dim) > 1)


def unsqueeze(call: Call) -> Result:
    """`unsqueeze`: a dimension of size 1 comes."""
    value = call.shape("self") or ()
    place = int(call.get("dim"))
    place += len(value) + 1 if place < 0 else 0
    return (*value[:place], UNIT, *value[place:])


def expand(call: Call) -> Result:
    """`expand`: dimensions of size 1 are repeated; sizes in the graph follow a cut."""
    value, sizes = call.shape("self") or (), call.sizes()
    value = (*(UNIT for _ in range(len(sizes) - len(value))), *value)
    pairs = zip(value, sizes, strict=True)
    result = tuple(dim if size(dim) == length else fresh(length, call.at("repeated")) for dim, length in pairs)
    call.rewrite("size", _sizes_after(call.get("size"), result))
    return result


def repeat(call: Call) -> Result:
    """`repeat`: each dimension comes several times, one copy behind the other."""
    value, times = call.shape("self") or (), call.get("repeats")
    value = (*(UNIT for _ in range(len(times) - len(value))), *value)
    pairs = zip(value, call.sizes(), strict=True)
    return tuple(product([fresh(length // size(dim), call.at("repeated")), dim]) for dim, length in pairs)


def repeat_interleave(call: Call) -> Result:
    """`repeat_interleave` by a number: each position comes several times in a row."""
    value, dim, times = call.shape("self") or (), call.get("dim"), call.get("repeats")
    if dim is None or not isinstance(times, int):
        return refuse(call, "repeats values by a tensor")
    place = placed(dim, value)
    longer = product([value[place], fresh(times, call.at("repeated"))])
    return (*value[:place], longer, *value[place + 1 :])


def regrouped(call: Call, value: Shape, sizes: Sequence[int]) -> Shape:
    """Returns the dimensions of another grouping of the same elements."""
    result: list[Dim] = []
    old, new = [dim for dim in value if size(dim) > 1], list(sizes)
    while new:
        wanted = [new.pop(0)]
        if wanted == [1]:
            result.append(UNIT)
            continue
        taken = [old.pop(0)]
        while dims_size(taken) != _product(wanted):
            if dims_size(taken) < _product(wanted):
                taken.append(old.pop(0))
            else:
                wanted.append(new.pop(0))
        if len(taken) == len([length for length in wanted if length > 1]) == 1:
            result += [taken[0] if length > 1 else UNIT for length in wanted]
        elif len([length for length in wanted if length > 1]) == 1:
            result += [product(taken) if length > 1 else UNIT for length in wanted]
        else:
            pieces = [fresh(length) for length in wanted]
            unify(product(taken), product(pieces), call.at("view"))
            result += pieces
    return tuple(result)


def _product(sizes: Sequence[int]) -> int:
    result = 1
    for length in sizes:
        result *= length
    return result


def _sizes_after(given: Sequence[Any], shape: Shape) -> Any:
    """Returns the sizes of an argument after a cut; -1 stays.

    A size that the graph computes stays, too, unless it was multiplied by what the cut changes, as in `batch · heads`:
    it becomes the one that follows from the others.
    """
    given = list(given)
    dims = shape[len(shape) - len(given) :]
    computed = [dim for old, dim in zip(given, dims, strict=True) if isinstance(old, Node) and _beside_batch(dim)]
    for dim in computed[1:] if -1 not in given else computed:
        freeze(dim, "a size that the graph computes")

    def sizes(cut: Cut) -> list[Any]:
        found: list[Any] = []
        for old, dim in zip(given, dims, strict=True):
            if isinstance(old, Node):
                found.append(old if cut.size(dim) == size(dim) else -1)
            else:
                found.append(old if old == -1 else cut.size(dim))
        return found

    return sizes


def _beside_batch(dim: Dim) -> bool:
    return any(not axis.frozen for axis in leaves(dim))


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), view),
    "flatten": flatten,
    "unflatten": unflatten,
    "permute": permute,
    **dict.fromkeys(("transpose", "t", "swapaxes", "swapdims"), transpose),
    **dict.fromkeys(("movedim", "moveaxis"), movedim),
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "expand": expand,
    "repeat": repeat,
    "repeat_interleave": repeat_interleave,
}

__all__ = ["RULES"]
