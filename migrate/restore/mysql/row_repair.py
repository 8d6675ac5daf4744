"""Repairs rows of a MySQL or MariaDB database: rows are removed by their keys, or by all of their values.

No session keeps triggers from firing: those of a table are dropped while its rows are written, and made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from hashlib import sha256
from itertools import accumulate

import pyarrow as pa
import pymysql

from exporters.errors import SourceUsageError
from exporters.mysql.catalog import MysqlColumn, MysqlTable
from exporters.mysql.chunk_plan import selected_values
from exporters.mysql.connection import MysqlAddress, parse_url
from exporters.mysql.definitions.show_create import trigger_names
from exporters.mysql.errors import as_source_errors, is_about_the_thing, message_of
from exporters.mysql.identifiers import quote_name
from exporters.mysql.live_rows import MysqlRows, live_rows
from exporters.mysql.rows.chunk_export import digest_query
from exporters.mysql.rows.long_rows import text_type
from exporters.mysql.rows.row_columns import columns_of, parse_columns, value_at
from exporters.mysql.rows.row_feed import Feed
from exporters.mysql.sessions.driver_connection import send
from exporters.row_digest import digest_texts
from exporters.sql.columns import Layout
from migrate.errors import BusyError
from migrate.repair.row_differences import RowChanges
from migrate.restore.mysql.destination import DestinationConnection, open_destination
from migrate.restore.mysql.existing_tables import dropped_triggers, make_kept_triggers
from migrate.restore.mysql.rows.insert_statements import Values, fitting, insert_statements, literals_of
from migrate.runtime.crash_points import durable

_DELETED_AT_ONCE = 500
_HASHED_BYTES = 1000
"""A longer value is looked for by its hash: a statement may not be as long as twice a row."""


class MysqlRepair:
    """See ``RepairDestination``."""

    def __init__(self, address: MysqlAddress, connection: DestinationConnection) -> None:
        self._address = address
        self._connection = connection
        self._snapshot = ExitStack()
        self._rows: MysqlRows | None = None
        connection.run("SET SESSION foreign_key_checks = 0")
        make_kept_triggers(connection)

    @property
    def rows(self) -> MysqlRows:
        """See ``RepairDestination``. A table with triggers lets go of them only when nobody reads it any more: so the
        snapshot ends before such a table is written to, and another one is taken afterwards.
        """
        if self._rows is None:
            self._rows = self._snapshot.enter_context(live_rows(self._address))
        return self._rows

    def incomparable(self, schema: str, name: str) -> str:
        """See ``RepairDestination``."""
        del schema
        if self.rows.table(name).history:
            return "it keeps the history of its rows (SYSTEM VERSIONING), which cannot be changed"
        return ""

    def unwritable(self, schema: str, name: str) -> str:
        """See ``RepairDestination``."""
        del schema, name
        return ""

    def is_atomic(self, schema: str, name: str) -> bool:
        """See ``RepairDestination``."""
        del schema
        return self.rows.table(name).transactional

    @contextmanager
    def writing(self, schema: str, name: str) -> Iterator[MysqlTableWriter]:
        """See ``RepairDestination``."""
        del schema
        writer = MysqlTableWriter(self._connection, self.rows.table(name))
        with as_source_errors(self._address.url), self._without_triggers(name):
            yield writer

    def close(self) -> None:
        """End the snapshot."""
        self._rows = None
        self._snapshot.close()

    @contextmanager
    def _without_triggers(self, table: str) -> Iterator[None]:
        names = trigger_names(self._connection, table)
        if not names:
            yield
            return
        self.close()
        with dropped_triggers(self._connection, table, names):
            yield


class MysqlTableWriter:
    """See ``TableWriter``."""

    def __init__(self, connection: DestinationConnection, table: MysqlTable) -> None:
        self._connection = connection
        self._table = table
        self._layout = Layout.of(table.columns)
        self._types = [text_type(column.kind) for column in table.columns]
        self._allowed_bytes = connection.longest_statement_bytes()

    def write(self, changes: RowChanges) -> str:
        """See ``TableWriter``."""
        connection = self._connection
        connection.run("BEGIN")
        self._remove([row.text for row in changes.gone])
        reason = self._add_all(changes.new) if self._table.transactional else self._add_each(changes.new)
        with durable("repair.mysql.rows"):
            connection.run("COMMIT")
        return reason

    def _add_all(self, texts: Sequence[bytes]) -> str:
        """Add rows, all or none; return why they are refused, "" where they are not."""
        self._connection.run("SAVEPOINT new_rows")
        if reason := self._refused(texts):
            self._connection.run("ROLLBACK TO new_rows")
        return reason

    def _add_each(self, texts: Sequence[bytes]) -> str:
        """Do the same in a table whose engine takes nothing back; some (Aria) refuse even a savepoint."""
        for position, text in enumerate(texts):
            if reason := self._refused([text]):
                self._remove(texts[:position][::-1])
                return reason
        return ""

    def _refused(self, texts: Sequence[bytes]) -> str:
        """Add rows; return why the server refuses one of them."""
        try:
            self._add(texts)
        except SourceUsageError as exc:
            return f"{exc}: {exc.next_step}"
        except pymysql.Error as exc:
            if not is_about_the_thing(exc):
                raise
            return message_of(exc)
        return ""

    def _remove(self, texts: Sequence[bytes]) -> None:
        head = f"DELETE FROM {self._table.label} WHERE ".encode()
        key = self._table.key
        if not key:
            for text in texts:
                if not self._connection.run(head + self._is_row(text) + b" LIMIT 1"):
                    raise self._written_meanwhile()
            return
        others = [column.name for column in self._table.columns if column.name not in key]
        names = ", ".join(quote_name(c.name) for c in self._table.columns if c.name in key).encode()
        rows = [b"(%b)" % row for values in self._literals(texts, others) for row in values.rows]
        start = 0
        while start < len(rows):
            sizes = accumulate(map(len, rows[start : start + _DELETED_AT_ONCE]))
            count = max(1, sum(size < self._allowed_bytes // 2 for size in sizes))
            condition = b"(%b) IN (%b)" % (names, b",".join(rows[start : start + count]))
            self._require_same(condition, texts[start : start + count])
            self._connection.run(head + condition)
            start += count

    def _require_same(self, condition: bytes, texts: Sequence[bytes]) -> None:
        """Lock rows that are about to be removed. Raises ``BusyError`` where they are not what they were when they were
        compared: somebody else has written to them since.
        """
        head = f"SELECT {selected_values(self._table)} FROM {self._table.label} WHERE ".encode()
        now = digest_query(Feed(self._connection), head + condition + b" FOR UPDATE")
        if now != digest_texts(texts):
            raise self._written_meanwhile()

    def _written_meanwhile(self) -> BusyError:
        return BusyError(
            f"{self._table.label} was written to while it was compared",
            about=self._connection.address.url,
            next_step="find out who writes there; then run the same command again",
        )

    def _add(self, texts: Sequence[bytes]) -> None:
        table = self._table
        literals = self._literals(texts, table.generated)
        for statement in insert_statements(table.name, table.written, literals, self._allowed_bytes):
            send(self._connection.raw, fitting(statement, table.label, self._allowed_bytes).pieces)

    def _literals(self, texts: Sequence[bytes], without: Sequence[str]) -> Iterator[Values]:
        """Yield rows as lists of SQL values, as a restore has them."""
        if texts:
            decimals = not self._connection.is_mariadb
            for values in literals_of(self._batch(texts), without, decimals=decimals):
                assert isinstance(values, Values)
                yield values

    def _batch(self, texts: Sequence[bytes]) -> pa.RecordBatch:
        typed = parse_columns(columns_of(texts, self._types), self._layout, exactly=True)
        return self._layout.batch(typed)

    def _is_row(self, text: bytes) -> bytes:
        """Return the condition of rows that have this text."""
        conditions: list[bytes] = []
        position = 0
        for column in self._table.columns:
            value, position = value_at(text, position)
            conditions.append(_has_value(column, value))
        return b" AND ".join(conditions) or b"TRUE"


def _has_value(column: MysqlColumn, value: bytes | None) -> bytes:
    """Return the condition that a column's value leaves the server as these bytes, or as such with their hash."""
    sent = column.value if column.kind.direct else f"CONVERT({column.value} USING utf8mb4)"
    if value is not None and len(value) > _HASHED_BYTES:
        return f"SHA2(CAST({sent} AS BINARY), 256) = '{sha256(value).hexdigest()}'".encode()
    literal = b"NULL" if value is None else b"X'%s'" % value.hex().encode()
    return f"CAST({sent} AS BINARY) <=> ".encode() + literal


@contextmanager
def open_repair(url: str, secrets: Mapping[str, str]) -> Iterator[MysqlRepair]:
    """See ``migrate.repair.repair.OpenRepair``."""
    address = parse_url(url, secrets)
    with (
        as_source_errors(address.url),
        open_destination(address) as destination,
        closing(MysqlRepair(address, destination.connection)) as repair,
    ):
        yield repair
