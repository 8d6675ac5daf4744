"""What no change log carries, brought to the destination while the source is held: tables that are not followed, large
objects, materialized views, sequences.

Everything is compared first and written only where it differs. So the same again, after a kill, writes the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any

import psycopg

from exporters.postgres.catalog import PostgresTable, read_tables
from exporters.postgres.errors import DRIVER_ERRORS, translate
from exporters.postgres.identifiers import quote_literal, quote_name, quote_qualified
from exporters.postgres.live_digests import live_tables
from exporters.postgres.sessions.connection import PostgresAddress, connect, parse_url
from migrate.changes.remainder import Carried, RemainderRequest
from migrate.restore.postgres.destination import connect_writer

Name = tuple[str, str]

_SEQUENCES = """
SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1, 2
"""
_SEQUENCE_BATCH = 200
_PUBLISHED = (
    "SELECT schemaname::text, tablename::text FROM pg_catalog.pg_publication_tables WHERE pubname = %s"
)
_VIEWS = """
WITH RECURSIVE needed(view, oid) AS (
  SELECT oid, oid FROM pg_catalog.pg_class WHERE relkind = 'm'
  UNION SELECT n.view, d.refobjid FROM needed n JOIN pg_catalog.pg_rewrite r ON r.ev_class = n.oid
    JOIN pg_catalog.pg_depend d ON d.objid = r.oid AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)
SELECT s.nspname::text, c.relname::text FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace WHERE c.relkind = 'm' AND c.relispopulated
ORDER BY (SELECT pg_catalog.count(*) FROM needed n JOIN pg_catalog.pg_class m ON m.oid = n.oid AND m.relkind = 'm'
  WHERE n.view = c.oid), 1, 2
"""
"""Materialized views that are filled, each after all that it reads."""
_OBJECTS = "SELECT oid::int8 FROM pg_catalog.pg_largeobject_metadata ORDER BY 1"
_PIECE_BYTES = 4 * 2**20
_OBJECT_PIECES = f"""
SELECT p.start, pg_catalog.md5(pg_catalog.lo_get(z.oid, p.start, {_PIECE_BYTES})) FROM (
  SELECT o.oid, o.size, pg_catalog.lo_close(o.fd) FROM (
    SELECT f.oid, f.fd, pg_catalog.lo_lseek64(f.fd, 0, 2) AS size FROM (
      SELECT %s::oid AS oid, pg_catalog.lo_open(%s::oid, x'40000'::int4) AS fd OFFSET 0) AS f OFFSET 0) AS o OFFSET 0
) AS z CROSS JOIN LATERAL pg_catalog.generate_series(0::int8, greatest(z.size - 1, 0), {_PIECE_BYTES}) AS p(start)
ORDER BY 1
"""


def carry_remainder(request: RemainderRequest) -> Carried:
    """See ``migrate.changes.remainder.CarryRemainder``."""
    source = parse_url(request.source_url, password=request.source_secrets.get("password"))
    destination = parse_url(request.destination_url, password=request.destination_secrets.get("password"))
    with ExitStack() as stack:
        reader = stack.enter_context(closing(connect(source)))
        writer = stack.enter_context(closing(connect_writer(destination)))
        try:
            return _Remainder(source, destination, reader, writer, request).carry()
        except DRIVER_ERRORS as exc:
            raise translate(exc, f"{source.url} or {destination.url}") from exc


class _Remainder:
    """Both sides of one database."""

    def __init__(
        self,
        source: PostgresAddress,
        destination: PostgresAddress,
        reader: psycopg.Connection[Any],
        writer: psycopg.Connection[Any],
        request: RemainderRequest,
    ) -> None:
        self._source = source
        self._destination = destination
        self._reader = reader
        self._writer = writer
        self._request = request
        self._notes: list[str] = []

    def carry(self) -> Carried:
        """Carry all of it, in an order in which each finds what it needs."""
        counts = {
            "tables": self._tables(),
            "large objects": self._large_objects(),
            "materialized views": self._views(),
            "sequences": self._sequences(),
        }
        return Carried(counts, self._notes)

    def _tables(self) -> int:
        """Read again the tables that are not followed."""
        published = {
            (schema, name)
            for schema, name in self._reader.execute(_PUBLISHED, (self._request.log["publication"],))
        }
        tables = {
            (table.schema, table.name): table
            for table in read_tables(self._reader)
            if table.exported and not table.view and not table.extension
        }
        there = {(table.schema, table.name) for table in read_tables(self._writer)}
        apart = tables.keys() - published
        different = self._different(apart & there)
        for name in different:
            self._read_again(tables[name])
        self._notes += [
            f"{schema}.{name} is not at the destination" for schema, name in sorted(apart - there)
        ]
        return len(different)

    def _different(self, names: set[Name], *, views: bool = False) -> list[Name]:
        """Return those whose rows differ."""
        if not names:
            return []
        here, there = (
            live_tables(address, workers=self._request.workers, names=() if views else names, also=names)
            for address in (self._source, self._destination)
        )
        return sorted(name for name in names if here.get(name) != there.get(name))

    def _read_again(self, table: PostgresTable) -> None:
        """Replace the rows of a table by the source's, in one transaction."""
        columns = ", ".join(quote_name(column.name) for column in table.columns if not column.generated)
        with self._writer.transaction():
            self._writer.execute("SET LOCAL session_replication_role = replica")
            self._writer.execute(f"DELETE FROM ONLY {table.label}".encode())
            reading = f"COPY (SELECT {columns} FROM ONLY {table.label}) TO STDOUT"
            writing = f"COPY {table.label} ({columns}) FROM STDIN"
            with (
                self._reader.cursor().copy(reading.encode()) as rows,
                self._writer.cursor().copy(writing.encode()) as target,
            ):
                for data in rows:
                    target.write(data)

    def _large_objects(self) -> int:
        """Copy the large objects that differ, and remove those that the source no longer has."""
        here = {oid for (oid,) in self._reader.execute(_OBJECTS)}
        there = {oid for (oid,) in self._writer.execute(_OBJECTS)}
        written = 0
        for oid in sorted(here | there):
            pieces = self._pieces(self._reader, oid) if oid in here else None
            if oid in there and pieces == self._pieces(self._writer, oid):
                continue
            written += 1
            with self._writer.transaction():
                if pieces is None:
                    self._writer.execute("SELECT pg_catalog.lo_unlink(%s)", (oid,))
                else:
                    if oid not in there:
                        self._writer.execute("SELECT pg_catalog.lo_create(%s)", (oid,))
                    self._copy_object(oid, [start for start, _ in pieces])
        return written

    def _copy_object(self, oid: int, starts: Sequence[int]) -> None:
        """Write an object's content over what is there; owner and privileges stay."""
        size = 0
        for start in starts:
            query = "SELECT pg_catalog.lo_get(%s, %s, %s)"
            row = self._reader.execute(query, (oid, start, _PIECE_BYTES), binary=True).fetchone()
            assert row is not None
            self._writer.execute("SELECT pg_catalog.lo_put(%s, %s, %b)", (oid, start, row[0]))
            size = start + len(row[0])
        truncate = "SELECT pg_catalog.lo_truncate64(pg_catalog.lo_open(%s, x'20000'::int4), %s)"
        self._writer.execute(truncate, (oid, size))

    def _pieces(self, connection: psycopg.Connection[Any], oid: int) -> list[tuple[int, str]]:
        with connection.transaction():
            return connection.execute(_OBJECT_PIECES.encode(), (oid, oid)).fetchall()

    def _views(self) -> int:
        """Refresh the materialized views whose rows differ, and all that come after the first of them."""
        views = [(schema, name) for schema, name in self._writer.execute(_VIEWS.encode())]
        here = {(schema, name) for schema, name in self._reader.execute(_VIEWS.encode())}
        different = self._different(here & set(views), views=True)
        if not different:
            return 0
        first = min(views.index(name) for name in different)
        for schema, name in views[first:]:
            self._writer.execute(f"REFRESH MATERIALIZED VIEW {quote_qualified(schema, name)}".encode())
        self._notes += [
            f"materialized view {schema}.{name} was refreshed, and has other rows than at the source: there it is older"
            for schema, name in self._different(set(different), views=True)
        ]
        return len(views) - first

    def _sequences(self) -> int:
        """Set the sequences that stand elsewhere."""
        here = self._values(self._reader, self._names(self._reader))
        there = self._values(self._writer, [name for name in self._names(self._writer) if name in here])
        self._notes += [
            f"sequence {'.'.join(name)} is not at the destination" for name in here.keys() - there.keys()
        ]
        different = [name for name in there if there[name] != here[name]]
        for name in different:
            value, called = here[name]
            self._writer.execute(
                "SELECT pg_catalog.setval(%s::regclass, %s, %s)", (quote_qualified(*name), value, called)
            )
        return len(different)

    def _names(self, connection: psycopg.Connection[Any]) -> list[Name]:
        return [(schema, name) for schema, name in connection.execute(_SEQUENCES.encode())]

    def _values(
        self, connection: psycopg.Connection[Any], names: Sequence[Name]
    ) -> dict[Name, tuple[int, bool]]:
        values: dict[Name, tuple[int, bool]] = {}
        for start in range(0, len(names), _SEQUENCE_BATCH):
            query = " UNION ALL ".join(
                f"SELECT {quote_literal(schema)}, {quote_literal(name)}, last_value, is_called"
                f" FROM {quote_qualified(schema, name)}"
                for schema, name in names[start : start + _SEQUENCE_BATCH]
            )
            for schema, name, value, called in connection.execute(query.encode()):
                values[schema, name] = value, called
        return values
