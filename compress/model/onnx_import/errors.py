"""What can go wrong with a foreign graph: for the user, and inside the importer."""

from __future__ import annotations

from collections.abc import Sequence

from compress.errors import ModelError

_SHOWN = 10


class UnsupportedOperatorsError(ModelError):
    """A model with operators that cannot be imported.

    Args:
        where: The file.
        operators: `(operator, node name)` of every one, in the order of the file. The operator carries its domain
            where that is not the standard one, and the reason in brackets where only this form of it is the trouble.
    """

    def __init__(self, where: str, operators: Sequence[tuple[str, str]]) -> None:
        self.operators = tuple(operators)
        shown = ", ".join(f"{operator} (node {node!r})" for operator, node in self.operators[:_SHOWN])
        more = f" and {len(self.operators) - _SHOWN} more" if len(self.operators) > _SHOWN else ""
        count = f"{len(self.operators)} operators" if len(self.operators) > 1 else "1 operator"
        super().__init__(
            f"{where}: {count} cannot be imported: {shown}{more}",
            "the file can still be lowered and quantized for ONNX Runtime as it is; passes need a model without them.",
        )


class NotImportable(Exception):
    """Why one call of an operator cannot be imported; whoever runs the node adds its name."""


class MixesRows(NotImportable):
    """What one call does to the batch, that a graph with an open batch cannot say."""
