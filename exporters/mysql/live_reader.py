"""Live MySQL and MariaDB databases, read to be compared with a bundle; see ``exporters.engine.LiveReader``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing

import pymysql

from exporters.engine import KEYED_READERS, KeyedRows, LiveRows, LiveTables, TablesRequest, WriteState
from exporters.mysql.connection import Connection, connect, parse_url
from exporters.mysql.errors import as_source_errors, is_about_the_thing, is_refused
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.live_digests import digest_tables
from exporters.mysql.live_rows import live_rows
from exporters.mysql.sessions.snapshot_locks import IDLE_SECONDS
from exporters.mysql.written_counts import server_rewrites, server_writes

_NEVER = "never"
_SETTLED_SECONDS = 15
"""How long we wait for transactions that have written to end."""
_LAST_WRITES = """
SELECT TABLE_NAME, CONCAT_WS(' ', CREATE_TIME, NOW() - INTERVAL
  (SELECT VARIABLE_VALUE FROM {status} WHERE VARIABLE_NAME = 'Uptime') SECOND, (
  SELECT SUM(CRC32(CONCAT_WS(' ', c.ORDINAL_POSITION, c.COLUMN_NAME, c.COLUMN_TYPE, c.COLLATION_NAME,
    c.GENERATION_EXPRESSION))) FROM information_schema.COLUMNS c
  WHERE c.TABLE_SCHEMA = {schema} AND c.TABLE_NAME = TABLES.TABLE_NAME)),
  IF(UPDATE_TIME < NOW() - INTERVAL 2 SECOND OR UPDATE_TIME IS NULL AND COALESCE(CREATE_OPTIONS, '')
    NOT LIKE '%partitioned%', COALESCE(UPDATE_TIME, '{never}'), SYSDATE(6))
FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema} AND ENGINE = 'InnoDB'
"""
"""A time of a write has whole seconds, so one that is not over for long may be followed by another one. Of partitioned
tables there is none. The server forgets it when it starts, or when it closes the table.
"""
_WRITES_BY_TABLE = """
SELECT OBJECT_NAME, COUNT_WRITE FROM performance_schema.table_io_waits_summary_by_table
WHERE OBJECT_TYPE = 'TABLE' AND OBJECT_SCHEMA = {schema}
"""
_COUNTS_ALL = """
SELECT NOT EXISTS (SELECT * FROM performance_schema.setup_instruments
    WHERE NAME = 'wait/io/table/sql/handler' AND ENABLED = 'NO')
  AND NOT EXISTS (SELECT * FROM performance_schema.setup_consumers
    WHERE NAME IN ('global_instrumentation', 'thread_instrumentation') AND ENABLED = 'NO')
  AND NOT EXISTS (SELECT * FROM performance_schema.setup_actors WHERE ENABLED = 'NO')
  AND EXISTS (SELECT * FROM performance_schema.setup_actors WHERE HOST = '%' AND USER = '%')
  AND NOT EXISTS (SELECT * FROM performance_schema.setup_objects
    WHERE OBJECT_TYPE = 'TABLE' AND OBJECT_SCHEMA IN ('%', {schema}) AND ENABLED = 'NO')
  AND EXISTS (SELECT * FROM performance_schema.setup_objects
    WHERE OBJECT_TYPE = 'TABLE' AND OBJECT_SCHEMA = '%' AND OBJECT_NAME = '%')
  AND 0 = (SELECT SUM(VARIABLE_VALUE) FROM performance_schema.global_status
    WHERE VARIABLE_NAME IN ('Performance_schema_table_instances_lost', 'Performance_schema_table_handles_lost'))
"""
"""Whether MySQL counts what all sessions write to all tables of a database. A table that was not opened yet has no
count.
"""


class MysqlLiveReader:
    """The methods are those of ``LiveReader``."""

    def live_tables(self, url: str, request: TablesRequest, *, secrets: Mapping[str, str]) -> LiveTables:
        """Read every table under one snapshot, in parallel."""
        address = parse_url(url, secrets)
        without = {name for _, name in request.without}
        return digest_tables(
            address, workers=request.workers, advance=request.advance, without_tables=without
        )

    def write_states(
        self, url: str, *, secrets: Mapping[str, str], is_settled: bool = False
    ) -> Mapping[tuple[str, str], WriteState]:
        """See ``WriteCounters``. MySQL counts the rows that are written to each table, MariaDB those of the whole
        server; neither counts TRUNCATE by table. They count at once, also what is rolled back later.
        """
        address = parse_url(url, secrets)
        with closing(connect(address)) as connection, as_source_errors(address.url):
            states = _read_states(connection)
            if is_settled and states and not _waits_for_writers(connection, [name for _, name in states]):
                return {}
        return states

    def uncounted_sessions(self, url: str, *, secrets: Mapping[str, str]) -> Sequence[str]:
        """See ``WriteCounters``: a write is counted at once."""
        del url, secrets
        return ()

    def live_rows(self, url: str, *, secrets: Mapping[str, str]) -> AbstractContextManager[LiveRows]:
        """Open the database under one snapshot."""
        return live_rows(parse_url(url, secrets))

    def keyed_rows(
        self, url: str, *, secrets: Mapping[str, str], is_one_moment: bool
    ) -> AbstractContextManager[KeyedRows]:
        """See ``KeyedReader``."""
        return live_rows(parse_url(url, secrets), readers=KEYED_READERS, is_one_moment=is_one_moment)


def _read_states(connection: Connection) -> Mapping[tuple[str, str], WriteState]:
    """Return the state of each table. Raises the driver's errors."""
    schema = quote_literal(connection.address.database)
    by_table, of_server = counts_by_table(connection), server_writes(connection)
    rewrites = server_rewrites(connection) if connection.is_mariadb else None
    status = (
        "information_schema.GLOBAL_STATUS" if connection.is_mariadb else "performance_schema.global_status"
    )
    return {
        ("", str(name)): WriteState(
            str(identity),
            None if by_table is None else by_table.get(str(name), 0),
            of_server if connection.is_mariadb or by_table is not None else None,
            str(last_write),
            None if last_write == _NEVER else rewrites,
        )
        for name, identity, last_write in connection.rows(
            _LAST_WRITES.format(schema=schema, status=status, never=_NEVER)
        )
    }


def counts_by_table(connection: Connection) -> Mapping[str, int] | None:
    """Return how many rows were written to each table; None where the server does not count them, or not for this
    account. Raises the driver's errors.
    """
    if connection.is_mariadb:
        return None
    schema = quote_literal(connection.address.database)
    try:
        if not connection.value(_COUNTS_ALL.format(schema=schema)):
            return None
        return {
            str(name): int(count) for name, count in connection.rows(_WRITES_BY_TABLE.format(schema=schema))
        }
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        return None


def _waits_for_writers(connection: Connection, names: Sequence[str]) -> bool:
    """Wait until no transaction that has written to these tables is unfinished; False where that cannot be, or takes
    too long. Raises the driver's errors.
    """
    connection.run(
        f"SET SESSION lock_wait_timeout = {_SETTLED_SECONDS}, SESSION wait_timeout = {IDLE_SECONDS}"
    )
    try:
        connection.run(f"LOCK TABLES {', '.join(f'{quote_name(name)} READ' for name in names)}")
    except pymysql.Error as exc:
        if not is_refused(exc):
            raise
        return False
    connection.run("UNLOCK TABLES")
    return True
