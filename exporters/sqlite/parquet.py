"""A chunk's rows into Parquet parts, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from exporters.base import Sink
from exporters.sqlite.catalog import Table
from exporters.sqlite.rows import Batch
from exporters.sqlite.typed import arrow_type, from_typed, to_typed
from exporters.sqlite.values import Column, tally_columns
from exporters.tally import Tally

GROUP_BYTES = 32 * 2**20
"""Values that become one row group."""
READ_ERRORS: tuple[type[Exception], ...] = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)
"""What a damaged part can raise."""
_READ_ROWS = 8192
_FEW = 0.05

_KIND, _EXACT_OF, _ROWID = b"moveout.kind", b"moveout.exact_of", b"moveout.rowid"


@dataclass(frozen=True, slots=True)
class Part:
    """A Parquet file of a chunk: its name relative to ``data/<source>/``."""

    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table lies in Parquet: a field for each selected column, and one for its side column."""

    fields: tuple[pa.Field, ...]
    sides: tuple[pa.Field, ...]
    kinds: tuple[str, ...]

    @staticmethod
    def of(table: Table, kinds: Sequence[str]) -> Layout:
        """Return the layout; no field's name is that of another column, whatever its case."""
        taken = {column.name.lower() for column in table.columns}
        fields = []
        if table.hidden_rowid:
            name = _free("$rowid", taken)
            fields.append(
                pa.field(name, pa.int64(), nullable=False, metadata={_KIND: b"integer", _ROWID: b"true"})
            )
        kinds_of_columns = kinds[len(fields) :]
        for column, kind in zip(table.columns, kinds_of_columns, strict=True):
            metadata = {_KIND: kind.encode(), b"moveout.type": column.declared.encode()}
            metadata |= {b"moveout.generated": b"true"} if column.generated else {}
            metadata |= {b"moveout.not_null": b"true"} if column.not_null else {}
            fields.append(pa.field(column.name, arrow_type(kind), metadata=metadata))
        sides = tuple(
            pa.field(_free(f"{one.name}$exact", taken), pa.string(), metadata={_EXACT_OF: one.name.encode()})
            for one in fields
        )
        return Layout(tuple(fields), sides, tuple(kinds))

    def schema(self, sides: frozenset[int]) -> pa.Schema:
        """Return the schema of a file with these side columns, each after its column."""
        fields = []
        for position, (main, side) in enumerate(zip(self.fields, self.sides, strict=True)):
            fields += [main, side] if position in sides else [main]
        return pa.schema(fields)


def _free(name: str, taken: set[str]) -> str:
    while name.lower() in taken:
        name += "$"
    taken.add(name.lower())
    return name


@dataclass
class _Open:
    name: str
    sides: frozenset[int]
    writer: pq.ParquetWriter
    undo: ExitStack
    rows: int = 0


@dataclass
class PartWriter:
    """Writes row groups into ``<stem>.parquet``, and ``<stem>-1.parquet`` … where a side column has to be added."""

    layout: Layout
    sink: Sink
    stem: str
    _file: _Open | None = None
    _done: list[Part] = field(default_factory=list)
    _sides: frozenset[int] = frozenset()
    _group: list[list[tuple[pa.Array, pa.Array | None]]] = field(default_factory=list)
    _group_bytes: int = 0

    def add(self, batch: Batch) -> None:
        """Take a batch; write a row group once there is enough."""
        kinds = self.layout.kinds
        typed = [to_typed(column, kind) for column, kind in zip(batch.columns, kinds, strict=True)]
        self._group.append(typed)
        self._group_bytes += batch.size_bytes
        if self._group_bytes >= GROUP_BYTES:
            self._write_group()

    def parts(self) -> tuple[Part, ...]:
        """Return the files that were written."""
        return tuple(self._done)

    def exact(self) -> tuple[str, ...]:
        """Return the columns that needed a side column."""
        return tuple(self.layout.fields[position].name for position in sorted(self._sides))

    def _write_group(self) -> None:
        group, self._group, self._group_bytes = self._group, [], 0
        if not group:
            return
        sides = frozenset(i for typed in group for i, (_, side) in enumerate(typed) if side is not None)
        file = self._file
        if file is None or not sides <= file.sides:
            self._finish()
            self._sides |= sides
            file = self._begin(group[0])
        schema = self.layout.schema(file.sides)
        batches = [pa.record_batch(list(_arrays(typed, file.sides)), schema=schema) for typed in group]
        table = pa.Table.from_batches(batches)
        file.writer.write_table(table, row_group_size=max(table.num_rows, 1))
        file.rows += table.num_rows

    def _begin(self, sample: Sequence[tuple[pa.Array, pa.Array | None]]) -> _Open:
        number = len(self._done)
        name = f"{self.stem}-{number}.parquet" if number else f"{self.stem}.parquet"
        undo = ExitStack()
        try:
            stream = undo.enter_context(self.sink.create(name))
            buffered = pa.BufferedOutputStream(pa.PythonFile(stream, mode="w"), 2**20)
            undo.callback(buffered.detach)
            writer = undo.enter_context(_writer(buffered, self.layout, self._sides, sample))
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
                self._file = self._begin([])
            self._finish()
        elif self._file is not None:
            self._file.undo.__exit__(kind, error, None)


def _arrays(typed: Sequence[tuple[pa.Array, pa.Array | None]], sides: frozenset[int]) -> Iterator[pa.Array]:
    for position, (main, side) in enumerate(typed):
        yield main
        if position in sides:
            yield pa.nulls(len(main), pa.string()) if side is None else side


def _writer(
    stream: pa.NativeFile,
    layout: Layout,
    sides: frozenset[int],
    sample: Sequence[tuple[pa.Array, pa.Array | None]],
) -> pq.ParquetWriter:
    """Write columns of few distinct values with a dictionary, integers and text as differences of values or lengths."""
    few = {
        one.name
        for one, (main, _) in zip(layout.fields, sample, strict=False)
        if len(main) > 1 / _FEW and pc.count_distinct(main).as_py() <= _FEW * len(main)
    }
    schema = layout.schema(sides)
    encodings = {one.name: _ENCODINGS.get(one.type) for one in schema if one.name not in few}
    return pq.ParquetWriter(
        stream,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=sorted(few) or False,
        column_encoding={name: encoding for name, encoding in encodings.items() if encoding} or None,
    )


_ENCODINGS = {
    pa.int64(): "DELTA_BINARY_PACKED",
    pa.string(): "DELTA_LENGTH_BYTE_ARRAY",
    pa.binary(): "DELTA_LENGTH_BYTE_ARRAY",
}


@dataclass(frozen=True, slots=True)
class PartRows:
    """Some rows of a part. ``names`` and ``generated`` go with ``columns``; the hidden rowid's name is ""."""

    rows: int
    names: tuple[str, ...]
    generated: tuple[bool, ...]
    columns: tuple[Column, ...]


def read_part(file: Any) -> Iterator[PartRows]:
    """Yield the rows of a part, a few thousand at a time. ``file`` is a path or a random-access file."""
    part = pq.ParquetFile(file, memory_map=False, pre_buffer=False)
    schema = part.schema_arrow
    names = schema.names
    sides = {one.metadata[_EXACT_OF].decode(): i for i, one in enumerate(schema) if _EXACT_OF in _of(one)}
    mains = [i for i, one in enumerate(schema) if _EXACT_OF not in _of(one)]
    fields = [schema.field(i) for i in mains]
    kinds = [one.metadata[_KIND].decode() for one in fields]
    shown = tuple("" if _ROWID in one.metadata else one.name for one in fields)
    generated = tuple(b"moveout.generated" in one.metadata for one in fields)
    for number in range(part.num_row_groups):
        group = part.read_row_group(number, use_threads=False)
        for batch in group.to_batches(max_chunksize=_READ_ROWS):
            columns = tuple(
                from_typed(
                    batch.column(i), batch.column(sides[names[i]]) if names[i] in sides else None, kind
                )
                for i, kind in zip(mains, kinds, strict=True)
            )
            yield PartRows(batch.num_rows, shown, generated, columns)


def _of(one: pa.Field) -> dict[bytes, bytes]:
    return one.metadata or {}


def tally_part(file: Any) -> Tally:
    """Return rows and digest of one part, from its values. Raises what ``READ_ERRORS`` lists."""
    found = Tally()
    for some in read_part(file):
        found += tally_columns(some.columns, some.rows)
    return found
