"""From text to ids: a tokenizer that cuts and pads to one length, read from a folder without running its code.

A folder holds `tokenizer.json` (the format of the `tokenizers` package), or only `vocab.txt` with a
`tokenizer_config.json`: then it is BERT's WordPiece (Devlin et al. 2019, arXiv:1810.04805, section 3), built here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.text_wordpiece import build_wordpiece
from compress.errors import CompressError, DataError
from compress.registry import require

# What a tokenizer can feed, in the order in which models of BERT's kind take it.
KINDS = ("input_ids", "attention_mask", "token_type_ids")
FILE = "tokenizer.json"
MAX_FILE_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class TextTokenizer:
    """Text to ids, `length` of them.

    `definition` is a whole `tokenizer.json`, cutting and padding included: whoever loads it, on a phone too, gets the
    same ids.
    """

    definition: bytes
    length: int

    def encode(self, texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Returns `[texts, length]` int64 of each of `KINDS`; padding has mask 0."""
        with _native("the tokenizer"):
            made = self._fixed.encode_batch(list(texts))
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        return {
            kind: np.array([getattr(item, column) for item in made], np.int64).reshape(len(made), self.length)
            for kind, column in columns.items()
        }

    def lengths(self, texts: Sequence[str], batch: int = 1024) -> NDArray[np.int64]:
        """Returns `[texts]`: how many tokens each would have without cutting, special ones included."""
        with _native("the tokenizer"):
            counts = [
                len(item.ids)
                for start in range(0, len(texts), batch)
                for item in self._whole.encode_batch(list(texts[start : start + batch]))
            ]
        return np.array(counts, np.int64)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Every token and its id, special and added ones included."""
        tokens: dict[str, int] = self._whole.get_vocab(with_added_tokens=True)
        return tokens

    @cached_property
    def rows(self) -> int:
        """Rows that an embedding table needs: the highest id plus 1."""
        return max(self.vocabulary.values(), default=-1) + 1

    def token(self, number: int) -> str:
        """Returns the token of an id, empty where there is none."""
        return next((token for token, held in self.vocabulary.items() if held == number), "")

    @cached_property
    def _fixed(self) -> Any:
        return _loaded(self.definition, FILE)

    @cached_property
    def _whole(self) -> Any:
        tokenizer = _loaded(self.definition, FILE)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def load_tokenizer(folder: Path, length: int) -> TextTokenizer:
    """Reads a tokenizer.

    Args:
        folder: Holds `tokenizer.json`, or `vocab.txt` of a WordPiece; `tokenizer_config.json` and
            `special_tokens_map.json` are read where they are.
        length: Tokens that every text is cut or padded to, special ones included.

    Raises:
        DataError: If there is no tokenizer, it cannot be read, says two different things, has no token to pad with,
            or `length` leaves no room for the text.
        MissingPackageError: If the package `tokenizers` is not installed.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder", "a tokenizer is a folder with a tokenizer.json.")
    settings = {**_settings(folder / "special_tokens_map.json"), **_settings(folder / "tokenizer_config.json")}
    if (folder / FILE).is_file():
        tokenizer = _loaded(_content(folder / FILE), str(folder / FILE))
        _check_agrees(tokenizer, settings, folder)
    elif (folder / "vocab.txt").is_file():
        tokenizer = build_wordpiece(_content(folder / "vocab.txt"), settings, folder / "vocab.txt")
    else:
        raise DataError(
            f"{folder}: there is neither a {FILE} nor a vocab.txt",
            "save it with AutoTokenizer.from_pretrained(...).save_pretrained(folder).",
        )
    with _native(str(folder)):
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if length <= special:
        raise DataError(
            f"data.text.length = {length} leaves no room for the text: {folder} adds {special} special tokens",
            "raise data.text.length.",
        )
    padding = _padding(tokenizer, settings, folder)
    with _native(str(folder)):
        tokenizer.enable_truncation(length, direction=_side(settings, "truncation_side"))
        tokenizer.enable_padding(length=length, direction=_side(settings, "padding_side"), **padding)
        made = TextTokenizer(str(tokenizer.to_str()).encode(), length)
        # A file that can be read may still fail on the first unknown word.
        made.encode(["a", "\u4e2d"])
    return made


def _loaded(content: bytes, where: str) -> Any:
    tokenizers = require("tokenizers", why="text data")
    with _native(where):
        return tokenizers.Tokenizer.from_str(content.decode())


@contextlib.contextmanager
def _native(where: str) -> Iterator[None]:
    """Words whatever the tokenizers package raises as a `DataError`.

    A panic of its native code is no `Exception`; all that is not a request to stop is caught.
    """
    try:
        yield
    except (CompressError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{where}: not a tokenizer: {text}", "save it again with tokenizer.save_pretrained.") from error


def _padding(tokenizer: Any, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    stored: dict[str, Any] = tokenizer.padding or {}
    name = _token(settings.get("pad_token")) or stored.get("pad_token")
    number = None if name is None else tokenizer.token_to_id(name)
    if number is None:
        said = "names no pad_token" if name is None else f"pads with {name!r}, which is no token of it"
        raise DataError(
            f"{folder}: the tokenizer {said}", 'name one in its tokenizer_config.json: "pad_token": "[PAD]".'
        )
    return {"pad_id": number, "pad_token": name, "pad_type_id": int(stored.get("pad_type_id") or 0)}


def _side(settings: Mapping[str, Any], key: str) -> str:
    return "left" if settings.get(key) == "left" else "right"


def _token(value: Any) -> str | None:
    """A token as its text: configurations hold it as it is, or as an object with `content`."""
    value = value.get("content") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) and value else None


def _check_agrees(tokenizer: Any, settings: Mapping[str, Any], folder: Path) -> None:
    """Refuses two files that say different things: training may have followed the other one."""
    normalizer = json.loads(tokenizer.to_str()).get("normalizer") or {}
    said, held = settings.get("do_lower_case"), normalizer.get("lowercase")
    if normalizer.get("type") == "BertNormalizer" and isinstance(said, bool) and said != held:
        raise DataError(
            f"{folder}: tokenizer_config.json says do_lower_case = {str(said).lower()}, the normalizer of {FILE} "
            f"lowercase = {str(held).lower()}",
            "correct the one that training did not follow.",
        )


def _settings(path: Path) -> dict[str, Any]:
    """What a JSON file of settings holds; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        held = json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}", "save the tokenizer again.") from error
    if not isinstance(held, dict):
        raise DataError(f"{path}: holds no table of settings", "save the tokenizer again.")
    return held


def _content(path: Path) -> bytes:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_FILE_BYTES:
            raise DataError(
                f"{path}: {size_bytes:,} bytes; a tokenizer's file may have {MAX_FILE_BYTES:,}",
                "is this the right file?",
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}", "check its permissions.") from error
