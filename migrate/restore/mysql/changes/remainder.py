"""Copy what no binary log carries to the destination, while the source is held: tables without transactions,
sequences, and where AUTO_INCREMENT goes on.

Everything is compared first and written only where it differs. So the same again, after a kill, writes the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import partial

import pyarrow as pa
import pymysql
from msgspec import Struct, field

from exporters.mysql.catalog import MysqlTable, read_sequences, read_tables
from exporters.mysql.chunk_plan import row_select
from exporters.mysql.connection import Connection
from exporters.mysql.definitions.show_create import read_trigger, sequence_state, set_sequence, trigger_names
from exporters.mysql.errors import is_about_the_thing, message_of
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.live_digests import digest_tables
from exporters.mysql.rows.long_rows import read_payload, text_type
from exporters.mysql.rows.row_columns import columns_of, parse_columns
from exporters.mysql.rows.row_feed import Feed
from exporters.mysql.sessions.driver_connection import send
from exporters.sql.columns import Layout
from exporters.sql.large_values.long_values import LongRow, Spool
from migrate.changes.remainder import Carried, RemainderRequest, differing
from migrate.restore.mysql.changes.definition_gaps import compare_definitions
from migrate.restore.mysql.definitions.object_maker import ObjectMaker
from migrate.restore.mysql.destination import connect_both, spelled_as
from migrate.restore.mysql.existing_tables import make_triggers_of_killed_repair
from migrate.restore.mysql.rows.insert_statements import fitting, insert_statements, literals_of
from migrate.restore.mysql.rows.system_versioning import holding_still, lasting, momentary

_COUNTERS = """
SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES
WHERE TABLE_SCHEMA = {} AND AUTO_INCREMENT IS NOT NULL
"""


def carry_remainder(request: RemainderRequest) -> Carried:
    """See ``migrate.changes.remainder.CarryRemainder``."""
    with connect_both(request.sides) as (reader, writer):
        make_triggers_of_killed_repair(writer.address)
        return _Remainder(reader, writer, request).carry()


class _Remainder(Struct):
    """Both sides of one database."""

    reader: Connection
    writer: Connection
    request: RemainderRequest
    notes: list[str] = field(default_factory=list)

    def carry(self) -> Carried:
        """Carry all of it."""
        counts = {
            "tables": self._tables(),
            "sequences": self._sequences(),
            "AUTO_INCREMENT counters": self._counters(),
        }
        request = self.request
        gaps = compare_definitions(
            self.reader,
            self.writer,
            skipped=request.skipped,
            log=request.base,
            is_all_access=request.log is None,
        )
        self.notes += [f"{label} is no longer at the source" for label in gaps.surplus] + gaps.settings
        return Carried(counts, self.notes, gaps.missing)

    def _tables(self) -> int:
        """Read again the tables that are not followed, and those whose history no delta pass can change."""
        log, skipped = self.request.log, self.request.skipped
        tables = {
            table.name: table
            for table in read_tables(self.reader)
            if (table.history if log is None else table.name in {*log["apart"], *skipped})
        }
        spelled = spelled_as(self.writer, tables)
        common = {
            spelled(other.name)
            for other in read_tables(self.writer)
            if (table := tables.get(spelled(other.name))) is not None and table.history == other.history
        }
        if not common:
            return 0
        source_digests, destination_digests = (
            digest_tables(side.address, workers=self.request.workers, names=common)
            .named_as(("", name) for name in common)
            .digests
            for side in (self.reader, self.writer)
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
                ObjectMaker(self.writer, self.notes, self.notes).make(definition)
            except pymysql.Error as exc:
                if not is_about_the_thing(exc):
                    raise
                self.notes.append(f"trigger {quote_name(name)} is not at the destination: {message_of(exc)}")

    def _sequences(self) -> int:
        """Set the sequences that stand elsewhere."""
        source = {name: sequence_state(self.reader, name) for name in read_sequences(self.reader)}
        spelled = spelled_as(self.writer, source)
        destination = {
            spelled(name): sequence_state(self.writer, name) for name in read_sequences(self.writer)
        }
        different = differing(source, destination)
        for name, state in different.items():
            self.writer.rows(set_sequence({"name": name, **state}))
        return len(different)

    def _counters(self) -> int:
        """Let AUTO_INCREMENT go on where it does at the source."""
        source = _read_counters(self.reader)
        spelled = spelled_as(self.writer, source)
        there = {spelled(name): value for name, value in _read_counters(self.writer).items()}
        different = differing(source, there)
        for name, value in different.items():
            self.writer.run(f"ALTER TABLE {quote_name(name)} AUTO_INCREMENT = {value}")
        return len(different)


def _read_counters(connection: Connection) -> dict[str, int]:
    rows = connection.rows(_COUNTERS.format(quote_literal(connection.address.database)))
    return {str(name): int(value) for name, value in rows}


def _copy_rows(table: MysqlTable, reader: Connection, writer: Connection) -> None:
    """Replace the rows of a table at the destination by the source's. Raises the driver's errors."""
    if table.versioned:
        writer.run(f"DELETE FROM {table.label}")
        writer.run(f"DELETE HISTORY FROM {table.label}")  # what was deleted is history
    else:
        writer.run(f"TRUNCATE TABLE {table.label}")
    if not table.history:
        _write(writer, table, _batches(table, reader))
        return
    if not writer.takes_history:
        still = partial(holding_still, history=table.history)
        _write(writer, table, map(still, _batches(table, reader)), table.history)
        return
    for rows in _batches(table, reader):
        for begin, some in momentary(rows, table.history):
            writer.run(f"SET SESSION timestamp = {begin}")
            _write(writer, table, [some], table.history)
            writer.run(f"DELETE FROM {table.label}")
    writer.run("SET SESSION timestamp = DEFAULT, SESSION system_versioning_insert_history = 1")
    _write(writer, table, map(partial(lasting, history=table.history), _batches(table, reader)))


def _write(
    writer: Connection,
    table: MysqlTable,
    batches: Iterable[pa.RecordBatch | LongRow],
    without: Collection[str] = (),
) -> None:
    """Insert rows, without some of their columns."""
    columns = [name for name in table.written if name not in without]
    literals = (
        values
        for rows in batches
        for values in literals_of(rows, [*table.generated, *without], decimals=not writer.is_mariadb)
    )
    allowed_bytes = writer.longest_statement_bytes()
    for statement in insert_statements(table.name, columns, literals, allowed_bytes):
        send(writer.raw, fitting(statement, table.label, allowed_bytes).pieces)


def _batches(table: MysqlTable, reader: Connection) -> Iterator[pa.RecordBatch | LongRow]:
    """Yield the rows of a table; one with long values is good until the next one is asked for."""
    types, layout = [text_type(column.kind) for column in table.columns], Layout.of(table.columns)
    for rows in Feed(reader).rows(row_select(table)):
        if isinstance(rows, list):
            yield layout.batch(parse_columns(columns_of(rows, types), layout, exactly=True))
            continue
        with Spool() as spool:
            row = read_payload(rows.pieces, layout, spool)
            yield LongRow(layout.batch(row.typed), row.long)
