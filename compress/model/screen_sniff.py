"""What a file is, by its first bytes and, for a zip archive, by its members' names. Its ending is not looked at."""

from __future__ import annotations

import zipfile
from typing import BinaryIO

from compress.model.screen_archive import find_directory
from compress.model.screen_weights import MAX_HEADER_BYTES

_PICKLE_PROTOCOLS = (2, 3, 4, 5)
_ONNX_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_ONNX_GRAPH = 7
_MAX_ONNX_FIELDS = 64


def kind_of(file: BinaryIO, size_bytes: int) -> str:
    """Returns what a file's content says that it is; see `compress.model.screen.sniff` for the words."""
    file.seek(0)
    head = file.read(16)
    if not head:
        return "empty"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(file, size_bytes)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[4:8] == b"ORTM":
        return "ort"
    if head[4:6] == b"ET" and head[6:8].isdigit():
        return "pte"
    if head[0] == 0x80 and head[1:2] and head[1] in _PICKLE_PROTOCOLS:
        return "pickle"
    if len(head) > 8 and head[8:9] == b"{" and _header_fits(head, size_bytes):
        return "safetensors"
    return "onnx" if _is_onnx(file, size_bytes) else "unknown"


def _zip_kind(file: BinaryIO, size_bytes: int) -> str:
    try:
        find_directory(file, size_bytes)
        with zipfile.ZipFile(file) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()} | set(archive.namelist())
    except Exception:  # the directory of a damaged archive can make zipfile raise almost anything
        return "zip"
    if names & {"archive_format", "models/model.json", "serialized_exported_program.json"}:
        return "pt2"
    if "constants.pkl" in names:
        return "torchscript"
    return "state_dict" if "data.pkl" in names else "zip"


def _header_fits(head: bytes, size_bytes: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= min(MAX_HEADER_BYTES, size_bytes - 8)


def _is_onnx(file: BinaryIO, size_bytes: int) -> bool:
    """Walks the fields of what may be an ONNX ModelProto: only known ones, a version, then a graph.

    Source: onnx.proto (message ModelProto), https://protobuf.dev/programming-guides/encoding.
    """
    position, versioned = 0, False
    for _ in range(_MAX_ONNX_FIELDS):
        if position >= size_bytes:
            return False
        file.seek(position)
        tag, after_tag = _varint(file.read(20))
        field, wire = tag >> 3, tag & 7
        if after_tag == 0 or _ONNX_FIELDS.get(field) != wire:
            return False
        file.seek(position + after_tag)
        value, after_value = _varint(file.read(20))
        if after_value == 0 or (field == 1 and not 1 <= value <= 1000):
            return False
        versioned = versioned or field == 1
        if field == _ONNX_GRAPH:
            return versioned
        position += after_tag + after_value + (value if wire == 2 else 0)
    return False


def _varint(data: bytes) -> tuple[int, int]:
    """Returns a variable-length integer and how many bytes it takes; 0 bytes where there is none."""
    value = 0
    for index, byte in enumerate(data[:10]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, index + 1
    return 0, 0
