"""What is in a destination already, where only a part of a source is to come into it (``--only``)."""

from __future__ import annotations

from typing import Protocol

from migrate.errors import NotEmptyError, UsageError
from migrate.restore.common.table_restore import TableRestore


class Present(Protocol):
    """The tables of a destination."""

    def has(self, name: str) -> bool:
        """Tell whether there is such a table or view."""
        ...

    def has_rows(self, name: str) -> bool:
        """Tell whether that table, which is there, has rows."""
        ...


def in_the_way(run: TableRestore, present: Present, where: str) -> str:
    """Return which table of the destination prevents the restore of the selected part, "" for none. Raises
    ``UsageError`` where rows have no table to go to.
    """
    names = [table.name for table in run.tables]
    if run.selection.definitions:
        return next((f"table {name}" for name in names if present.has(name)), "")
    missing = [name for name in names if not present.has(name)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"{where} has no table {missing[0]}{more}", next_step="restore with --only schema first"
        )
    return next((f"table {name} with rows in it" for name in names if present.has_rows(name)), "")


def not_empty(run: TableRestore, conflict: str, where: str) -> NotEmptyError:
    """Return the error for a conflict that ``in_the_way`` found."""
    step = "drop that table" if run.selection.definitions else "empty that table"
    return NotEmptyError(f"{where} has the {conflict} already", next_step=f"{step}, or leave it out")


def strange_trigger(trigger: str, table: str, where: str) -> NotEmptyError:
    """Return the error for a trigger that would fire for every row and is not in the bundle. The restore must not
    drop it.
    """
    return NotEmptyError(
        f"{where}: the trigger {trigger} of table {table} is not as in the bundle, and would fire for every row",
        next_step="drop it, and make it again after the restore",
    )
