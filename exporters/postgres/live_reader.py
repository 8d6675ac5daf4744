"""Live PostgreSQL databases, read to be compared with a bundle; see ``exporters.engine.LiveReader``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager

from exporters.engine import LiveRows
from exporters.postgres.live_digests import live_tables
from exporters.postgres.live_rows import live_rows
from exporters.postgres.sessions.connection import parse_url
from exporters.row_digest import Advance, RowsDigest


class PostgresLiveReader:
    """The methods are those of ``LiveReader``."""

    def live_tables(
        self,
        url: str,
        *,
        secrets: Mapping[str, str],
        workers: int,
        advance: Advance,
        also: Collection[tuple[str, str]] = (),
        unread: dict[tuple[str, str], str] | None = None,
    ) -> Mapping[tuple[str, str], RowsDigest]:
        """Read every table under one snapshot, in parallel."""
        address = parse_url(url, password=secrets.get("password"))
        return live_tables(address, workers=workers, advance=advance, also=also, unread=unread)

    def live_rows(self, url: str, *, secrets: Mapping[str, str]) -> AbstractContextManager[LiveRows]:
        """Open the database under one snapshot."""
        return live_rows(parse_url(url, password=secrets.get("password")))
