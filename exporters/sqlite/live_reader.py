"""Live SQLite files, read to be compared with a bundle; see ``exporters.engine.LiveReader``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager

from exporters.engine import LiveRows
from exporters.row_digest import Advance, RowsDigest
from exporters.sqlite.address import parse_url
from exporters.sqlite.live_digests import live_tables
from exporters.sqlite.live_rows import live_rows


class SqliteLiveReader:
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
        without: Collection[tuple[str, str]] = (),
    ) -> Mapping[tuple[str, str], RowsDigest]:
        """Read every table of a consistent copy."""
        del also, secrets, unread
        digests = live_tables(url, workers=workers, advance=advance)
        return {name: digest for name, digest in digests.items() if name not in without}

    def live_rows(self, url: str, *, secrets: Mapping[str, str]) -> AbstractContextManager[LiveRows]:
        """Open a consistent copy."""
        del secrets
        return live_rows(parse_url(url))
