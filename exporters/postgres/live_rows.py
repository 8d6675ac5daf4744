"""The rows of a live database, one table at a time, to find the row that differs.

So that only rows that may differ leave the server, it hashes them: over the record's text, as it prints a record of the
columns' canonical values. The hash has two halves of 64 bits by ``hashtextextended`` with two seeds (PostgreSQL 11 and
later): one says the bucket, the other one is summed. Servers of all versions and of one byte order compute the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pyarrow as pa
from msgspec.structs import replace

from exporters.engine import KEYED_READERS, LiveTables, TablesRequest, Texts
from exporters.postgres import changed_chunks, large_objects
from exporters.postgres.catalog import PostgresColumn, PostgresTable
from exporters.postgres.chunk_plan import rows_of
from exporters.postgres.errors import as_source_errors, has_ended
from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.postgres.live_digests import digests_requested
from exporters.postgres.rows.chunk_export import digest_rows
from exporters.postgres.rows.copy_feed import Feeds
from exporters.postgres.rows.csv_rows import split_lines
from exporters.postgres.rows.text_codec.codecs import codec_of
from exporters.postgres.sessions.connection import PostgresAddress
from exporters.postgres.sessions.snapshot_session import PostgresSession, open_snapshot
from exporters.row_digest import RowsDigest
from exporters.sql.columns import Kind
from exporters.sql.row_blocks import LongRowText, RowBlocks, SentRows
from exporters.sql.snapshots import lost_with_sessions
from exporters.touched_rows import RowKey


class PostgresRows:
    """See ``exporters.engine.LocatedRows``, ``HashedRows`` and ``KeyedRows``."""

    def __init__(self, session: PostgresSession, tables: Sequence[PostgresTable], feeds: Feeds) -> None:
        self._session = session
        self._all_tables = tables
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
            return key_columns(self._session.holder, table)

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
        for lines in _lines(self._feeds.copy(f"({query})")):
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
        for lines in _lines(self._feeds.copy(f"({rows_in_buckets(table, buckets, among)})")):
            take(*split_located(lines, len(table.columns)))

    def digests(self, request: TablesRequest) -> LiveTables:
        """See ``KeyedRows``."""
        return digests_requested(self._session, self._all_tables, request)

    def has_exact_keys(self, schema: str, name: str, columns: Sequence[str]) -> bool:
        """See ``KeyedRows``."""
        table = self._tables.get((schema, name))
        is_utf8 = self._session.position["encoding"] != "SQL_ASCII"
        return table is not None and is_utf8 and has_exact_keys(table, columns)

    def digest_with_keys(
        self, schema: str, name: str, columns: Sequence[str], keys: Sequence[RowKey]
    ) -> RowsDigest:
        """See ``KeyedRows``."""
        table = with_keys(self._tables[schema, name], columns, keys)
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


HASH_VERSION = 110000
HASH_NAME = "hashtextextended"
_TID = PostgresColumn(
    name="ctid",
    sql_type="tid",
    kind=Kind(codec_of("text"), pa.string(), pa.string()),
    not_null=True,
    generated=False,
    identity="",
    collation="",
)
_LONE_END = b"\\."
"""What the server quotes in the only column of a row, and in no other (CopyAttributeOutCSV)."""


def located(table: PostgresTable) -> PostgresTable:
    """Return a table whose first column is the place of its rows."""
    return replace(table, columns=(_TID, *table.columns))


def split_located(lines: Sequence[bytes], columns: int) -> tuple[Texts, Texts]:
    """Return the texts of rows, which have so many columns, and their places from lines that begin with these."""
    texts, places = [], []
    for line in lines:
        end = line.index(b'"', 1)
        text = line[end + 2 :]
        texts.append(b'"\\."' if columns == 1 and text == _LONE_END else text)
        places.append(line[1:end])
    return texts, places


def bucket_sums(table: PostgresTable, buckets: int) -> str:
    """Return a query for bucket, rows, sum of hashes and bytes of a table's rows."""
    return (
        f"SELECT {_bucket('t', buckets)}, count(*), pg_catalog.sum({_hash('t', 1)}),"
        f" pg_catalog.sum(pg_catalog.length(t)) FROM (SELECT {_text(table)} AS t {rows_of(table)} OFFSET 0) AS rows"
        " GROUP BY 1"
    )


def rows_in_buckets(table: PostgresTable, buckets: int, among: Collection[int]) -> str:
    """Return a query for the rows of some buckets, with their places."""
    names = [f"c{number}" for number in range(len(table.columns))]
    values = ["ctid AS place", *(f"{c.expression} AS {n}" for c, n in zip(table.columns, names, strict=True))]
    numbers = ",".join(map(str, sorted(among)))
    return (
        f"SELECT {', '.join(['place', *names])} FROM (SELECT {', '.join(values)}, {_text(table)} AS t {rows_of(table)}"
        f" OFFSET 0) AS rows WHERE {_bucket('t', buckets)} IN"
        f" (SELECT pg_catalog.unnest('{{{numbers}}}'::pg_catalog.int8[]))"
    )


def _text(table: PostgresTable) -> str:
    columns = ", ".join(column.expression for column in table.columns)
    return f'ROW({columns})::pg_catalog.text COLLATE pg_catalog."C"'


def _hash(text: str, seed: int) -> str:
    return f"pg_catalog.hashtextextended({text}, {seed})"


def _bucket(text: str, buckets: int) -> str:
    return f"{_hash(text, 0)} & {buckets - 1}"


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
_INCLUDED_VERSION = 110000
"""From here on an index may have columns that are no part of its key."""
_EXACT = re.compile(
    r"boolean|smallint|integer|bigint|oid|uuid|bytea|date|text|character varying(\(\d+\))?|character\(\d+\)"
    r"|numeric\(\d+,\d+\)|time(stamp)?(\(\d\))? with(out)? time zone"
)
"""Types, as the server spells them, of which equal values have one text. Numbers without a declared scale have many."""
_EXACT_COLLATIONS = frozenset({"", "C", "POSIX"})
"""Others may be nondeterministic, so that different texts are equal. Those of databases never are."""


def key_columns(connection: psycopg.Connection[Any], table: PostgresTable) -> list[str]:
    """Return the columns that identify a table's rows, none where there are no such. Raises the driver's errors."""
    columns = "i.indnkeyatts" if connection.info.server_version >= _INCLUDED_VERSION else "i.indnatts"
    rows = connection.execute(_KEYS.format(columns=columns).encode(), {"table": table.oid}).fetchall()
    return [column for index, column in rows if index == rows[0][0]]


def has_exact_keys(table: PostgresTable, columns: Sequence[str]) -> bool:
    """Tell whether equal values of some columns have one text, and a condition finds the table's rows by them."""
    known = {column.name: column for column in table.columns}
    is_plain = not (table.condition or table.refusal or table.view)
    return is_plain and all(name in known and _is_exact(known[name]) for name in columns)


def with_keys(table: PostgresTable, columns: Sequence[str], keys: Sequence[RowKey]) -> PostgresTable:
    """Return a table whose rows are those that have one of the keys."""
    types = {column.name: column.sql_type for column in table.columns}
    arrays = ", ".join(
        f"{_array(values)}::{types[name]}[]"
        for name, values in zip(columns, zip(*keys, strict=True), strict=True)
    )
    names = ", ".join(f"k{number}" for number in range(len(columns)))
    quoted = ", ".join(map(quote_name, columns))
    rows = f"SELECT {names} FROM unnest({arrays}) AS k({names})"  # qualified it takes one array only
    return replace(table, condition=f"WHERE ({quoted}) IN ({rows})")


def _is_exact(column: PostgresColumn) -> bool:
    return bool(_EXACT.fullmatch(column.sql_type)) and column.collation in _EXACT_COLLATIONS


def _array(values: Sequence[bytes]) -> str:
    elements = (value.decode().replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return quote_literal("{" + ",".join(f'"{element}"' for element in elements) + "}")
