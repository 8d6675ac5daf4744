"""Live MySQL and MariaDB databases, read to be compared with a bundle; see ``exporters.engine.LiveReader``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager

from exporters.engine import LiveRows
from exporters.mysql.connection import parse_url
from exporters.mysql.live_digests import live_tables
from exporters.mysql.live_rows import live_rows
from exporters.row_digest import Advance, RowsDigest


class MysqlLiveReader:
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
        del also, unread
        address = parse_url(url, password=secrets.get("password"))
        return live_tables(address, workers=workers, advance=advance)

    def live_rows(self, url: str, *, secrets: Mapping[str, str]) -> AbstractContextManager[LiveRows]:
        """Open the database under one snapshot."""
        return live_rows(parse_url(url, password=secrets.get("password")))
