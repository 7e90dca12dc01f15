"""What operators that work element by element, or sum over a dimension, make of dimensions."""

from __future__ import annotations

from collections.abc import Mapping

from compress.passes.prune.axes import UNIT, Dim, freeze, mix, size, unify
from compress.passes.prune.rules_layers import broadcast
from compress.passes.prune.trace import Call, Result, Rule, listed, placed, refuse, unknown_result


def same(call: Call) -> Result:
    """The result has the shape of the first tensor."""
    return call.shape_of(call.node.all_input_nodes[0])


def pointwise(call: Call) -> Result:
    """Element by element, with broadcasting: what is lined up is one."""
    return broadcast(call, [call.shape_of(value) for value in call.node.all_input_nodes if call.shape_of(value)])


def reduction(call: Call) -> Result:
    """`mean`, `sum`, `amax` …: dimensions go; what is cut from one changes the result."""
    value = call.shape("self") or ()
    chosen = call.get("dim")
    places = {placed(place, value) for place in listed(chosen)} if chosen not in (None, []) else set(range(len(value)))
    for place in places:
        mix(value[place], call.at(call.operator))
    if call.get("keepdim", False):
        return tuple(UNIT if place in places else dim for place, dim in enumerate(value))
    return tuple(dim for place, dim in enumerate(value) if place not in places)


def extreme(call: Call) -> Result:
    """`max`, `min`: of two tensors, of all elements, or along a dimension with the place where it was found."""
    if call.shape("other") is not None:
        return pointwise(call)
    if not isinstance(call.node.meta.get("val"), list | tuple):
        return reduction(call)
    read = {user.args[1] for user in call.node.users if user.users}
    return [reduction(call), place_of_extreme(call) if 1 in read else reduction(call)]


def place_of_extreme(call: Call) -> Result:
    """`argmax`, `argmin`: numbers of positions, which a cut would change."""
    value = call.shape("self") or ()
    chosen = call.get("dim")
    for dim in value if chosen is None else (value[placed(chosen, value)],):
        freeze(dim, call.at("numbers of positions"))
    return reduction(call)


def softmax(call: Call) -> Result:
    """`softmax`, `log_softmax`, `cumsum`: every position depends on the others."""
    value = call.shape("self") or ()
    mix(value[placed(call.get("dim"), value)], call.at(call.operator))
    return value


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


RULES: Mapping[str, Rule] = {
    "pointwise": pointwise,
    **dict.fromkeys(("rsub", "floor_divide", "masked_fill", "where", "__and__", "__or__", "__xor__"), pointwise),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "contiguous", "clone", "detach", "alias"), same),
    **dict.fromkeys(("to", "_to_copy", "type_as", "lift_fresh_copy", "detach_"), same),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "hardswish", "hardswish_", "log_sigmoid"), same),
    **dict.fromkeys(
        ("mean", "sum", "amax", "amin", "var", "std", "prod", "any", "all", "linalg_vector_norm", "logsumexp"),
        reduction,
    ),
    **dict.fromkeys(("max", "min"), extreme),
    **dict.fromkeys(("argmax", "argmin"), place_of_extreme),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "cumsum"), softmax),
    "einsum": einsum,
    **dict.fromkeys(("arange", "zeros", "ones", "full", "scalar_tensor", "empty", "eye", "linspace"), made),
    **dict.fromkeys(("sym_size", "_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range_for_size"), number),
    **dict.fromkeys(("<built-in function mul>", "<built-in function add>", "<built-in function eq>"), number),
}

__all__ = ["RULES"]
