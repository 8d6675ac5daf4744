"""Row counts and digests of a live database, under one snapshot, in parallel."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from msgspec.structs import replace

from exporters.errors import SourceError, SourceNotAllowedError
from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.chunk_plan import cut, largest_chunk
from exporters.postgres.rows.chunk_export import digest_rows, digest_small
from exporters.postgres.rows.copy_feed import BATCH, Chunk, Feeds
from exporters.postgres.sessions.connection import PostgresAddress, parse_url
from exporters.postgres.sessions.snapshot_session import open_snapshot
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
    without: Collection[tuple[str, str]] = (),
    snapshot: str = "",
) -> Mapping[tuple[str, str], RowsDigest]:
    """Return the digest of every table by (schema, name), or of those in ``names``; of materialized views and
    tables of extensions only those in ``also``. Large objects count as
    ``pg_catalog.pg_largeobject``, where there are any, or those of ``numbers``. Without ``generated`` the values that
    the server computes are left out. ``orders``: in which order a table's columns are taken, where it has them in
    another one. ``unread``, ``without``: see ``LiveReader.live_tables``. ``snapshot``: that of
    another session. Raises ``SourceError``.
    """
    address = parse_url(url) if isinstance(url, str) else url
    with open_snapshot(address, snapshot=snapshot) as (session, tables):
        feeds = Feeds(session, workers=workers)
        compared = [
            table
            for table in _compared(tables, names, also, orders or {}, generated=generated)
            if (table.schema, table.name) not in without
        ]
        most_bytes = largest_chunk(compared, workers)
        work = [(table, pages) for table in compared for pages in cut(table, most_bytes)]
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


def _compared(
    tables: Sequence[PostgresTable],
    names: Collection[tuple[str, str]] | None,
    also: Collection[tuple[str, str]],
    orders: Mapping[tuple[str, str], Sequence[str]],
    *,
    generated: bool,
) -> Iterator[PostgresTable]:
    """Yield the tables that are selected. Their columns are in the order that ``orders`` has of them, if these are the
    same. Without ``generated`` a table has only the columns that can be written.
    """
    for table in tables:
        name = table.schema, table.name
        is_selected = name in also if table.view or table.extension else names is None or name in names
        if table.foreign or table.out_of_reach or not is_selected:
            continue
        columns = [column for column in table.columns if generated or not column.generated]
        order = {column: position for position, column in enumerate(orders.get(name, ()))}
        if order.keys() == {column.name for column in table.columns}:
            columns.sort(key=lambda column: order[column.name])
        yield table if columns == list(table.columns) else replace(table, columns=tuple(columns))


def _batches(feeds: Feeds, chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """Return the chunks, small ones in batches that can be read by one request."""
    small = [(table, pages) for table, pages in chunks if feeds.is_small(table, pages)]
    others = [[(table, pages)] for table, pages in chunks if not feeds.is_small(table, pages)]
    return [*others, *(small[start : start + BATCH] for start in range(0, len(small), BATCH))]


def _digests(
    feeds: Feeds, chunks: Sequence[Chunk], advance: Advance | None, *, tolerant: bool
) -> list[tuple[PostgresTable, RowsDigest | str]]:
    """Return the digest of each chunk, or, if ``tolerant``, why it cannot be read. Where they cannot be read by one
    request, each is read by one of its own.
    """
    read = feeds.read_all(chunks) if len(chunks) > 1 else []
    if read:
        return [
            (table, digest_small(rows, advance, has_columns=bool(table.columns)))
            for (table, _), rows in zip(chunks, read, strict=True)
        ]
    digests: list[tuple[PostgresTable, RowsDigest | str]] = []
    for table, pages in chunks:
        try:
            digest = digest_rows(feeds.rows(table, pages), advance, has_columns=bool(table.columns))
        except SourceError as exc:
            if not tolerant or type(exc) not in {SourceError, SourceNotAllowedError}:
                raise
            digests.append((table, str(exc)))
        else:
            digests.append((table, digest))
    return digests
