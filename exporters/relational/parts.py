"""The Parquet files of a chunk: row groups of bounded size, side columns only in files that need them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from exporters.base import Sink
from exporters.relational.layout import Typed
from exporters.relational.long_values import Spooled
from exporters.relational.parquet import leaves_of
from exporters.relational.splice import SplicedFile

_GROUPS_BYTES = 48 * 2**20
GROUP_BYTES = max(16 * 2**20, _GROUPS_BYTES // max(os.cpu_count() or 2, 2))
"""Values that become one row group: readers like large ones. A worker holds it as Arrow, about once more as Parquet
while it is written, and there are as many workers as processors: so all of them share what may be held.
"""
_SAMPLE_ROWS = 20_000
_FEW = 0.05
"""A column whose sample has at most this share of distinct values is written with a dictionary."""
_INTEGER_DECIMAL_DIGITS = 18
"""Parquet keeps decimals of so many digits as integers."""


class PartLayout(Protocol):
    """How a table lies in Parquet."""

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """Its columns."""
        ...

    def schema(self, with_sides: frozenset[int]) -> pa.Schema:
        """Return the schema of a file with the side columns of these positions."""
        ...

    def batch(self, typed: Typed, with_sides: frozenset[int]) -> pa.RecordBatch:
        """Return a record batch of that schema."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A Parquet file of the chunk: its name relative to ``data/<source>/``."""

    name: str
    rows: int


@dataclass
class _Open:
    """The file that is being written."""

    name: str
    sides: frozenset[int]
    writer: pq.ParquetWriter | _Spliced
    undo: ExitStack
    rows: int = 0


@dataclass
class PartWriter:
    """Writes row groups into ``<stem>.parquet``, and ``<stem>-1.parquet`` … where a side column has to be added."""

    layout: PartLayout
    sink: Sink
    stem: str
    _file: _Open | None = None
    _done: list[Part] = field(default_factory=list)
    _sides: frozenset[int] = frozenset()
    _group: list[Typed] = field(default_factory=list)
    _group_bytes: int = 0

    def add(self, typed: Typed, text_bytes: int) -> None:
        """Take a block; write a row group once there is enough."""
        self._group.append(typed)
        self._group_bytes += text_bytes
        if self._group_bytes >= GROUP_BYTES:
            self._write_group()

    def add_long(self, typed: Typed, long: Mapping[str, Spooled]) -> None:
        """Take one row whose values by these names of fields are long, and empty in ``typed``. It becomes a row group
        of its own.
        """
        self._write_group()
        sides = frozenset(typed.sides)
        file = self._file
        if file is None or not isinstance(file.writer, _Spliced) or not sides <= file.sides:
            self._finish()
            self._sides |= sides
            file = self._begin(typed, spliced=True)
        assert isinstance(file.writer, _Spliced)
        file.writer.write_long(self.layout.batch(typed, file.sides), long)
        file.rows += 1

    def _write_group(self) -> None:
        group, self._group, self._group_bytes = self._group, [], 0
        if not group:
            return
        sides = frozenset(position for typed in group for position in typed.sides)
        file = self._file
        if file is None or not sides <= file.sides:
            self._finish()
            self._sides |= sides
            file = self._begin(group[0])
        table = pa.Table.from_batches([self.layout.batch(typed, file.sides) for typed in group])
        file.writer.write_table(table, row_group_size=max(table.num_rows, 1))
        file.rows += table.num_rows

    def add_empty_rows(self, rows: int) -> None:
        """Write nothing but the file: a table without columns has a count of rows only."""
        self._file = self._begin(Typed((), {}, 0))
        self._file.rows = rows

    def parts(self) -> tuple[Part, ...]:
        """Return the files that were written."""
        return tuple(self._done)

    def exact(self) -> tuple[str, ...]:
        """Return the columns that needed a side column."""
        return tuple(self.layout.fields[i].name for i in sorted(self._sides))

    def _begin(self, typed: Typed, *, spliced: bool = False) -> _Open:
        number = len(self._done)
        name = f"{self.stem}-{number}.parquet" if number else f"{self.stem}.parquet"
        undo = ExitStack()
        try:
            stream = undo.enter_context(self.sink.create(name))
            buffered = pa.BufferedOutputStream(pa.PythonFile(stream, mode="w"), 2**20)
            undo.callback(buffered.detach)
            writer: pq.ParquetWriter | _Spliced = (
                _Spliced(SplicedFile(buffered), self.layout, self._sides)
                if spliced
                else _parquet_writer(buffered, self.layout, self._sides, typed)
            )
            undo.enter_context(writer)
        except BaseException as exc:
            undo.__exit__(type(exc), exc, exc.__traceback__)
            raise
        self._file = _Open(name, self._sides, writer, undo)
        return self._file

    def _finish(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.undo.close()
            self._done.append(Part(file.name, file.rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self._write_group()
            if self._file is None and not self._done:
                self._file = self._begin(_nothing(self.layout))
            self._finish()
        elif self._file is not None:
            self._file.undo.__exit__(kind, error, None)


class _Spliced:
    """A file that takes rows with long values, too; otherwise like ``pq.ParquetWriter``."""

    def __init__(self, file: SplicedFile, layout: PartLayout, sides: frozenset[int]) -> None:
        self._file, self._layout, self._sides = file, layout, sides

    def write_table(self, table: pa.Table, row_group_size: int) -> None:
        (batch,) = table.combine_chunks().to_batches()
        columns = tuple(batch.column(field.name) for field in self._layout.fields)
        self._add(table, row_group_size, Typed(columns, {}, table.num_rows), {})

    def write_long(self, batch: pa.RecordBatch, long: Mapping[str, Spooled]) -> None:
        """Write a row group of one row."""
        self._add(pa.Table.from_batches([batch]), 1, _nothing(self._layout), long)

    def _add(self, table: pa.Table, rows: int, sample: Typed, long: Mapping[str, Spooled]) -> None:
        out = pa.BufferOutputStream()
        with _parquet_writer(out, self._layout, self._sides, sample, long) as writer:
            writer.write_table(table, row_group_size=rows)
        leaves = leaves_of(table.schema)
        self._file.add(out.getvalue(), {leaves[name][0]: value for name, value in long.items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.finish()


def _nothing(layout: PartLayout) -> Typed:
    return Typed(tuple(pa.nulls(0, field.type) for field in layout.fields), {}, 0)


def _parquet_writer(
    stream: pa.NativeFile,
    layout: PartLayout,
    sides: frozenset[int],
    sample: Typed,
    long: Collection[str] = (),
) -> pq.ParquetWriter:
    schema = layout.schema(sides)
    few = _with_few_values(layout, sample)
    encodings = {
        column.name: _ENCODINGS.get(_physical(column.type)) for column in schema if column.name not in few
    }
    encodings |= dict.fromkeys(long, "PLAIN")
    return pq.ParquetWriter(
        stream,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=few or False,
        column_encoding={name: encoding for name, encoding in encodings.items() if encoding} or None,
        store_decimal_as_integer=True,
    )


_ENCODINGS = {"integer": "DELTA_BINARY_PACKED", "text": "DELTA_LENGTH_BYTE_ARRAY"}
"""Smaller than plain and quicker to write, since less is left for zstd (measured: half the time for keys and
amounts).
"""


def _physical(data_type: pa.DataType) -> str:
    """Return how Parquet keeps a type, as far as an encoding hangs on it."""
    data_type = data_type.storage_type if isinstance(data_type, pa.BaseExtensionType) else data_type
    if pa.types.is_decimal(data_type):
        return "integer" if data_type.precision <= _INTEGER_DECIMAL_DIGITS else ""
    if pa.types.is_string(data_type) or pa.types.is_binary(data_type):
        return "text"
    whole = pa.types.is_integer(data_type) or pa.types.is_date(data_type)
    return "integer" if whole or pa.types.is_timestamp(data_type) or pa.types.is_time(data_type) else ""


def _with_few_values(layout: PartLayout, sample: Typed) -> list[str]:
    """Return the columns of few distinct values, judged by the first rows; they are written with a dictionary."""
    if not sample.rows:
        return []
    names = []
    for field_, values in zip(layout.fields, sample.columns, strict=True):
        if pa.types.is_nested(field_.type):
            continue
        head = values[:_SAMPLE_ROWS]
        head = head.storage if isinstance(head, pa.ExtensionArray) else head
        if pc.count_distinct(head).as_py() <= _FEW * len(head):
            names.append(field_.name)
    return names
