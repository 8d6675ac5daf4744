"""Changes of one table that wait to be written, reduced to one change for each row.

Many changes become few statements: rows that go, rows that change, rows that come, rows that go again. A change that
cannot be brought down is refused; then what waits has to be written first.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from exporters.postgres.changes.pgoutput import UNCHANGED, Delete, Insert, Row, Update
from migrate.restore.postgres.changes.destination_table import DestinationTable

RowChange = Insert | Update | Delete


class Waiting(NamedTuple):
    """A change, and where it is in the source's log."""

    position: int
    change: RowChange


class _NetChange(Struct):
    """What happens to the row of one key: the old one is deleted first, then it is updated or inserted, then deleted.
    ``row`` is None where it is neither updated nor inserted.
    """

    is_deleted_first: bool = False
    row: Row | None = None
    is_insert: bool = False
    is_deleted_last: bool = False


class NetChanges(Struct, frozen=True):
    """What changes do together, in the order in which it is written. ``updates`` are by the columns sent."""

    first_deletes: list[Row]
    updates: dict[tuple[int, ...], list[Row]]
    inserts: list[Row]
    last_deletes: list[Row]


class TableChanges:
    """Collects changes of one table."""

    def __init__(self, table: DestinationTable) -> None:
        self.table = table
        self.waiting: list[Waiting] = []
        self._net_changes: dict[Row, _NetChange] = {}
        self._inserts: list[Row] = []

    def add(self, waiting: Waiting) -> bool:
        """Take a change; False where it can only be written by itself, or after what waits."""
        if not self._take(waiting.change):
            return False
        self.waiting.append(waiting)
        return True

    def net(self) -> NetChanges:
        """Return what the changes do together."""
        total = NetChanges([], {}, self._inserts, [])
        for key, net in self._net_changes.items():
            if net.is_deleted_first:
                total.first_deletes.append(key)
            if net.row is not None:
                if net.is_insert:
                    total.inserts.append(net.row)
                else:
                    total.updates.setdefault(_sent(net.row), []).append(net.row)
            if net.is_deleted_last:
                total.last_deletes.append(key)
        return total

    def _take(self, change: RowChange) -> bool:
        if not self.table.key:
            if isinstance(change, Insert):
                self._inserts.append(change.new)
                return True
            return False
        if isinstance(change, Insert):
            return self._insert(self.table.key_of(change.new), change.new)
        if isinstance(change, Delete):
            return self._delete(self.table.key_of(change.old))
        return self._update(change)

    def _insert(self, key: Row, row: Row) -> bool:
        net = self._net_changes.get(key)
        if net is None:
            self._net_changes[key] = _NetChange(row=row, is_insert=True)
            return True
        if net.row is not None or net.is_deleted_last:
            return False
        net.row, net.is_insert = row, True
        return True

    def _delete(self, key: Row) -> bool:
        net = self._net_changes.get(key)
        if net is None:
            self._net_changes[key] = _NetChange(is_deleted_first=True)
        elif net.row is None or net.is_deleted_last:
            return False
        elif net.is_insert:
            net.is_deleted_last = True
        else:
            net.row, net.is_deleted_first = None, True
        return True

    def _update(self, change: Update) -> bool:
        old, row = change.old, change.new
        if old is not None:
            before = self.table.key_of(old)
            row = with_old_key(self.table, old, row)
            if before != self.table.key_of(row):
                return self._move(before, row)
        key = self.table.key_of(row)
        if UNCHANGED in key:
            return False
        net = self._net_changes.get(key)
        if net is None:
            self._net_changes[key] = _NetChange(row=row)
            return True
        if net.row is None or net.is_deleted_last:
            return False
        net.row = _merged(net.row, row)
        return True

    def _move(self, before: Row, row: Row) -> bool:
        """A row gets another key."""
        key = self.table.key_of(row)
        there, net = self._net_changes.get(key), self._net_changes.get(before)
        if UNCHANGED in row or (there and (there.row is not None or there.is_deleted_last)):
            return False
        if net and (net.row is None or net.is_deleted_last):
            return False
        return self._delete(before) and self._insert(key, row)


def with_old_key(table: DestinationTable, old: Row, row: Row) -> Row:
    """Return a new row with those values of the key that were not sent, since they lie unchanged in TOAST."""
    if UNCHANGED not in row:
        return row
    key = {*table.key}
    return tuple(
        old[index] if value is UNCHANGED and (index in key or table.has_old_rows) else value
        for index, value in enumerate(row)
    )


def _merged(before: Row, after: Row) -> Row:
    """Return a row after two updates."""
    if UNCHANGED not in after:
        return after
    return tuple(old if new is UNCHANGED else new for old, new in zip(before, after, strict=True))


def _sent(row: Row) -> tuple[int, ...]:
    """Return the columns whose values were sent."""
    return tuple([index for index, value in enumerate(row) if value is not UNCHANGED])
