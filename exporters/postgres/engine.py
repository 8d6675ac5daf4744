"""PostgreSQL as verification sees it; see ``exporters.engine.Engine``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from exporters.engine import Engine, LiveRows, Texts
from exporters.postgres.identifiers import quote_qualified
from exporters.postgres.live_digests import live_tables
from exporters.postgres.live_rows import live_rows
from exporters.postgres.sessions.connection import parse_url
from exporters.row_digest import Advance, Tally
from exporters.sql.csv_lines import csv_values
from exporters.sql.parquet_read import READ_ERRORS, column_names, open_part, tally_part, texts_of


class PostgresEngine:
    """The methods are those of ``Engine``."""

    read_errors: tuple[type[Exception], ...] = READ_ERRORS

    def live_tables(
        self,
        url: str,
        *,
        password: str | None,
        workers: int,
        advance: Advance,
        also: Collection[tuple[str, str]] = (),
        unread: dict[tuple[str, str], str] | None = None,
    ) -> Mapping[tuple[str, str], Tally]:
        """Read every table under one snapshot, in parallel."""
        address = parse_url(url, password=password)
        return live_tables(address, workers=workers, advance=advance, also=also, unread=unread)

    def tally_part(self, file: Any, rows: int) -> Tally:
        """Render the part back to the server's text."""
        return tally_part(file, rows)

    def live_rows(self, url: str, *, password: str | None) -> AbstractContextManager[LiveRows]:
        """Open the database under one snapshot."""
        return live_rows(parse_url(url, password=password))

    def part_columns(self, file: Any) -> Sequence[str]:
        """Return the table's own columns."""
        return column_names(open_part(file), generated=True)

    def part_texts(self, file: Any) -> Iterator[Texts]:
        """Render the part back to the server's lines."""
        return texts_of(open_part(file))

    def split(self, text: bytes) -> list[bytes | None]:
        """Return the values of a CSV line."""
        return csv_values(text)

    def label(self, schema: str, name: str) -> str:
        """Return ``"schema"."name"``."""
        return quote_qualified(schema, name)


ENGINE: Engine = PostgresEngine()
