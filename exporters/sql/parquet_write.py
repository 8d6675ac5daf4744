"""The Parquet files of a chunk: row groups of bounded size, side columns only in files that need them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol, Self

import pyarrow as pa

from exporters.api import Sink
from exporters.sql.column_layout import Typed
from exporters.sql.large_values.long_values import Spooled
from exporters.sql.parquet_row_groups import GroupedFile

GROUP_BYTES = 128 * 2**20
"""Values that become one row group, as text: readers like large ones."""
_HELD_BYTES = max(16 * 2**20, 128 * 2**20 // max(os.cpu_count() or 2, 2))
"""A row group ends sooner where this much of it is held: pages, and values that wait for their dictionary. There are as
many workers as processors, so all of them share what may be held.
"""
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
    writer: GroupedFile
    undo: ExitStack
    rows: int = 0
    group_bytes: int = 0


@dataclass
class PartWriter:
    """Writes row groups into ``<stem>.parquet``, and ``<stem>-1.parquet`` … where a side column has to be added."""

    layout: PartLayout
    sink: Sink
    stem: str
    _file: _Open | None = None
    _done: list[Part] = field(default_factory=list)
    _sides: frozenset[int] = frozenset()
    _piece: list[Typed] = field(default_factory=list)
    _piece_bytes: int = 0

    def __post_init__(self) -> None:
        leaves = len(self.layout.fields)
        self._at_once_bytes = min(max(leaves * _LEAF_BYTES, _PIECE_BYTES), _PIECE_MOST_BYTES)

    def add(self, typed: Typed, text_bytes: int) -> None:
        """Take a block."""
        self._piece.append(typed)
        self._piece_bytes += text_bytes
        if self._piece_bytes >= self._at_once_bytes:
            self._write_piece()

    def add_long(self, typed: Typed, long: Mapping[str, Spooled]) -> None:
        """Take one row whose values by these names of fields are long, and empty in ``typed``. It becomes a row group
        of its own.
        """
        self._write_piece()
        file = self._open(typed.sides)
        file.writer.write_long(pa.Table.from_batches([self.layout.batch(typed, file.sides)]), long)
        file.rows += 1
        file.group_bytes = 0

    def _write_piece(self) -> None:
        piece, size = self._piece, self._piece_bytes
        self._piece, self._piece_bytes = [], 0
        if not piece:
            return
        file = self._open(position for typed in piece for position in typed.sides)
        table = pa.Table.from_batches([self.layout.batch(typed, file.sides) for typed in piece])
        file.writer.write(table)
        file.rows += table.num_rows
        file.group_bytes += size
        if file.group_bytes >= GROUP_BYTES or file.writer.held_bytes >= _HELD_BYTES:
            file.writer.end_group()
            file.group_bytes = 0

    def _open(self, sides: Iterable[int]) -> _Open:
        """Return a file that has these side columns."""
        wanted = frozenset(sides)
        if self._file is None or not wanted <= self._file.sides:
            self._finish()
            self._sides |= wanted
            self._file = self._begin()
        return self._file

    def add_empty_rows(self, rows: int) -> None:
        """Write nothing but the file: a table without columns has a count of rows only."""
        self._file = self._begin()
        self._file.rows = rows

    def parts(self) -> tuple[Part, ...]:
        """Return the files that were written."""
        return tuple(self._done)

    def exact(self) -> tuple[str, ...]:
        """Return the columns that needed a side column."""
        return tuple(self.layout.fields[i].name for i in sorted(self._sides))

    def _begin(self) -> _Open:
        number = len(self._done)
        name = f"{self.stem}-{number}.parquet" if number else f"{self.stem}.parquet"
        schema = self.layout.schema(self._sides)
        undo = ExitStack()
        try:
            stream = undo.enter_context(self.sink.create(name))
            buffered = pa.BufferedOutputStream(pa.PythonFile(stream, mode="w"), 2**20)
            undo.callback(buffered.detach)
            writer = GroupedFile(buffered, schema)
        except BaseException as exc:
            undo.__exit__(type(exc), exc, exc.__traceback__)
            raise
        return _Open(name, self._sides, writer, undo)

    def _finish(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with file.undo:
                file.writer.finish()
            self._done.append(Part(file.name, file.rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self._write_piece()
            if self._file is None and not self._done:
                self._file = self._begin()
            self._finish()
        elif self._file is not None:
            self._file.undo.__exit__(kind, error, None)
