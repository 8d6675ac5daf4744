"""Copy what no binary log carries to the destination, while the source is held: tables without transactions,
sequences, and where AUTO_INCREMENT goes on.

Everything is compared first and written only where it differs. So the same again, after a kill, writes the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing

import pymysql
from msgspec import Struct, field

from exporters.mysql.catalog import MysqlTable, read_tables
from exporters.mysql.chunk_plan import row_select
from exporters.mysql.connection import Connection, MysqlAddress, connect, parse_url
from exporters.mysql.definitions.show_create import (
    Missing,
    read_definitions,
    read_trigger,
    set_sequence,
    trigger_names,
)
from exporters.mysql.errors import DRIVER_ERRORS, is_about_the_thing, message_of, translate
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.live_digests import live_tables
from exporters.mysql.rows.long_rows import read_payload, text_type
from exporters.mysql.rows.row_columns import columns_of, parse_columns
from exporters.mysql.rows.row_feed import Feed
from exporters.mysql.sessions.driver_connection import send
from exporters.sql.columns import Layout
from exporters.sql.large_values.long_values import LongRow, Spool
from migrate.changes.remainder import Carried, RemainderRequest
from migrate.restore.mysql.definitions import Definer, Definition, label_of, without_definer
from migrate.restore.mysql.kept_triggers import make_triggers_of_killed_repair
from migrate.restore.mysql.values.insert_statements import insert_statements
from migrate.restore.mysql.values.insert_values import LongValues, Values, literals_of

_COUNTERS = """
SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES
WHERE TABLE_SCHEMA = {} AND AUTO_INCREMENT IS NOT NULL
"""
_VARYING = re.compile(r" AUTO_INCREMENT=\d+| (?:ENABLE|DISABLE(?: ON (?:SLAVE|REPLICA))?)(?= )|\s+")
"""What two definitions of the same thing may differ in."""


def carry_remainder(request: RemainderRequest) -> Carried:
    """See ``migrate.changes.remainder.CarryRemainder``."""
    source = parse_url(request.source_url, password=request.source_secrets.get("password"))
    destination = parse_url(request.destination_url, password=request.destination_secrets.get("password"))
    with ExitStack() as stack:
        reader = stack.enter_context(closing(connect(source)))
        writer = stack.enter_context(closing(connect(destination)))
        try:
            make_triggers_of_killed_repair(destination)
            return _Remainder(source, destination, reader, writer, request).carry()
        except DRIVER_ERRORS as exc:
            raise translate(exc, f"{source.url} or {destination.url}") from exc


class _Remainder(Struct):
    """Both sides of one database."""

    source: MysqlAddress
    destination: MysqlAddress
    reader: Connection
    writer: Connection
    request: RemainderRequest
    notes: list[str] = field(default_factory=list)

    def carry(self) -> Carried:
        """Carry all of it."""
        source_definitions, destination_definitions = (
            _definitions(connection) for connection in (self.reader, self.writer)
        )
        counts = {
            "tables": self._tables(),
            "sequences": self._sequences(source_definitions, destination_definitions),
            "AUTO_INCREMENT counters": self._counters(),
        }
        for name in self.request.skipped:
            source_definitions.pop(f"table {quote_name(name)}", None)
        self.notes += _differences(
            source_definitions,
            destination_definitions,
            same_server=self.reader.version == self.writer.version,
        )
        missing = [label for label in source_definitions if label not in destination_definitions]
        if missing:  # triggers may have been made again since
            destination_definitions = _definitions(self.writer)
            missing = [label for label in missing if label not in destination_definitions]
        return Carried(counts, self.notes, missing)

    def _tables(self) -> int:
        """Read again the tables that are not followed."""
        if self.request.log is None:
            return 0
        apart = {*self.request.log["apart"], *self.request.skipped}
        tables = {table.name: table for table in read_tables(self.reader) if table.name in apart}
        common = tables.keys() & {table.name for table in read_tables(self.writer)}
        if not common:
            return 0
        source_digests, destination_digests = (
            live_tables(address, workers=self.request.workers, names=common)
            for address in (self.source, self.destination)
        )
        different = sorted(
            name for name in common if source_digests.get(("", name)) != destination_digests.get(("", name))
        )
        for name in different:
            self._read_again(tables[name])
        for name in sorted(common):
            self._make_triggers(name)
        return len(different)

    def _read_again(self, table: MysqlTable) -> None:
        """Replace the rows of a table by the source's. Its triggers would fire, so they are made again afterwards."""
        for name in trigger_names(self.writer, table.name):
            self.writer.run(f"DROP TRIGGER {quote_name(name)}")
        _copy_rows(table, self.reader, self.writer)

    def _make_triggers(self, table: str) -> None:
        """Make the triggers of a table that the destination lacks."""
        present = {*trigger_names(self.writer, table)}
        for name in trigger_names(self.reader, table):
            if name in present:
                continue
            definition = read_trigger(self.reader, name, table)
            try:
                Definer(self.writer, self.notes, self.notes).make(definition)
            except pymysql.Error as exc:
                if not is_about_the_thing(exc):
                    raise
                self.notes.append(f"trigger {quote_name(name)} is not at the destination: {message_of(exc)}")

    def _sequences(
        self, source_definitions: Mapping[str, Definition], destination_definitions: Mapping[str, Definition]
    ) -> int:
        """Set the sequences that stand elsewhere."""
        count = 0
        for label, definition in source_definitions.items():
            if definition["kind"] == "sequence" and label in destination_definitions:
                other = destination_definitions[label]
                if (definition["next"], definition["rounds"]) != (other["next"], other["rounds"]):
                    self.writer.rows(set_sequence(definition))
                    count += 1
        return count

    def _counters(self) -> int:
        """Let AUTO_INCREMENT go on where it does at the source."""
        source_counters, destination_counters = (
            {
                str(name): int(value)
                for name, value in connection.rows(
                    _COUNTERS.format(quote_literal(connection.address.database))
                )
            }
            for connection in (self.reader, self.writer)
        )
        different = [
            name
            for name, value in source_counters.items()
            if name in destination_counters and destination_counters[name] != value
        ]
        for name in different:
            self.writer.run(f"ALTER TABLE {quote_name(name)} AUTO_INCREMENT = {source_counters[name]}")
        return len(different)


def _definitions(connection: Connection) -> dict[str, Definition]:
    """Return what is defined in a database, by kind and name."""
    definitions = read_definitions(connection, read_tables(connection), Missing())
    return {
        label_of(definition): definition for definition in definitions if definition["kind"] != "database"
    }


def _differences(
    source: Mapping[str, Definition], destination: Mapping[str, Definition], *, same_server: bool
) -> Sequence[str]:
    """Return what is defined otherwise. Servers of other versions print the same thing otherwise, too."""
    notes = [f"{label} is no longer at the source" for label in destination if label not in source]
    if same_server:
        notes += [
            f"{label} is defined otherwise than at the source"
            for label, definition in source.items()
            if label in destination and _comparable(definition) != _comparable(destination[label])
        ]
    return notes


def _comparable(definition: Definition) -> str:
    return _VARYING.sub(" ", without_definer(definition["sql"]))


def _copy_rows(table: MysqlTable, reader: Connection, writer: Connection) -> None:
    """Replace the rows of a table at the destination by the source's. Raises the driver's errors."""
    layout = Layout.of(table.columns)
    writer.run(f"TRUNCATE TABLE {table.label}")
    literals = _literals(table, layout, Feed(reader), decimals=not writer.is_mariadb)
    for statement in insert_statements(table.name, table.written, literals, writer.longest_statement_bytes()):
        send(writer.raw, statement.pieces)


def _literals(
    table: MysqlTable, layout: Layout, feed: Feed, *, decimals: bool
) -> Iterator[Values | LongValues]:
    """Yield the rows as lists of literals."""
    types = [text_type(column.kind) for column in table.columns]
    for rows in feed.rows(row_select(table)):
        if isinstance(rows, list):
            typed = parse_columns(columns_of(rows, types), layout, exactly=True)
            batch = layout.batch(typed)
            yield from literals_of(batch, table.generated, decimals=decimals)
            continue
        with Spool() as spool:
            row = read_payload(rows.pieces, layout, spool)
            batch = layout.batch(row.typed)
            yield from literals_of(LongRow(batch, row.long), table.generated, decimals=decimals)
