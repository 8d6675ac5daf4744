"""Copy what no change log carries to the destination, while the source is held: tables that are not followed, large
objects, materialized views, sequences.

Everything is compared first and written only where it differs. So the same again, after a kill, writes the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any

import psycopg
from msgspec import Struct, field

from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable, read_tables
from exporters.postgres.changes.publication import published_tables
from exporters.postgres.definitions.matview_refresh import FILLED_VIEWS
from exporters.postgres.errors import DRIVER_ERRORS, translate
from exporters.postgres.identifiers import quote_literal, quote_name, quote_qualified
from exporters.postgres.live_digests import TablesToRead, live_tables
from exporters.postgres.query_rows import fetch
from exporters.postgres.sessions.connection import PostgresAddress, connect, parse_url
from migrate.changes.remainder import Carried, RemainderRequest
from migrate.errors import IncompleteError
from migrate.number_text import things
from migrate.restore.postgres.changes.definition_gaps import missing_definitions
from migrate.restore.postgres.definitions.definition_files import describe_large_objects
from migrate.restore.postgres.destination import connect_writer, without_user_triggers
from migrate.runtime.crash_points import durable

Name = tuple[str, str]

_SEQUENCES = """
SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1, 2
"""
_SEQUENCE_BATCH = 200


def carry_remainder(request: RemainderRequest) -> Carried:
    """See ``migrate.changes.remainder.CarryRemainder``."""
    source = parse_url(request.source_url, password=request.source_secrets.get("password"))
    destination = parse_url(request.destination_url, password=request.destination_secrets.get("password"))
    with ExitStack() as stack:
        reader = stack.enter_context(closing(connect(source)))
        writer = stack.enter_context(closing(connect_writer(destination)))
        try:
            return _Remainder(source, destination, reader, writer, request).carry()
        except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable) as exc:
            raise IncompleteError(
                f"{source.url} and {destination.url} have other definitions: {exc.diag.message_primary}",
                next_step="give the source's ALTER TABLE at the destination, too; then run the same command again",
            ) from exc
        except DRIVER_ERRORS as exc:
            raise translate(exc, f"{source.url} or {destination.url}") from exc


class _Remainder(Struct):
    """Both sides of one database."""

    source: PostgresAddress
    destination: PostgresAddress
    reader: psycopg.Connection[Any]
    writer: psycopg.Connection[Any]
    request: RemainderRequest
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def carry(self) -> Carried:
        """Carry all of it, in an order in which each finds what it needs."""
        counts = {
            "tables": self._tables(),
            "large objects": self._large_objects(),
            "materialized views": self._views(),
            "sequences": self._sequences(),
        }
        request = self.request
        missing = missing_definitions(self.reader, self.writer, skipped=request.skipped, log=request.log)
        return Carried(counts, self.notes, [*missing, *self.missing])

    def _tables(self) -> int:
        """Read again the tables that are not followed, or whose changes were left out."""
        if self.request.log is None:
            return 0
        published = published_tables(self.reader, self.request.log["publication"])
        tables = {
            (table.schema, table.name): table
            for table in read_tables(self.reader)
            if table.exported and not table.view and not table.extension
        }
        destination_names = {(table.schema, table.name) for table in read_tables(self.writer)}
        apart = {name for name in tables if name not in published or ".".join(name) in self.request.skipped}
        different = self._different(apart & destination_names)
        for name in different:
            self._read_again(tables[name])
        return len(different)

    def _different(self, names: set[Name], *, views: bool = False) -> list[Name]:
        """Return those whose rows differ."""
        if not names:
            return []
        to_read = TablesToRead(() if views else names, also=names)
        source_digests, destination_digests = (
            live_tables(address, to_read, workers=self.request.workers)
            for address in (self.source, self.destination)
        )
        return sorted(name for name in names if source_digests.get(name) != destination_digests.get(name))

    def _read_again(self, table: PostgresTable) -> None:
        """Replace the rows of a table by the source's, in one transaction."""
        columns = ", ".join(quote_name(column.name) for column in table.columns if not column.generated)
        with durable("cutover.postgres.table_again"), self.writer.transaction():
            self.writer.execute("SET LOCAL session_replication_role = replica")
            with without_user_triggers(self.writer, table.label):
                self._empty(table)
                reading = f"COPY (SELECT {columns} FROM ONLY {table.label}) TO STDOUT"
                writing = f"COPY {table.label} ({columns}) FROM STDIN"
                with (
                    self.reader.cursor().copy(reading.encode()) as rows,
                    self.writer.cursor().copy(writing.encode()) as target,
                ):
                    for data in rows:
                        target.write(data)

    def _empty(self, table: PostgresTable) -> None:
        """Remove all rows. Where a publication of the application came along, a table without replica identity refuses
        DELETE, and never TRUNCATE.
        """
        try:
            with self.writer.transaction():
                self.writer.execute(f"TRUNCATE ONLY {table.label}".encode())
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.InsufficientPrivilege):
            # Another table refers to it, or this role may only delete.
            self.writer.execute(f"DELETE FROM ONLY {table.label}".encode())

    def _large_objects(self) -> int:
        """Copy the large objects that differ, and remove those that the source no longer has."""
        source_pieces, destination_pieces = self._pieces(self.reader), self._pieces(self.writer)
        different = sorted(
            oid
            for oid in source_pieces | destination_pieces
            if source_pieces.get(oid) != destination_pieces.get(oid)
        )
        new = [oid for oid in different if oid not in destination_pieces]
        descriptions, refused = self._descriptions(new), 0
        for oid in different:
            with durable("cutover.postgres.large_object"), self.writer.transaction():
                if oid not in source_pieces:
                    self.writer.execute("SELECT pg_catalog.lo_unlink(%s)", (oid,))
                    continue
                if oid not in destination_pieces:
                    self.writer.execute("SELECT pg_catalog.lo_create(%s)", (oid,))
                self._copy_object(oid, [start for start, _ in source_pieces[oid]])
                refused += oid in descriptions and not self._describe(descriptions[oid])
        if refused:
            self.missing.append(f"owner, privileges or comment of {things(refused, 'new large object')}")
        return len(different)

    def _descriptions(self, oids: Sequence[int]) -> dict[int, str]:
        """Return by number the statements that give new objects the source's owner, privileges and comment."""
        if not oids:
            return {}
        query = f"SELECT * FROM ({large_objects.METADATA}) AS m WHERE oid = ANY (%(oids)s)"
        objects: Any = fetch(self.reader, query, {"oids": list(oids)})
        return {
            int(recorded["oid"]): statements
            for recorded in objects
            for _, statements in describe_large_objects([recorded], portable=False)
        }

    def _describe(self, statements: str) -> bool:
        """Run the statements that describe an object, within its transaction. Return False where a role is not there,
        or not ours to give to.
        """
        try:
            with self.writer.transaction():
                self.writer.execute(statements.encode())
        except psycopg.ProgrammingError:
            return False
        return True

    def _copy_object(self, oid: int, starts: Sequence[int]) -> None:
        """Write an object's content over what is there; owner and privileges stay."""
        size = 0
        for start in starts:
            query = "SELECT pg_catalog.lo_get(%s, %s, %s)"
            row = self.reader.execute(query, (oid, start, large_objects.PIECE_BYTES), binary=True).fetchone()
            assert row is not None
            self.writer.execute("SELECT pg_catalog.lo_put(%s, %s, %b)", (oid, start, row[0]))
            size = start + len(row[0])
        truncate = "SELECT pg_catalog.lo_truncate64(pg_catalog.lo_open(%s, x'20000'::int4), %s)"
        self.writer.execute(truncate, (oid, size))

    def _pieces(self, connection: psycopg.Connection[Any]) -> dict[int, list[tuple[int, str]]]:
        """Return the first byte and the MD5 of each piece of all objects, by their numbers."""
        pieces: dict[int, list[tuple[int, str]]] = {}
        with connection.transaction():
            for oid, start, md5 in connection.execute(large_objects.DIGESTS.encode()):
                pieces.setdefault(oid, []).append((start, md5))
        return pieces

    def _views(self) -> int:
        """Refresh the materialized views whose rows differ, and all that come after the first of them."""
        views = [(schema, name) for schema, name in self.writer.execute(FILLED_VIEWS.encode())]
        source_views = {(schema, name) for schema, name in self.reader.execute(FILLED_VIEWS.encode())}
        different = self._different(source_views & set(views), views=True)
        if not different:
            return 0
        first = min(views.index(name) for name in different)
        for schema, name in views[first:]:
            self.writer.execute(f"REFRESH MATERIALIZED VIEW {quote_qualified(schema, name)}".encode())
        self.notes += [
            f"materialized view {schema}.{name} was refreshed, and has other rows than at the source: there it is older"
            for schema, name in self._different(set(different), views=True)
        ]
        return len(views) - first

    def _sequences(self) -> int:
        """Set the sequences that stand elsewhere."""
        source_values = self._values(self.reader, self._names(self.reader))
        destination_values = self._values(
            self.writer, [name for name in self._names(self.writer) if name in source_values]
        )
        different = [name for name in destination_values if destination_values[name] != source_values[name]]
        for name in different:
            value, called = source_values[name]
            self.writer.execute(
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
