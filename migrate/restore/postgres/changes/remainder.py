"""Copy what no change log carries to the destination, while the source is held: tables that are not followed, large
objects, materialized views, sequences.

Everything is compared first and written only where it differs. So the same again, after a kill, writes the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from typing import Any

import psycopg
from msgspec import Struct, field
from msgspec.structs import replace

from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable, read_tables
from exporters.postgres.changes.publication import published_tables
from exporters.postgres.definitions.matview_refresh import FILLED_VIEWS
from exporters.postgres.definitions.object_access import TRANSACTION
from exporters.postgres.errors import as_source_errors
from exporters.postgres.identifiers import quote_literal, quote_name, quote_qualified
from exporters.postgres.live_digests import TablesToRead, live_tables
from exporters.postgres.query_rows import fetch
from exporters.postgres.sessions.connection import PostgresAddress, connect, parse_url
from migrate.changes.remainder import Carried, RemainderRequest, differing
from migrate.errors import IncompleteError
from migrate.number_text import things
from migrate.restore.postgres.changes.definition_gaps import compare_definitions
from migrate.restore.postgres.definitions.dump_script import DumpEntry
from migrate.restore.postgres.definitions.refusals import Workaround, first_line, is_refusal
from migrate.restore.postgres.destination import (
    connect_writer,
    without_event_triggers,
    without_triggers,
    without_user_triggers,
)
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
    source = parse_url(request.sides.source_url, request.sides.source_secrets)
    destination = parse_url(request.sides.destination_url, request.sides.destination_secrets)
    with (
        closing(connect(source)) as reader,
        closing(connect_writer(destination)) as writer,
        as_source_errors(f"{source.url} or {destination.url}"),
    ):
        try:
            return _Remainder(source, destination, reader, writer, request).carry()
        except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable) as exc:
            raise IncompleteError(
                f"{source.url} and {destination.url} have other definitions: {exc.diag.message_primary}",
                next_step="give the source's ALTER TABLE at the destination, too; then run the same command again",
            ) from exc


class _Description(Struct, frozen=True):
    """What a server has of a large object besides its bytes."""

    oid: int
    owner: str
    privileges: tuple[tuple[str, str, bool], ...]
    """Role (empty for PUBLIC), privilege, and whether it may be granted to others."""
    comment: str

    @staticmethod
    def read(connection: psycopg.Connection[Any]) -> dict[int, _Description]:
        """Return that of all, by number."""
        return {row["oid"]: _Description.of(**row) for row in fetch(connection, large_objects.METADATA)}

    @staticmethod
    def of(
        oid: int, owner: str, comment: str | None, privileges: Sequence[Sequence[Any]] | None
    ) -> _Description:
        """Return it of what the server says: NULL where only the owner has privileges, and all of them."""
        if privileges is None:
            privileges = [(owner, "SELECT", False), (owner, "UPDATE", False)]
        return _Description(oid, owner, tuple((r, p, g) for r, p, g in privileges), comment or "")

    def as_commented(self, source: _Description) -> _Description:
        """Return it without a comment that the source no longer has: nothing there says since when."""
        return self if source.comment else replace(self, comment="")

    def instead_of(self, other: _Description) -> str:
        """Return the statements that make another one like it."""
        name, statements = f"LARGE OBJECT {self.oid}", []
        if self.owner != other.owner:
            statements.append(f"ALTER {name} OWNER TO {quote_name(self.owner)}")
        if (self.owner, {*self.privileges}) != (other.owner, {*other.privileges}):
            roles = {self.owner, *(role for role, *_ in other.privileges)} - {"", other.owner}
            quoted = [*map(quote_name, sorted(roles | {self.owner})), "PUBLIC"]
            statements.append(f"REVOKE ALL ON {name} FROM {', '.join(quoted)} CASCADE")
            statements += [
                f"GRANT {privilege} ON {name} TO {quote_name(role) if role else 'PUBLIC'}"
                + (" WITH GRANT OPTION" if is_grantable else "")
                for role, privilege, is_grantable in self.privileges
            ]
        if self.comment != other.comment:
            statements.append(
                f"COMMENT ON {name} IS {quote_literal(self.comment) if self.comment else 'NULL'}"
            )
        return "; ".join(statements)


def _filled_views(connection: psycopg.Connection[Any]) -> list[Name]:
    """Return the materialized views that have rows, in an order in which each comes after those that it reads."""
    return [(schema, name) for schema, name in connection.execute(FILLED_VIEWS.encode())]


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
        without_triggers(self.writer)
        tables = self._tables_apart()
        source_views, views = map(_filled_views, (self.reader, self.writer))
        different = self._different(tables, {*source_views} & {*views})
        counts = {
            "tables": self._read_all_again([tables[name] for name in different if name in tables]),
            "large objects": self._large_objects(),
            "materialized views": self._refresh(views, [name for name in different if name not in tables]),
            "sequences": self._sequences(),
        }
        request = self.request
        gaps = compare_definitions(
            self.reader,
            self.writer,
            skipped=request.skipped,
            log=request.base,
            is_all_access=request.log is None,
        )
        self.notes += [f"{label} is only at the new side" for label in gaps.surplus] + gaps.settings
        return Carried(counts, self.notes, [*gaps.missing, *self.missing])

    def _tables_apart(self) -> dict[Name, PostgresTable]:
        """Return the tables of both sides that are not followed, or whose changes were left out."""
        if self.request.log is None:
            return {}
        published = published_tables(self.reader, self.request.log["publication"])
        apart = {
            (table.schema, table.name): table
            for table in read_tables(self.reader)
            if table.exported and not table.view and not table.extension
            if (table.schema, table.name) not in published
            or f"{table.schema}.{table.name}" in self.request.skipped
        }
        at_destination = read_tables(self.writer) if apart else []
        return {
            name: apart[name] for table in at_destination if (name := (table.schema, table.name)) in apart
        }

    def _different(self, tables: Collection[Name], views: Collection[Name]) -> list[Name]:
        """Return those whose rows differ."""
        names = {*tables, *views}
        if not names:
            return []
        to_read = TablesToRead(tables, also=names)
        source_digests, destination_digests = (
            live_tables(address, to_read, workers=self.request.workers)
            for address in (self.source, self.destination)
        )
        return sorted(name for name in names if source_digests.get(name) != destination_digests.get(name))

    def _read_all_again(self, tables: Collection[PostgresTable]) -> int:
        for table in tables:
            self._read_again(table)
        return len(tables)

    def _read_again(self, table: PostgresTable) -> None:
        """Replace the rows of a table by the source's, in one transaction."""
        columns = ", ".join(quote_name(column.name) for column in table.columns if not column.generated)
        with (
            durable("cutover.postgres.table_again"),
            self.writer.transaction(),
            without_user_triggers(self.writer, table.label),
        ):
            self._empty(table)
            reading = f"COPY (SELECT {columns} FROM ONLY {table.label}) TO STDOUT"
            writing = f"COPY {table.label}{f' ({columns})' if columns else ''} FROM STDIN"
            with (
                self.reader.cursor().copy(reading.encode()) as rows,
                self.writer.cursor().copy(writing.encode()) as written,
            ):
                for data in rows:
                    written.write(data)

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
        new = {oid for oid in different if oid not in destination_pieces}
        descriptions, refused = _Description.read(self.reader) if new else {}, 0
        (maker,) = self.writer.execute("SELECT CURRENT_USER::text").fetchone() or ("",)
        for oid in different:
            with durable("cutover.postgres.large_object"), self.writer.transaction():
                if oid not in source_pieces:
                    self.writer.execute("SELECT pg_catalog.lo_unlink(%s)", (oid,))
                    continue
                if oid in new:
                    self.writer.execute("SELECT pg_catalog.lo_create(%s)", (oid,))
                self._copy_object(oid, [start for start, _ in source_pieces[oid]])
                if oid in new and oid in descriptions:
                    statements = descriptions[oid].instead_of(_Description.of(oid, maker, None, None))
                    refused += bool(statements) and not self._describe(statements)
        if refused:
            self.missing.append(f"owner, privileges or comment of {things(refused, 'new large object')}")
        return len({*different, *self._describe_again(source_pieces.keys() & destination_pieces.keys())})

    def _describe_again(self, oids: Collection[int]) -> list[int]:
        """Describe large objects of both sides as at the source, where that has changed since; return which."""
        log = self.request.log
        if not oids or (log is not None and TRANSACTION not in log):
            return []
        since = oids if log is None else self._described_since(log[TRANSACTION])
        source, destination = map(_Description.read, (self.reader, self.writer))
        done, refused = [], 0
        for oid in sorted(oids & source.keys() & destination.keys()):
            there = destination[oid]
            here = source[oid] if oid in since else there.as_commented(source[oid])
            if not (statements := here.instead_of(there)):
                continue
            with durable("cutover.postgres.large_object_description"), self.writer.transaction():
                if self._describe(statements):
                    done.append(oid)
                else:
                    refused += 1
        if refused:
            self.missing.append(
                f"owner, privileges or comment of {things(refused, 'large object')} as it is now"
            )
        return done

    def _described_since(self, transaction: int) -> set[int]:
        """Return the large objects whose owner, privileges or comment were set since a transaction."""
        query = large_objects.described_since(transaction)
        return {oid for (oid,) in self.reader.execute(query.encode())}

    def _describe(self, statements: str) -> bool:
        """Run the statements that describe an object. Return False where a role is missing, or not ours to give to."""
        try:
            with self.writer.transaction(), without_event_triggers(self.writer):
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

    def _refresh(self, views: Sequence[Name], different: Sequence[Name]) -> int:
        """Refresh the materialized views whose rows differ, and all that come after the first of them."""
        if not different:
            return 0
        first = min(views.index(name) for name in different)
        refused = {name for name in views[first:] if not self._is_refreshed(*name)}
        self.notes += [
            f"materialized view {schema}.{name} was refreshed, and has other rows than at the source: there it is older"
            for schema, name in self._different((), {*different} - refused)
        ]
        return len(views) - first - len(refused)

    def _is_refreshed(self, schema: str, name: str) -> bool:
        """Refresh a materialized view, also where its code finds names only by all schemas. What the server refuses all
        the same is missing.
        """
        statement = f"REFRESH MATERIALIZED VIEW {quote_qualified(schema, name)}".encode()
        entry = DumpEntry(0, "MATERIALIZED VIEW DATA", name, schema, statement)
        refusals: list[str] = []
        for workaround in (Workaround.NONE, Workaround.SCHEMAS):
            try:
                with (
                    durable("cutover.postgres.materialized_view"),
                    self.writer.transaction(),
                    without_event_triggers(self.writer),
                    workaround.given(self.writer, entry),
                ):
                    self.writer.execute(statement)
            except psycopg.Error as exc:
                if not is_refusal(exc, self.writer):
                    raise
                refusals.append(first_line(exc))
            else:
                return True
        self.missing.append(f"rows of materialized view {schema}.{name} as they are now: {refusals[0]}")
        return False

    def _sequences(self) -> int:
        """Set the sequences that stand elsewhere."""
        source = self._values(self.reader, self._names(self.reader))
        common = [name for name in self._names(self.writer) if name in source]
        different = differing(source, self._values(self.writer, common))
        for name, (value, called) in different.items():
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
