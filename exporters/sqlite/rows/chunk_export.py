"""One chunk of rows: batches from the file in, Parquet parts out; each batch is proved, digested and measured."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from operator import add

import pyarrow as pa
from msgspec import Struct

from exporters.api import Json, Outcome, Sink
from exporters.row_digest import RowsDigest
from exporters.sql.chunk_export import chunk_outcome, stem
from exporters.sql.columns import EXACT_OF, KIND, TYPE, Typed
from exporters.sql.large_values.long_values import LONG_BYTES, LongRow, Spool
from exporters.sql.parquet_write import PartWriter
from exporters.sql.value_codec import rows_changed
from exporters.sqlite.catalog import SqliteTable, where
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.rows.long_rows import (
    LongCells,
    between,
    from_parquet,
    octets,
    read_row,
    rowids,
    to_parquet,
)
from exporters.sqlite.rows.row_batches import Batch
from exporters.sqlite.rows.typed_columns import arrow_type, from_typed, to_typed
from exporters.sqlite.rows.value_text import digest_columns, digest_few

ROWID = b"moveout.rowid"


_PROVED_ROWS = 500
_PROVED_BYTES = 64 * 2**20
"""Proving holds the values several times: huge ones are left to ``verify --level full``."""


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
                pa.field(name, pa.int64(), nullable=False, metadata={KIND: b"integer", ROWID: b"true"})
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


def export_rows(
    batches: Iterable[Batch | LongCells], *, layout: Layout, sink: Sink, spec: Json, facts: Json
) -> Outcome:
    """Export rows into Parquet files. Return what the unit came to, with more ``facts``. Raises ``SourceError``."""
    digest, text_bytes, octets = RowsDigest(), 0, Octets(len(layout.fields))
    with PartWriter(layout, sink, stem(spec)) as parts:
        for batch in batches:
            octets.add(batch)
            text_bytes += batch.size_bytes
            if isinstance(batch, LongCells):
                digest += _write_long(batch, layout, parts)
                continue
            if not digest.rows and batch.size_bytes <= _PROVED_BYTES:
                _prove(batch, layout.kinds, parts.stem)
            parts.add(layout.typed(batch), batch.size_bytes)
            digest += batch.digest()
        sizes = octets.by_name([field.name for field in layout.fields])
        return chunk_outcome(digest, text_bytes, parts, sizes, facts)


def _prove(batch: Batch, kinds: Sequence[str], name: str) -> None:
    """Raise ``SourceError`` unless the first rows of a chunk come out of typing as they went in, digested value by
    value, the plainest way there is.
    """
    rows = min(batch.rows, _PROVED_ROWS)
    columns = [column.head(rows) for column in batch.columns]
    before = [column.to_list() for column in columns]
    after = [
        from_typed(*to_typed(column, kind), kind).to_list()
        for column, kind in zip(columns, kinds, strict=True)
    ]
    expected = digest_few(list(zip(*before, strict=True)))
    digested = batch.digest() if rows == batch.rows else digest_columns(columns, rows)
    if {digest_few(list(zip(*after, strict=True))), digested} != {expected}:
        raise rows_changed(name)


def _write_long(row: LongCells, layout: Layout, writer: PartWriter) -> RowsDigest:
    """Write a row with long values; return its digest. Raises ``SourceError`` unless it comes out of Parquet again."""
    digest = row.digest()
    with Spool() as spool:
        typed, long = to_parquet(row, layout.kinds, layout.names, spool)
        batch = layout.batch(typed)
        if from_parquet(LongRow(batch, long), layout.columns_of(typed)).digest() != digest:
            raise rows_changed(writer.stem)
        writer.add_long(typed, long)
    return digest


class Octets:
    """Adds up what is exported of ``columns`` columns."""

    def __init__(self, columns: int) -> None:
        self._sums = [0] * columns

    def add(self, batch: Batch | LongCells) -> None:
        """Take a batch of rows, or a long one."""
        sizes = (
            map(octets, batch.cells)
            if isinstance(batch, LongCells)
            else (column.octets for column in batch.columns)
        )
        for number, size in enumerate(sizes):
            self._sums[number] += size

    def by_name(self, names: Sequence[str]) -> dict[str, int]:
        """Return the sums by the names of the columns."""
        return dict(zip(names, self._sums, strict=True))


def count_octets(
    connection: sqlite3.Connection,
    table: SqliteTable,
    names: Sequence[str],
    bounds: tuple[int | None, int | None],
    *,
    largest_bytes: int,
) -> dict[str, int]:
    """Return the sums of a chunk by name, as SQLite computes them; none where text is not stored as it leaves.
    ``largest_bytes``: no row of the table is larger. Raises ``sqlite3.Error``.
    """
    if connection.execute("PRAGMA encoding").fetchone()[0] != "UTF-8":
        return {}
    long = rowids(connection, table, bounds) if largest_bytes > LONG_BYTES and table.rowid else []
    sums = [0] * len(names)
    for some in between(long, bounds):
        sums = list(map(add, sums, _summed(connection, table, some)))
    for rowid in long:
        sums = list(map(add, sums, map(octets, read_row(connection, table, rowid).cells)))
    return dict(zip(names, sums, strict=True))


def _summed(
    connection: sqlite3.Connection, table: SqliteTable, bounds: tuple[int | None, int | None]
) -> Sequence[int]:
    """No number is as great as the empty text, no text or blob less; ``+`` keeps a column's affinity out of that. The
    rowid is a number in each row.
    """
    sums = ", ".join(
        f"coalesce(sum(length(CAST({name} AS BLOB))) FILTER (WHERE +{name} COLLATE BINARY >= ''), 0)"
        for name in table.selected
        if name != table.rowid
    )
    if not sums:
        return [0]
    query = f"SELECT {sums} FROM {quote_name(table.name)} NOT INDEXED{where(table, bounds)}"
    sums_in_order = iter(connection.execute(query).fetchone())
    return [0 if name == table.rowid else int(next(sums_in_order)) for name in table.selected]
