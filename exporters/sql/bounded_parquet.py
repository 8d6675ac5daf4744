"""Parquet files of a bundle's own (catalog, losses, gaps, index) and of a sync's record, read in bounded memory.

A few kilobytes of Parquet can claim gigabytes: pages that unpack to more, one long text that millions of rows have,
lists of millions of values. So the header of each page is read before Arrow reads the page. A row group may unpack to
``FREE_BYTES``, and to ``RATIO`` times the bytes that it takes in the file: what moveout writes unpacks to far less.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from exporters.sql.large_values.parquet_footer import (
    COLUMNS,
    COMPRESSED,
    DATA_PAGE,
    DICTIONARY_PAGE,
    GROUP_ROWS,
    GROUPS,
    LENGTH,
    MAGIC,
    META,
    STATISTICS,
    Reader,
    ThriftStruct,
)  # fmt: skip
from exporters.sql.whole_parquet import whole_batches

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FREE_BYTES = 64 * 2**20
RATIO = 1024
"""Zstandard makes one byte of 250 of keys of a thousand characters that are counted up; of other rows of ours, of less.
"""
_FREE_ROWS, _ROWS_PER_BYTE = 2**20, 16
"""A row of ours takes more than a byte."""
_FEW_ROWS = 500
"""So many rows are read at once where long texts stand once and may be meant often."""
_FOOTER_LIMITS = {"thrift_string_size_limit": 64 * 2**20, "thrift_container_size_limit": 100_000}
_GAP_BYTES = 2**13
"""Column chunks that lie no farther apart are read at once."""
_VALUE_BYTES = 16
"""What a value of a list takes, with its levels and its place, if it is no text."""
_END_BYTES = LENGTH.size + len(MAGIC)
_MOST_DEPTH = 100
_TEXT = 6
_TYPES = frozenset({0, 1, 2, _TEXT})
"""BOOLEAN, INT32, INT64, BYTE_ARRAY. A value of the others takes any number of bytes, even where it is not there."""
_CODECS = {0: "", 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd"}
_SCHEMA, _TYPE, _REPETITION, _NAME, _CHILDREN, _CODEC, _GREATEST, _LEAST = 2, 1, 3, 4, 5, 4, 5, 6
_REPEATED, _CRYPTO = 2, 8
_ENCODINGS = frozenset({0, 2, 3, 4, 8})
"""PLAIN, PLAIN_DICTIONARY, RLE, BIT_PACKED, RLE_DICTIONARY. The others make long texts of few bytes."""
_KIND, _UNPACKED, _PACKED, _DATA, _DICTIONARY, _DATA_2 = 1, 2, 3, 5, 7, 8
"""Fields of PageHeader (https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift)."""
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_2: 4}


def rows_of(
    file: Any,
    rows: int,
    columns: Sequence[str] | None = None,
    *,
    chosen: Callable[[RowGroup], bool] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of an open file, at most so many ``rows`` at once: these ``columns`` (all, unless given), of row
    groups that are ``chosen``. Raises ``ValueError`` where they take more memory than they may, and what ``reading``
    translates.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415  a third of a second of a start, and many commands read no Parquet

    size_bytes = file.seek(0, os.SEEK_END)
    footer = _footer(file, size_bytes)
    file.seek(0)
    metadata = pq.ParquetFile(file, pre_buffer=False, **_FOOTER_LIMITS).metadata
    if metadata.num_rows > _FREE_ROWS + _ROWS_PER_BYTE * size_bytes:
        raise ValueError(f"its {size_bytes} bytes claim to be {metadata.num_rows} rows")
    leaves = list(_leaves(iter(footer[_SCHEMA].data)))
    for number, about in enumerate(footer[GROUPS].data):
        group = RowGroup(about, leaves, columns)
        if group.rows and (chosen is None or chosen(group)):
            yield from _Contents(file, group, metadata, number).batches(rows)


def check_columns(file: Any) -> None:
    """Raise what ``reading`` translates where a row group does not describe each column, or only encrypted: Arrow ends
    the process when it is asked for such a one.
    """
    footer = _footer(file, file.seek(0, os.SEEK_END))
    leaves = list(_leaves(iter(footer[_SCHEMA].data)))
    for about in footer[GROUPS].data:
        RowGroup(about, leaves, None)


class _Leaf(Struct, frozen=True):
    """A column of values. ``path`` leads there from a column of the table; a value is within so many ``lists``."""

    path: tuple[str, ...]
    physical_type: int
    lists: int


def _leaves(elements: Iterator[ThriftStruct]) -> Iterator[_Leaf]:
    """Yield the columns of values of a schema, in their order in the file."""
    root = next(elements, {})
    open_groups = [_Open((), 0, _number(root, _CHILDREN))]
    while open_groups:
        parent = open_groups[-1]
        if not parent.left:
            open_groups.pop()
            continue
        parent.left -= 1
        element = next(elements, None)
        if element is None or len(open_groups) > _MOST_DEPTH:
            raise ValueError("its schema is none")
        path = (*parent.path, element[_NAME].data.decode())
        lists = parent.lists + (_number(element, _REPETITION) == _REPEATED)
        if children := _number(element, _CHILDREN):
            open_groups.append(_Open(path, lists, children))
        else:
            yield _Leaf(path, _number(element, _TYPE), lists)


class _Open(Struct):
    """An element of a schema whose children follow, so many of which are ``left``."""

    path: tuple[str, ...]
    lists: int
    left: int


def _number(struct: ThriftStruct, field: int) -> int:
    return int(struct[field].data) if field in struct else 0


def _footer(file: Any, size_bytes: int) -> ThriftStruct:
    """Return what a file says of itself. Arrow's own way to it ends the process where a column is not described."""
    file.seek(max(0, size_bytes - _END_BYTES))
    end = file.read(_END_BYTES)
    length = LENGTH.unpack_from(end)[0] if end[LENGTH.size :] == MAGIC else size_bytes
    if length > size_bytes - 2 * len(MAGIC) - LENGTH.size:
        raise ValueError("it is no Parquet file")
    file.seek(size_bytes - _END_BYTES - length)
    return Reader(file.read(length)).struct()


class RowGroup:
    """What the footer says of the chosen columns of a row group."""

    def __init__(self, about: ThriftStruct, leaves: Sequence[_Leaf], columns: Sequence[str] | None) -> None:
        chunks = about[COLUMNS].data
        if len(chunks) != len(leaves):
            raise ValueError(f"a row group has {len(chunks)} columns of {len(leaves)}")
        if any(_CRYPTO in chunk for chunk in chunks):
            raise ValueError("it is encrypted")
        self.rows = int(about[GROUP_ROWS].data)
        self.columns = None if columns is None else list(columns)
        self.chunks: list[tuple[_Leaf, ThriftStruct]] = [
            (leaf, chunk[META].data)
            for leaf, chunk in zip(leaves, chunks, strict=True)
            if columns is None or leaf.path[0] in columns
        ]

    def ends(self, column: str) -> tuple[str, str] | None:
        """Return the least and the greatest text of a column, None where the file does not say."""
        for leaf, chunk in self.chunks:
            statistics = chunk[STATISTICS].data if STATISTICS in chunk else {}
            if leaf.path == (column,) and _LEAST in statistics and _GREATEST in statistics:
                with suppress(UnicodeDecodeError):
                    return statistics[_LEAST].data.decode(), statistics[_GREATEST].data.decode()
        return None


class _Contents:
    """The pages of the chosen columns of a row group, in memory as they are in the file."""

    def __init__(self, file: Any, group: RowGroup, metadata: pq.FileMetaData, number: int) -> None:
        self._metadata, self._number, self._rows = metadata, number, group.rows
        self._columns = group.columns
        spans = [_span(chunk) for _, chunk in group.chunks]
        self._pieces = _Pieces(file, spans)
        self._most = FREE_BYTES + RATIO * self._pieces.size_bytes
        self._chunks = [
            _Chunk(chunk, leaf, self._pieces.view(*span))
            for (leaf, chunk), span in zip(group.chunks, spans, strict=True)
        ]

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield its rows. Raises ``ValueError`` where they take more than they may."""
        if sum(chunk.unpacked_bytes for chunk in self._chunks) > self._most:
            raise _too_much(self._pieces.size_bytes, self._most)
        texts = [chunk for chunk in self._chunks if chunk.dictionary is not None and chunk.is_text]
        most_rows = min(rows, self._rows)
        if (
            sum(chunk.longest * (chunk.values if chunk.in_lists else most_rows) for chunk in texts)
            > FREE_BYTES
        ):
            return self._in_few(texts)
        return self._read(rows)

    def _in_few(self, texts: Sequence[_Chunk]) -> Iterator[pa.RecordBatch]:
        """Yield its rows, few at once. Texts that stand once are looked at before each row gets its own."""
        import pyarrow as pa  # noqa: PLC0415  see rows_of

        schema = self._open().schema_arrow
        for batch in self._read(_FEW_ROWS, read_dictionary=[chunk.path for chunk in texts]):
            if sum(map(_dense_bytes, batch.columns)) > self._most:
                raise _too_much(self._pieces.size_bytes, self._most)
            yield batch.cast(pa.schema([schema.field(name) for name in batch.schema.names]))

    def _read(self, rows: int, **options: Any) -> Iterator[pa.RecordBatch]:
        return whole_batches(
            self._open(**options), rows, [self._number], columns=self._columns, use_threads=False
        )

    def _open(self, **options: Any) -> pq.ParquetFile:
        import pyarrow.parquet as pq  # noqa: PLC0415  see rows_of

        return pq.ParquetFile(
            self._pieces, metadata=self._metadata, pre_buffer=False, **_FOOTER_LIMITS, **options
        )


def _too_much(size_bytes: int, most_bytes: int) -> ValueError:
    return ValueError(f"{size_bytes} bytes of it unpack to more than the {most_bytes} bytes that they may")


def _span(chunk: ThriftStruct) -> tuple[int, int]:
    """Return where a column chunk begins, and its size, as Arrow takes them from the footer."""
    start, dictionary = _number(chunk, DATA_PAGE), _number(chunk, DICTIONARY_PAGE)
    return dictionary if 0 < dictionary < start else start, _number(chunk, COMPRESSED)


class _Dictionary(Struct, frozen=True):
    """A dictionary page as it is in the file."""

    data: memoryview
    unpacked_bytes: int
    values: int


class _Chunk:
    """A column chunk: ``values`` and ``unpacked_bytes`` of all its pages. ``in_lists``: a row has any number of values.
    Raises ``ValueError`` or ``IndexError`` for what is none.
    """

    def __init__(self, chunk: ThriftStruct, leaf: _Leaf, data: memoryview) -> None:
        self.path = ".".join(leaf.path)
        self.is_text, self.in_lists = leaf.physical_type == _TEXT, leaf.lists > 0
        codec = _number(chunk, _CODEC)
        if leaf.physical_type not in _TYPES or codec not in _CODECS:
            raise ValueError(f"the column {self.path} is of another type, or compressed in another way")
        self._codec = _CODECS[codec]
        self.values = self.unpacked_bytes = 0
        self.dictionary: _Dictionary | None = None
        self._add_pages(data)
        self.unpacked_bytes += _VALUE_BYTES * self.values * leaf.lists

    def _add_pages(self, data: memoryview) -> None:
        reader = Reader(data)
        while reader.position < len(data):
            header = reader.struct()
            packed, unpacked = (int(header[field].data) for field in (_PACKED, _UNPACKED))
            begin, reader.position = reader.position, reader.position + packed
            self.unpacked_bytes += unpacked
            about = next((field for field in _ENCODING if field in header), 0)
            if (
                not about
                or min(packed, unpacked) < 0
                or header[about].data[_ENCODING[about]].data not in _ENCODINGS
            ):
                raise ValueError(f"the column {self.path} has a page of another kind")
            values = int(header[about].data[1].data)
            if about != _DICTIONARY:
                self.values += values
            elif self.dictionary is None and 0 <= values * LENGTH.size <= unpacked:
                self.dictionary = _Dictionary(data[begin : reader.position], unpacked, values)
            else:
                raise ValueError(f"the column {self.path} has a dictionary of {values} values")

    @cached_property
    def longest(self) -> int:
        """The bytes of the longest text of its dictionary."""
        import pyarrow as pa  # noqa: PLC0415  see rows_of

        dictionary = self.dictionary
        if dictionary is None or not dictionary.values:
            return 0
        data: Any = dictionary.data
        if self._codec:
            size_bytes = dictionary.unpacked_bytes
            data = pa.decompress(data, decompressed_size=size_bytes, codec=self._codec, asbytes=True)
        return _longest(data, dictionary.values)


def _longest(data: bytes, count: int) -> int:
    """Return the longest of so many texts, each behind its length. Raises ``ValueError`` where they are fewer."""
    width, rest = divmod(len(data), count)
    if not rest and all(bytes(data[i::width]) == bytes(data[i : i + 1]) * count for i in range(LENGTH.size)):
        return width - LENGTH.size
    longest = position = 0
    unpack = LENGTH.unpack_from
    try:
        for _ in range(count):
            (size,) = unpack(data, position)
            position += 4 + size
            longest = max(longest, size)
    except struct.error as exc:
        raise ValueError(f"a dictionary has not the {count} texts that it claims") from exc
    return min(longest, len(data))


def _dense_bytes(values: pa.Array) -> int:
    """Return how many bytes a column takes where each row has its own texts."""
    import pyarrow as pa  # noqa: PLC0415  see rows_of

    from exporters import arrow_functions as pc  # noqa: PLC0415

    if isinstance(values, pa.DictionaryArray):
        return pc.sum(pc.take(pc.binary_length(values.dictionary), values.indices)).as_py() or 0
    if isinstance(values, pa.MapArray):
        return _dense_bytes(values.keys) + _dense_bytes(values.items)
    if isinstance(values, pa.StructArray):
        return sum(map(_dense_bytes, values.flatten()))
    return _dense_bytes(values.values) if hasattr(values, "values") else values.nbytes


class _Pieces(io.RawIOBase):
    """Parts of a file in memory, of ``size_bytes`` in all. For Arrow it is the file: it reads nothing else of it."""

    def __init__(self, file: Any, spans: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._end = file.seek(0, os.SEEK_END)
        self._position = 0
        self._parts: list[tuple[int, memoryview]] = []
        for start, end in self._joined(spans):
            file.seek(start)
            self._parts.append((start, memoryview(file.read(end - start))))
        self.size_bytes = sum(len(data) for _, data in self._parts)

    def _joined(self, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        joined: list[tuple[int, int]] = []
        for start, size in sorted(spans):
            if start < 0 or size < 0 or start + size > self._end:
                raise ValueError(f"it has {self._end} bytes, and its footer names {size} at {start}")
            if joined and start <= joined[-1][1] + _GAP_BYTES:
                joined[-1] = joined[-1][0], max(joined[-1][1], start + size)
            else:
                joined.append((start, start + size))
        return joined

    def view(self, start: int, size: int) -> memoryview:
        """Return bytes of the file. Raises ``ValueError`` for those that were not read."""
        for begin, data in self._parts:
            if begin <= start and start + size <= begin + len(data):
                return data[start - begin : start - begin + size]
        raise ValueError(f"{size} bytes at {start} are in no column")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._position = (
            offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        )
        return self._position

    def read(self, size: int | None = -1, /) -> Any:
        count = self._end - self._position if size is None or size < 0 else size
        data = self.view(self._position, count)
        self._position += count
        return data
