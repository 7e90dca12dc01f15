"""What an interpreter of `.tflite` files can run, where that is less than the converter and the quantizer write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compress.errors import LoweringError
from compress.runtimes.litert.flatbuffer import code, read


@dataclass(frozen=True)
class Interpreter:
    """One interpreter.

    Attributes:
        title: For messages.
        newest: Builtin operator -> the newest version of it that opens; None where everything opens.
        dynamic_products_per_channel: Whether a fully connected layer that finds its input's range while it runs reads
            a scale for each channel of its weight, or one for the whole.
        tables_per_row: Whether a look-up in a table of integers reads a scale for each row, or the first for all.
    """

    title: str
    newest: Mapping[str, int] | None = None
    dynamic_products_per_channel: bool = True
    tables_per_row: bool = True

    def check(self, data: bytes) -> None:
        """Compares a file's operators with those that open.

        Raises:
            LoweringError: If one is not there, or only in older versions.
        """
        if self.newest is None:
            return
        from ai_edge_litert.schema_py_generated import BuiltinOperator

        names = {value: name for name, value in vars(BuiltinOperator).items() if isinstance(value, int)}
        flat = read(data)
        # The table of operators may hold some that no graph uses.
        used = {operator.opcodeIndex: operator for graph in flat.subgraphs for operator in graph.operators}
        refused = []
        for index, operator in sorted(used.items()):
            name, version = names[code(flat, operator)], flat.operatorCodes[index].version
            known = self.newest.get(name, 0)
            if name != "CUSTOM" and version > known:
                refused.append(f"{name} version {version} ({f'it has up to {known}' if known else 'it has none'})")
        if refused:
            raise LoweringError(
                f"{self.title} cannot run the file: it needs {', '.join(refused)}",
                "leave this target or this scheme out, or keep these operators out of the model.",
            )


LITERT = Interpreter("LiteRT")
