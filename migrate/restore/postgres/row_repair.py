"""Repairs rows of a PostgreSQL database: rows are removed by their places, and added by COPY."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.charset.server_conversion import database_encoding
from exporters.postgres.errors import as_source_errors
from exporters.postgres.identifiers import quote_name, quote_qualified
from exporters.postgres.live_rows import PostgresRows, live_rows
from exporters.postgres.rows.copy_feed import copy_encoding
from exporters.postgres.rows.csv_rows import csv_fields
from exporters.postgres.sessions.connection import PostgresAddress, parse_url
from migrate.errors import BusyError, NotAllowedError
from migrate.repair.row_differences import LocatedRow, RowChanges
from migrate.restore.postgres.definitions.refusals import first_line, is_refusal, use_every_schema
from migrate.restore.postgres.destination import (
    open_destination,
    table_with_triggers,
    without_event_triggers,
    without_triggers,
    without_user_triggers,
)
from migrate.runtime.crash_points import durable

_DELETED_AT_ONCE = 10_000
_STILLED = ("TRIGGER",)
"""COPY bypasses rules. Disabling one takes a lock that waits for our own readers."""
_RULE = """
SELECT rulename FROM pg_rewrite WHERE ev_class = %s::regclass AND (ev_type = '4' OR %s AND ev_type = '3')
  AND ev_enabled IN ('A', CASE current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)
LIMIT 1
"""
"""A rule that acts on DELETE; on INSERT, too, where a table has no columns that COPY could write."""
_REFUSING = """
SELECT quote_ident(p.pubname), p.pubinsert, p.pubupdate, coalesce((to_jsonb(p) ->> 'pubtruncate')::bool, false)
FROM pg_publication p JOIN pg_class c ON c.oid = %(table)s::regclass
WHERE p.pubdelete AND c.relreplident <> 'f' AND NOT EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indimmediate AND i.indisvalid
    AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident))
  AND EXISTS (SELECT FROM pg_publication_tables t JOIN pg_namespace n ON n.nspname = t.schemaname
    JOIN pg_class o ON o.relnamespace = n.oid AND o.relname = t.tablename
    WHERE t.pubname = p.pubname AND o.oid = ANY (%(tables)s::regclass[]))
"""
"""The publications for which a server refuses DELETE from a table, since nothing identifies its rows (PostgreSQL
documentation, "Replica Identity").
"""
_OTHER_CHANGES = ("insert", "update", "truncate")


class PostgresRepair:
    """See ``RepairDestination``. The session of ``rows`` keeps its snapshot, so that no place is used again."""

    def __init__(
        self, address: PostgresAddress, connection: psycopg.Connection[Any], rows: PostgresRows
    ) -> None:
        self._address = address
        self._connection = connection
        self._has_triggers_off = without_triggers(connection)
        self.rows = rows

    def incomparable(self, schema: str, name: str) -> str:
        """See ``RepairDestination``."""
        table = self.rows.table(schema, name)
        if table.oid == large_objects.OID:
            return "large objects are not repaired; moveout restore brings them into an empty database"
        if table.view:
            return "it is a materialized view: REFRESH MATERIALIZED VIEW fills it anew"
        if table.refusal:
            return f"the server plans no query of it: {table.refusal}"
        return ""

    def unwritable(self, schema: str, name: str) -> str:
        """See ``RepairDestination``."""
        table = self.rows.table(schema, name)
        with as_source_errors(self._address.url):
            rule = self._connection.execute(_RULE.encode(), (table.label, not table.columns)).fetchone()
        if rule is not None:
            name = quote_name(rule[0])
            disable = f"ALTER TABLE {table.label} DISABLE RULE {name}"
            return f"its rule {name} would act on what is written: {disable}, until the switch"
        return ""

    def is_atomic(self, schema: str, name: str) -> bool:
        """See ``RepairDestination``."""
        del schema, name
        return True

    @contextmanager
    def writing(self, schema: str, name: str) -> Iterator[PostgresTableWriter]:
        """See ``RepairDestination``. All that is written to a table is one transaction: a kill leaves the rows of
        before, or those of after it.
        """
        table = self.rows.table(schema, name)
        names = [(schema, name), *table.ancestors]
        if not self._has_triggers_off and (label := table_with_triggers(self._connection, names)):
            raise NotAllowedError(
                f"this role may not keep the triggers and foreign keys of {label} from firing",
                about=self._address.url,
                next_step="as a superuser: GRANT SET ON PARAMETER session_replication_role TO the role (PostgreSQL 15"
                " and later), or repair as a superuser",
            )
        with (
            as_source_errors(self._address.url),
            durable("repair.postgres.rows"),
            self._connection.transaction(),
        ):
            yield PostgresTableWriter(self._address, self._connection, table)


class PostgresTableWriter:
    """See ``TableWriter``. Rows of a partition are added by way of the whole table: where a row lies may depend on the
    server.
    """

    def __init__(
        self, address: PostgresAddress, connection: psycopg.Connection[Any], table: PostgresTable
    ) -> None:
        self._address = address
        self._connection = connection
        self._schema = table.schema
        self._label = table.label
        self._family = [table.label, *(quote_qualified(*name) for name in table.ancestors)]
        self._into = quote_qualified(*table.ancestors[-1]) if table.ancestors else table.label
        self._columns = len(table.columns)
        self._written = [i for i, column in enumerate(table.columns) if not column.generated]
        names = ", ".join(quote_name(table.columns[index].name) for index in self._written)
        encoding = copy_encoding(database_encoding(connection))
        self._copy_statement = (
            f"COPY {self._into} ({names}) FROM STDIN WITH (FORMAT csv, ENCODING '{encoding}')"
        )

    def write(self, changes: RowChanges) -> str:
        """See ``TableWriter``."""
        connection = self._connection
        with as_source_errors(self._address.url), connection.transaction():
            use_every_schema(connection, self._schema)
            with without_user_triggers(connection, self._label, _STILLED), self._permitted(changes.gone):
                self._remove(changes.gone)
            try:
                with connection.transaction(), without_user_triggers(connection, self._into, _STILLED):
                    self._add(changes.new)
            except psycopg.Error as exc:
                if not is_refusal(exc, connection):
                    raise
                return first_line(exc)
        return ""

    @contextmanager
    def _permitted(self, rows: Sequence[LocatedRow]) -> Iterator[None]:
        """Within the transaction, let no publication refuse that rows are deleted: none can publish that, either. No
        other way leads there while the table is read: to change its replica identity takes a lock.
        """
        names = {"table": self._label, "tables": self._family}
        refusing = self._connection.execute(_REFUSING.encode(), names).fetchall() if rows else []
        others = {
            name: [word for word, is_set in zip(_OTHER_CHANGES, publishes, strict=True) if is_set]
            for name, *publishes in refusing
        }
        self._publish(others)
        yield
        self._publish({name: [*words, "delete"] for name, words in others.items()})

    def _publish(self, changes: Mapping[str, Sequence[str]]) -> None:
        """Set which changes each of these publications publishes."""
        if not changes:
            return
        with without_event_triggers(self._connection):
            for name, words in changes.items():
                self._connection.execute(
                    f"ALTER PUBLICATION {name} SET (publish = '{', '.join(words)}')".encode()
                )

    def _remove(self, rows: Sequence[LocatedRow]) -> None:
        """Delete rows that are as they were in the snapshot. Raises ``BusyError`` where one has another place, since
        somebody else has written to it.
        """
        for start in range(0, len(rows), _DELETED_AT_ONCE):
            places = [row.place.decode() for row in rows[start : start + _DELETED_AT_ONCE]]
            label = self._label.replace("%", "%%")
            statement = f"DELETE FROM ONLY {label} WHERE ctid = ANY (%s::pg_catalog.tid[])"
            if self._connection.execute(statement.encode(), (places,)).rowcount != len(places):
                raise BusyError(
                    f"{self._label} was written to while it was compared",
                    about=self._address.url,
                    next_step="find out who writes there; then run the same command again",
                )

    def _add(self, texts: Sequence[bytes]) -> None:
        if not texts:
            return
        if not self._written:
            rows = f"pg_catalog.generate_series(1, {len(texts)})"
            self._connection.execute(f"INSERT INTO {self._into} SELECT FROM {rows}".encode())
            return
        with self._connection.cursor() as cursor, cursor.copy(self._copy_statement.encode()) as copy:
            for text in texts:
                copy.write(self._line(text) + b"\n")

    def _line(self, text: bytes) -> bytes:
        """Return the line of a row without the columns that the server computes."""
        if len(self._written) == self._columns:
            return text
        fields = csv_fields(text)
        return b",".join(fields[index] for index in self._written)


@contextmanager
def open_repair(url: str, secrets: Mapping[str, str]) -> Iterator[PostgresRepair]:
    """See ``migrate.repair.repair.OpenRepair``."""
    address = parse_url(url, secrets)
    with as_source_errors(address.url), open_destination(address) as destination, live_rows(address) as rows:
        yield PostgresRepair(address, destination.connection, rows)
