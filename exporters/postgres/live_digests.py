"""Row counts and digests of a live database, under one snapshot, in parallel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

from exporters.errors import SourceError, SourceNotAllowedError
from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.chunk_plan import cut
from exporters.postgres.rows.chunk_export import digest_rows, digest_small
from exporters.postgres.rows.copy_feed import BATCH, Chunk, Feeds
from exporters.postgres.sessions.connection import PostgresAddress, parse_url
from exporters.postgres.sessions.snapshot_session import hold
from exporters.row_digest import Advance, RowsDigest


def live_tables(
    url: str | PostgresAddress,
    *,
    workers: int = 2,
    advance: Advance | None = None,
    names: Collection[tuple[str, str]] | None = None,
    numbers: Collection[int] | None = None,
    generated: bool = True,
    also: Collection[tuple[str, str]] = (),
    orders: Mapping[tuple[str, str], Sequence[str]] | None = None,
    unread: dict[tuple[str, str], str] | None = None,
) -> Mapping[tuple[str, str], RowsDigest]:
    """Return the digest of every table by (schema, name), or of those in ``names``; of materialized views and
    tables of extensions only those in ``also``. Large objects count as
    ``pg_catalog.pg_largeobject``, where there are any, or those of ``numbers``. Without ``generated`` the values that
    the server computes are left out. ``orders``: in which order a table's columns are taken, where it has them in
    another one. ``unread``: see ``Engine.live_tables``. Raises ``SourceError``.
    """
    address = parse_url(url) if isinstance(url, str) else url
    with hold(address) as (session, tables):
        feeds = Feeds(session, workers=workers)
        work = [
            (_as_compared(table, orders or {}, generated=generated), pages)
            for table in tables
            if not table.foreign and not table.out_of_reach and _is_selected(table, names, also)
            for pages in cut(table)
        ]
        if session.large_objects and names is None:
            condition = "" if numbers is None else large_objects.only(numbers)
            objects = large_objects.table(session.large_objects, condition)
            work.append((objects, (0, None)))
        table_digests: dict[tuple[str, str], RowsDigest] = {}
        refused = {} if unread is None else unread
        try:
            with ThreadPoolExecutor(max(1, workers)) as pool:
                batches = pool.map(
                    lambda batch: _digests(feeds, batch, advance, tolerant=unread is not None),
                    _batches(feeds, work),
                )
                for table, digest in chain.from_iterable(batches):
                    name = table.schema, table.name
                    if isinstance(digest, str):
                        refused.setdefault(name, digest)
                    else:
                        table_digests[name] = table_digests.get(name, RowsDigest()) + digest
        finally:
            feeds.close()
    return {name: digest for name, digest in table_digests.items() if name not in refused}


def _is_selected(
    table: PostgresTable, names: Collection[tuple[str, str]] | None, also: Collection[tuple[str, str]]
) -> bool:
    name = table.schema, table.name
    return name in also if table.view or table.extension else names is None or name in names


def _as_compared(
    table: PostgresTable, orders: Mapping[tuple[str, str], Sequence[str]], *, generated: bool
) -> PostgresTable:
    """Return a table with its columns ordered as ``names``, if it has these; without ``generated`` as if it had only
    the columns into which one writes.
    """
    columns = [column for column in table.columns if generated or not column.generated]
    names = orders.get((table.schema, table.name), ())
    if sorted(names) == sorted(column.name for column in table.columns):
        columns.sort(key=lambda column: names.index(column.name))
    return table if columns == list(table.columns) else replace(table, columns=tuple(columns))


def _batches(feeds: Feeds, chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """Return the chunks, small ones in batches that can be read by one request."""
    small = [(table, pages) for table, pages in chunks if feeds.is_small(table, pages)]
    others = [[(table, pages)] for table, pages in chunks if not feeds.is_small(table, pages)]
    return [*others, *(small[start : start + BATCH] for start in range(0, len(small), BATCH))]


def _digests(
    feeds: Feeds, chunks: Sequence[Chunk], advance: Advance | None, *, tolerant: bool
) -> list[tuple[PostgresTable, RowsDigest | str]]:
    """Return the digest of each chunk, or why it cannot be read. Where they cannot be read by one request, each is read
    by one of its own.
    """
    read = feeds.read_all(chunks) if len(chunks) > 1 else []
    if read:
        return [
            (table, digest_small(rows, advance, has_columns=bool(table.columns)))
            for (table, _), rows in zip(chunks, read, strict=True)
        ]
    return [(table, _digest(feeds, (table, pages), advance, tolerant=tolerant)) for table, pages in chunks]


def _digest(feeds: Feeds, chunk: Chunk, advance: Advance | None, *, tolerant: bool) -> RowsDigest | str:
    """Return the digest of a chunk, or, where that is tolerated, why the table cannot be read."""
    table, pages = chunk
    try:
        return digest_rows(feeds.rows(table, pages), advance, has_columns=bool(table.columns))
    except SourceError as exc:
        if not tolerant or type(exc) not in {SourceError, SourceNotAllowedError}:
            raise
        return str(exc)
