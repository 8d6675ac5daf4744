"""Writes changes one by one, so that the one which does not fit is named."""

from __future__ import annotations

from typing import Any

import psycopg

from exporters.postgres.changes.pgoutput import UNCHANGED, Delete, Insert, Row
from exporters.postgres.changes.slot import lsn_text
from migrate.changes.apply import ChangeConflictError
from migrate.restore.postgres.changes.destination_table import DestinationTable
from migrate.restore.postgres.changes.statements import (
    ParameterizedStatement,
    delete_one,
    find_row,
    insert_one,
    update_one,
)
from migrate.restore.postgres.changes.table_changes import RowChange, Waiting, with_old_key
from migrate.restore.postgres.definitions.refusals import first_line

_SHOWN_BYTES = 60
_SHOWN_COLUMNS = 8
_NEXT_STEP = (
    "somebody else wrote to the destination, or the restore left something out: moveout resync reads the table again"
    " (or make its row as it was at the source); then run the same command again"
)
_DEFINITION_STEP = (
    "the destination defines a type, a constraint or a function otherwise: moveout status names what it lacks. Give the"
    " source's statements at the destination, too, and take out until the switch a constraint that looks at the time or"
    " at other tables; then run the same command again"
)
_OF_DEFINITIONS = ("22", "23502", "23514", "42", "P0")
"""SQLSTATE classes, and not_null_violation and check_violation: definitions refuse the value, whatever the rows are."""
_OF_THE_SERVER = ("08", "25", "40", "53", "55", "57", "58")
"""SQLSTATE classes of errors that do not come from what a statement says."""


def run(connection: psycopg.Connection[Any], statement: ParameterizedStatement) -> int:
    """Run a statement, return how many rows it wrote."""
    cursor = connection.execute(statement.text.encode(), statement.parameters, prepare=True)
    return cursor.rowcount


def is_about_data(error: psycopg.Error, connection: psycopg.Connection[Any]) -> bool:
    """Tell whether a server refused a statement for what it writes, so that it would refuse that again."""
    state = error.sqlstate or ""
    return bool(state) and not connection.closed and not state.startswith(_OF_THE_SERVER)


def write_change(connection: psycopg.Connection[Any], table: DestinationTable, waiting: Waiting) -> None:
    """Write one change in the open transaction. Raises ``ChangeConflictError``; the transaction is of no use then."""
    statement = _statement(table, waiting)
    connection.execute(b"SAVEPOINT moveout_change")
    try:
        count = run(connection, statement)
    except psycopg.Error as exc:
        if not is_about_data(exc, connection):
            raise
        connection.execute(b"ROLLBACK TO moveout_change")
        step = _DEFINITION_STEP if (exc.sqlstate or "").startswith(_OF_DEFINITIONS) else _NEXT_STEP
        raise _conflict(connection, table, waiting, first_line(exc), step) from exc
    connection.execute(b"RELEASE moveout_change")
    if count != 1:
        there = "no such row" if count == 0 else f"{count} such rows"
        raise _conflict(connection, table, waiting, f"the destination has {there}")


def _statement(table: DestinationTable, waiting: Waiting) -> ParameterizedStatement:
    change = waiting.change
    if isinstance(change, Insert):
        return insert_one(table, change.new)
    if not table.key and not table.has_old_rows:
        raise ChangeConflictError(
            f"{table.label}: {_verb(change)} at {lsn_text(waiting.position)} of a table without replica identity",
            next_step=f"at the source: ALTER TABLE {table.label} REPLICA IDENTITY FULL",
        )
    if isinstance(change, Delete):
        return delete_one(table, change.old)
    old = change.new if change.old is None else change.old
    return update_one(table, old, with_old_key(table, old, change.new))


def _conflict(
    connection: psycopg.Connection[Any],
    table: DestinationTable,
    waiting: Waiting,
    reason: str,
    next_step: str = _NEXT_STEP,
) -> ChangeConflictError:
    """Return the error that names a change: position, table, key, and both rows."""
    change = waiting.change
    old = change.new if isinstance(change, Insert) else change.old
    row = change.old if isinstance(change, Delete) else change.new
    words = [f"{_verb(change)} of {table.label} at {lsn_text(waiting.position)}: {reason}"]
    if table.key:
        words.append(f"key {_shown(table, table.key_of(old or row), table.key)}")
    if not isinstance(change, Delete):
        words.append(f"the source's row {_shown(table, row)}")
    if isinstance(change, Delete) and not table.key:
        words.append(f"the source's row was {_shown(table, row)}")
    present = _present(connection, table, old or row)
    words.append(
        f"the destination's row {_shown(table, present)}" if present else "the destination has no such row"
    )
    return ChangeConflictError("; ".join(dict.fromkeys(words)), next_step=next_step)


def _present(connection: psycopg.Connection[Any], table: DestinationTable, row: Row) -> Row | None:
    """Return the destination's row with the same key, None where there is none, or where it cannot be read."""
    if not table.key:
        return None
    statement = find_row(table, row)
    try:
        current = connection.execute(statement.text.encode(), statement.parameters).fetchone()
    except psycopg.Error:
        return None
    return tuple(None if value is None else str(value).encode() for value in current) if current else None


def _verb(change: RowChange) -> str:
    return type(change).__name__.upper()


def _shown(table: DestinationTable, row: Row, indexes: tuple[int, ...] = ()) -> str:
    """Return values for people, long ones shortened: ``(id = 5, name = 'x')``."""
    chosen = indexes or range(len(row))
    pairs = zip(chosen, row, strict=True)
    words = [f"{table.columns[index].name} = {_shown_value(value)}" for index, value in pairs]
    more = [f"{len(words) - _SHOWN_COLUMNS} more columns"] if len(words) > _SHOWN_COLUMNS else []
    return f"({', '.join([*words[:_SHOWN_COLUMNS], *more])})"


def _shown_value(value: object) -> str:
    if value is None:
        return "NULL"
    if value is UNCHANGED:
        return "(as it was)"
    assert isinstance(value, bytes)
    text = value[:_SHOWN_BYTES].decode(errors="replace")
    return f"'{text}'" + ("…" if len(value) > _SHOWN_BYTES else "")
