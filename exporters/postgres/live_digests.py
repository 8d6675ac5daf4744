"""Row counts and digests of a live database, under one snapshot, in parallel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from exporters.errors import SourceError, SourceNotAllowedError
from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.chunk_plan import Range, cut
from exporters.postgres.rows.chunk_export import digest_rows
from exporters.postgres.rows.copy_feed import Feeds
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
            if not table.foreign and not table.out_of_reach and _is_wanted(table, names, also)
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
                digests = pool.map(
                    lambda item: _digest(feeds, item[0], item[1], advance, tolerant=unread is not None), work
                )
                for (table, _), digest in zip(work, digests, strict=True):
                    name = table.schema, table.name
                    if isinstance(digest, str):
                        refused.setdefault(name, digest)
                    else:
                        table_digests[name] = table_digests.get(name, RowsDigest()) + digest
        finally:
            feeds.close()
    return {name: digest for name, digest in table_digests.items() if name not in refused}


def _is_wanted(
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
    columns = table.columns
    names = orders.get((table.schema, table.name), ())
    if sorted(names) == sorted(column.name for column in columns):
        columns = tuple(sorted(columns, key=lambda column: names.index(column.name)))
    return replace(table, columns=tuple(column for column in columns if generated or not column.generated))


def _digest(
    feeds: Feeds, table: PostgresTable, pages: Range, advance: Advance | None, *, tolerant: bool
) -> RowsDigest | str:
    """Return the digest of a chunk, or, where that is tolerated, why the table cannot be read."""
    try:
        return digest_rows(feeds.rows(table, pages), advance, has_columns=bool(table.columns))
    except SourceError as exc:
        if not tolerant or type(exc) not in {SourceError, SourceNotAllowedError}:
            raise
        return str(exc)
