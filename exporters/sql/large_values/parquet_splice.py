"""Parquet files put together from column chunks, with values that are never whole in memory.

Arrow writes the chunks, in small files of their own, with an empty value in place of each long one; they are put
together here, and the long values between them. A chunk with a long value is one page, PLAIN, whose content is several
Zstandard frames (https://parquet.apache.org/docs/file-format/; RFC 8878, 3.1).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from exporters.sql.large_values.long_values import CODEC, PIECE_BYTES, SHORT_BYTES, Spooled
from exporters.sql.large_values.parquet_footer import (
    CHUNK_OFFSET,
    COLUMNS,
    COMPRESSED,
    DATA_PAGE,
    DICTIONARY_PAGE,
    GROUP_COMPRESSED,
    GROUP_OFFSET,
    GROUP_ROWS,
    GROUP_UNCOMPRESSED,
    GROUPS,
    LENGTH,
    MAGIC,
    ROWS,
    SIZE_STATISTICS,
    STATISTICS,
    UNCOMPRESSED,
    Chunk,
    Reader,
    ThriftStruct,
    Value,
    dump,
    footer_of,
    number,
    structures,
)

_HEADER_BYTES = 2**16
"""More than a page header without statistics takes."""
_WRITE_BYTES = 2**20
_PAGE_UNCOMPRESSED, _PAGE_COMPRESSED, _CRC, _DATA_HEADER = 2, 3, 4, 5
_PAGE_STATISTICS = 5
"""Fields of PageHeader."""


class Sequential(Protocol):
    """What is written to."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Take all of it."""
        ...


class SplicedFile:
    """Writes one Parquet file, whose schema and labels are those of ``empty``, a file without rows. Whoever calls
    closes the stream.
    """

    def __init__(self, stream: Sequential, empty: pa.Buffer) -> None:
        self._stream = stream
        self._file = footer_of(empty)
        self._groups: list[ThriftStruct] = []
        self._at = 0
        self._pending: list[bytes | memoryview] = []
        self._pending_bytes = 0
        self._write(MAGIC)

    def add(self, rows: int, chunks: Sequence[Chunk], long: Mapping[int, Spooled] | None = None) -> None:
        """Add a row group of these column chunks, one for each leaf of the schema, with these values in place of the
        empty ones of its leaves, by number.
        """
        begin, long = self._at, long or {}
        for leaf, chunk in enumerate(chunks):
            self._move_offsets(chunk)
            if leaf in long:
                self._splice(chunk.meta, chunk.pages[0], long[leaf])
            else:
                for page in chunk.pages:
                    self._write(page)
        self._flush()
        metas = [chunk.meta for chunk in chunks]
        self._groups.append(
            {
                COLUMNS: structures([chunk.about for chunk in chunks]),
                GROUP_UNCOMPRESSED: number(sum(meta[UNCOMPRESSED].data for meta in metas)),
                GROUP_ROWS: number(rows),
                GROUP_OFFSET: number(begin),
                GROUP_COMPRESSED: number(self._at - begin),
            }
        )

    def _move_offsets(self, chunk: Chunk) -> None:
        """Let the offsets of a chunk count from the beginning of the file, where it comes next."""
        meta, start = chunk.meta, chunk.start
        for offset in (DATA_PAGE, DICTIONARY_PAGE):
            if offset in meta:
                meta[offset] = number(meta[offset].data - start + self._at)
        if chunk.about[CHUNK_OFFSET].data:
            chunk.about[CHUNK_OFFSET] = number(self._at)

    def _splice(self, meta: ThriftStruct, page: memoryview, value: Spooled) -> None:
        """Write a page with ``value`` in place of its one empty value."""
        reader = Reader(page)
        header = reader.struct()
        begin = pa.Codec(CODEC).decompress(
            page[reader.position :], header[_PAGE_UNCOMPRESSED].data, asbytes=True
        )
        begin = begin[: -LENGTH.size] + LENGTH.pack(value.size_bytes)
        frame = pa.Codec(CODEC).compress(begin, asbytes=True)
        sizes = {
            _PAGE_UNCOMPRESSED: len(begin) + value.size_bytes,
            _PAGE_COMPRESSED: len(frame) + value.compressed_bytes,
        }
        for field, size in sizes.items():
            header[field] = Value(header[field].kind, size)
        header.pop(_CRC, None)
        header[_DATA_HEADER].data.pop(_PAGE_STATISTICS, None)
        head, before = dump(header), self._at
        self._write(head)
        self._write(frame)
        for piece in value.frames():
            self._write(piece)
        for field in (STATISTICS, SIZE_STATISTICS):
            meta.pop(field, None)
        meta[UNCOMPRESSED] = number(len(head) + sizes[_PAGE_UNCOMPRESSED])
        meta[COMPRESSED] = number(self._at - before)

    def finish(self) -> None:
        """Write the footer."""
        self._file[ROWS] = number(sum(group[GROUP_ROWS].data for group in self._groups))
        self._file[GROUPS] = structures(self._groups)
        footer = dump(self._file)
        self._write(footer + LENGTH.pack(len(footer)) + MAGIC)
        self._flush()

    def _write(self, data: bytes | memoryview) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._at += len(data)
        if self._pending_bytes >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Write what is pending: pages are small, and each write of the stream costs the same."""
        self._stream.write(b"".join(self._pending))
        self._pending.clear()
        self._pending_bytes = 0


class InPage(Struct, frozen=True):
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


def long_value(file: BinaryIO, chunk: pq.ColumnChunkMetaData) -> InPage | None:
    """Return the one value of a column chunk of one row, where it is longer than ``SHORT_BYTES`` and lies in one plain
    page, compressed by Zstandard; else None. Raises ``OSError``, ``ValueError`` or ``IndexError`` where the file is
    damaged.
    """
    if (
        chunk.total_uncompressed_size < SHORT_BYTES
        or chunk.physical_type != "BYTE_ARRAY"
        or chunk.compression != "ZSTD"
        or chunk.has_dictionary_page
        or not set(chunk.encodings) <= {"PLAIN", "RLE"}
    ):
        return None
    start, size = chunk.data_page_offset, chunk.total_compressed_size
    with _content(file, start, size) as content:
        levels = content.read(LENGTH.size)
        content.read(LENGTH.unpack(levels)[0])
        value_bytes = LENGTH.unpack(content.read(LENGTH.size))[0]
    skip = 2 * LENGTH.size + LENGTH.unpack(levels)[0]
    return InPage(file, start, size, value_bytes, skip) if value_bytes >= SHORT_BYTES else None


def _content(file: BinaryIO, start: int, size: int) -> pa.CompressedInputStream:
    """Return the content of the page that begins there."""
    file.seek(start)
    reader = Reader(file.read(min(size, _HEADER_BYTES)))
    reader.struct()
    region = _Region(file, start + reader.position, start + size)
    return pa.CompressedInputStream(pa.PythonFile(region, mode="r"), CODEC)


class _Region(io.RawIOBase):
    """A part of a file. It keeps its own position: others may read the file in between."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        super().__init__()
        self._file, self._at, self._end = file, start, end

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> Any:
        left = self._end - self._at
        self._file.seek(self._at)
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data
