"""Zip archives from strangers: structure, names and sizes, checked before a member is read.

The reader of torch (miniz) and that of Python must see the same members, or a file could show one content to the
screen and another to the loader. So only one layout is taken: one directory at the very end, and in front of it records
without gaps, whose own headers say what the directory says. Source: PKWARE APPNOTE 6.3.9, sections 4.3.7 and 4.3.12-16.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import IO, BinaryIO

from compress.model.screen_refusal import Refusal, damaged, shown

MAX_MEMBERS = 65_536
MAX_DIRECTORY_BYTES = 32 << 20
MAX_COMPRESSION_RATIO = 100
_RATIO_FREE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_MAX_DESCRIPTOR_BYTES = 24
_ENCRYPTED_FLAGS, _UTF8_FLAG = 0x1 | 0x40, 0x800
_END_BYTES, _LOCATOR_BYTES, _END64_BYTES, _LOCAL_BYTES = 22, 20, 56, 30
_ROOT = r"(?!\.{1,2}/)[^/\\\x00-\x1f\x7f]+"
_NAME = re.compile(_ROOT + r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9_.\-+ ()@=,]+)+")
_READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, struct.error)


class Archive:
    """A zip archive whose structure was checked. Names are those below its one root folder.

    Args:
        file: The archive, seekable.
        size_bytes: Its length.
        max_bytes: The most that its members may hold together, uncompressed.

    Raises:
        Refusal: The archive is truncated, no zip, ambiguous, or claims more than it may hold.
    """

    def __init__(self, file: BinaryIO, size_bytes: int, max_bytes: int) -> None:
        directory_start, count = find_directory(file, size_bytes)
        try:
            self._zip = zipfile.ZipFile(file)
        except _READ_ERRORS as error:
            raise damaged(f"its zip directory cannot be read ({error}).") from error
        infos = self._zip.infolist()
        if len(infos) != count:
            raise damaged(f"its zip directory announces {count} members and lists {len(infos)}.")
        _check_sizes(infos, max_bytes)
        for info in infos:
            _check_entry(info)
        _check_records(file, infos, directory_start)
        self._members = _without_root(infos)

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        """The members in the order of the directory, without the root folder."""
        return list(self._members)

    def size_bytes(self, name: str) -> int | None:
        """Returns a member's uncompressed length, or None where there is no such member."""
        info = self._members.get(name)
        return None if info is None else info.file_size

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Returns a member's content, its checksum verified.

        Raises:
            Refusal: The member is missing, longer than the limit, or damaged.
        """
        info = self._members.get(name)
        if info is None:
            raise damaged(f"the member {name!r} is missing.")
        if info.file_size > limit_bytes:
            raise damaged(f"it holds {info.file_size} bytes; the limit is {limit_bytes}.").inside(name)
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yields a member's content piece by piece, its checksum verified at the end."""
        try:
            with self._zip.open(self._members[name]) as member:
                yield from _pieces(member)
        except _READ_ERRORS as error:
            raise damaged(f"it is damaged ({error}).").inside(name) from error


def _pieces(member: IO[bytes]) -> Iterator[bytes]:
    while piece := member.read(_CHUNK_BYTES):
        yield piece


def find_directory(file: BinaryIO, size_bytes: int) -> tuple[int, int]:
    """Returns where a zip directory starts and how many members it announces.

    Raises:
        Refusal: It is missing, too long, or does not end where the end records start.
    """
    end_start = size_bytes - _END_BYTES
    end = _read_at(file, end_start, _END_BYTES) if end_start >= 0 else b""
    if end[:4] != b"PK\x05\x06" or end[20:22] != b"\0\0":
        raise damaged("it does not end with a zip directory: it is truncated, or no zip archive, or data follows it.")
    disk, directory_disk, count_here, count, length, start = struct.unpack("<HHHHII", end[4:20])
    records_start = end_start
    locator = _read_at(file, end_start - _LOCATOR_BYTES, _LOCATOR_BYTES) if end_start >= _LOCATOR_BYTES else b""
    if locator[:4] == b"PK\x06\x07":
        records_start = end_start - _LOCATOR_BYTES - _END64_BYTES
        disk64, offset64, disks64 = struct.unpack("<IQI", locator[4:])
        if records_start < 0 or (disk64, offset64, disks64) != (0, records_start, 1):
            raise damaged("its zip64 directory record is not where it should be.")
        short = (count_here, count, length, start)
        end64 = struct.unpack("<4sQHHIIQQQQ", _read_at(file, records_start, _END64_BYTES))
        count_here, count, length, start = end64[6:10]
        agrees = all(
            a in (b, limit) for a, b, limit in zip(short, end64[6:10], (0xFFFF,) * 2 + (0xFFFFFFFF,) * 2, strict=True)
        )
        if end64[0] != b"PK\x06\x06" or end64[1] != _END64_BYTES - 12 or end64[4:6] != (0, 0) or not agrees:
            raise Refusal("its zip64 directory record contradicts the plain one.")
    if (disk, directory_disk) != (0, 0) or count_here != count or start + length != records_start:
        raise Refusal("its zip directory does not lie directly before the end of the file, so readers may disagree.")
    if count > MAX_MEMBERS or length > MAX_DIRECTORY_BYTES:
        raise Refusal(
            f"it lists {count} members in {length} bytes; the limits are {MAX_MEMBERS} and {MAX_DIRECTORY_BYTES}."
        )
    return start, count


def _check_sizes(infos: list[zipfile.ZipInfo], max_bytes: int) -> None:
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise Refusal(
            f"it would unpack to {total} bytes; the limit is {max_bytes}.", "raise the limit if the file is meant."
        )
    for info in infos:
        if info.file_size > _RATIO_FREE_BYTES and info.file_size > MAX_COMPRESSION_RATIO * info.compress_size:
            raise Refusal(
                f"it unpacks {info.compress_size} bytes to {info.file_size}, more than {MAX_COMPRESSION_RATIO} times."
            ).inside(info.filename)


def _check_entry(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    if name != info.filename or not _NAME.fullmatch(name):
        raise Refusal(
            f"the member {shown(name)} leaves the archive, is a folder, holds odd characters, or lies outside the root "
            "folder that torch writes since 2.8."
        )
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise Refusal("it is a link or another special file.").inside(name)
    if info.flag_bits & _ENCRYPTED_FLAGS or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refusal("it is encrypted, or compressed in a way that torch does not write.").inside(name)
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise Refusal(f"it is stored in {info.compress_size} bytes and claims {info.file_size}.").inside(name)


def _check_records(file: BinaryIO, infos: list[zipfile.ZipInfo], directory_start: int) -> None:
    """Checks that the records fill the file up to the directory and name themselves as the directory does."""
    free = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        start = info.header_offset
        slack = _MAX_DESCRIPTOR_BYTES if free else 0
        if not free <= start <= free + slack or start + _LOCAL_BYTES > directory_start:
            raise Refusal("its record overlaps another one, or bytes of nobody lie before it.").inside(info.filename)
        header = _read_at(file, start, _LOCAL_BYTES)
        flags, method = struct.unpack("<HH", header[6:10])
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        name = _read_at(file, start + _LOCAL_BYTES, name_length)
        encoded = info.filename.encode("utf-8" if info.flag_bits & _UTF8_FLAG else "cp437")
        same = (name, flags, method) == (encoded, info.flag_bits, info.compress_type)
        if header[:4] != b"PK\x03\x04" or not same:
            raise Refusal("its own header contradicts the zip directory.").inside(info.filename)
        free = start + _LOCAL_BYTES + name_length + extra_length + info.compress_size
    if not free <= directory_start <= free + _MAX_DESCRIPTOR_BYTES:
        raise Refusal("its records overlap the zip directory, or bytes of nobody lie before it.")


def _without_root(infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Returns the members by their names below the one root folder. torch looks names up without regard to case."""
    root = infos[0].filename.split("/")[0] if infos else ""
    members: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    for info in infos:
        head, _, name = info.filename.partition("/")
        if head != root:
            raise Refusal(f"the member {shown(info.filename)} lies outside the root folder {shown(root)}.")
        if name.casefold() in folded:
            raise Refusal("the name occurs twice, so readers may disagree.").inside(name)
        folded.add(name.casefold())
        members[name] = info
    return members


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise damaged("it is truncated.")
    return data
