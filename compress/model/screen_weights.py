"""Files of weights: safetensors, whose header is checked here, and zip files of `torch.save`.

Source of the safetensors format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import math
import struct
from typing import BinaryIO

from compress.model import screen_schema as s
from compress.model.screen_refusal import Refusal, damaged, shown

MAX_HEADER_BYTES = 100 << 20
_LENGTH_BYTES = 8
_SAVE_AGAIN = "save it again with safetensors.torch.save_file."
_TYPES_BY_BYTES = {
    1: ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"),
    2: ("U16", "I16", "F16", "BF16"),
    4: ("U32", "I32", "F32"),
    8: ("U64", "I64", "F64", "C64"),
}
_ELEMENT_BYTES = {name: size_bytes for size_bytes, names in _TYPES_BY_BYTES.items() for name in names}
_TENSOR = s.record(
    {
        "dtype": s.one_of(_ELEMENT_BYTES, "type of element"),
        "shape": s.list_of(s.integer),
        "data_offsets": s.list_of(s.integer),
    }
)
_METADATA = s.table_of(s.text, s.text)


def check_safetensors(file: BinaryIO, size_bytes: int) -> None:
    """Checks that a safetensors header is readable and that its tensors fill the rest of the file exactly.

    Raises:
        Refusal: It is truncated, or a tensor claims bytes that are not there or not its own.
    """
    file.seek(0)
    start = file.read(_LENGTH_BYTES)
    length = struct.unpack("<Q", start)[0] if len(start) == _LENGTH_BYTES else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, size_bytes - _LENGTH_BYTES):
        raise damaged(f"its header claims {length} bytes; the file has {size_bytes}, the limit is {MAX_HEADER_BYTES}.")
    header = s.parse_json(file.read(length))
    if not isinstance(header, dict):
        raise damaged("its header is not an object.", _SAVE_AGAIN)
    spans = [_span(name, entry) for name, entry in header.items() if name != "__metadata__"]
    _METADATA(header.get("__metadata__") or {})
    end = 0
    for first, last, name in sorted(spans):
        if first != end:
            raise damaged(
                f"the tensor {shown(name)} starts at byte {first} instead of {end}: an overlap or a hole.", _SAVE_AGAIN
            )
        end = last
    held = size_bytes - _LENGTH_BYTES - length
    if end != held:
        raise damaged(f"its tensors claim {end} bytes; the file holds {held}.")


def _span(name: str, entry: object) -> tuple[int, int, str]:
    try:
        _TENSOR(entry)
    except Refusal as refusal:
        raise refusal.under(name) from None
    if not isinstance(entry, dict) or len(entry["data_offsets"]) != 2 or min([0, *entry["shape"]]) < 0:
        raise damaged("its shape or its offsets are none.", _SAVE_AGAIN).under(name)
    first, last = entry["data_offsets"]
    claimed = math.prod(entry["shape"]) * _ELEMENT_BYTES[entry["dtype"]]
    if first < 0 or last - first != claimed:
        raise damaged(f"it takes {last - first} bytes where its shape needs {claimed}.", _SAVE_AGAIN).under(name)
    return first, last, name
