"""SQLite as verification sees it; see ``exporters.engine.Engine``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from exporters.engine import Engine, LiveRows, Texts
from exporters.row_digest import Advance, Tally
from exporters.sqlite.address import parse_url
from exporters.sqlite.identifiers import label
from exporters.sqlite.live_digests import live_tables
from exporters.sqlite.live_rows import literals, live_rows
from exporters.sqlite.rows.parquet_parts import READ_ERRORS, column_names, read_part, tally_part


class SqliteEngine:
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
        """Read every table of a consistent copy."""
        del also, unread
        del password
        return live_tables(url, workers=workers, advance=advance)

    def tally_part(self, file: Any, rows: int) -> Tally:
        """Digest the part's values."""
        del rows
        return tally_part(file)

    def live_rows(self, url: str, *, password: str | None) -> AbstractContextManager[LiveRows]:
        """Open a consistent copy."""
        del password
        return live_rows(parse_url(url))

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


ENGINE: Engine = SqliteEngine()
