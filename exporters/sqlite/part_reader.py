"""Parquet parts of SQLite tables; see ``exporters.engine.PartReader``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from exporters.engine import Texts
from exporters.row_digest import RowsDigest
from exporters.sql.parquet_read import READ_ERRORS
from exporters.sqlite.identifiers import label
from exporters.sqlite.live_rows import literals
from exporters.sqlite.rows.parquet_parts import column_names, digest_part, read_part


class SqlitePartReader:
    """The methods are those of ``PartReader``."""

    read_errors: tuple[type[Exception], ...] = READ_ERRORS

    def digest_part(self, file: Any, rows: int) -> RowsDigest:
        """Digest the part's values."""
        del rows
        return digest_part(file)

    def part_columns(self, file: Any) -> Sequence[str]:
        """Return the table's columns, a hidden rowid first."""
        return column_names(file)

    def part_texts(self, file: Any) -> Iterator[Texts]:
        """Yield the canonical texts of the part's rows."""
        return (some.texts() for some in read_part(file))

    def split(self, text: bytes) -> list[bytes | None]:
        """Return a row's values as SQL literals."""
        return literals(text)

    def label(self, schema: str, name: str) -> str:
        """Return ``"schema"."name"``."""
        return label(schema, name)
