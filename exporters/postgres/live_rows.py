"""The rows of a live database, one table at a time, to find the row that differs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from exporters.engine import KEYED_READERS, LiveTables, TablesRequest, Texts
from exporters.postgres import changed_chunks, large_objects
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.chunk_plan import rows_of
from exporters.postgres.errors import as_source_errors, has_ended
from exporters.postgres.live_digests import digest_requested
from exporters.postgres.rows import keyed_rows
from exporters.postgres.rows.chunk_export import digest_rows
from exporters.postgres.rows.copy_feed import Feeds
from exporters.postgres.rows.csv_rows import split_lines
from exporters.postgres.rows.row_hashes import (
    HASH_NAME,
    HASH_VERSION,
    bucket_sums,
    located,
    rows_in_buckets,
    split_located,
)
from exporters.postgres.sessions.connection import PostgresAddress
from exporters.postgres.sessions.snapshot_session import PostgresSession, open_snapshot
from exporters.row_digest import RowsDigest
from exporters.sql.lost_snapshots import lost_with_sessions
from exporters.sql.row_blocks import LongRowText, RowBlocks, SentRows
from exporters.touched_rows import RowKey


class PostgresRows:
    """See ``exporters.engine.LocatedRows``, ``HashedRows`` and ``KeyedRows``."""

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
        with as_source_errors(self._session.address.url):
            return keyed_rows.key_columns(self._session.holder, table)

    def tables(self) -> Mapping[tuple[str, str], int]:
        """See ``LocatedRows``. Large objects are no table."""
        return {
            name: table.estimate
            for name, table in self._tables.items()
            if table.exported and not table.view and not table.extension and table.oid != large_objects.OID
        }

    def table(self, schema: str, name: str) -> PostgresTable:
        """Return what the catalog says of a table that is there."""
        return self._tables[schema, name]

    def each(self, schema: str, name: str, take: Callable[[Texts], None]) -> None:
        """See ``LiveRows.each``."""
        for lines in _lines(self._feeds.rows(self._tables[schema, name], (0, None))):
            take(lines)

    def each_located(self, schema: str, name: str, take: Callable[[Texts, Texts], None]) -> None:
        """See ``LocatedRows``. A place is a row's ``ctid``: it holds as long as the snapshot does."""
        table = self._tables[schema, name]
        for lines in _lines(self._feeds.rows(located(table), (0, None))):
            take(*split_located(lines, len(table.columns)))

    def hash_name(self, schema: str, name: str) -> str:
        """See ``HashedRows``."""
        table = self._tables[schema, name]
        if self._session.version < HASH_VERSION or not self._feeds.is_plannable(table):
            return ""
        return f"{HASH_NAME} {self._session.position['encoding']}"

    def bucket_sums(self, schema: str, name: str, buckets: int) -> Iterator[tuple[int, int, int, int]]:
        """See ``HashedRows``."""
        query = bucket_sums(self._tables[schema, name], buckets)
        for lines in _lines(self._feeds.copy(query)):
            for line in lines:
                bucket, rows, total, size_bytes = map(int, line.split(b","))
                yield bucket, rows, total, size_bytes

    def each_in_buckets(
        self,
        schema: str,
        name: str,
        take: Callable[[Texts, Texts], None],
        buckets: int,
        among: frozenset[int],
    ) -> None:
        """See ``HashedRows``."""
        table = self._tables[schema, name]
        for lines in _lines(self._feeds.copy(rows_in_buckets(table, buckets, among))):
            take(*split_located(lines, len(table.columns)))

    def digests(self, request: TablesRequest) -> LiveTables:
        """See ``KeyedRows``."""
        return digest_requested(self._session.address, request, snapshot=self._session.exported)

    def has_exact_keys(self, schema: str, name: str, columns: Sequence[str]) -> bool:
        """See ``KeyedRows``."""
        table = self._tables.get((schema, name))
        is_utf8 = self._session.position["encoding"] != "SQL_ASCII"
        return table is not None and is_utf8 and keyed_rows.has_exact_keys(table, columns)

    def digest_with_keys(
        self, schema: str, name: str, columns: Sequence[str], keys: Sequence[RowKey]
    ) -> RowsDigest:
        """See ``KeyedRows``."""
        table = keyed_rows.with_keys(self._tables[schema, name], columns, keys)
        return digest_rows(self._feeds.rows(table, (0, None)), None, has_columns=True)

    def key_text(self, schema: str, name: str, columns: Sequence[str], key: RowKey) -> str:
        """See ``KeyedRows``."""
        del schema, name
        values = zip(columns, key, strict=True)
        return ", ".join(f"{column} = {value.decode(errors='replace')}" for column, value in values)

    def changed_since(self, schema: str, name: str, state: str) -> tuple[bool, str]:
        """See ``VersionedRows``. A state is the snapshot, the rows, and a hash of the fingerprint of a table and of
        when the server was started: one that was put back may have given other transactions the same numbers.
        """
        table = self._tables[schema, name]
        if table.refusal or table.oid == large_objects.OID:
            return True, ""
        snapshot, rows, known = state.split() if state else ("", "", "")
        now, started = self._session.position["snapshot"], self._session.position["server_started"]
        identity = hashlib.sha256(f"{table.fingerprint} {started}".encode()).hexdigest()[:32]
        query = changed_chunks.query(table, (0, None), snapshot, now)
        if query is None or known != identity:
            (count,) = self._feeds.numbers(f"SELECT count(*) {rows_of(table)}")
            return True, f"{now} {count} {identity}"
        count, unseen = self._feeds.numbers(query)
        return bool(unseen) or str(count) != rows, f"{now} {count} {identity}"


def _lines(source: RowBlocks) -> Iterator[list[bytes]]:
    """Yield the lines of rows, some at a time."""
    with closing(source):
        for block in source:
            if isinstance(block, LongRowText):
                yield [b"".join(block.pieces)]
            elif not isinstance(block, SentRows):
                yield split_lines(bytes(block))


@contextmanager
def live_rows(address: PostgresAddress, snapshot: str = "") -> Iterator[PostgresRows]:
    """Open the database under one snapshot, or that of another session. Raises ``SourceError``."""
    with (
        open_snapshot(address, snapshot=snapshot) as (session, tables),
        lost_with_sessions(address.url, has_ended),
    ):
        # each reader may have to ask, in the middle of its rows, how characters are converted
        feeds = Feeds(session, workers=2 * KEYED_READERS)
        try:
            yield PostgresRows(session, tables, feeds)
        finally:
            feeds.close()
