"""The rows of a live database, one table at a time, to find the row that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from exporters.engine import Texts
from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.errors import DRIVER_ERRORS, translate
from exporters.postgres.rows.copy_feed import Feeds
from exporters.postgres.rows.csv_rows import split_lines
from exporters.postgres.sessions.connection import PostgresAddress
from exporters.postgres.sessions.snapshot_session import PostgresSession, hold
from exporters.sql.row_blocks import LongRowText, in_blocks

_KEYS = """
SELECT i.indexrelid::int8, a.attname FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, position)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indrelid = %(table)s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND k.position <= {columns}
  AND NOT EXISTS (SELECT FROM pg_attribute n WHERE n.attrelid = i.indrelid AND n.attnum = ANY(i.indkey::int2[])
    AND NOT n.attnotnull)
ORDER BY i.indisprimary DESC, i.indexrelid, k.position
"""
"""The primary key first, else a unique index over columns that are never NULL."""


class PostgresRows:
    """See ``exporters.engine.LiveRows``."""

    def __init__(self, session: PostgresSession, tables: Sequence[PostgresTable], feeds: Feeds) -> None:
        self._session = session
        self._feeds = feeds
        self._tables = {
            (table.schema, table.name): table
            for table in tables
            if not table.foreign and not table.out_of_reach
        }
        if session.large_objects:
            objects = large_objects.table(session.large_objects)
            self._tables[objects.schema, objects.name] = objects

    def columns(self, schema: str, name: str) -> Sequence[str] | None:
        """See ``LiveRows.columns``."""
        table = self._tables.get((schema, name))
        return None if table is None else [column.name for column in table.columns]

    def key(self, schema: str, name: str) -> Sequence[str]:
        """See ``LiveRows.key``."""
        table = self._tables[schema, name]
        if table.oid == large_objects.OID:
            return ["oid", "start"]
        columns = "i.indnkeyatts" if self._session.version >= 110000 else "i.indnatts"
        try:
            rows = self._session.holder.execute(
                _KEYS.format(columns=columns).encode(), {"table": table.oid}
            ).fetchall()
        except DRIVER_ERRORS as exc:
            raise translate(exc, self._session.address.url) from exc
        return [column for index, column in rows if index == rows[0][0]]

    def each(self, schema: str, name: str, take: Callable[[Texts], None]) -> None:
        """See ``LiveRows.each``."""
        table = self._tables[schema, name]
        with closing(self._feeds.rows(table, (0, None))) as source:
            for block in in_blocks(source):
                if isinstance(block, LongRowText):
                    take([b"".join(block.pieces)])
                elif isinstance(block, bytes):
                    take(split_lines(block))


@contextmanager
def live_rows(address: PostgresAddress) -> Iterator[PostgresRows]:
    """Open the database under one snapshot. Raises ``SourceError``."""
    with hold(address) as (session, tables):
        feeds = Feeds(session, workers=1)
        try:
            yield PostgresRows(session, tables, feeds)
        finally:
            feeds.close()
