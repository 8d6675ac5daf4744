"""Live SQLite files, read to be compared with a bundle; see ``exporters.engine.LiveReader``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from exporters.engine import LiveRows, LiveTables, TablesRequest
from exporters.sqlite.address import parse_url
from exporters.sqlite.live_digests import digest_tables
from exporters.sqlite.live_rows import live_rows


class SqliteLiveReader:
    """The methods are those of ``LiveReader``."""

    def live_tables(self, url: str, request: TablesRequest, *, secrets: Mapping[str, str]) -> LiveTables:
        """Read every table of a consistent copy."""
        del secrets
        live = digest_tables(url, workers=request.workers, advance=request.advance)
        digests = {name: digest for name, digest in live.digests.items() if name not in request.without}
        return LiveTables(digests, columns=live.columns)

    def live_rows(self, url: str, *, secrets: Mapping[str, str]) -> AbstractContextManager[LiveRows]:
        """Open a consistent copy."""
        del secrets
        return live_rows(parse_url(url))
