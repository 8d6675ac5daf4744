"""The rows of a live database, one table at a time, to find the row that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from exporters.engine import Texts
from exporters.mysql.catalog import MysqlTable
from exporters.mysql.chunk_plan import row_select
from exporters.mysql.connection import MysqlAddress
from exporters.mysql.consistent_snapshot import MysqlSession, hold
from exporters.mysql.rows.row_feed import Feed
from exporters.sql.row_blocks import LongRowText


class MysqlRows:
    """See ``exporters.engine.LocatedRows``. Databases' own names are not compared: schemas are empty."""

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


@contextmanager
def live_rows(address: MysqlAddress) -> Iterator[MysqlRows]:
    """Open the database under one snapshot. Raises ``SourceError``."""
    with hold(address, workers=1) as (session, tables):
        yield MysqlRows(session, tables)
