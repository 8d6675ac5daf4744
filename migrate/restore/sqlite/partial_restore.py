"""What a part of a source (``--only``) takes, which may come into a file that holds other things: by plain statements,
and nothing else in the file is touched.

Tables that are there already only get their rows. Their triggers would fire for every row: those that are the
bundle's own are dropped for as long, and noted, so that any run that ends the restore makes them again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from exporters.sql.parquet_read import READ_ERRORS
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.part_reader import PartRows, read_part
from migrate.errors import NotEmptyError
from migrate.restore.common.selection import strange_trigger
from migrate.restore.common.table_parts import parts_of, readable
from migrate.restore.sqlite import definitions as sqlite_schema
from migrate.restore.sqlite.context import SqliteRestore
from migrate.restore.sqlite.definitions import SEQUENCE
from migrate.restore.sqlite.destination import mark_done
from migrate.runtime.crash_points import durable

_ASIDE = "aside "


def in_the_way(job: SqliteRestore, connection: sqlite3.Connection) -> NotEmptyError | None:
    """Return the error where a table is in the way of the part; see ``Selection.conflict``."""
    run, virtual_of = job.run, job.virtual

    def has_rows(name: str) -> bool:
        """A shadow table has some even where its virtual table has none."""
        if (virtual := virtual_of.get(name)) is not None:
            with contextlib.suppress(sqlite3.OperationalError):
                return _is_filled(connection, virtual)
        return _is_filled(connection, name)

    names = [table.name for table in run.tables]
    return run.selection.conflict(names, lambda name: _has(connection, name), has_rows, str(job.address.path))


def _has(connection: sqlite3.Connection, name: str) -> bool:
    query = "SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND lower(name) = lower(?)"
    return connection.execute(query, (name,)).fetchone() is not None


def _is_filled(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute(f"SELECT 1 FROM {quote_name(name)} LIMIT 1").fetchone() is not None


def put_aside(job: SqliteRestore, connection: sqlite3.Connection) -> None:
    """Drop the triggers of the tables that get rows. Raises ``NotEmptyError`` for one that is not the bundle's."""
    ours = {entry.name: entry for entry in job.definitions.entries if entry.type == "trigger"}
    cursor = connection.execute("SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'trigger'")
    triggers = [row for row in cursor.fetchall() if row[1] in job.names]
    for name, table, sql in triggers:
        if name not in ours or ours[name].sql != sql:
            raise strange_trigger(name, table, str(job.address.path))
    connection.execute("BEGIN IMMEDIATE")
    for name, _, _ in triggers:
        mark_done(connection, _ASIDE + name)
        connection.execute(f"DROP TRIGGER {quote_name(name)}")
    with durable("restore.sqlite.triggers_aside"):
        connection.execute("COMMIT")


def complete_part(job: SqliteRestore, connection: sqlite3.Connection, done: AbstractSet[str]) -> list[str]:
    """Do what comes after the rows, last in the transaction; return what is left out. ``done``: what was noted."""
    selection, left_out = job.run.selection, list[str]()
    if selection.definitions:
        left_out = sqlite_schema.make_indexes(connection, job.entries)
        sqlite_schema.make_triggers(connection, job.entries)
    else:
        aside = [entry for entry in job.definitions.entries if _ASIDE + entry.name in done]
        sqlite_schema.make_triggers(connection, aside)
    if selection.rows and _has(connection, SEQUENCE):
        for name, value in _counters(job).items():
            connection.execute(f"DELETE FROM {SEQUENCE} WHERE name = ?", (name,))
            connection.execute(f"INSERT INTO {SEQUENCE} (name, seq) VALUES (?, ?)", (name, value))
    if selection.definitions:
        sqlite_schema.add_virtual(connection, job.entries)
    return left_out


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
