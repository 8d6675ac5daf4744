"""A part of a source (``--only``) into a file that may hold other things: by plain statements, and nothing else in the
file is touched.

Tables that are there already only get their rows. Their triggers would fire for every row: those that are the
bundle's own are dropped for as long, and noted, so that any run that ends the restore makes them again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping

from msgspec import Struct

from exporters.sql.parquet_read import READ_ERRORS
from exporters.sqlite.catalog import SchemaEntry
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.rows.parquet_parts import PartRows, read_part
from migrate.errors import MoveoutError
from migrate.restore.common.existing_tables import in_the_way, not_empty, strange_trigger
from migrate.restore.common.finished_record import FinishedRestore
from migrate.restore.common.table_parts import REPAIR, parts_of, readable
from migrate.restore.common.table_restore import WrittenRows
from migrate.restore.sqlite import definitions as sqlite_schema
from migrate.restore.sqlite import destination as sqlite_destination
from migrate.restore.sqlite import left_out as sqlite_left_out
from migrate.restore.sqlite.application_functions import StandIns
from migrate.restore.sqlite.context import Loaded, SqliteRestore
from migrate.restore.sqlite.definitions import SEQUENCE
from migrate.restore.sqlite.destination import SqliteDestination
from migrate.restore.sqlite.load_rows import bring_rows
from migrate.runtime.crash_points import durable

_ASIDE = "aside "


class Tables(Struct, frozen=True):
    """See ``restore.common.existing_tables.Present``."""

    connection: sqlite3.Connection
    virtual: Mapping[str, str]
    """By shadow table: the virtual one."""

    def has(self, name: str) -> bool:
        """See ``Present.has``."""
        query = "SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND lower(name) = lower(?)"
        return self.connection.execute(query, (name,)).fetchone() is not None

    def has_rows(self, name: str) -> bool:
        """See ``Present.has_rows``. A shadow table has some even where its virtual table has none."""
        if (virtual := self.virtual.get(name)) is not None:
            with contextlib.suppress(sqlite3.OperationalError):
                return self._is_filled(virtual)
        return self._is_filled(name)

    def _is_filled(self, name: str) -> bool:
        return self.connection.execute(f"SELECT 1 FROM {quote_name(name)} LIMIT 1").fetchone() is not None


def load_part(job: SqliteRestore, destination: SqliteDestination) -> Loaded | MoveoutError:
    """Load the part into the destination; or return the error where something else is in the way."""
    run, connection, where = job.run, destination.connection, str(job.address.path)
    stand_ins = StandIns(connection)
    state = sqlite_destination.read_state(destination)
    if state is None:
        conflict = in_the_way(run, Tables(connection, job.virtual), where)
        if conflict:
            return not_empty(run, conflict, where)
        _begin(job, destination, stand_ins)
    else:
        run.require_same(state, where=where, how="remove the file")
    if not run.selection.definitions:
        _put_aside(job, destination)
    written, damaged = (
        bring_rows(job, destination, stand_ins) if run.selection.rows else (WrittenRows(0, 0), [])
    )
    notes = stand_ins.take_back()
    if damaged:
        return unfinished(written, damaged, notes)
    return Loaded(written, [], _complete(job, destination, notes), notes)


def unfinished(written: WrittenRows, damaged: list[str], notes: list[str]) -> Loaded:
    """Return the outcome where rows are missing because of damage: what comes after the rows waits for them."""
    left_out = ["indexes, views and triggers: they come when all rows are there"]
    return Loaded(written, damaged, left_out, [*notes, REPAIR], finished=False)


def _begin(job: SqliteRestore, destination: SqliteDestination, stand_ins: StandIns) -> None:
    connection = destination.connection
    if sqlite_destination.is_fresh(destination):
        sqlite_destination.prepare(connection, job.definitions.pragmas)
    connection.execute("BEGIN IMMEDIATE")
    sqlite_destination.begin_state(connection, job.run.state)
    if job.run.selection.definitions:
        sqlite_schema.make_tables(connection, job.entries, stand_ins, empty=not job.run.selection.rows)
    with durable("restore.sqlite.part.tables"):
        connection.execute("COMMIT")


def _complete(job: SqliteRestore, destination: SqliteDestination, notes: list[str]) -> list[str]:
    """Do all that comes after the rows, in one transaction; the state goes with it. Returns what is left out, which is
    recorded before.
    """
    connection, selection, left_out = destination.connection, job.run.selection, list[str]()
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("BEGIN IMMEDIATE")
    if selection.definitions:
        left_out = sqlite_schema.make_indexes(connection, job.entries)
        sqlite_schema.make_triggers(connection, job.entries)
    else:
        sqlite_schema.make_triggers(connection, _were_aside(job, destination))
    if selection.rows:
        _set_counters(connection, _counters(job))
    sqlite_destination.drop_state(connection)
    if selection.definitions:
        sqlite_schema.add_virtual(connection, job.entries)
    sqlite_left_out.write(
        job.address, job.run.state, FinishedRestore(job.run.selection.words(), left_out, notes)
    )
    with durable("restore.sqlite.part.finish"):
        connection.execute("COMMIT")
    return left_out


def _put_aside(job: SqliteRestore, destination: SqliteDestination) -> None:
    """Drop the triggers of the tables that get rows. Raises ``NotEmptyError`` for one that is not the bundle's."""
    connection = destination.connection
    ours = {entry.name: entry for entry in job.definitions.entries if entry.type == "trigger"}
    cursor = connection.execute("SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'trigger'")
    triggers = [row for row in cursor.fetchall() if row[1] in job.names]
    for name, table, sql in triggers:
        if name not in ours or ours[name].sql != sql:
            raise strange_trigger(name, table, str(job.address.path))
    connection.execute("BEGIN IMMEDIATE")
    for name, _, _ in triggers:
        sqlite_destination.mark_done(connection, _ASIDE + name)
        connection.execute(f"DROP TRIGGER {quote_name(name)}")
    with durable("restore.sqlite.part.triggers_aside"):
        connection.execute("COMMIT")


def _were_aside(job: SqliteRestore, destination: SqliteDestination) -> list[SchemaEntry]:
    done = sqlite_destination.read_done(destination)
    return [entry for entry in job.definitions.entries if _ASIDE + entry.name in done]


def _counters(job: SqliteRestore) -> dict[str, int]:
    """Return AUTOINCREMENT's counters of the selected tables, from the bundle."""
    counters: dict[str, int] = {}
    for part in parts_of([job.counters] if job.counters is not None else []):
        with job.run.reader.open(part.key) as file:
            for some in readable(part, read_part(file), READ_ERRORS):
                assert isinstance(some, PartRows)  # their values are names and numbers
                columns = dict(
                    zip(some.shown.names, (column.to_list() for column in some.columns), strict=True)
                )
                rows: Iterable[tuple[str, int]] = zip(columns["name"], columns["seq"], strict=True)
                counters |= {name: value for name, value in rows if name in job.names}
    return counters


def _set_counters(connection: sqlite3.Connection, counters: Mapping[str, int]) -> None:
    if not counters or not Tables(connection, {}).has(SEQUENCE):
        return
    for name, value in counters.items():
        connection.execute(f"DELETE FROM {SEQUENCE} WHERE name = ?", (name,))
        connection.execute(f"INSERT INTO {SEQUENCE} (name, seq) VALUES (?, ?)", (name, value))
