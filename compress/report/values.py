"""Nested settings as a flat list of names and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.report.numbers import MISSING


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns (dotted name, text) of every value, in the order of the mapping.

    Args:
        values: What a target file or an environment says: numbers, texts, lists, tables within tables.
        prefix: Name of the table that holds `values`.
    """
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping):
            rows += flatten(value, key)
        else:
            rows.append((key, _text(value)))
    return rows


def _text(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value) or MISSING
    return str(value) or MISSING
