"""Residual blocks: parts of a graph that add something to what goes in, found by what is computed, not by a class."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from compress.model.edit import get_parameter
from compress.passes.base import Skip

_ADD = ("aten.add.Tensor", "aten.add_.Tensor")
_NORM = ("aten.layer_norm.", "aten.rms_norm.", "aten.batch_norm.", "aten.group_norm.", "aten.instance_norm.")
_RELU = ("aten.relu.", "aten.relu_.", "aten.relu6.", "aten.relu6_.", "aten.hardtanh.", "aten.hardtanh_.")


@dataclass(frozen=True)
class ResidualLayer:
    """One residual block, or several that follow each other and belong to one module: a layer of a Transformer.

    1. `output` is `input + f(input)`, or a normalisation or clipping of that sum, once a block.
    2. Both have one shape, and nothing outside reads what is computed between them.
    3. So `input` can stand wherever `output` is read, and what is in between goes.

    Attributes:
        name: Path of the module that holds its weights, or of its output where these have no common one.
        input: Name of the value that goes in.
        output: Name of the value that leaves.
        weights: Full names of what it reads, in the order of the graph.
    """

    name: str
    input: str
    output: str
    weights: tuple[str, ...]


@dataclass(frozen=True)
class _Block:
    """One residual block; `inside` is all that is computed between input and output, the output included."""

    input: Node
    output: Node
    inside: frozenset[Node]
    weights: tuple[str, ...]

    @property
    def name(self) -> str:
        return _module_of(self.weights)


def residual_layers(module: GraphModule) -> tuple[tuple[ResidualLayer, ...], tuple[Skip, ...]]:
    """Finds the layers that can be bypassed, in the order in which they run, and sums that only look like one.

    A block ends at a sum one term of which, its input, all other terms are computed from. A normalisation or a clipping
    that alone reads the sum belongs to it where the block reads its input as it is (post-norm, Vaswani et al. 2017);
    where the block normalises its input first (pre-norm), it is the next layer's.

    Args:
        module: A graph in eval form, its weights inside as `get_attr` nodes.
    """
    reach = _Reach(module)
    blocks: list[_Block] = []
    skipped: dict[Node, Skip] = {}
    inner: set[tuple[Node, Node]] = set()
    # From the end: of sums within a sum that have one input (attention and FFN side by side), the whole is the block.
    for node in reversed(reach.order):
        if str(node.target) not in _ADD or node.kwargs.get("alpha", 1) != 1:
            continue
        terms = list(_terms(node))
        start = reach.start_of(terms)
        if start is None or (start, node) in inner:
            continue
        block = _block(reach, start, node)
        # Without a weight that multiplies it is arithmetic: a hand-written activation, say.
        if all(get_parameter(module, name).dim() < 2 for name in block.weights):
            continue
        reason = _refusal(block)
        if reason:
            skipped[node] = Skip(block.name or node.name, reason)
            continue
        blocks.append(block)
        inner |= {(start, part) for part in _parts(node)}
    blocks.reverse()
    outer = [block for block in blocks if any(_holds(block, other) for other in blocks)]
    skipped |= {
        block.output: Skip(block.name or block.output.name, "it holds residual blocks itself") for block in outer
    }
    left = [block for block in blocks if block not in outer]
    covered = {node for block in left for node in block.inside}
    return _merged(left), tuple(skip for node, skip in skipped.items() if node not in covered)


class _Reach:
    """Which values each value is computed from."""

    def __init__(self, module: GraphModule) -> None:
        self.order = list(module.graph.nodes)
        self._place = {node: place for place, node in enumerate(self.order)}
        self._from: dict[Node, int] = {}
        # A set of nodes is a number with a bit a node: unions of thousands of them stay cheap.
        for node in self.order:
            own = 0
            for source in node.all_input_nodes:
                own |= self._from[source] | 1 << self._place[source]
            self._from[node] = own
        self._given = sum(1 << self._place[node] for node in self.order if node.op == "placeholder")

    def needs(self, value: Node, source: Node) -> bool:
        """Whether a value is computed from another one."""
        return bool(self._from[value] >> self._place[source] & 1)

    def start_of(self, terms: Sequence[Node]) -> Node | None:
        """The term that all others are computed from, but for constants; None where there is none."""
        moving = [term for term in terms if self._from[term] & self._given or term.op == "placeholder"]
        for term in moving:
            others = [other for other in moving if other is not term]
            if others and all(self.needs(other, term) for other in others):
                return term
        return None

    def between(self, start: Node, end: Node) -> frozenset[Node]:
        """All that is computed from one value on the way to another, which is included."""
        way = self.order[self._place[start] : self._place[end] + 1]
        return frozenset(node for node in way if self.needs(node, start) and (node is end or self.needs(end, node)))


def _block(reach: _Reach, start: Node, total: Node) -> _Block:
    inside = reach.between(start, total)
    block = _Block(start, total, inside, _weights(inside))
    users = list(total.users)
    if len(users) != 1 or not users[0].args or users[0].args[0] is not total:
        return block
    behind = users[0]
    sums = {total, *_parts(total)}
    raw = any(not _is(user, _NORM) for user in start.users if user in inside and user not in sums)
    if not raw or not _is(behind, (*_NORM, *_RELU)):
        return block
    own = _weights(frozenset({behind}))
    if own and block.name and not all(name.startswith(f"{block.name}.") for name in own):
        return block
    inside = reach.between(start, behind)
    return _Block(start, behind, inside, _weights(inside))


def _refusal(block: _Block) -> str:
    if _shape(block.input) != _shape(block.output):
        return f"its input is {_shape(block.input)}, its output {_shape(block.output)}"
    read = [node.name for node in block.inside - {block.output} if any(user not in block.inside for user in node.users)]
    return f"what is computed inside is read elsewhere, too ({min(read)})" if read else ""


def _holds(block: _Block, other: _Block) -> bool:
    return other is not block and other.output in block.inside and other.input is not block.input


def _merged(blocks: Sequence[_Block]) -> tuple[ResidualLayer, ...]:
    """Joins blocks that follow each other in one module. A module that is called twice gives two layers."""
    groups: list[list[_Block]] = []
    for block in blocks:
        before = groups[-1] if groups else []
        known = {name for item in before for name in item.weights}
        if (
            before
            and block.name
            and block.name == before[-1].name
            and block.input is before[-1].output
            and block.inside.issuperset(block.input.users)
            and known.isdisjoint(block.weights)
        ):
            before.append(block)
        else:
            groups.append([block])
    calls: dict[str, int] = {}
    found = []
    for group in groups:
        name = group[0].name or group[-1].output.name
        calls[name] = calls.get(name, 0) + 1
        found.append(
            ResidualLayer(
                name if calls[name] == 1 else f"{name}#{calls[name]}",
                group[0].input.name,
                group[-1].output.name,
                tuple(dict.fromkeys(weight for block in group for weight in block.weights)),
            )
        )
    return tuple(found)


def _terms(total: Node) -> Iterator[Node]:
    """The terms of a sum; sums that only it reads are taken apart."""
    for term in total.args[:2]:
        if isinstance(term, Node):
            if str(term.target) in _ADD and len(term.users) == 1 and term.kwargs.get("alpha", 1) == 1:
                yield from _terms(term)
            else:
                yield term


def _parts(total: Node) -> Iterator[Node]:
    """The sums within a sum."""
    for term in total.args[:2]:
        if isinstance(term, Node) and str(term.target) in _ADD and len(term.users) == 1:
            yield term
            yield from _parts(term)


def _weights(inside: frozenset[Node]) -> tuple[str, ...]:
    """Full names of the parameters and buffers that these calls read."""
    held = [source for node in inside for source in node.all_input_nodes if source.op == "get_attr"]
    return tuple(sorted({str(node.target) for node in held}))


def _module_of(weights: Sequence[str]) -> str:
    """The module that holds all of some weights, up to the last number in its path: `encoder.layer.0`."""
    paths = [name.split(".")[:-1] for name in weights]
    common = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))]
    numbers = [place for place, part in enumerate(common) if part.isdigit()]
    return ".".join(common[: numbers[-1] + 1] if numbers else common)


def _is(node: Node, kinds: tuple[str, ...]) -> bool:
    return str(node.target).startswith(kinds)


def _shape(node: Node) -> str:
    value = node.meta.get("val")
    sizes = [str(size) for size in getattr(value, "shape", ())]
    return " x ".join(sizes) if sizes else "no tensor"
