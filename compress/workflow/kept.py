"""Lowered files as finished steps: the file, what lies beside it, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.evidence import from_json, to_json
from compress.model.onnx_beside import SUFFIX, DataFile
from compress.runtimes.base import Lowered
from compress.store.cache import Cache, digest


def keep(cache: Cache, step: str, lowered: Lowered, **values: Any) -> Lowered:
    """Keeps a file with a step's other values; returns it with its weights where the cache has them."""
    blobs: dict[str, bytes | Path] = {item.name: item.path for item in lowered.beside}
    text = to_json(replace(lowered, data=b"", beside=(), graph=None))
    cache.put(step, {**values, "lowered": text}, data=lowered.data, **blobs)
    return _beside(cache, lowered, {item.name: item.size_bytes for item in lowered.beside})


def kept(cache: Cache, step: str) -> tuple[Lowered, Mapping[str, Any]] | None:
    """Returns the file of a step and its other values, None where the step is not finished."""
    found = cache.get(step)
    if found is None:
        return None
    lowered: Lowered = from_json(Lowered, found["lowered"], step)
    blobs: Mapping[str, str] = found["blobs"]
    sizes = {name: cache.path(sha).stat().st_size for name, sha in blobs.items() if name.endswith(SUFFIX)}
    return _beside(cache, replace(lowered, data=cache.require(blobs["data"])), sizes), found


def _beside(cache: Cache, lowered: Lowered, sizes: Mapping[str, int]) -> Lowered:
    """The file with its weights beside it in the cache, where workers open it."""
    files = tuple(DataFile(name, cache.path(name.removesuffix(SUFFIX)), size) for name, size in sizes.items())
    for item in files:
        item.lay(cache.path(digest(lowered.data)).parent)
    return replace(lowered, beside=files)
