"""Names a change that a destination refuses: position, table, key, both rows."""

from __future__ import annotations

from collections.abc import Sequence

from exporters.mysql.changes.binlog_events import TableMap
from exporters.mysql.changes.row_events import Image, LoggedRow, value_text
from exporters.mysql.connection import Connection
from exporters.mysql.errors import DRIVER_ERRORS
from exporters.mysql.identifiers import quote_name
from migrate.changes.apply import ChangeConflictError
from migrate.restore.mysql.changes.destination_table import DestinationTable

_SHOWN_CHARACTERS = 60
_SHOWN_COLUMNS = 8
_NEXT_STEP = (
    "somebody else wrote to the destination, or the restore left something out: moveout resync reads the table again"
    " (or make its row as it was at the source); then run the same command again"
)


def conflict(
    connection: Connection,
    table: DestinationTable,
    logged: TableMap,
    row: LoggedRow,
    problem: str,
    earlier_statements: Sequence[str],
) -> ChangeConflictError:
    """Return the error for a row that the server has refused. ``problem``: where it was logged, and why.
    ``earlier_statements``: the definitions of the table that came before in the log.
    """
    words = [f"{row.verb} of {table.label} at {problem}"]
    before = row.old or row.new
    if before is not None:
        if table.key:
            words.append(f"key {_shown(table, logged, before, table.key)}")
        words.append(f"the source's row {_shown(table, logged, row.new or before)}")
        words.append(_present(connection, table, logged, before))
    step = (
        f"run at the destination what it lacks of: {'; '.join(earlier_statements)}; or "
        if earlier_statements
        else ""
    )
    return ChangeConflictError("; ".join(word for word in words if word), next_step=step + _NEXT_STEP)


def _present(connection: Connection, table: DestinationTable, logged: TableMap, row: Image) -> str:
    """Return the destination's row with the same key in words; "" where it cannot be asked for."""
    if not table.key or any(index not in row for index in table.key):
        return ""
    condition = " AND ".join(
        f"{quote_name(table.columns[index])} = {_text(table, logged, row, index)}" for index in table.key
    )
    try:
        rows = connection.rows(f"SELECT * FROM {table.label} WHERE {condition} LIMIT 1")
    except DRIVER_ERRORS:
        return ""
    if not rows:
        return "the destination has no such row"
    pairs = [f"{name} = {_cut(value)}" for name, value in zip(table.columns, rows[0], strict=False)]
    return f"the destination's row ({_listed(pairs)})"


def _shown(table: DestinationTable, logged: TableMap, row: Image, indexes: tuple[int, ...] = ()) -> str:
    """Return values for people, long ones shortened: ``(id = 5, name = 'x')``."""
    chosen = indexes or tuple(sorted(row))
    return f"({_listed([f'{table.columns[i]} = {_cut(_text(table, logged, row, i))}' for i in chosen if i in row])})"


def _text(table: DestinationTable, logged: TableMap, row: Image, index: int) -> str:
    return value_text(row[index], logged.types[index], unsigned="unsigned" in table.types[index])


def _listed(pairs: list[str]) -> str:
    more = [f"{len(pairs) - _SHOWN_COLUMNS} more columns"] if len(pairs) > _SHOWN_COLUMNS else []
    return ", ".join([*pairs[:_SHOWN_COLUMNS], *more])


def _cut(value: object) -> str:
    text = "NULL" if value is None else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
