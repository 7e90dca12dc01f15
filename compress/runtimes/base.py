"""The contract of a runtime's lowering, and what it returns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from compress.calibrate import Ranges
from compress.errors import LoweringError
from compress.evidence import LayerOutcome
from compress.model.core import Model
from compress.model.layers import MULTIPLYING, Layer, match, select
from compress.model.onnx_beside import DataFile
from compress.model.onnx_file import OnnxFile
from compress.recipe import QuantScheme
from compress.registry import Registry
from compress.target import Target

# Numbers in a table: a smaller one saves less than what its look-ups cost more when its rows are integers.
SMALLEST_TABLE = 1 << 16
SMALL_TABLE = (
    f"a table of fewer than {SMALLEST_TABLE:,} numbers stays float: its look-ups would cost more than it saves"
)


@dataclass(frozen=True)
class Placed:
    """Where one layer of the Model lies in a lowered file: its compute node and the tensors around it.

    Attributes:
        layer: The layer.
        node: Name of the node that multiplies (or looks up) in the file.
        input: Tensor that goes in.
        output: Tensor that leaves, behind a fused activation if `fused`.
        fused: Whether the activation behind the layer is part of what leaves.
        activation: Name of a separate node that applies the activation, if it is one.
        gain: Constant by which the converter scaled the weight, and so the layer's output.
        shift: Smallest and largest constant, of all channels, that the converter added to the layer's output.
        clip: Bounds of an activation that became part of what leaves, and that is none of the layer's.
        reads: Value of the graph that the node reads; empty where it is the layer's own input.
    """

    layer: Layer
    node: str
    input: str
    output: str
    fused: bool = False
    activation: str | None = None
    gain: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    clip: tuple[float, float] | None = None
    reads: str = ""

    @property
    def is_layers_output(self) -> bool:
        """Whether what leaves is the layer's own value, or that behind its activation."""
        return self.gain == 1 and self.shift == (0.0, 0.0) and self.clip is None

    def range_out(self, ranges: Ranges) -> tuple[float, float]:
        """Returns the range of what leaves; it contains zero."""
        low, high = ranges.of(self.layer.output if self.fused else self.layer.node)
        low, high = low * self.gain + self.shift[0], high * self.gain + self.shift[1]
        if self.clip is not None:
            low, high = (min(max(bound, self.clip[0]), self.clip[1]) for bound in (low, high))
        return min(low, 0.0), max(high, 0.0)

    @property
    def value_in(self) -> str:
        """The value of the graph whose range is that of `input`."""
        return self.reads or self.layer.input


@dataclass(frozen=True)
class Joined:
    """An operator without a weight that runs on integers where what stands before and behind it does.

    Attributes:
        node: Its name in the file.
        kind: Its kind, in the runtime's word (`Add`, `PAD`).
        inputs: Tensors that go in.
        output: Tensor that leaves, behind an activation of its own.
        values: Tensors around it, each with the value of the graph that has its range: all that it makes, and what
            goes in where that may be in float.
        activation: Name of a separate node that applies the activation, if it is one.
        moves: Whether it only moves elements, which is the same on integers and on the numbers they stand for.
    """

    node: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    values: tuple[tuple[str, str], ...]
    activation: str | None = None
    moves: bool = False


@dataclass(frozen=True)
class Lowered:
    """A file for a runtime, not yet written, and what is known of it.

    `beside` are files of weights that belong to it, where one file cannot hold them or would fill the memory.
    `missing` gives, for each layer that could not be found in the file, why. `joined` holds the operators between
    layers that may run on integers, in the order in which they run. `texts` ship with the file: the ending of their
    names, and what they say. `arithmetic` is `int8` where a layer multiplies integers, `float` where only what is
    stored got smaller. `graph` is the Model that was lowered, for a runtime whose quantizer takes the graph and not the
    file; it is not written with the rest.
    """

    data: bytes
    suffix: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    placed: tuple[Placed, ...]
    missing: tuple[tuple[Layer, str], ...] = ()
    outcomes: tuple[LayerOutcome, ...] = ()
    notes: tuple[str, ...] = ()
    joined: tuple[Joined, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    arithmetic: Literal["float", "int8"] = "float"
    beside: tuple[DataFile, ...] = ()
    graph: Any = field(default=None, repr=False, compare=False)  # a Model: its type cannot be read back from JSON

    @property
    def size_bytes(self) -> int:
        """The length of everything that ships."""
        return len(self.data) + sum(item.size_bytes for item in self.beside)


class Runtime(Protocol):
    """One inference engine's lowering.

    1. `lower` gives the float32 file with its layer table; inputs and outputs keep the Model's names.
    2. `quantize` realises a scheme on that file with the runtime's own quantizer; inputs and outputs stay float.
    3. Every layer has an outcome; what was not realised has a reason.
    4. A scheme of which nothing is realised raises `LoweringError`.
    """

    name: str
    schemes: frozenset[tuple[str, str]]

    def lower(self, model: Model) -> Lowered:
        """Returns the float32 file."""

    def quantize(self, lowered: Lowered, scheme: QuantScheme, ranges: Ranges | None, target: Target) -> Lowered:
        """Returns the file with the scheme realised. `ranges` are needed for static activations."""


@runtime_checkable
class TakesFiles(Protocol):
    """A runtime that can also take a file which cannot become a Model; passes and other runtimes cannot."""

    def take(self, model: OnnxFile) -> Lowered:
        """Returns the file as it is, with the layers that can be found in it."""


@runtime_checkable
class BuiltThere(Protocol):
    """A runtime whose file a worker builds on the machine that runs it, out of the one that is lowered here."""

    def check(self, lowered: Lowered) -> None:
        """Refuses what the build would refuse, as far as the file tells; raises `LoweringError`."""


@runtime_checkable
class Finishes(Protocol):
    """A runtime whose quantizer works on another format than the one that a target may ship."""

    def finish(self, lowered: Lowered, target: Target) -> Lowered:
        """Returns the file that ships, from that of `lower` or `quantize`."""


RUNTIMES = Registry(
    "runtime",
    "edge_compress.runtimes",
    {
        "onnxruntime": "compress.runtimes.onnxruntime:OnnxRuntime",
        "litert": "compress.runtimes.litert:LiteRt",
        "tflite_runtime": "compress.runtimes.tflite_runtime:TfliteRuntime",
        "torch": "compress.runtimes.torch:Torch",
        "tensorrt": "compress.runtimes.tensorrt:TensorRt",
        "executorch": "compress.runtimes.executorch:ExecuTorch",
    },
)


@dataclass(frozen=True)
class Part:
    """Layers that a scheme treats alike; `scheme` has no rules and keeps the name of the whole."""

    scheme: QuantScheme
    layers: tuple[Placed, ...]


# Layer, and what it is to become -> "" where the runtime has a kernel, else the reason why not.
Support = Callable[[Placed, QuantScheme], str]


def chosen(lowered: Lowered, scheme: QuantScheme, support: Support) -> tuple[list[Part], dict[str, str]]:
    """Decides which placed layers a scheme quantizes, and how.

    Args:
        lowered: The float file.
        scheme: Its patterns are applied to the names of all layers. Large tables become int8 by any integer scheme.
        support: Tells why the runtime cannot realise a scheme on a layer.

    Returns:
        The layers to quantize by what they become, static first, and layer name -> reason for every other one.

    Raises:
        CompressError: If a pattern matches no layer.
        LoweringError: If nothing is left to quantize.
    """
    reasons = {layer.name: why for layer, why in lowered.missing}
    patterns = matched(lowered, scheme)
    uses = _uses(lowered, scheme)
    found: dict[tuple[str, str], list[Placed]] = {}
    for item in lowered.placed:
        layer = item.layer
        use = uses.get(layer.name, scheme)
        why = ""
        if patterns[layer.name]:
            why = patterns[layer.name]
        elif layer.operator not in MULTIPLYING and use.dtype in ("int8", "int4"):
            # Each row of a table has a scale of its own: nothing is multiplied, so nothing else is to be rounded.
            use = use.model_copy(update={"dtype": "int8", "activations": "none"})
            why = support(item, use) if math.prod(layer.shape) >= SMALLEST_TABLE else SMALL_TABLE
        elif use.dtype == "float32":
            why = "a rule of the scheme leaves it in float32"
        else:
            why = support(item, use)
        if why:
            reasons[layer.name] = why
        else:
            found.setdefault((use.dtype, use.activations), []).append(item)
    if not found:
        raise nothing(scheme, reasons)
    order = sorted(found, key=lambda kind: ("static", "dynamic", "none").index(kind[1]))
    return [
        Part(scheme.model_copy(update={"dtype": dtype, "activations": kind, "rules": ()}), tuple(found[dtype, kind]))
        for dtype, kind in order
    ], reasons


def tables_note(shared: str) -> str:
    """Returns what is to be said of tables that became integers; `shared` is what has a scale, a row or a table."""
    return f"tables int8 with a scale a {shared}, widened row by row when they are looked up"


def nothing(scheme: QuantScheme, reasons: Mapping[str, str]) -> LoweringError:
    """Returns the error of a scheme that realises nothing."""
    why = "; ".join(sorted({reason for reason in reasons.values() if reason}))
    return LoweringError(
        f"the scheme {scheme.name!r} realises nothing: {why or 'the model has no layer that multiplies'}",
        "remove it from schemes, or change its include and exclude patterns.",
    )


def _uses(lowered: Lowered, scheme: QuantScheme) -> dict[str, QuantScheme]:
    """Layer name -> the built-in scheme that a rule gives it."""
    every = [*(item.layer for item in lowered.placed), *(layer for layer, _ in lowered.missing)]
    uses = {}
    for index, (rule, use) in enumerate(zip(scheme.rules, scheme.used, strict=True)):
        for pattern in rule.layers:
            for name in match(every, pattern, f"scheme.{scheme.name}.rules[{index}].layers"):
                uses[name] = use
    return uses


def carried(joined: Sequence[Joined], made: set[str], read: set[str]) -> tuple[Joined, ...]:
    """Decides which operators between layers run on integers: those that get integers and hand them to a layer.

    Anywhere else a value would be rounded for nothing. What only moves elements needs one of the two: it rounds
    nothing, and moves a quarter of the bytes.

    Args:
        joined: In the order in which they run.
        made: Tensors that quantized layers give as integers.
        read: Tensors that quantized layers read as integers.
    """
    fed = set(made)
    for item in joined:
        if fed.issuperset(item.inputs):
            fed.add(item.output)
    wanted, chosen = set(read), set()
    for item in reversed(joined):
        if item.output in wanted and (item.moves or fed.issuperset(item.inputs)):
            chosen.add(item)
            wanted.update(item.inputs)
    integers = made | {item.output for item in chosen}
    for item in joined:
        if item.moves and integers.issuperset(item.inputs):
            chosen.add(item)
            integers.add(item.output)
    return tuple(item for item in joined if item in chosen)


def matched(lowered: Lowered, scheme: QuantScheme) -> dict[str, str]:
    """Returns layer name -> "" where a scheme's patterns choose the layer, else the reason why not.

    Raises:
        CompressError: If a pattern matches no layer.
    """
    every = [*(item.layer for item in lowered.placed), *(layer for layer, _ in lowered.missing)]
    return select(every, scheme.include, scheme.exclude, f"scheme.{scheme.name}")


def outcomes(lowered: Lowered, parts: Sequence[Part], reasons: Mapping[str, str]) -> tuple[LayerOutcome, ...]:
    """Returns what became of every layer: the precision of its part, or float32 with the reason."""
    precisions = {item.layer.name: part.scheme.dtype for part in parts for item in part.layers}
    table = [
        LayerOutcome(
            item.layer.name,
            item.layer.operator,
            (item.node,),
            precisions.get(item.layer.name, "float32"),
            "" if item.layer.name in precisions else reasons.get(item.layer.name, ""),
        )
        for item in lowered.placed
    ]
    table += [LayerOutcome(layer.name, layer.operator, (), "float32", why) for layer, why in lowered.missing]
    return tuple(table)


def refuse_shared(inputs: Iterable[tuple[Hashable, str]], outputs: Iterable[tuple[Hashable, str]], what: str) -> None:
    """Refuses an output that is an input, or another output: a file has one place for one value.

    Args:
        inputs: What identifies each value, and its name.
        outputs: The same.
        what: What failed, for the message.

    Raises:
        LoweringError: Naming both.
    """
    seen = dict(inputs)
    for value, name in outputs:
        other = seen.setdefault(value, name)
        if other != name:
            raise LoweringError(
                f"{what}: the output {name!r} is the same tensor as {other!r}",
                "return it once, or leave this target out.",
            )


def cause_of(error: BaseException) -> str:
    """Returns what a converter's error comes from, on one line: the innermost cause names the operator."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"
