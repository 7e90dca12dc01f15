"""TensorFlow Lite files (`.tflite`) in an interpreter of them, with XNNPACK, which it applies by itself.

LiteRT's package and the older tflite-runtime have one and the same Python interface; a subclass imports its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Array
from .base_session import BaseSession
from .errors import JobError
from .session import Operators, Placement, TensorSpec

DELEGATE = "DELEGATE"


class TfliteSession(BaseSession):
    """One `.tflite` file. Names are those of its signature, whatever its tensors are called.

    `title` names the interpreter in messages.
    """

    title: str

    def __init__(self, artifact: Path, threads: int) -> None:
        self._artifact, self._threads = artifact, threads
        try:
            self._interpreter = self._open(artifact, threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise JobError(f"{artifact}: {self.title} cannot open it: {error}") from error
        given, made = _signature(self._interpreter, artifact)
        details = {item["index"]: item for item in self._interpreter.get_tensor_details()}
        self._input_index, self._output_index = given, made
        self.inputs = {name: _spec(details[index]) for name, index in given.items()}
        self.outputs = {name: _spec(details[index]) for name, index in made.items()}
        self._shapes = {name: tuple(int(size) for size in details[index]["shape"]) for name, index in given.items()}

    @abstractmethod
    def _open(self, artifact: Path, threads: int) -> Any:
        """Returns the interpreter of a file, its tensors not yet allocated."""

    def __enter__(self) -> TfliteSession:
        """Returns the session itself."""
        return self

    def close(self) -> None:
        """Frees the interpreter."""
        self._interpreter = None

    def _call(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        self._resize(feed)
        for name, array in feed.items():
            self._interpreter.set_tensor(self._input_index[name], array)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._output_index.items()}

    def _bind(self, feed: Mapping[str, Array]) -> Callable[[], None]:
        self._resize(feed)
        interpreter = self._interpreter
        set_tensor, invoke, get_tensor = interpreter.set_tensor, interpreter.invoke, interpreter.get_tensor
        given = [(self._input_index[name], array) for name, array in feed.items()]
        made = list(self._output_index.values())

        def call() -> None:
            for index, array in given:
                set_tensor(index, array)
            invoke()
            for index in made:
                get_tensor(index)

        return call

    def _resize(self, feed: Mapping[str, Array]) -> None:
        """Sets free dimensions to those of the arrays, only where they changed: it plans memory anew."""
        changed = {name: array.shape for name, array in feed.items() if array.shape != self._shapes[name]}
        if not changed:
            return
        for name, shape in changed.items():
            self._interpreter.resize_tensor_input(self._input_index[name], list(shape), strict=True)
        self._interpreter.allocate_tensors()
        self._shapes.update(changed)

    def placement(self, precision: str, inputs: Mapping[str, Array] | None = None) -> Placement:
        """Returns which operators XNNPACK took.

        The interpreter lists the file's operators and, behind them, one node per delegated part. What a part
        swallowed is found by walking from its outputs back through their producers to its inputs. Operators
        inside the branches of control flow are not listed by the interpreter.

        Args:
            precision: Not needed: XNNPACK takes an operator only where it has a kernel for its types.
            inputs: Not needed.
        """
        return Placement("XNNPACK", _count(self._interpreter._get_ops_details()))


def _signature(interpreter: Any, artifact: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Input and output names to tensor indices."""
    signatures = interpreter._get_full_signature_list()
    if len(signatures) > 1:
        raise JobError(f"{artifact}: holds {len(signatures)} signatures ({', '.join(sorted(signatures))}), not one")
    if signatures:
        (signature,) = signatures.values()
        return dict(signature["inputs"]), dict(signature["outputs"])
    given, made = interpreter.get_input_details(), interpreter.get_output_details()
    return {item["name"]: item["index"] for item in given}, {item["name"]: item["index"] for item in made}


def _spec(detail: Mapping[str, Any]) -> TensorSpec:
    shape: Sequence[int] = detail.get("shape_signature", detail["shape"])
    # A scalar and an unknown rank both come as an empty shape_signature.
    sizes = shape if len(shape) == len(detail["shape"]) else detail["shape"]
    return TensorSpec(tuple(int(size) if size >= 0 else None for size in sizes), np.dtype(detail["dtype"]).name)


def _count(nodes: Sequence[Mapping[str, Any]]) -> tuple[Operators, ...]:
    taken = delegated(nodes)
    counts = Counter((node["op_name"], node["index"] in taken) for node in nodes if node["op_name"] != DELEGATE)
    return tuple(
        Operators(name, count, inside, "" if inside else "XNNPACK did not take it")
        for (name, inside), count in sorted(counts.items())
    )


def delegated(nodes: Sequence[Mapping[str, Any]]) -> set[int]:
    """Indices of the file's operators that delegated parts swallowed."""
    originals = [node for node in nodes if node["op_name"] != DELEGATE]
    producer = {int(tensor): node for node in originals for tensor in node["outputs"]}
    return {index for node in nodes if node["op_name"] == DELEGATE for index in _swallowed(node, producer)}


def _swallowed(part: Mapping[str, Any], producer: Mapping[int, Mapping[str, Any]]) -> set[int]:
    """Indices of the operators between a delegated part's inputs and its outputs."""
    borders = {int(tensor) for tensor in part["inputs"]}
    open_tensors = [int(tensor) for tensor in part["outputs"]]
    found: set[int] = set()
    while open_tensors:
        node = producer.get(open_tensors.pop())
        if node is None or node["index"] in found:
            continue
        found.add(node["index"])
        open_tensors += [int(tensor) for tensor in node["inputs"] if int(tensor) not in borders]
    return found
