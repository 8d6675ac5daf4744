"""The rows of a live database, one table at a time, to find the row that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from exporters.engine import KEYED_READERS, LiveTables, TablesRequest, Texts
from exporters.mysql.catalog import MysqlTable
from exporters.mysql.chunk_plan import row_select
from exporters.mysql.connection import MysqlAddress
from exporters.mysql.consistent_snapshot import MysqlSession, open_snapshot
from exporters.mysql.errors import has_ended
from exporters.mysql.live_digests import digests_of
from exporters.mysql.rows import keyed_rows
from exporters.mysql.rows.chunk_export import digest_query
from exporters.mysql.rows.row_feed import Feed
from exporters.row_digest import RowsDigest
from exporters.sql.lost_snapshots import lost_with_sessions
from exporters.sql.row_blocks import LongRowText
from exporters.touched_rows import RowKey


class MysqlRows:
    """See ``exporters.engine.LocatedRows`` and ``KeyedRows``. Schemas are empty: databases' names are not compared."""

    def __init__(self, session: MysqlSession, tables: Sequence[MysqlTable]) -> None:
        self._session = session
        self._tables = {table.name: table for table in tables if not table.elsewhere}

    def tables(self) -> Mapping[tuple[str, str], int]:
        """See ``LocatedRows``."""
        return {("", name): table.estimate for name, table in self._tables.items()}

    def table(self, name: str) -> MysqlTable:
        """Return what the catalog says of a table that is there."""
        return self._tables[name]

    def columns(self, schema: str, name: str) -> Sequence[str] | None:
        """See ``LiveRows.columns``."""
        del schema
        table = self._tables.get(name)
        return None if table is None else [column.name for column in table.columns]

    def key(self, schema: str, name: str) -> Sequence[str]:
        """Return the primary key's columns; with a history the times, too, since a key may have held before."""
        del schema
        table = self._tables[name]
        return list(dict.fromkeys((*table.key, *table.history))) if table.key else []

    def each(self, schema: str, name: str, take: Callable[[Texts], None]) -> None:
        """See ``LiveRows.each``."""
        del schema
        query = row_select(self._tables[name])

        def read(feed: Feed) -> None:
            for rows in feed.rows(query):
                take([b"".join(rows.pieces)] if isinstance(rows, LongRowText) else rows)

        self._session.feeds.use(read)

    def each_located(self, schema: str, name: str, take: Callable[[Texts, Texts], None]) -> None:
        """See ``LocatedRows``: a row's values find it."""
        self.each(schema, name, lambda texts: take(texts, ()))

    def digests(self, request: TablesRequest) -> LiveTables:
        """See ``KeyedRows``."""
        tables = [table for name, table in self._tables.items() if ("", name) not in request.without]
        return LiveTables(digests_of(self._session, tables, workers=request.workers, advance=request.advance))

    def has_exact_keys(self, schema: str, name: str, columns: Sequence[str]) -> bool:
        """See ``KeyedRows``."""
        del schema
        table = self._tables.get(name)
        return table is not None and keyed_rows.has_exact_keys(table, columns)

    def digest_with_keys(
        self, schema: str, name: str, columns: Sequence[str], keys: Sequence[RowKey]
    ) -> RowsDigest:
        """See ``KeyedRows``."""
        del schema
        query = keyed_rows.select_with_keys(self._tables[name], columns, keys)
        return self._session.feeds.use(lambda feed: digest_query(feed, query))

    def key_text(self, schema: str, name: str, columns: Sequence[str], key: RowKey) -> str:
        """See ``KeyedRows``."""
        del schema
        return keyed_rows.key_text(self._tables[name], columns, key)


@contextmanager
def live_rows(address: MysqlAddress, *, readers: int = 1, is_one_moment: bool = True) -> Iterator[MysqlRows]:
    """Open the database for so many readers at once, under one snapshot, or each under one of its own. Raises
    ``SourceError``.
    """
    with (
        open_snapshot(address, workers=readers, is_one_moment=is_one_moment) as (session, tables),
        lost_with_sessions(address.url, has_ended),
    ):
        yield MysqlRows(session, tables)


def open_keyed_rows(address: MysqlAddress, *, is_one_moment: bool) -> AbstractContextManager[MysqlRows]:
    """Open the database to compare rows of it; see ``exporters.engine.KeyedReader``."""
    return live_rows(address, readers=KEYED_READERS, is_one_moment=is_one_moment)
