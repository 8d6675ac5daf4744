"""PostgreSQL as verification sees it; see ``exporters.engine.Engine``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporters.engine import Engine
from exporters.postgres.connect import parse_url
from exporters.postgres.identifiers import quote_qualified
from exporters.postgres.live import live_tables
from exporters.relational.parquet import READ_ERRORS, tally_part
from exporters.tally import Advance, Tally


class PostgresEngine:
    """The methods are those of ``Engine``."""

    read_errors: tuple[type[Exception], ...] = READ_ERRORS

    def live_tables(
        self, url: str, *, password: str | None, workers: int, advance: Advance
    ) -> Mapping[tuple[str, str], Tally]:
        """Read every table under one snapshot, in parallel."""
        return live_tables(parse_url(url, password=password), workers=workers, advance=advance)

    def tally_part(self, file: Any, rows: int) -> Tally:
        """Render the part back to the server's text."""
        return tally_part(file, rows)

    def label(self, schema: str, name: str) -> str:
        """Return ``"schema"."name"``."""
        return quote_qualified(schema, name)


ENGINE: Engine = PostgresEngine()
