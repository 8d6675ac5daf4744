"""MySQL and MariaDB as verification sees them; see ``exporters.engine.Engine``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from exporters.engine import Engine, LiveRows, Texts
from exporters.mysql.connection import parse_url
from exporters.mysql.identifiers import quote_name
from exporters.mysql.live_digests import live_tables
from exporters.mysql.live_rows import live_rows
from exporters.mysql.rows.arrow_to_rows import readable_values
from exporters.mysql.rows.parquet_read import part_texts, tally_part
from exporters.row_digest import Advance, Tally
from exporters.sql.parquet_read import READ_ERRORS, column_names, open_part


class MysqlEngine:
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
        del also, unread
        return live_tables(parse_url(url, password=password), workers=workers, advance=advance)

    def tally_part(self, file: Any, rows: int) -> Tally:
        """Render the part back to the server's text."""
        del rows
        return tally_part(file)

    def live_rows(self, url: str, *, password: str | None) -> AbstractContextManager[LiveRows]:
        """Open the database under one snapshot."""
        return live_rows(parse_url(url, password=password))

    def part_columns(self, file: Any) -> Sequence[str]:
        """Return the table's own columns."""
        return column_names(open_part(file), generated=True)

    def part_texts(self, file: Any) -> Iterator[Texts]:
        """Render the part back to the server's text."""
        return part_texts(file)

    def split(self, text: bytes) -> list[bytes | None]:
        """Return the values, those that are no characters in hexadecimal."""
        return readable_values(text)

    def label(self, schema: str, name: str) -> str:
        """Return the quoted name; databases' own names are the destination's affair."""
        del schema
        return quote_name(name)


ENGINE: Engine = MysqlEngine()
