"""Parquet files with values that are never whole in memory.

Arrow writes each row group as a small file of its own, with an empty value in place of each long one; its column chunks
are then put together here, and the long values between them. A chunk with a long value is one page, PLAIN, whose
content is several Zstandard frames (https://parquet.apache.org/docs/file-format/; RFC 8878, 3.1).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from exporters.relational.long_values import CODEC, PIECE_BYTES, Spooled
from exporters.relational.thrift import Reader, Struct, Value, dump, number

_MAGIC = b"PAR1"
_LENGTH = struct.Struct("<I")
_HEADER_BYTES = 2**16
"""More than a page header without statistics takes."""

_ROWS, _GROUPS = 3, 4
"""Fields of FileMetaData (https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift)."""
_COLUMNS, _GROUP_UNCOMPRESSED, _GROUP_ROWS, _GROUP_OFFSET, _GROUP_COMPRESSED, _ORDINAL = 1, 2, 3, 5, 6, 7
_CHUNK_OFFSET, _META = 2, 3
_UNCOMPRESSED, _COMPRESSED, _DATA_PAGE, _DICTIONARY_PAGE, _STATISTICS, _SIZE_STATISTICS = 6, 7, 9, 11, 12, 16
_PAGE_UNCOMPRESSED, _PAGE_COMPRESSED, _CRC, _DATA_HEADER = 2, 3, 4, 5
_PAGE_STATISTICS = 5


class Sequential(Protocol):
    """What is written to."""

    def write(self, data: bytes, /) -> int:
        """Take all of it."""
        ...


@dataclass(slots=True)
class SplicedFile:
    """Writes one Parquet file. Whoever calls closes the stream."""

    stream: Sequential
    _at: int = 0
    _groups: list[Struct] = field(default_factory=list)
    _file: Struct = field(default_factory=dict)

    def add(self, small: pa.Buffer, long: Mapping[int, Spooled]) -> None:
        """Add the row groups of a Parquet file, with these values in place of the empty ones of its columns (leaves, by
        number).
        """
        data = memoryview(small).cast("B")
        size = _LENGTH.unpack(data[-8:-4])[0]
        self._file = Reader(data, len(data) - 8 - size).struct()
        if not self._at:
            self._write(_MAGIC)
        for group in self._file[_GROUPS].data:
            self._add(group, data, long)

    def _add(self, group: Struct, data: memoryview, long: Mapping[int, Spooled]) -> None:
        begin, more = self._at, 0
        for leaf, chunk in enumerate(group[_COLUMNS].data):
            meta: Struct = chunk[_META].data
            start = meta[_DICTIONARY_PAGE if _DICTIONARY_PAGE in meta else _DATA_PAGE].data
            page = data[start : start + meta[_COMPRESSED].data]
            for offset in (_DATA_PAGE, _DICTIONARY_PAGE):
                if offset in meta:
                    meta[offset] = number(meta[offset].data - start + self._at)
            if chunk[_CHUNK_OFFSET].data:
                chunk[_CHUNK_OFFSET] = number(self._at)
            if leaf in long:
                more += self._splice(meta, page, long[leaf])
            else:
                self._write(page)
        group[_GROUP_UNCOMPRESSED] = number(group[_GROUP_UNCOMPRESSED].data + more)
        group[_GROUP_OFFSET] = number(begin)
        group[_GROUP_COMPRESSED] = number(self._at - begin)
        if _ORDINAL in group:
            group[_ORDINAL] = Value(group[_ORDINAL].kind, len(self._groups))
        self._groups.append(group)

    def _splice(self, meta: Struct, page: memoryview, value: Spooled) -> int:
        """Write a page with ``value`` in place of its one empty value; return how many bytes more it has."""
        reader = Reader(page)
        header = reader.struct()
        begin = pa.Codec(CODEC).decompress(
            page[reader.position :], header[_PAGE_UNCOMPRESSED].data, asbytes=True
        )
        begin = begin[: -_LENGTH.size] + _LENGTH.pack(value.size_bytes)
        frame = pa.Codec(CODEC).compress(begin, asbytes=True)
        sizes = {
            _PAGE_UNCOMPRESSED: len(begin) + value.size_bytes,
            _PAGE_COMPRESSED: len(frame) + value.compressed_bytes,
        }
        for one, size in sizes.items():
            header[one] = Value(header[one].kind, size)
        header.pop(_CRC, None)
        header[_DATA_HEADER].data.pop(_PAGE_STATISTICS, None)
        head, before = dump(header), self._at
        self._write(head)
        self._write(frame)
        for piece in value.frames():
            self._write(piece)
        for one in (_STATISTICS, _SIZE_STATISTICS):
            meta.pop(one, None)
        more: int = len(head) + sizes[_PAGE_UNCOMPRESSED] - meta[_UNCOMPRESSED].data
        meta[_UNCOMPRESSED] = number(meta[_UNCOMPRESSED].data + more)
        meta[_COMPRESSED] = number(self._at - before)
        return more

    def finish(self) -> None:
        """Write the footer. At least one row group was added."""
        file = self._file
        file[_ROWS] = number(sum(group[_GROUP_ROWS].data for group in self._groups))
        file[_GROUPS] = Value(file[_GROUPS].kind, self._groups, file[_GROUPS].element)
        footer = dump(file)
        self._write(footer + _LENGTH.pack(len(footer)) + _MAGIC)

    def _write(self, data: bytes | memoryview) -> None:
        self.stream.write(bytes(data))
        self._at += len(data)


@dataclass(frozen=True, slots=True)
class InPage:
    """A long value that is the only one of a page: where its chunk lies in the file."""

    file: BinaryIO
    start: int
    chunk_bytes: int
    size_bytes: int
    _skip: int

    def pieces(self) -> Iterator[bytes]:
        """Yield it. Raises ``OSError`` or ``ValueError`` where the file is damaged."""
        with _content(self.file, self.start, self.chunk_bytes) as content:
            content.read(self._skip)
            left = self.size_bytes
            while left:
                piece = content.read(min(left, PIECE_BYTES))
                if not piece:
                    raise ValueError("a long value ends too early")
                left -= len(piece)
                yield piece


def long_value(file: BinaryIO, chunk: pq.ColumnChunkMetaData, *, least_bytes: int) -> InPage | None:
    """Return the one value of a column chunk of one row, where it is longer than ``least_bytes`` and lies in one plain
    page, compressed by Zstandard; else None. Raises ``OSError``, ``ValueError`` or ``IndexError`` where the file is
    damaged.
    """
    if (
        chunk.total_uncompressed_size < least_bytes
        or chunk.physical_type != "BYTE_ARRAY"
        or chunk.compression != "ZSTD"
        or chunk.has_dictionary_page
        or not set(chunk.encodings) <= {"PLAIN", "RLE"}
    ):
        return None
    start, size = chunk.data_page_offset, chunk.total_compressed_size
    with _content(file, start, size) as content:
        levels = content.read(_LENGTH.size)
        content.read(_LENGTH.unpack(levels)[0])
        found = _LENGTH.unpack(content.read(_LENGTH.size))[0]
    skip = 2 * _LENGTH.size + _LENGTH.unpack(levels)[0]
    return InPage(file, start, size, found, skip) if found >= least_bytes else None


def _content(file: BinaryIO, start: int, size: int) -> pa.CompressedInputStream:
    """Return the content of the page that begins there."""
    file.seek(start)
    reader = Reader(file.read(min(size, _HEADER_BYTES)))
    reader.struct()
    region = _Region(file, start + reader.position, start + size)
    return pa.CompressedInputStream(pa.PythonFile(region, mode="r"), CODEC)


class _Region(io.RawIOBase):
    """A part of a file. It keeps its own place: others may read the file in between."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        super().__init__()
        self._file, self._at, self._end = file, start, end

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> Any:
        left = self._end - self._at
        self._file.seek(self._at)
        found = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(found)
        return found
