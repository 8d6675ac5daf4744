"""The rows of a live database, one table at a time, for whoever looks for the one that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from exporters.engine import Texts
from exporters.mysql.catalog import Table
from exporters.mysql.connect import Address
from exporters.mysql.feed import Feed
from exporters.mysql.plan import line_select, too_long_select, wide_select
from exporters.mysql.rows import encoders_of
from exporters.mysql.session import Session, hold
from exporters.relational.lines import Splitter


class MysqlRows:
    """See ``exporters.engine.LiveRows``. Databases' own names are not compared: schemas are empty."""

    def __init__(self, session: Session, tables: Sequence[Table]) -> None:
        self._session = session
        self._tables = {table.name: table for table in tables if not table.elsewhere}
        self._wide: dict[str, bool] = {}

    def columns(self, schema: str, name: str) -> Sequence[str] | None:
        """See ``LiveRows.columns``."""
        del schema
        table = self._tables.get(name)
        return None if table is None else [column.name for column in table.columns]

    def key(self, schema: str, name: str) -> Sequence[str]:
        """Return the primary key's columns."""
        del schema
        return list(self._tables[name].key)

    def each(self, schema: str, name: str, take: Callable[[Texts], None]) -> None:
        """See ``LiveRows.each``."""
        del schema
        self._session.feeds.use(lambda feed: self._each(feed, self._tables[name], take))

    def _each(self, feed: Feed, table: Table, take: Callable[[Texts], None]) -> None:
        lines = Splitter(take)
        if table.name not in self._wide:
            self._wide[table.name] = table.long or bool(int(feed.value(too_long_select(table))))
        if self._wide[table.name]:
            feed.copy_wide(wide_select(table), encoders_of(table.columns), lines.add)
        else:
            feed.copy(line_select(table), lines.add)
        lines.flush()


@contextmanager
def live_rows(address: Address) -> Iterator[MysqlRows]:
    """Open the database under one snapshot. Raises ``SourceError``."""
    with hold(address, workers=1) as (session, tables):
        yield MysqlRows(session, tables)
