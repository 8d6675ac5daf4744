"""Parquet parts of PostgreSQL tables; see ``exporters.engine.PartReader``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from exporters.engine import Texts
from exporters.postgres.identifiers import quote_qualified
from exporters.postgres.rows.csv_rows import csv_values
from exporters.postgres.rows.parquet_read import digest_part, texts_of
from exporters.row_digest import RowsDigest
from exporters.sql.columns import columns_in
from exporters.sql.parquet_read import READ_ERRORS, open_part


class PostgresPartReader:
    """The methods are those of ``PartReader``."""

    read_errors: tuple[type[Exception], ...] = READ_ERRORS

    def digest_part(self, file: Any, rows: int) -> RowsDigest:
        """Render the part back to the server's text."""
        return digest_part(file, rows)

    def part_columns(self, file: Any) -> Sequence[str]:
        """Return the table's own columns."""
        return list(columns_in(open_part(file).schema_arrow))

    def part_texts(self, file: Any) -> Iterator[Texts]:
        """Render the part back to the server's lines."""
        return texts_of(open_part(file))

    def split(self, text: bytes) -> list[bytes | None]:
        """Return the values of a CSV line."""
        return csv_values(text)

    def label(self, schema: str, name: str) -> str:
        """Return ``"schema"."name"``."""
        return quote_qualified(schema, name)
