"""One call of an operator, as the functions that read operators into torch see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from compress.model.onnx_import.batch import Batch
from compress.model.onnx_import.errors import MixesRows, NotImportable
from compress.model.onnx_import.graph import Node
from compress.model.onnx_import.values import MAX_NUMBERS, Host, Value, numbers_in, to_tensor


class Call:
    """A node and the values that go in.

    Args:
        node: The node.
        values: One for each input, None where an optional one is left out.
        opset: Version of the standard operators.
        constants: The content of the model's constants, which a trace does not see.
        batch: What is known of the batch.
    """

    def __init__(
        self,
        node: Node,
        values: Sequence[Value | None],
        opset: int,
        constants: Mapping[str, NDArray[Any]],
        batch: Batch,
    ) -> None:
        self.node = node
        self.opset = opset
        self.batch = batch
        self._values = list(values)
        self._constants = constants

    @property
    def count(self) -> int:
        """How many inputs the node names."""
        return len(self._values)

    @property
    def wanted(self) -> int:
        """How many outputs the node names."""
        return len(self.node.outputs)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Returns an attribute, or the default where it is not given."""
        value = self.node.attributes.get(name)
        return default if value is None else value

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self._values) and self._values[index] is not None

    def value(self, index: int) -> Value:
        """Returns an input."""
        value = self._values[index] if index < len(self._values) else None
        if value is None:
            raise NotImportable(f"its input {index} is left out")
        return value

    def tensor(self, index: int) -> torch.Tensor:
        """Returns an input as a tensor."""
        return to_tensor(self.value(index))

    def tensors(self, start: int = 0) -> list[torch.Tensor]:
        """Returns all inputs from one on, as tensors."""
        return [self.tensor(index) for index in range(start, self.count)]

    def optional(self, index: int) -> torch.Tensor | None:
        """Returns an input as a tensor, or None where it is left out."""
        return self.tensor(index) if self.has(index) else None

    def known(self, index: int) -> Host | None:
        """Returns an input as numbers; None where it depends on data or is too large."""
        value = self.value(index)
        if isinstance(value, Host):
            return value
        constant = self._constants.get(self.node.inputs[index])
        return numbers_in(constant, value.dtype) if constant is not None and constant.size <= MAX_NUMBERS else None

    def numbers(self, index: int) -> list[Any]:
        """Returns an input as a flat list of numbers, symbols of the batch among them.

        Raises:
            NotImportable: If it depends on data.
        """
        known = self.known(index)
        if known is None:
            raise NotImportable(f"its input {index} is computed from data")
        return list(known.array.flat)

    def ints(self, index: int) -> list[int]:
        """Returns an input as integers that do not depend on the batch.

        Raises:
            NotImportable: If it depends on data.
            MixesRows: If it depends on the batch.
        """
        numbers = self.numbers(index)
        if not all(isinstance(number, int) for number in numbers):
            raise MixesRows(f"its input {index} depends on the batch")
        return numbers

    def is_constant(self, index: int) -> bool:
        """Whether an input is one of the model's constants."""
        return self.node.inputs[index] in self._constants

    def constant(self, index: int) -> NDArray[Any]:
        """Returns the content of an input that is one of the model's constants."""
        return self._constants[self.node.inputs[index]]

    def number(self, index: int, default: Any) -> Any:
        """Returns an input of one element as a number, or the default where it is left out."""
        if not self.has(index):
            return default
        numbers = self.numbers(index)
        if len(numbers) != 1:
            raise NotImportable(f"its input {index} has {len(numbers)} elements instead of one")
        return numbers[0]

    def axes(self, index: int, since: int) -> list[int] | None:
        """Returns axes that are an attribute before an opset and an input from it on; None where they are not given."""
        if self.opset < since:
            given = self.attribute("axes")
            return None if given is None else list(given)
        return self.ints(index) if self.has(index) else None
