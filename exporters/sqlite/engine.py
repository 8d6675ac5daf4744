"""SQLite as verification sees it; see ``exporters.engine.Engine``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporters.engine import Engine
from exporters.sqlite.identifiers import label
from exporters.sqlite.live import live_tables
from exporters.sqlite.parquet import READ_ERRORS, tally_part
from exporters.tally import Advance, Tally


class SqliteEngine:
    """The methods are those of ``Engine``."""

    read_errors: tuple[type[Exception], ...] = READ_ERRORS

    def live_tables(
        self, url: str, *, password: str | None, workers: int, advance: Advance
    ) -> Mapping[tuple[str, str], Tally]:
        """Read every table of a consistent copy."""
        del password
        return live_tables(url, workers=workers, advance=advance)

    def tally_part(self, file: Any, rows: int) -> Tally:
        """Digest the part's values."""
        del rows
        return tally_part(file)

    def label(self, schema: str, name: str) -> str:
        """Return ``"schema"."name"``."""
        return label(schema, name)


ENGINE: Engine = SqliteEngine()
