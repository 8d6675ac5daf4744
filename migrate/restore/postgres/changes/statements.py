"""Writes changes to a table: those of many rows together, or one by one, so that the one which does not fit is named.

Those of many rows take an array for each column, or COPY's text; those of one row a parameter for each value.
All values are texts of the source's server. Each type's own input function reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from exporters.postgres.changes.pgoutput import UNCHANGED, Delete, Insert, Row, Value
from exporters.postgres.changes.slot import lsn_text
from migrate.changes.apply import ChangeConflictError
from migrate.restore.postgres.changes.destination_table import DestinationColumn, DestinationTable
from migrate.restore.postgres.changes.table_changes import NetChanges, RowChange, Waiting, with_old_key
from migrate.restore.postgres.definitions.refusals import first_line

_COMPARED_EXACTLY = frozenset({16, 20, 21, 23, 26, 2950})
"""Types of which equal values have one text: bool, integers, oid, uuid."""
_COMPARED_FAST = _COMPARED_EXACTLY | {25, 1043, 1082, 1114, 1184, 1700}
"""Types whose values are compared by ``=`` before they are by their texts, since an index may find these."""
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
_PARTITION_STEP = (
    "the destination puts the row into another partition. Where that comes from the hash of an enum, no two databases"
    " agree: export this database once more without follow, while nobody writes to it, and restore that. Else give the"
    " partitions the bounds of the source; then run the same command again"
)
_ENCODING_STEP = (
    "the destination's encoding has no such characters: restore into a database with the encoding of the source"
    " (CREATE DATABASE … TEMPLATE template0 ENCODING …), which takes them; then run the same command again"
)
_OF_ENCODINGS = (psycopg.errors.CharacterNotInRepertoire, psycopg.errors.UntranslatableCharacter)
_OF_DEFINITIONS = ("22", "23502", "23514", "42", "P0")
"""SQLSTATE classes, and not_null_violation and check_violation: definitions refuse the value, whatever the rows are."""
_OF_THE_SERVER = ("08", "25", "40", "53", "55", "57", "58")
"""SQLSTATE classes of errors that do not come from what a statement says."""


class ParameterizedStatement:
    """A statement and its parameters, numbered in the order in which they were added."""

    def __init__(self) -> None:
        self.parameters: list[bytes | None] = []
        self.text = ""

    def add(self, value: Value) -> str:
        """Add a parameter, return how the text names it."""
        self.parameters.append(None if value is UNCHANGED else value)
        return f"${len(self.parameters)}"


def copy_statement(table: DestinationTable) -> str:
    """Return the statement that takes new rows."""
    names = ", ".join(table.columns[index].quoted for index in table.written)
    return f"COPY {table.label}{f' ({names})' if names else ''} FROM STDIN"


def copy_text(rows: Sequence[Row], width: int) -> bytes:
    r"""Return rows in COPY's text format. No value of a server holds a zero byte, so one separates them here."""
    if not width:
        return b"\n" * len(rows)
    values = [value for row in rows for value in row]
    nulls = [index for index, value in enumerate(values) if value is None]
    text = b"\0".join([value or b"" for value in values])  # type: ignore[misc]
    if b"\\" in text:
        text = text.replace(b"\\", b"\\\\")
    for byte, escaped in ((b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t")):
        if byte in text:
            text = text.replace(byte, escaped)
    fields = text.split(b"\0")
    for index in nulls:
        fields[index] = b"\\N"
    lines = [b"\t".join(fields[start : start + width]) for start in range(0, len(fields), width)]
    return b"\n".join([*lines, b""])


def array(values: Sequence[Value]) -> bytes:
    """Return values as the text of an array."""
    text = b"\0".join([value or b"" for value in values])  # type: ignore[misc]
    text = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    if None not in values:
        return b'{"' + text.replace(b"\0", b'","') + b'"}'
    fields = zip(values, text.split(b"\0"), strict=True)
    quoted = [b"NULL" if value is None else b'"' + field + b'"' for value, field in fields]
    return b"{" + b",".join(quoted) + b"}"


def delete_many(table: DestinationTable, keys: Sequence[Row]) -> ParameterizedStatement:
    """Return the statement that deletes the rows of some keys."""
    statement = ParameterizedStatement()
    source = _unnested(statement, table, table.key, list(zip(*keys, strict=True)))
    condition = " AND ".join(_equals(table, place, _many(table, i)) for place, i in enumerate(table.key))
    statement.text = f"DELETE FROM ONLY {table.label} AS t USING {source} WHERE {condition}"
    return statement


def update_many(
    table: DestinationTable, sent: tuple[int, ...], rows: Sequence[Row]
) -> ParameterizedStatement | None:
    """Return the statement that gives rows new values in the columns ``sent``; None where none would change."""
    columns = [index for index in sent if index not in table.key and not table.columns[index].is_generated]
    if not columns:
        return None
    statement = ParameterizedStatement()
    used = [*table.key, *columns]
    source = _unnested(statement, table, used, [[row[index] for row in rows] for index in used])
    condition = " AND ".join(_equals(table, place, _many(table, i)) for place, i in enumerate(table.key))
    if any(table.columns[index].is_always_identity for index in columns):
        new = [_many(table, i) if i in used else f"t.{c.quoted}" for i, c in enumerate(table.columns)]
        returned = ", ".join(f"{value} AS n{index}" for index, value in enumerate(new))
        gone = f"DELETE FROM ONLY {table.label} AS t USING {source} WHERE {condition} RETURNING {returned}"
        values = ", ".join(f"n{index}" for index in table.written)
        statement.text = _replacement(table, gone, values)
    else:
        settings = ", ".join(f"{table.columns[i].quoted} = {_many(table, i)}" for i in columns)
        statement.text = f"UPDATE ONLY {table.label} AS t SET {settings} FROM {source} WHERE {condition}"
    return statement


def insert_one(table: DestinationTable, row: Row) -> ParameterizedStatement:
    """Return the statement that inserts a row."""
    statement = ParameterizedStatement()
    if not row:
        statement.text = f"INSERT INTO {table.label} DEFAULT VALUES"
        return statement
    values = ", ".join(_cast(table.columns[i], statement.add(row[i])) for i in table.written)
    names = ", ".join(table.columns[i].quoted for i in table.written)
    statement.text = f"INSERT INTO {table.label} ({names}) OVERRIDING SYSTEM VALUE VALUES ({values})"
    return statement


def delete_one(table: DestinationTable, old: Row) -> ParameterizedStatement:
    """Return the statement that deletes the row which was ``old``: one of those that are equal."""
    statement = ParameterizedStatement()
    statement.text = f"DELETE FROM ONLY {table.label} AS t WHERE {_is_row(statement, table, old)}"
    return statement


def update_one(table: DestinationTable, old: Row, row: Row) -> ParameterizedStatement:
    """Return the statement that makes the row which was ``old``, or has its key, into ``row``."""
    statement = ParameterizedStatement()
    is_moved = not table.key or table.key_of(old) != table.key_of(row)
    changed = [
        index
        for index, value in enumerate(row)
        if value is not UNCHANGED
        and not table.columns[index].is_generated
        and (is_moved or index not in table.key)
        and _may_differ(table, index, old, row)
    ]
    condition = _is_row(statement, table, old)
    new = {index: _cast(table.columns[index], statement.add(row[index])) for index in changed}
    if any(table.columns[index].is_always_identity for index in changed):
        values = ", ".join(new.get(i) or f"d.{table.columns[i].quoted}" for i in table.written)
        gone = f"DELETE FROM ONLY {table.label} AS t WHERE {condition} RETURNING t.*"
        statement.text = _replacement(table, gone, values)
    elif new:
        settings = ", ".join(f"{table.columns[index].quoted} = {value}" for index, value in new.items())
        statement.text = f"UPDATE ONLY {table.label} AS t SET {settings} WHERE {condition}"
    else:
        statement.text = f"SELECT FROM ONLY {table.label} AS t WHERE {condition}"
    return statement


def find_row(table: DestinationTable, row: Row) -> ParameterizedStatement:
    """Return the statement that reads the row with the key of ``row``, its values as texts."""
    statement = ParameterizedStatement()
    condition = _is_row(statement, table, row)
    values = ", ".join(f"CASE WHEN t.{c.quoted} IS NOT NULL THEN {_text(c)} END" for c in table.columns)
    statement.text = f"SELECT {values} FROM ONLY {table.label} AS t WHERE {condition} LIMIT 2"
    return statement


def _may_differ(table: DestinationTable, index: int, old: Row, row: Row) -> bool:
    """Tell whether an update may change a column. Where the whole old row is known, an identity that the server always
    makes by itself is left alone unless it does.
    """
    is_known = table.has_old_rows or index in table.key
    return not (is_known and table.columns[index].is_always_identity and old[index] == row[index])


def _replacement(table: DestinationTable, gone: str, values: str) -> str:
    """Return a statement that writes rows anew: no UPDATE sets a column that is GENERATED ALWAYS AS IDENTITY."""
    names = ", ".join(table.columns[index].quoted for index in table.written)
    insert = f"INSERT INTO {table.label} ({names}) OVERRIDING SYSTEM VALUE"
    return f"WITH d AS ({gone}) {insert} SELECT {values} FROM d"


def _unnested(
    statement: ParameterizedStatement,
    table: DestinationTable,
    indexes: Sequence[int],
    columns: Sequence[Sequence[Value]],
) -> str:
    """Return what yields the values of some columns, row by row, as ``v``."""
    arrays = ", ".join(
        f"{statement.add(array(values))}::{table.columns[index].array_type or 'pg_catalog._text'}"
        for index, values in zip(indexes, columns, strict=True)
    )
    names = ", ".join(f"c{index}" for index in indexes)
    return f"unnest({arrays}) AS v({names})"  # qualified it takes one array only


def _many(table: DestinationTable, index: int) -> str:
    """Return a column's value in a statement of many rows."""
    column = table.columns[index]
    return f"v.c{index}" if column.array_type else f"v.c{index}::{column.sql_type}"


def _cast(column: DestinationColumn, value: str) -> str:
    return f"{value}::{column.sql_type}"


def _text(column: DestinationColumn) -> str:
    """Return a column's text as the type's output function makes it, which a cast to text may not."""
    return f'pg_catalog.concat(t.{column.quoted}) COLLATE pg_catalog."C"'


def _equals(table: DestinationTable, place: int, value: str) -> str:
    """Return the comparison of a column of the key, by its place in that."""
    column = table.columns[table.key[place]]
    if operator := table.operators[place]:
        return f"t.{column.quoted} {operator} {value}"
    return _equal_texts(column, value)


def _equal_texts(column: DestinationColumn, value: str) -> str:
    """Return the comparison of a column with a value by their texts."""
    return f"{_text(column)} OPERATOR(pg_catalog.=) pg_catalog.concat({value})"


def _is_row(statement: ParameterizedStatement, table: DestinationTable, row: Row) -> str:
    """Return the condition of one row: by its key, or, where the table has none, by all its values."""
    if table.key:
        return " AND ".join(
            _equals(table, place, _cast(table.columns[index], statement.add(row[index])))
            for place, index in enumerate(table.key)
        )
    conditions = []
    for column, value in zip(table.columns, row, strict=True):
        if column.is_generated:
            continue
        if value is None:
            conditions.append(f"t.{column.quoted} IS NULL")
            continue
        name = statement.add(value)
        if column.type_oid in _COMPARED_FAST:
            conditions.append(f"t.{column.quoted} OPERATOR(pg_catalog.=) {_cast(column, name)}")
        if column.type_oid not in _COMPARED_EXACTLY:
            conditions.append(_equal_texts(column, _cast(column, name)))
    condition = " AND ".join(conditions) or "true"
    return f"t.ctid = (SELECT t.ctid FROM ONLY {table.label} AS t WHERE {condition} LIMIT 1)"


def _run(connection: psycopg.Connection[Any], statement: ParameterizedStatement) -> int:
    """Run a statement, return how many rows it wrote."""
    cursor = connection.execute(statement.text.encode(), statement.parameters, prepare=True)
    return cursor.rowcount


def is_about_data(error: psycopg.Error, connection: psycopg.Connection[Any]) -> bool:
    """Tell whether a server refused a statement for what it writes, so that it would refuse that again."""
    state = error.sqlstate or ""
    return bool(state) and not connection.closed and not state.startswith(_OF_THE_SERVER)


def write_together(
    connection: psycopg.Connection[Any], table: DestinationTable, net: NetChanges
) -> int | None:
    """Write what changes do together, return how many rows that was; None where other rows were there."""
    if not _delete_all(connection, table, net.first_deletes):
        return None
    updated = 0
    for sent, rows in net.updates.items():
        if statement := update_many(table, sent, rows):
            if _run(connection, statement) != len(rows):
                return None
            updated += len(rows)
    if net.inserts:
        with connection.cursor() as cursor, cursor.copy(copy_statement(table).encode()) as copy:
            copy.write(copy_text(table.written_of(net.inserts), len(table.written)))
    if not _delete_all(connection, table, net.last_deletes):
        return None
    return len(net.first_deletes) + updated + len(net.inserts) + len(net.last_deletes)


def _delete_all(connection: psycopg.Connection[Any], table: DestinationTable, keys: Sequence[Row]) -> bool:
    """Delete the rows of some keys; False unless each was there once."""
    return not keys or _run(connection, delete_many(table, keys)) == len(keys)


def write_change(connection: psycopg.Connection[Any], table: DestinationTable, waiting: Waiting) -> None:
    """Write one change in the open transaction. Raises ``ChangeConflictError``; the transaction is of no use then."""
    statement = _statement(table, waiting)
    connection.execute(b"SAVEPOINT moveout_change")
    try:
        count = _run(connection, statement)
    except psycopg.Error as exc:
        if not is_about_data(exc, connection):
            raise
        connection.execute(b"ROLLBACK TO moveout_change")
        raise _conflict(connection, table, waiting, first_line(exc), _step(exc)) from exc
    connection.execute(b"RELEASE moveout_change")
    if count != 1:
        there = "no such row" if count == 0 else f"{count} such rows"
        raise _conflict(connection, table, waiting, f"the destination has {there}")


def _step(error: psycopg.Error) -> str:
    """Return what to do about a change that the server refuses."""
    if isinstance(error, psycopg.errors.CheckViolation) and not error.diag.constraint_name:
        return _PARTITION_STEP  # the bounds of a partition are a constraint without a name
    if isinstance(error, _OF_ENCODINGS):
        return _ENCODING_STEP
    return _DEFINITION_STEP if (error.sqlstate or "").startswith(_OF_DEFINITIONS) else _NEXT_STEP


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
    return (
        tuple(value.encode() if isinstance(value, str) else value for value in current) if current else None
    )


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
