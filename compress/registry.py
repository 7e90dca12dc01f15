"""Names to code: one mechanism for every plugin, `name -> "module:attribute"`, resolved when first used."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from compress.errors import CompressError, InternalError, MissingPackageError, did_you_mean

# Which extra of this distribution brings a package. The keys are import names.
EXTRAS = {
    "torch": "",
    "onnx": "onnxruntime",
    "onnxscript": "onnxruntime",
    "onnxruntime": "onnxruntime",
    "litert_torch": "litert",
    "ai_edge_litert": "litert",
    "ai_edge_quantizer": "litert",
    "pyarrow": "parquet",
    "PIL": "images",
    "transformers": "hf",
    "tokenizers": "hf",
    "executorch": "executorch",
    "torchao": "executorch",
    "matplotlib": "plots",
}


def require(package: str, *, why: str = "") -> Any:
    """Imports an optional package, or says which extra brings it.

    Args:
        package: The import name, dotted names allowed.
        why: What needs it, for the message.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        top = package.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        extra = EXTRAS.get(top, "")
        name = f"edge-compress[{extra}]" if extra else "edge-compress"
        needed = f" for {why}" if why else ""
        raise MissingPackageError(
            f"the package {top!r} is needed{needed} and is not installed",
            f"pip install '{name}'",
        ) from error


class Registry:
    """Known names of one kind of plugin.

    1. A built-in name maps to `"module:attribute"` and is imported when first asked for.
    2. An installed distribution adds names through the entry-point group of the registry.
    3. A name that exists twice is an error; it never silently wins.
    """

    def __init__(self, kind: str, group: str, builtin: dict[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)

    def names(self) -> list[str]:
        """Returns every known name, sorted."""
        return sorted({*self._builtin, *self._outside()})

    def load(self, name: str) -> Any:
        """Returns the registered object.

        Raises:
            CompressError: If the name is unknown; the hint lists the known ones.
        """
        outside = self._outside()
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        if name in outside:
            return outside[name].load()
        raise CompressError(f"unknown {self.kind} {name!r}", did_you_mean(name, self.names()))

    def _outside(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            if point.name in found or point.name in self._builtin:
                raise InternalError(
                    f"the {self.kind} {point.name!r} is registered twice (by {point.value})",
                    "uninstall one of the packages that register it.",
                )
            found[point.name] = point
        return found
