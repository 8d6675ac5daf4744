"""Parquet parts of SQLite tables, read back; see ``exporters.engine.PartReader``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct

from exporters.engine import Texts
from exporters.row_digest import RowsDigest
from exporters.sql.columns import EXACT_OF, KIND
from exporters.sql.large_values.long_values import LongRow
from exporters.sql.parquet_read import READ_ERRORS, open_part, rows_of
from exporters.sqlite.identifiers import label
from exporters.sqlite.live_rows import literals
from exporters.sqlite.rows.chunk_export import ROWID
from exporters.sqlite.rows.long_rows import LongCells, from_parquet, text_pieces
from exporters.sqlite.rows.typed_columns import from_typed
from exporters.sqlite.rows.value_text import SqliteColumn, digest_columns, row_texts


class SqlitePartReader:
    """The methods are those of ``PartReader``."""

    read_errors: tuple[type[Exception], ...] = READ_ERRORS

    def digest_part(self, file: Any, rows: int) -> RowsDigest:
        """Digest the part's values."""
        del rows
        return sum((some.digest() for some in read_part(file)), RowsDigest())

    def part_columns(self, file: Any) -> Sequence[str]:
        """Return the table's columns, a hidden rowid first."""
        schema = open_part(file).schema_arrow
        return [field.name for field in schema if EXACT_OF not in _of(field)]

    def part_texts(self, file: Any) -> Iterator[Texts]:
        """Yield the canonical texts of the part's rows."""
        return (some.texts() for some in read_part(file))

    def split(self, text: bytes) -> list[bytes | None]:
        """Return a row's values as SQL literals."""
        return literals(text)

    def label(self, schema: str, name: str) -> str:
        """Return ``"schema"."name"``."""
        return label(schema, name)


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
        tuple(None if ROWID in field.metadata else field.name for field in fields),
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


def _of(field: pa.Field) -> dict[bytes, bytes]:
    return field.metadata or {}
