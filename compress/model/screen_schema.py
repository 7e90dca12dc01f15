"""Checks built from checks: records, unions, lists and tables of parsed JSON, each value by its own rule.

A check takes a value and returns nothing; it raises `Refusal`, to which the checks around it add the key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping

from compress.model.screen_refusal import Refusal, damaged, shown

Check = Callable[[object], None]
MAX_JSON_DEPTH = 128
MAX_INTEGER = 1 << 64
_NEWER = "it may come from a newer torch: export it again with the torch that is installed."


def parse_json(data: bytes | str) -> object:
    """Returns parsed JSON of bounded depth.

    Raises:
        Refusal: It is not UTF-8, not JSON, or nested too deeply.
    """
    try:
        value: object = json.loads(data if isinstance(data, str) else data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise damaged(f"it is not readable JSON ({reason}).") from error
    level: list[object] = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent if isinstance(parent, list) else ())
        ]
        if not level:
            return value
    raise damaged(f"it is nested more than {MAX_JSON_DEPTH} levels deep.")


def record(fields: Mapping[str, Check], optional: Collection[str] = ()) -> Check:
    """Returns the check of an object with exactly these keys, the optional ones perhaps missing."""

    def check(value: object) -> None:
        if not isinstance(value, dict):
            raise damaged(f"{shown(value)} is not an object.")
        for key in value:
            if key not in fields:
                raise damaged(f"the key {shown(key)} is unknown.", _NEWER)
        for key, field in fields.items():
            if key in value:
                _at(key, field, value[key])
            elif key not in optional:
                raise damaged(f"the key {key!r} is missing.", _NEWER)

    return check


def union(fields: Mapping[str, Check]) -> Check:
    """Returns the check of an object with one of these keys."""
    inner = record(fields, optional=fields)

    def check(value: object) -> None:
        if not isinstance(value, dict) or len(value) != 1:
            raise damaged(f"{shown(value)} is not an object of one key.")
        inner(value)

    return check


def list_of(item: Check) -> Check:
    """Returns the check of a list."""

    def check(value: object) -> None:
        if not isinstance(value, list):
            raise damaged(f"{shown(value)} is not a list.")
        for index, element in enumerate(value):
            _at(index, item, element)

    return check


def table_of(key_check: Check, item: Check) -> Check:
    """Returns the check of an object whose keys are data."""

    def check(value: object) -> None:
        if not isinstance(value, dict):
            raise damaged(f"{shown(value)} is not an object.")
        for key, element in value.items():
            _at(key, key_check, key)
            _at(key, item, element)

    return check


def optional(inner: Check) -> Check:
    """Returns the check of a value or null."""

    def check(value: object) -> None:
        if value is not None:
            inner(value)

    return check


def integer(value: object) -> None:
    """Checks a whole number that fits 64 bits."""
    if type(value) is not int or abs(value) > MAX_INTEGER:
        raise damaged(f"{shown(value)} is not a whole number of 64 bits.")


def number(value: object) -> None:
    """Checks a number; torch writes the infinite ones as words."""
    if value not in ("Infinity", "-Infinity", "NaN") and type(value) not in (int, float):
        raise damaged(f"{shown(value)} is not a number.")


def boolean(value: object) -> None:
    """Checks true or false."""
    if type(value) is not bool:
        raise damaged(f"{shown(value)} is not true or false.")


def text(value: object) -> None:
    """Checks a string that nothing evaluates."""
    if not isinstance(value, str) or "\0" in value:
        raise damaged(f"{shown(value)} is not text.")


def one_of(values: Collection[object], name: str) -> Check:
    """Returns the check of a value out of a fixed set."""

    def check(value: object) -> None:
        if type(value) not in (int, str) or value not in values:
            raise damaged(f"{shown(value)} is not a known {name}.", _NEWER)

    return check


def refused(reason: str, hint: str) -> Check:
    """Returns the check of a key that no screened file may use."""

    def check(value: object) -> None:
        raise Refusal(reason, hint)

    return check


def _at(key: str | int, check: Check, value: object) -> None:
    try:
        check(value)
    except Refusal as refusal:
        refusal.under(key)
        raise
