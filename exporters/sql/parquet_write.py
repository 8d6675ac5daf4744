"""The Parquet files of a chunk: encoded columns, row groups of bounded size, side columns where they are needed.

Rows come in blocks (``PartWriter``). What is taken is encoded and compressed a piece at a time, and its pages wait for
the end of the row group (``GroupedFile``). A column with a dictionary has one for the whole group, so there the values
wait, in the smallest form. A file of one piece is written by Arrow alone: to read footers and put them together costs
more than all else of a small file.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import Literal, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct, field

from exporters import arrow_functions as pc
from exporters.api import Sink
from exporters.sql.columns import SMALL_DECIMAL_DIGITS, Typed, as_type, small_type
from exporters.sql.large_values.long_values import Spooled
from exporters.sql.large_values.parquet_footer import Chunk, groups_of, merged, order_of
from exporters.sql.large_values.parquet_splice import Sequential, SplicedFile
from exporters.sql.parquet_read import leaves_of

_SAMPLE_ROWS = 20_000
_FEW = 0.05
"""A column whose sample has at most this share of distinct values is written with a dictionary."""
_ENCODINGS = {"integer": "DELTA_BINARY_PACKED", "text": "DELTA_LENGTH_BYTE_ARRAY"}
"""Smaller than plain and quicker to write, since less is left for zstd (measured: half the time for keys and
amounts).
"""


def encoded(
    table: pa.Table,
    *,
    dictionaries: Sequence[str] = (),
    plain: Collection[str] = (),
    compression: Literal["zstd", "none"] = "zstd",
) -> pa.Buffer:
    """Return a whole Parquet file with the rows of ``table`` as one row group, or none where it has no rows. Columns of
    ``dictionaries`` have one; those of ``plain`` are not encoded at all.
    """
    encodings = {
        column.name: _ENCODINGS.get(_physical(column.type))
        for column in table.schema
        if column.name not in dictionaries
    }
    encodings |= dict.fromkeys(plain, "PLAIN")
    # By minima and maxima a reader may skip row groups. Of texts with a dictionary each row group has nearly all, and
    # to find the least of them takes half as long as to write them.
    with_statistics = [
        column.name
        for column in table.schema
        if not pa.types.is_nested(column.type)
        and not (column.name in dictionaries and _physical(column.type) == "text")
    ]
    out = pa.BufferOutputStream()
    with pq.ParquetWriter(
        out,
        table.schema,
        compression=compression,
        compression_level=1 if compression == "zstd" else None,
        use_dictionary=list(dictionaries),
        column_encoding={name: encoding for name, encoding in encodings.items() if encoding} or None,
        write_statistics=with_statistics,
        store_decimal_as_integer=True,
    ) as writer:
        if table.num_rows:
            writer.write_table(table, row_group_size=table.num_rows)
    return out.getvalue()


def with_few_values(table: pa.Table) -> list[str]:
    """Return the columns of few distinct values, judged by the first rows; a dictionary is good for them."""
    head = table[:_SAMPLE_ROWS]
    most = _FEW * head.num_rows
    names = []
    for name, values in zip(head.column_names, head.columns, strict=True):
        if pa.types.is_nested(values.type):
            continue
        chunks = [chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk for chunk in values.chunks]
        sample = pa.chunked_array(chunks)
        # A key is known by the first rows of the sample: most of these differ.
        if all(pc.count_distinct(rows).as_py() <= most for rows in (sample[: 2 * int(most) + 1], sample)):
            names.append(name)
    return names


@lru_cache(1024)
def _physical(data_type: pa.DataType) -> str:
    """Return how Parquet keeps a type, as far as an encoding hangs on it."""
    data_type = data_type.storage_type if isinstance(data_type, pa.BaseExtensionType) else data_type
    if pa.types.is_decimal(data_type):
        return "integer" if data_type.precision <= SMALL_DECIMAL_DIGITS else ""
    if pa.types.is_string(data_type) or pa.types.is_binary(data_type):
        return "text"
    is_integer = pa.types.is_integer(data_type) or pa.types.is_date(data_type)
    return "integer" if is_integer or pa.types.is_timestamp(data_type) or pa.types.is_time(data_type) else ""


_LEAST_ROWS = 1_000
"""In a file of fewer rows a dictionary saves nothing that is worth the search for few values."""
_SMALL_BYTES = 8192
"""Values of a file that are not compressed: it would save no more than a block or two of a disk, and takes as long as
all else of the file.
"""
GROUP_BYTES = 128 * 2**20
"""Values that become one row group, as text: readers like large ones."""
_HELD_BYTES = max(16 * 2**20, 128 * 2**20 // max(os.cpu_count() or 2, 2))
"""A row group ends sooner where this much of it is held: pages, and values that wait for their dictionary. There are as
many workers as processors, so all of them share what may be held.
"""


class GroupedFile:
    """Writes one file, in row groups of bounded size. ``rows``: how many it has. Whoever calls closes the stream, after
    ``finish``.
    """

    def __init__(self, stream: Sequential, schema: pa.Schema) -> None:
        self.rows = 0
        self._stream = stream
        self._schema = schema
        self._single: pa.Table | None = None
        """The first piece, as long as it is the only one."""
        self._spliced: SplicedFile | None = None
        """Takes row groups that are put together from pieces."""
        self._begin_group()

    def _begin_group(self) -> None:
        self._group_rows = self._text_bytes = 0
        self._many: list[str] = []
        self._pages: dict[int, list[Chunk]] = {}
        self._values: dict[str, pa.ChunkedArray] = {}
        self._held_bytes = 0
        """What the row group takes of memory."""

    def write(self, table: pa.Table, text_bytes: int = 0) -> None:
        """Take rows, of so many bytes of text, into the row group that is open; end it where it is large enough."""
        if not table.num_rows:
            return
        self.rows += table.num_rows
        self._text_bytes += text_bytes
        if self._single is None and self._spliced is None:
            self._single, self._held_bytes = table, int(table.nbytes)
        else:
            self._splice()
            self._encode(table)
        if self._text_bytes >= GROUP_BYTES or self._held_bytes >= _HELD_BYTES:
            self._end_group()

    def write_long(self, row: pa.Table, long: Mapping[str, Spooled]) -> None:
        """Write a row group of one row whose values of these columns are long, and empty in ``row``."""
        self._end_group()
        self.rows += 1
        chunks = [chunk for _, chunk in self._chunks(encoded(row, plain=long), row.column_names)]
        self._splice().add(1, chunks, {self._leaves[name][0]: value for name, value in long.items()})

    def finish(self) -> None:
        """Write what is left, and the footer."""
        if self._spliced is not None:
            self._end_group()
            self._spliced.finish()
            return
        if self._single is None:
            table = _empty(self._schema)
        else:  # some columns may be of a smaller type than the file's
            columns = zip(self._schema, self._single.columns, strict=True)
            table = pa.Table.from_arrays(
                [as_type(field.type, values) for field, values in columns], schema=self._schema
            )
        few = with_few_values(table) if table.num_rows >= _LEAST_ROWS else []
        compression: Literal["zstd", "none"] = "zstd" if self._held_bytes > _SMALL_BYTES else "none"
        self._stream.write(encoded(table, dictionaries=few, compression=compression))

    def _splice(self) -> SplicedFile:
        """Return the file that takes row groups; where it is begun now, the first piece goes into the open one."""
        if self._spliced is None:
            empty = encoded(_empty(self._schema))
            self._spliced = SplicedFile(self._stream, empty)
            self._leaves = leaves_of(self._schema)
            columns = pq.ParquetFile(pa.BufferReader(empty)).schema
            self._orders = [order_of(columns.column(leaf)) for leaf in range(len(columns))]
            if self._single is not None:
                self._held_bytes = 0
                self._encode(self._single)
                self._single = None
        return self._spliced

    def _encode(self, table: pa.Table) -> None:
        """Make pages of a piece; the columns that get a dictionary wait."""
        if not self._group_rows:
            few = with_few_values(table)
            self._many = [name for name in table.column_names if name not in few]
            self._values = {name: pa.chunked_array([], small_type(table.column(name).type)) for name in few}
        self._group_rows += table.num_rows
        for leaf, chunk in self._chunks(encoded(table.select(self._many)), self._many):
            self._pages.setdefault(leaf, []).append(chunk)
            self._held_bytes += sum(map(len, chunk.pages))
        for name, held in self._values.items():
            values = table.column(name)
            small = as_type(held.type, values)
            self._values[name] = pa.chunked_array([*held.chunks, *small.chunks], held.type)
            self._held_bytes += small.nbytes

    def _end_group(self) -> None:
        """Write the row group, if there are rows; then another one is open."""
        file = self._splice()
        if self._group_rows:
            chunks = {leaf: merged(pages, self._orders[leaf]) for leaf, pages in self._pages.items()}
            fields = [self._schema.field(name).with_type(held.type) for name, held in self._values.items()]
            few = pa.Table.from_arrays(list(self._values.values()), schema=pa.schema(fields))
            chunks |= self._chunks(encoded(few, dictionaries=few.column_names), self._values)
            file.add(self._group_rows, [chunks[leaf] for leaf in sorted(chunks)])
        self._begin_group()

    def _chunks(self, file: pa.Buffer, names: Iterable[str]) -> Iterable[tuple[int, Chunk]]:
        """Yield the chunks of a file of one row group, each with the number of its leaf in ours."""
        leaves = [leaf for name in names for leaf in self._leaves[name]]
        for _, chunks in groups_of(file):
            yield from zip(leaves, chunks, strict=True)


def _empty(schema: pa.Schema) -> pa.Table:
    """Return a table without rows; ``Schema.empty_table`` refuses lists of extension types."""
    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


_PIECE_BYTES, _LEAF_BYTES, _PIECE_MOST_BYTES = 8 * 2**20, 2**19, 24 * 2**20
"""Values that are encoded at once: more where a table has many columns, lest their pages be tiny."""


class PartLayout(Protocol):
    """How a table lies in Parquet."""

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """Its columns."""
        ...

    def schema(self, with_sides: frozenset[int]) -> pa.Schema:
        """Return the schema of a file with the side columns of these positions."""
        ...

    def arrays(self, typed: Typed, with_sides: frozenset[int]) -> list[pa.Array]:
        """Return the columns of that schema, some of them in a smaller type."""
        ...


class WrittenPart(Struct, frozen=True):
    """A Parquet file of the chunk: its name relative to ``data/<source>/``."""

    name: str
    rows: int


class PartWriter(Struct):
    """Writes row groups into ``<stem>.parquet``, and ``<stem>-1.parquet`` … where a side column has to be added."""

    layout: PartLayout
    sink: Sink
    stem: str
    _file: GroupedFile | None = None
    _name: str = ""
    _sides: frozenset[int] = frozenset()
    _stream: ExitStack = field(default_factory=ExitStack)
    """The file that is open, its side columns, and what ends it."""
    _done: list[WrittenPart] = field(default_factory=list)
    _piece: list[Typed] = field(default_factory=list)
    _piece_bytes: int = 0
    _at_once_bytes: int = 0

    def __post_init__(self) -> None:
        leaves = len(self.layout.fields)
        self._at_once_bytes = min(max(leaves * _LEAF_BYTES, _PIECE_BYTES), _PIECE_MOST_BYTES)

    def add(self, typed: Typed, text_bytes: int) -> None:
        """Take a block."""
        self.sink.advance(items=typed.rows, size_bytes=text_bytes)
        self._piece.append(typed)
        self._piece_bytes += text_bytes
        if self._piece_bytes >= self._at_once_bytes:
            self._write_piece()

    def add_long(self, typed: Typed, long: Mapping[str, Spooled]) -> None:
        """Take one row whose values by these names of fields are long, and empty in ``typed``. It becomes a row group
        of its own.
        """
        self._write_piece()
        self.sink.advance(items=typed.rows)
        file = self._open(typed.sides)
        file.write_long(self._table([typed]), long)

    def _write_piece(self) -> None:
        piece, size = self._piece, self._piece_bytes
        self._piece, self._piece_bytes = [], 0
        if piece:
            file = self._open(position for typed in piece for position in typed.sides)
            file.write(self._table(piece), size)

    def _table(self, piece: Sequence[Typed]) -> pa.Table:
        """Return blocks as a table of the open file. A column has a smaller type where it has that in all blocks."""
        columns, fields = [], []
        for stored, *arrays in zip(
            self.layout.schema(self._sides),
            *(self.layout.arrays(typed, self._sides) for typed in piece),
            strict=True,
        ):
            first = arrays[0].type
            data_type = first if all(values.type == first for values in arrays) else stored.type
            columns.append(pa.chunked_array([as_type(data_type, values) for values in arrays], data_type))
            fields.append(stored.with_type(data_type))
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))

    def _open(self, sides: Iterable[int]) -> GroupedFile:
        """Return a file that has these side columns: the open one, if it has them, else the next."""
        needed = frozenset(sides)
        if self._file is None or not needed <= self._sides:
            self._close()
            self._sides |= needed
            number = len(self._done)
            self._name = f"{self.stem}-{number}.parquet" if number else f"{self.stem}.parquet"
            stream = self._stream.enter_context(self.sink.create(self._name))
            self._file = GroupedFile(stream, self.layout.schema(self._sides))
        return self._file

    def add_empty_rows(self, rows: int) -> None:
        """Write nothing but the file: a table without columns has a count of rows only."""
        self._open(()).rows = rows

    @property
    def exact(self) -> tuple[str, ...]:
        """The columns that needed a side column."""
        return tuple(self.layout.fields[i].name for i in sorted(self._sides))

    def finish(self) -> tuple[WrittenPart, ...]:
        """Write what is left; where no row came, an empty file. Return the files."""
        self._write_piece()
        if not self._done:
            self._open(())
        self._close()
        return tuple(self._done)

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with self._stream:
                file.finish()
            self._done.append(WrittenPart(self._name, file.rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.finish()
        elif self._file is not None:
            self._stream.__exit__(kind, error, None)
