"""Row counts and digests of a live database, under one snapshot, in parallel."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from exporters.postgres import large_objects
from exporters.postgres.connect import Address, parse_url
from exporters.postgres.copy import BLOCK_BYTES
from exporters.postgres.digest import tally_block
from exporters.postgres.feed import Feeds
from exporters.postgres.plan import canonical_select, cut
from exporters.postgres.session import hold
from exporters.tally import Advance, Tally, tally_empty_rows


def live_tables(
    url: str | Address, *, workers: int = 2, advance: Advance | None = None
) -> Mapping[tuple[str, str], Tally]:
    """Return the tally of every table by (schema, name). Large objects count as
    ``pg_catalog.pg_largeobject``, where there are any. Raises ``SourceError``.
    """
    address = parse_url(url) if isinstance(url, str) else url
    with hold(address) as (session, tables):
        feeds = Feeds(address, session.exported, session.holder)
        work = [
            ((table.schema, table.name), canonical_select(table, pages), bool(table.columns))
            for table in tables
            if not table.foreign
            for pages in cut(table, version=session.version, page_bytes=session.page_bytes)
        ]
        if session.large_objects:
            objects = large_objects.table(session.large_objects)
            work.append(((objects.schema, objects.name), large_objects.SELECT, True))
        found: dict[tuple[str, str], Tally] = {}
        try:
            with ThreadPoolExecutor(max(1, workers)) as pool:
                tallies = pool.map(lambda item: _tally(feeds, item[1], item[2], advance), work)
                for (name, _, _), tally in zip(work, tallies, strict=True):
                    found[name] = found.get(name, Tally()) + tally
        finally:
            feeds.close()
    return found


def _tally(feeds: Feeds, query: str, has_columns: bool, advance: Advance | None) -> Tally:
    counter = _Counter(advance)
    said = feeds.copy(query, counter.add)
    counter.flush()
    if not has_columns:
        return tally_empty_rows(said)
    return counter.tally


class _Counter:
    """Collects pieces until a block is worth splitting."""

    def __init__(self, advance: Advance | None) -> None:
        self._advance = advance
        self._pieces: list[bytes] = []
        self._size = 0
        self.tally = Tally()

    def add(self, piece: bytes) -> None:
        """Take a piece that ends at a row's end."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Count what was collected."""
        found = tally_block(b"".join(self._pieces))
        self.tally += found
        if self._advance is not None:
            self._advance(found.rows, self._size)
        self._pieces.clear()
        self._size = 0
