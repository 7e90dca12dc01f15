"""Names that exporters give to weights and nodes: which of them are paths of modules, and how to make one."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

_READABLE = re.compile(r"[A-Za-z_]\w*(\.\w+)+", re.ASCII)
# Numbered values of exporters, and what the importer itself makes of a name.
_GENERATED = re.compile(r"onnx::.*|p2o\..*|val_\d+|\d+|_?[Cc]onst(ant)?(_?\d+)?|.*_output_\d+|.*[\[@*^~].*")
# Left by exporters behind a weight's own name.
_ADDED = re.compile(r"(_deepcopy_\d+|:\d+|/ReadVariableOp|/resource)+$")
_MAX_PART, _MAX_PARTS = 100, 24
_TAKEN = frozenset(dir(torch.nn.Module())) | frozenset(vars(torch.nn.Module()))


def readable(name: str) -> bool:
    """Whether a name is a path of modules as torch and others write it, not one that an exporter counted."""
    return _READABLE.fullmatch(name) is not None and not generated(name)


def generated(name: str) -> bool:
    """Whether a name says nothing."""
    return not name or _GENERATED.fullmatch(name) is not None


def stripped(name: str) -> str:
    """Returns a weight's name without what exporters leave behind it."""
    return _ADDED.sub("", name).replace(".weight_bias", ".bias")


def split(name: str) -> list[str]:
    """Returns the parts of a path, whichever way it is written: `/features/features.0/Conv` names one list once."""
    parts = [part for part in name.split("/") if part]
    kept = [part for part, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{part}.")]
    return [piece for part in kept for piece in part.split(".") if piece]


def last(name: str) -> str:
    """Returns a node's own name without its path."""
    return name.rpartition("/")[2].removeprefix("node_") or "layer"


def clean(parts: Iterable[str]) -> list[str]:
    """Returns parts as names of modules: no sign that torch takes as its own, nothing that a module already has."""
    cleaned = [re.sub(r"\W", "_", part, flags=re.ASCII)[:_MAX_PART] or "_" for part in parts][-_MAX_PARTS:]
    return [f"{part}_" if part in _TAKEN else part for part in cleaned] or ["layer"]
