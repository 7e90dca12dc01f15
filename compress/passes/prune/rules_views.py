"""What operators that move, join, divide and combine values make of dimensions; none of them has weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.fx import Node

from compress.passes.prune.axes import UNIT, Cut, Dim, add, divide, freeze, fresh, leaves, mix, product, size, unify
from compress.passes.prune.rules_layers import broadcast
from compress.passes.prune.trace import Call, Result, Rule, Shape, dims_size, refuse, unknown_result


def same(call: Call) -> Result:
    """The result has the shape of the first tensor."""
    return call.shape_of(call.node.all_input_nodes[0])


def pointwise(call: Call) -> Result:
    """Element by element, with broadcasting: what is lined up is one."""
    return broadcast(call, [call.shape_of(value) for value in call.node.all_input_nodes if call.shape_of(value)])


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
    first, last = _place(call.get("start_dim", 0), value), _place(call.get("end_dim", -1), value)
    return (*value[:first], product(value[first : last + 1]), *value[last + 1 :])


def unflatten(call: Call) -> Result:
    """`unflatten`: a dimension is divided; its sizes follow a cut."""
    value = call.shape("self") or ()
    place, wanted = _place(call.get("dim"), value), call.get("sizes")
    sizes = call.sizes()[place : place + len(wanted)]
    inner = regrouped(call, (value[place],), sizes)
    call.rewrite("sizes", _sizes_after(wanted, inner))
    return (*value[:place], *inner, *value[place + 1 :])


def permute(call: Call) -> Result:
    """`permute`: another order."""
    value = call.shape("self") or ()
    return tuple(value[_place(place, value)] for place in call.get("dims"))


def transpose(call: Call) -> Result:
    """`transpose`, `t`: two dimensions change places."""
    value = list(call.shape("self") or ())
    first, second = _place(call.get("dim0", 0), value), _place(call.get("dim1", -1), value)
    value[first], value[second] = value[second], value[first]
    return tuple(value)


def movedim(call: Call) -> Result:
    """`movedim`: some dimensions move, the others keep their order."""
    value = call.shape("self") or ()
    sources = [_place(place, value) for place in _listed(call.get("source"))]
    targets = [_place(place, value) for place in _listed(call.get("destination"))]
    rest = iter(place for place in range(len(value)) if place not in sources)
    moved = dict(zip(targets, sources, strict=True))
    return tuple(value[moved[place] if place in moved else next(rest)] for place in range(len(value)))


def squeeze(call: Call) -> Result:
    """`squeeze`: dimensions of size 1 go. One that a cut might make 1 is not touched: its size is known now."""
    value = call.shape("self") or ()
    places = call.get("dim")
    chosen = {_place(place, value) for place in _listed(places)} if places is not None else set(range(len(value)))
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
    place = _place(dim, value)
    longer = product([value[place], fresh(times, call.at("repeated"))])
    return (*value[:place], longer, *value[place + 1 :])


def cat(call: Call) -> Result:
    """`cat`: along one dimension they are added, the others are one."""
    values = [shape for shape in call.tensors("tensors") if dims_size(shape)]
    place = _place(call.get("dim", 0), values[0])
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
    place = _place(call.get("dim", 0), value)
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
    place = _place(call.get("dim", 0), value)
    freeze(value[place], call.at("read position by position"))
    return [(*value[:place], *value[place + 1 :]) for _ in range(size(value[place]))]


def select(call: Call) -> Result:
    """`select`: one position of a dimension is read."""
    value = call.shape("self") or ()
    place = _place(call.get("dim"), value)
    freeze(value[place], call.at("one position is read by its number"))
    return (*value[:place], *value[place + 1 :])


def slice_(call: Call) -> Result:
    """`slice`, `narrow`: a piece of a dimension; its bounds follow a cut."""
    value = call.shape("self") or ()
    place = _place(call.get("dim", 0), value)
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


def reduction(call: Call) -> Result:
    """`mean`, `sum`, `amax` …: dimensions go; what is cut from one changes the result."""
    value = call.shape("self") or ()
    chosen = call.get("dim")
    places = {_place(place, value) for place in _listed(chosen)} if chosen not in (None, []) else set(range(len(value)))
    for place in places:
        mix(value[place], call.at(call.operator))
    if call.get("keepdim", False):
        return tuple(UNIT if place in places else dim for place, dim in enumerate(value))
    return tuple(dim for place, dim in enumerate(value) if place not in places)


def softmax(call: Call) -> Result:
    """`softmax`, `log_softmax`, `cumsum`: every position depends on the others."""
    value = call.shape("self") or ()
    mix(value[_place(call.get("dim"), value)], call.at(call.operator))
    return value


def pad(call: Call) -> Result:
    """`pad`, `constant_pad_nd`: padded dimensions are new ones."""
    value, sizes = call.shape("self") or (), call.sizes()
    padded = [size(dim) != length for dim, length in zip(value, sizes, strict=True)]
    for dim in (dim for dim, grown in zip(value, padded, strict=True) if grown):
        freeze(dim, call.at("padded"))
    return tuple(
        fresh(length, call.at("padded")) if grown else dim
        for dim, length, grown in zip(value, sizes, padded, strict=True)
    )


def einsum(call: Call) -> Result:
    """`einsum`: dimensions of one letter are one."""
    equation = str(call.get("equation")).replace(" ", "")
    values = call.tensors("tensors")
    given, arrow, wanted = equation.partition("->")
    if "." in equation or not arrow:
        return refuse(call, "an einsum without written letters for every dimension")
    letters: dict[str, Dim] = {}
    for term, shape in zip(given.split(","), values, strict=True):
        for letter, dim in zip(term, shape, strict=True):
            if letter in letters and size(letters[letter]) > 1 and size(dim) > 1:
                unify(letters[letter], dim, call.at("einsum"))
            if size(letters.get(letter, UNIT)) == 1:
                letters[letter] = dim
    counts = {letter: given.count(letter) for letter in letters}
    for letter, dim in letters.items():
        if letter not in wanted and counts[letter] == 1:
            mix(dim, call.at("einsum sums it"))
    return tuple(letters[letter] for letter in wanted)


def made(call: Call) -> Result:
    """What is made in the graph out of numbers (`arange`, `zeros`): its sizes are not rewritten, so they stay."""
    return unknown_result(call.node.meta.get("val"), call.at("made in the graph"))


def number(call: Call) -> Result:
    """A size or another number: it is computed when the graph runs, and follows a cut by itself."""
    return None


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


def _place(place: int, shape: Sequence[Any]) -> int:
    return int(place) + len(shape) if place < 0 else int(place)


def _listed(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


RULES: Mapping[str, Rule] = {
    "pointwise": pointwise,
    **dict.fromkeys(("rsub", "floor_divide", "masked_fill", "where", "__and__", "__or__", "__xor__"), pointwise),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "contiguous", "clone", "detach", "alias"), same),
    **dict.fromkeys(("to", "_to_copy", "type_as", "lift_fresh_copy", "detach_"), same),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "hardswish", "hardswish_"), same),
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), view),
    "flatten": flatten,
    "unflatten": unflatten,
    "permute": permute,
    **dict.fromkeys(("transpose", "t", "swapaxes"), transpose),
    "movedim": movedim,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "expand": expand,
    "repeat": repeat,
    "repeat_interleave": repeat_interleave,
    **dict.fromkeys(("cat", "concat"), cat),
    "stack": stack,
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), split),
    "unbind": unbind,
    "select": select,
    **dict.fromkeys(("slice", "narrow"), slice_),
    "<built-in function getitem>": getitem,
    **dict.fromkeys(
        ("mean", "sum", "amax", "amin", "var", "std", "prod", "any", "all", "linalg_vector_norm"), reduction
    ),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "cumsum"), softmax),
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    "einsum": einsum,
    **dict.fromkeys(("arange", "zeros", "ones", "full", "scalar_tensor", "empty", "eye", "linspace"), made),
    **dict.fromkeys(("sym_size", "_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range_for_size"), number),
    **dict.fromkeys(("<built-in function mul>", "<built-in function add>", "<built-in function eq>"), number),
}

__all__ = ["RULES"]
