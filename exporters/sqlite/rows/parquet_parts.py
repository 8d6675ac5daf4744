"""A chunk's rows into Parquet parts, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct

from exporters.row_digest import RowsDigest
from exporters.sql.columns import EXACT_OF, KIND, TYPE, Typed
from exporters.sql.large_values.long_values import LongRow
from exporters.sql.parquet_read import open_part, rows_of
from exporters.sqlite.catalog import SqliteTable
from exporters.sqlite.rows.long_rows import LongCells, from_parquet, text_pieces
from exporters.sqlite.rows.row_batches import Batch
from exporters.sqlite.rows.typed_columns import arrow_type, from_typed, to_typed
from exporters.sqlite.rows.value_text import SqliteColumn, digest_columns, row_texts

_ROWID = b"moveout.rowid"


class Layout(Struct, frozen=True):
    """How a table lies in Parquet: a field for each selected column, and one for its side column."""

    fields: tuple[pa.Field, ...]
    sides: tuple[pa.Field, ...]
    kinds: tuple[str, ...]

    @staticmethod
    def of(table: SqliteTable, kinds: Sequence[str]) -> Layout:
        """Return the layout; no field's name is that of another column, whatever its case."""
        taken_names = {column.name.lower() for column in table.columns}
        fields = []
        if table.hidden_rowid:
            name = _free("$rowid", taken_names)
            fields.append(
                pa.field(name, pa.int64(), nullable=False, metadata={KIND: b"integer", _ROWID: b"true"})
            )
        kinds_of_columns = kinds[len(fields) :]
        for column, kind in zip(table.columns, kinds_of_columns, strict=True):
            metadata = {KIND: kind.encode(), TYPE: column.declared.encode()}
            metadata |= {b"moveout.generated": b"true"} if column.generated else {}
            metadata |= {b"moveout.not_null": b"true"} if column.not_null else {}
            fields.append(pa.field(column.name, arrow_type(kind), metadata=metadata))
        sides = tuple(
            pa.field(
                _free(f"{field.name}$exact", taken_names),
                pa.string(),
                metadata={EXACT_OF: field.name.encode()},
            )
            for field in fields
        )
        return Layout(tuple(fields), sides, tuple(kinds))

    def schema(self, with_sides: frozenset[int]) -> pa.Schema:
        """Return the schema of a file with these side columns, each after its column."""
        fields = []
        for position, (main, side) in enumerate(zip(self.fields, self.sides, strict=True)):
            fields += [main, side] if position in with_sides else [main]
        return pa.schema(fields)

    def arrays(self, typed: Typed, with_sides: frozenset[int]) -> list[pa.Array]:
        """Return the columns of that schema."""
        arrays = []
        for position, main in enumerate(typed.columns):
            arrays += [main, typed.side(position, pa.string())] if position in with_sides else [main]
        return arrays

    def batch(self, typed: Typed) -> pa.RecordBatch:
        """Return a block as a record batch, with the side columns that it has."""
        with_sides = frozenset(typed.sides)
        return pa.RecordBatch.from_arrays(self.arrays(typed, with_sides), schema=self.schema(with_sides))

    @property
    def names(self) -> list[tuple[str, str]]:
        """The names of every column and of its side column."""
        return [(main.name, side.name) for main, side in zip(self.fields, self.sides, strict=True)]

    def columns_of(self, typed: Typed) -> list[tuple[str, str | None, str]]:
        """Return the names of every column and of its side column, where it has one, and its kind."""
        return [
            (main, side if i in typed.sides else None, kind)
            for i, ((main, side), kind) in enumerate(zip(self.names, self.kinds, strict=True))
        ]

    def typed(self, batch: Batch) -> Typed:
        """Return a batch of values as arrays."""
        pairs = [to_typed(column, kind) for column, kind in zip(batch.columns, self.kinds, strict=True)]
        sides = {i: side for i, (_, side) in enumerate(pairs) if side is not None}
        return Typed(tuple(main for main, _ in pairs), sides, batch.rows)


def _free(name: str, taken_names: set[str]) -> str:
    while name.lower() in taken_names:
        name += "$"
    taken_names.add(name.lower())
    return name


class Shown(Struct, frozen=True):
    """What is written next to the values of a part: names and whether SQLite computes them. The hidden rowid has
    none.
    """

    names: tuple[str | None, ...]
    generated: tuple[bool, ...]


class PartRows(Struct, frozen=True):
    """Some rows of a part. ``columns`` go with what is ``shown``."""

    rows: int
    shown: Shown
    columns: tuple[SqliteColumn, ...]

    def digest(self) -> RowsDigest:
        """Return rows and digest."""
        return digest_columns(self.columns, self.rows)

    def texts(self) -> list[bytes]:
        """Return the canonical texts."""
        return row_texts(self.columns)


class PartLong(Struct, frozen=True):
    """One row with long values."""

    rows: int
    shown: Shown
    row: LongCells

    def digest(self) -> RowsDigest:
        """Return its digest."""
        return self.row.digest()

    def texts(self) -> list[bytes]:
        """Return its canonical text."""
        return [b"".join(text_pieces(self.row.cells))]


def read_part(file: Any) -> Iterator[PartRows | PartLong]:
    """Yield the rows of a part, a few thousand at a time, those with long values alone. ``file`` is a path or a
    random-access file.
    """
    part = open_part(file)
    schema = part.schema_arrow
    sides = {field.metadata[EXACT_OF].decode(): field.name for field in schema if EXACT_OF in _of(field)}
    fields = [field for field in schema if EXACT_OF not in _of(field)]
    columns = [(field.name, sides.get(field.name), field.metadata[KIND].decode()) for field in fields]
    shown = Shown(
        tuple(None if _ROWID in field.metadata else field.name for field in fields),
        tuple(b"moveout.generated" in field.metadata for field in fields),
    )
    for batch in rows_of(part):
        if isinstance(batch, LongRow):
            yield PartLong(1, shown, from_parquet(batch, columns))
            continue
        columns_read = tuple(
            from_typed(batch.column(name), None if side is None else batch.column(side), kind)
            for name, side, kind in columns
        )
        yield PartRows(batch.num_rows, shown, columns_read)


def column_names(file: Any) -> list[str]:
    """Return the names of a part's columns, side columns apart."""
    schema = open_part(file).schema_arrow
    return [field.name for field in schema if EXACT_OF not in _of(field)]


def _of(field: pa.Field) -> dict[bytes, bytes]:
    return field.metadata or {}


def digest_part(file: Any) -> RowsDigest:
    """Return rows and digest of one part, from its values. Raises what ``READ_ERRORS`` lists."""
    digest = RowsDigest()
    for batch in read_part(file):
        digest += batch.digest()
    return digest
