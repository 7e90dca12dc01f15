"""What operators that join, divide and pick make of dimensions."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Node

from compress.passes.prune.axes import UNIT, Dim, add, divide, freeze, fresh, size, unify
from compress.passes.prune.rules_layers import broadcast
from compress.passes.prune.trace import (
    Call,
    Result,
    Rule,
    dims_size,
    frozen_shape,
    listed,
    placed,
    refuse,
    unknown_result,
)


def cat(call: Call) -> Result:
    """`cat`: along one dimension they are added, the others are one."""
    values = [shape for shape in call.tensors("tensors") if dims_size(shape)]
    place = placed(call.get("dim", 0), values[0])
    others = [(*shape[:place], UNIT, *shape[place + 1 :]) for shape in values]
    result = list(broadcast(call, others))
    result[place] = add([shape[place] for shape in values])
    return tuple(result)


def stack(call: Call) -> Result:
    """`stack`: the tensors have one shape, and a new dimension counts them."""
    values = call.tensors("tensors")
    result = list(broadcast(call, values))
    place = int(call.get("dim", 0))
    result.insert(place + len(result) + 1 if place < 0 else place, fresh(len(values), call.at("counts tensors")))
    return tuple(result)


def split(call: Call) -> Result:
    """`chunk`, `split`, `split_with_sizes`: a dimension is divided; the sizes of the pieces follow a cut."""
    value = call.shape("self") or ()
    place = placed(call.get("dim", 0), value)
    lengths = [call.sizes(index)[place] for index in range(len(call.node.meta["val"]))]
    pieces = divide(value[place], lengths)
    if pieces is None:
        return refuse(call, "divides where no boundary is")
    if call.operator == "split_with_sizes" or isinstance(call.get("split_size"), list | tuple):
        name = "split_sizes" if call.operator == "split_with_sizes" else "split_size"
        call.rewrite(name, lambda cut: [cut.size(piece) for piece in pieces])
    else:
        # Pieces are told by their number or length: they must stay of one length.
        for piece in pieces[1:]:
            if size(piece) == size(pieces[0]):
                unify(pieces[0], piece, call.at("pieces of one length"))
            else:
                freeze(value[place], call.at("pieces of several lengths"))
        if call.operator == "split":
            call.rewrite("split_size", lambda cut: cut.size(pieces[0]))
    return [(*value[:place], piece, *value[place + 1 :]) for piece in pieces]


def unbind(call: Call) -> Result:
    """`unbind`: a dimension goes, with a tensor for each of its positions."""
    value = call.shape("self") or ()
    place = placed(call.get("dim", 0), value)
    freeze(value[place], call.at("read position by position"))
    return [(*value[:place], *value[place + 1 :]) for _ in range(size(value[place]))]


def select(call: Call) -> Result:
    """`select`: one position of a dimension is read."""
    value = call.shape("self") or ()
    place = placed(call.get("dim"), value)
    freeze(value[place], call.at("one position is read by its number"))
    return (*value[:place], *value[place + 1 :])


def slice_(call: Call) -> Result:
    """`slice`, `narrow`: a piece of a dimension; its bounds follow a cut."""
    value = call.shape("self") or ()
    place = placed(call.get("dim", 0), value)
    dim, length = value[place], call.sizes()[place]
    if length == size(dim):
        return value
    start = call.get("start", 0)
    if not isinstance(start, int) or call.get("step", 1) != 1:
        freeze(dim, call.at("every so many positions are read"))
        return (*value[:place], fresh(length, call.at("a piece")), *value[place + 1 :])
    start += size(dim) if start < 0 else 0
    pieces = divide(dim, [start, length, size(dim) - start - length])
    if pieces is None:
        freeze(dim, call.at("divides where no boundary is"))
        return (*value[:place], fresh(length, call.at("a piece")), *value[place + 1 :])
    before, piece, _ = pieces
    call.rewrite("start", lambda cut: cut.size(before))
    if call.operator == "narrow":
        call.rewrite("length", lambda cut: cut.size(piece))
    elif call.get("end") is not None:
        call.rewrite("end", lambda cut: cut.size(before) + cut.size(piece))
    return (*value[:place], piece, *value[place + 1 :])


def getitem(call: Call) -> Result:
    """`getitem`: one of several tensors."""
    value, index = call.node.args[0], call.node.args[1]
    several = call.shapes_of(value) if isinstance(value, Node) else []
    if isinstance(index, int) and index < len(several):
        found: Result = several[index]
        return found
    return unknown_result(call.node.meta.get("val"), call.at("picked from what is not known"))


def pad(call: Call) -> Result:
    """`pad`, `constant_pad_nd`: constants before and behind a dimension; other kinds repeat what is there."""
    value, sizes, widths = call.shape("self") or (), call.sizes(), list(call.get("pad"))
    result, reason = list(value), call.at("padded")
    for number in range(len(widths) // 2):
        place, (before, behind) = len(value) - 1 - number, widths[2 * number : 2 * number + 2]
        if call.get("mode", "constant") == "constant" and min(before, behind) >= 0:
            result[place] = add([*_constants(before, reason), value[place], *_constants(behind, reason)])
        else:
            freeze(value[place], reason)
            result[place] = fresh(sizes[place], reason)
    return tuple(result)


def _constants(count: int, reason: str) -> list[Dim]:
    return [fresh(count, reason)] if count else []


def index(call: Call) -> Result:
    """`index`, `index_select`: positions are read by their number, so the dimensions that are picked from stay."""
    value, sizes = call.shape("self") or (), call.sizes()
    if call.operator == "index_select":
        picked = [placed(call.get("dim"), value)]
    else:
        picked = [place for place, given in enumerate(call.get("indices")) if given is not None]
    for place in picked:
        freeze(value[place], call.at("positions are read by their number"))
    first, last = picked[0], picked[-1]
    if picked != list(range(first, last + 1)):
        return refuse(call, "picks from dimensions that are apart")
    count = len(sizes) - (len(value) - len(picked))
    found = frozen_shape(sizes[first : first + count], call.at("positions are read by their number"))
    return (*value[:first], *found, *value[last + 1 :])


def reorder(call: Call) -> Result:
    """`flip`, `roll`: positions of a dimension change their order, which a cut would not follow."""
    value = call.shape("self") or ()
    for place in listed(call.get("dims", ())) or range(len(value)):
        freeze(value[placed(place, value)], call.at("another order"))
    return value


def triangle(call: Call) -> Result:
    """`tril`, `triu`: which elements stay depends on their number."""
    value = call.shape("self") or ()
    for dim in value[-2:]:
        freeze(dim, call.at("elements are told by their number"))
    return value


def glu(call: Call) -> Result:
    """`glu`: the first half of a dimension times a function of the second, position by position."""
    value = call.shape("self") or ()
    place = placed(call.get("dim", -1), value)
    halves = divide(value[place], [size(value[place]) // 2] * 2)
    if halves is None:
        return refuse(call, "divides where no boundary is")
    unify(halves[0], halves[1], call.at("glu"))
    return (*value[:place], halves[0], *value[place + 1 :])


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("cat", "concat"), cat),
    "stack": stack,
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), split),
    "unbind": unbind,
    "select": select,
    **dict.fromkeys(("slice", "narrow"), slice_),
    "<built-in function getitem>": getitem,
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    **dict.fromkeys(("index", "index_select"), index),
    **dict.fromkeys(("flip", "roll"), reorder),
    **dict.fromkeys(("tril", "triu"), triangle),
    "glu": glu,
}

__all__ = ["RULES"]
