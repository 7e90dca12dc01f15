"""BERT's WordPiece from a `vocab.txt`, for folders that were saved before `tokenizer.json` existed.

Greedy longest match first (Devlin et al. 2019, arXiv:1810.04805; Wu et al. 2016, arXiv:1609.08144, section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import DataError
from compress.registry import require

# Role -> the token that BERT's vocabularies use for it.
_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_NEEDED = ("unk_token", "cls_token", "sep_token")


def build_wordpiece(content: bytes, settings: Mapping[str, Any], path: Path) -> Any:
    """Builds the tokenizer of a vocabulary.

    Args:
        content: Of the `vocab.txt`: a token a line, its number is the line's.
        settings: Of `tokenizer_config.json`: `do_lower_case` (true), `strip_accents` (as `do_lower_case`),
            `tokenize_chinese_chars` (true), and the special tokens.
        path: The file, for messages.

    Returns:
        A `tokenizers.Tokenizer` that neither cuts nor pads.

    Raises:
        DataError: If the vocabulary is damaged, lacks a special token, or belongs to another kind of tokenizer.
    """
    tokenizers = require("tokenizers", why="text data")
    _check_kind(settings, path)
    vocabulary = _vocabulary(content, path)
    names = {role: _name(settings, role) for role in _SPECIAL}
    for role in _NEEDED:
        if names[role] not in vocabulary:
            raise DataError(
                f"{path}: there is no {names[role]!r} in the vocabulary",
                f"a WordPiece needs one; name it as {role} in tokenizer_config.json.",
            )
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token=names["unk_token"]))
    strip = settings.get("strip_accents")
    made.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True) is not False,
        strip_accents=strip if isinstance(strip, bool) else None,
        lowercase=settings.get("do_lower_case", True) is not False,
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    first, last = names["cls_token"], names["sep_token"]
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])],
    )
    made.decoder = tokenizers.decoders.WordPiece(prefix="##")
    made.add_special_tokens([name for name in names.values() if name in vocabulary])
    if names["pad_token"] in vocabulary:
        made.enable_padding(pad_id=vocabulary[names["pad_token"]], pad_token=names["pad_token"])
    return made


def _check_kind(settings: Mapping[str, Any], path: Path) -> None:
    kind = str(settings.get("tokenizer_class", "BertTokenizer"))
    if not kind.removesuffix("Fast").endswith(("BertTokenizer", "ElectraTokenizer", "MobileBertTokenizer")):
        raise DataError(
            f"{path.parent}: tokenizer_config.json says {kind}, which a vocab.txt alone does not describe",
            "save its tokenizer.json: AutoTokenizer.from_pretrained(...).save_pretrained(folder).",
        )
    if settings.get("do_basic_tokenize", True) is False or settings.get("never_split"):
        raise DataError(
            f"{path.parent}: tokenizer_config.json sets do_basic_tokenize or never_split, which a vocab.txt alone does "
            "not describe",
            "save its tokenizer.json with the fast tokenizer of transformers.",
        )


def _vocabulary(content: bytes, path: Path) -> dict[str, int]:
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}", "is this the right file?") from error
    tokens = [line.removesuffix("\r") for line in lines]
    if tokens and not tokens[-1]:
        tokens.pop()
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = next(token for number, token in enumerate(tokens) if vocabulary[token] != number)
        raise DataError(
            f"{path}: the token {twice!r} stands there twice; the numbers of all behind it would shift",
            "copy the file again from the model.",
        )
    return vocabulary


def _name(settings: Mapping[str, Any], role: str) -> str:
    value = settings.get(role)
    value = value.get("content") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) and value else _SPECIAL[role]
