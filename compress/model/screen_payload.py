"""The tables that say which bytes of a `.pt2` archive are which weight or constant."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from compress.model import screen_schema as s
from compress.model.screen_archive import Archive
from compress.model.screen_names import qualified_name
from compress.model.screen_program import ELEMENT_BYTES, TENSOR_META
from compress.model.screen_refusal import Refusal, damaged, shown
from compress.model.screen_schema import Check, record, table_of

_STRIDED = 7
_PICKLE = "it is stored as a pickle, which runs code when it is loaded."
_PLAIN_TENSORS = "export a model whose weights and constants are plain tensors, no subclasses and no objects."


def check_payloads(config: object, archive: Archive, folder: str, prefix: str, max_bytes: int) -> None:
    """Checks a table of weights or constants against the members that it names.

    Args:
        config: The parsed table.
        archive: The archive around it.
        folder: Where its members lie, such as `data/weights/`.
        prefix: How their names start, such as `weight_`.
        max_bytes: The most that one tensor may span.

    Raises:
        Refusal: An entry is a pickle, or a tensor claims more than its member holds.
    """
    _table(prefix)(config)
    entries: Mapping[str, dict[str, object]] = config["config"] if isinstance(config, dict) else {}
    types: dict[object, object] = {}
    for key, entry in entries.items():
        try:
            member, meta = entry["path_name"], entry["tensor_meta"]
            if not isinstance(meta, dict):
                raise damaged("it has no description of its tensor.")
            if types.setdefault(member, meta["dtype"]) != meta["dtype"]:
                raise damaged(f"{shown(member)} is read as two types of element.")
            _check_extent(meta, archive.size_bytes(f"{folder}{member}"), max_bytes)
        except Refusal as refusal:
            raise refusal.under(key).under("config") from None


def _table(prefix: str) -> Check:
    path = re.compile(rf"{prefix}\d{{1,7}}")

    def path_name(value: object) -> None:
        if isinstance(value, str) and value.startswith(("custom_obj_", "opaque_obj_")):
            raise Refusal(f"{shown(value)} is an object: {_PICKLE}", _PLAIN_TENSORS)
        if not isinstance(value, str) or not path.fullmatch(value):
            raise Refusal(f"{shown(value)} is not a member that torch writes here.", _PLAIN_TENSORS)

    def use_pickle(value: object) -> None:
        if value is not False:
            raise Refusal(_PICKLE, _PLAIN_TENSORS)

    entry = record(
        {
            "path_name": path_name,
            "is_param": s.boolean,
            "use_pickle": use_pickle,
            "tensor_meta": s.optional(TENSOR_META),
        }
    )
    return record({"config": table_of(qualified_name, entry)})


def _check_extent(meta: dict[str, object], held_bytes: int | None, max_bytes: int) -> None:
    """Checks that the last element lies within the member. An empty member would be filled with zeros of any size."""
    sizes, strides = _plain_integers(meta["sizes"]), _plain_integers(meta["strides"])
    [offset] = _plain_integers([meta["storage_offset"]])
    if len(sizes) != len(strides) or meta["layout"] != _STRIDED:
        raise damaged("it is not a plain strided tensor.")
    if held_bytes is None:
        raise damaged("its member is missing.")
    element_bytes = ELEMENT_BYTES[int(str(meta["dtype"]))]
    empty = 0 in sizes
    span = offset + (0 if empty else 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)))
    if held_bytes % element_bytes or (held_bytes == 0 and not empty) or span * element_bytes > held_bytes:
        raise Refusal(f"the tensor claims {span * element_bytes} bytes; its member holds {held_bytes}.")
    if math.prod(sizes) * element_bytes > max_bytes:
        raise Refusal(f"the tensor would take {math.prod(sizes) * element_bytes} bytes; the limit is {max_bytes}.")


def _plain_integers(values: object) -> list[int]:
    numbers = (
        [value.get("as_int") if isinstance(value, dict) else None for value in values]
        if isinstance(values, list)
        else [None]
    )
    plain = [number for number in numbers if isinstance(number, int) and number >= 0]
    if len(plain) != len(numbers):
        raise damaged("its size, stride or offset is not a whole number of at least 0.")
    return plain
