"""The statements that write changes to a table.

Those of many rows take an array for each column, or COPY's text; those of one row a parameter for each value.
All values are texts of the source's server. Each type's own input function reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporters.postgres.changes.pgoutput import UNCHANGED, Row, Value
from migrate.restore.postgres.changes.destination_table import DestinationColumn, DestinationTable

_COMPARED_EXACTLY = frozenset({16, 20, 21, 23, 26, 2950})
"""Types of which equal values have one text: bool, integers, oid, uuid."""
_COMPARED_FAST = _COMPARED_EXACTLY | {25, 1043, 1082, 1114, 1184, 1700}
"""Types whose values are compared by ``=`` before they are by their texts, since an index may find these."""


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
    """Return the statement that gives some rows new values in the columns ``sent``; None where there is nothing to
    change.
    """
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
