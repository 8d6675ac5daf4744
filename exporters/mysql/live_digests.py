"""Row counts and digests of a live database, under one snapshot, in parallel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec.structs import replace

from exporters.engine import LiveTables
from exporters.mysql.catalog import MysqlTable
from exporters.mysql.chunk_plan import cut, largest_chunk
from exporters.mysql.connection import MysqlAddress, folds_names
from exporters.mysql.consistent_snapshot import MysqlSession, open_snapshot
from exporters.mysql.errors import as_source_errors, has_ended
from exporters.mysql.rows.chunk_export import digest_rows
from exporters.row_digest import Advance, RowsDigest
from exporters.sql.snapshots import lost_with_sessions


def digest_tables(
    address: MysqlAddress,
    *,
    workers: int = 2,
    advance: Advance | None = None,
    names: Collection[str] | None = None,
    without: Collection[str] = (),
    without_tables: Collection[str] = (),
) -> LiveTables:
    """Read every table, or those named, by ("", name), without the columns of the names ``without``, and without some
    tables. Raises ``SourceError``.
    """
    with (
        open_snapshot(address, workers=max(1, workers)) as (session, tables),
        lost_with_sessions(address.url, has_ended),
    ):
        folds = folds_names(session.holder)
        if folds:
            names = None if names is None else {name.lower() for name in names}
            without_tables = {name.lower() for name in without_tables}
        compared = [
            _without(table, without)
            for table in tables
            if not table.elsewhere
            and (names is None or table.name in names)
            and table.name not in without_tables
        ]
        digests = digests_of(session, compared, workers=workers, advance=advance)
        columns = {("", table.name): [column.name for column in table.columns] for table in compared}
        return LiveTables(digests, columns=columns, folds=folds)


def digests_of(
    session: MysqlSession, tables: Sequence[MysqlTable], *, workers: int, advance: Advance | None
) -> Mapping[tuple[str, str], RowsDigest]:
    """Return the digests of tables by ("", name), as a snapshot has them. Raises ``SourceError``."""
    most_bytes = largest_chunk(tables, workers)
    with as_source_errors(session.address.url):
        work = [(table, keys) for table in tables for keys in cut(session.holder, table, most_bytes)]
    table_digests: dict[tuple[str, str], RowsDigest] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        digests = pool.map(
            lambda item: session.feeds.use(lambda feed: digest_rows(feed, item[0], item[1], advance)),
            work,
        )
        for (table, _), digest in zip(work, digests, strict=True):
            table_digests["", table.name] = table_digests.get(("", table.name), RowsDigest()) + digest
    return table_digests


def _without(table: MysqlTable, names: Collection[str]) -> MysqlTable:
    return replace(table, columns=tuple(column for column in table.columns if column.name not in names))
