"""What a tokenizer's file says of its vocabulary, and the same tokenizer without pieces that nobody needs.

The format is `tokenizer.json` of the `tokenizers` package; it is read as data, so nothing of that package is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from compress.errors import DataError


def tokens_of(definition: bytes) -> dict[str, int]:
    """Returns every token and its id, added ones included."""
    held = _held(definition)
    return {**_vocabulary(held), **{str(item["content"]): int(item["id"]) for item in held.get("added_tokens") or ()}}


def special_ids(definition: bytes) -> frozenset[int]:
    """Returns the ids that no text is needed for: tokens that were added, as those for padding and for the ends."""
    return frozenset(int(item["id"]) for item in _held(definition).get("added_tokens") or ())


def unknown_id(definition: bytes) -> int | None:
    """Returns the id of what the tokenizer cannot read; None where it has none, as one over bytes has."""
    model = _held(definition)["model"]
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    return tokens_of(definition).get(str(model.get("unk_token")))


def ids_of(definition: bytes, names: Iterable[str], where: str) -> frozenset[int]:
    """Returns the ids of some tokens.

    Raises:
        DataError: If one of them is no token; `where` is the key that names it.
    """
    known = tokens_of(definition)
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"{where}: the tokenizer has no token {missing[0]!r}",
            "write it as the tokenizer does: in small letters where it lowers them, '##' before a piece inside a word.",
        )
    return frozenset(known[name] for name in names)


def _held(definition: bytes) -> dict[str, Any]:
    held: dict[str, Any] = json.loads(definition)
    return held


def _vocabulary(held: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = held["model"].get("vocab") or {}
    if isinstance(vocabulary, list):
        return {str(piece): number for number, (piece, _) in enumerate(vocabulary)}
    return {str(piece): int(number) for piece, number in vocabulary.items()}
