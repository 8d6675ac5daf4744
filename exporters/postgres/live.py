"""Row counts and digests of a live database, under one snapshot, in parallel."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from exporters.postgres import large_objects
from exporters.postgres.connect import Address, parse_url
from exporters.postgres.feed import Feeds
from exporters.postgres.plan import canonical_select, cut
from exporters.postgres.session import hold
from exporters.relational.blocks import tally_stream
from exporters.tally import Advance, Tally, tally_empty_rows


def live_tables(
    url: str | Address,
    *,
    workers: int = 2,
    advance: Advance | None = None,
    names: Collection[tuple[str, str]] | None = None,
) -> Mapping[tuple[str, str], Tally]:
    """Return the tally of every table by (schema, name), or of those in ``names``. Large objects count as
    ``pg_catalog.pg_largeobject``, where there are any. Raises ``SourceError``.
    """
    address = parse_url(url) if isinstance(url, str) else url
    with hold(address) as (session, tables):
        feeds = Feeds(session, workers=workers)
        work = [
            ((table.schema, table.name), canonical_select(table, pages), bool(table.columns))
            for table in tables
            if not table.foreign
            and not table.out_of_reach
            and (names is None or (table.schema, table.name) in names)
            for pages in cut(table)
        ]
        if session.large_objects and names is None:
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
    tally, said = tally_stream(lambda take: feeds.copy(query, take), advance)
    return tally if has_columns else tally_empty_rows(said)
