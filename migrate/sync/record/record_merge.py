"""Rows of the record by key: what was done is put between what was known. Pure; memory holds a table of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.bucket_api import NULL_VERSION

KEY = "key"
_OF_VERSION = ("version_id", "last_modified")
_DESTINATION, _LOSSES = "destination_version_id", "losses"
_CHANGEABLE = ("tags", "acl", "lock_mode", "lock_until", "legal_hold")
"""What can change of a version that is there."""
_CHANGEABLE_LOSSES = frozenset({"tag", "ACL", "retention", "legal hold"})
Identity = Callable[[pa.Table], Any]
"""Returns a column that distinguishes the rows of a table."""


def by_object(table: pa.Table) -> Any:
    """Tell rows apart where each key has one."""
    return table[KEY]


def by_version(table: pa.Table) -> Any:
    """Tell rows apart where each key has one for each version."""
    version, modified = (table[name] for name in _OF_VERSION)
    times = pc.if_else(pc.equal(version, NULL_VERSION), modified.cast(pa.int64()).cast(pa.string()), "")
    return pc.binary_join_element_wise(table[KEY], pc.fill_null(version, ""), pc.fill_null(times, ""), "\0")


def amended(before: pa.Table, after: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Take rows of ``after`` about a version of the destination that ``before`` has a row of: it was looked at again.
    Return the old rows with what can have changed, each in its place, and the rest of the new ones.
    """
    indexes = pc.index_in(_at_destination(before), value_set=_at_destination(after), skip_nulls=True)
    pairs = [
        (row, amendment_index)
        for row, amendment_index in enumerate(indexes.to_pylist())
        if amendment_index is not None
    ]
    if not pairs:
        return before, after
    locations, amendment_rows = (list(column) for column in zip(*pairs, strict=True))
    rows = zip(before.take(locations).to_pylist(), after.take(amendment_rows).to_pylist(), strict=True)
    amended_rows = pa.Table.from_pylist(
        [_amended(row, amendment) for row, amendment in rows], schema=before.schema
    )
    order = list(range(before.num_rows))
    for number, location in enumerate(locations):
        order[location] = before.num_rows + number
    rest = [row for row in range(after.num_rows) if row not in set(amendment_rows)]
    return pa.concat_tables([before, amended_rows]).take(order), after.take(pa.array(rest, pa.int64()))


def _amended(row: dict[str, Any], amendment: dict[str, Any]) -> dict[str, Any]:
    kept_losses = [loss for loss in row[_LOSSES] or () if loss[0] not in _CHANGEABLE_LOSSES]
    new_losses = [loss for loss in amendment[_LOSSES] or () if loss[0] in _CHANGEABLE_LOSSES]
    return row | {name: amendment[name] for name in _CHANGEABLE} | {_LOSSES: [*kept_losses, *new_losses]}


def _at_destination(table: pa.Table) -> Any:
    """Return a column that names the version of the destination; null where it has no id."""
    return pc.binary_join_element_wise(table[KEY], table[_DESTINATION], "\0")


def folded(
    old: Iterable[pa.Table],
    new: Iterable[pa.Table],
    dropped: Iterable[tuple[str, str]],
    identity: Identity = by_object,
) -> Iterator[pa.Table]:
    """Yield the rows of ``old`` and ``new``, each by key (``new`` wins where both have one), without those that are
    ``dropped``: their keys, in order, and what ``identity`` calls them. A row of ``new`` is never dropped. Of one key
    the new rows follow the old ones.
    """
    olds, news, drops = _Tables(whole_keys(old)), _Tables(whole_keys(new)), _Keys(dropped)
    while (bound := _least(olds.last, news.last)) is not None:
        before, after = olds.take(bound), news.take(bound)
        if before.num_rows and after.num_rows:
            before, after = amended(before, after)
        gone = drops.take(bound) + (identity(after).to_pylist() if after.num_rows else [])
        if before.num_rows and gone:
            keep = pc.invert(pc.is_in(identity(before), value_set=pa.array(gone, pa.string())))
            before = before.filter(keep)
        if before.num_rows and after.num_rows:
            yield pa.concat_tables([before, after]).sort_by(KEY)  # which keeps the order within a key
        elif before.num_rows or after.num_rows:
            yield before if before.num_rows else after


def whole_keys(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut tables so that no key has rows in two of them."""
    held_table: pa.Table | None = None
    for table in tables:
        if not table.num_rows:
            continue
        joined = table if held_table is None else pa.concat_tables([held_table, table])
        last = joined[KEY][-1].as_py()
        count = pc.sum(pc.less(joined[KEY], last)).as_py() or 0
        if count:
            yield joined.slice(0, count)
        held_table = joined.slice(count)
    if held_table is not None:
        yield held_table


def size_bytes_of(table: pa.Table) -> int:
    """Return the bytes of all objects in a table."""
    return pc.sum(table["size"]).as_py() or 0


def grouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Gather tables, in order, into ones of exactly so many rows, the last one of fewer."""
    tables_held: list[pa.Table] = []
    count = 0
    for table in tables:
        tables_held.append(table)
        count += table.num_rows
        while count >= rows:
            joined = pa.concat_tables(tables_held)
            yield joined.slice(0, rows)
            tables_held, count = [joined.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(tables_held)


def _least(key: str | None, other_key: str | None) -> str | None:
    if key is None or other_key is None:
        return other_key if key is None else key
    return min(key, other_key)


class _Tables:
    """Tables by key, taken from up to a bound. ``last`` is the last key of the one at hand, None after the end."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._tables = iter(tables)
        self._go_on()

    def _go_on(self) -> None:
        self._table = next(self._tables, None)
        self.last: str | None = None if self._table is None else self._table[KEY][-1].as_py()

    def take(self, bound: str) -> pa.Table:
        """Return the rows of the table at hand up to ``bound``, which is at most ``last``."""
        table = self._table
        if table is None:
            return pa.table({KEY: pa.array([], pa.string())})
        if self.last == bound:
            self._go_on()
            return table
        count = pc.sum(pc.less_equal(table[KEY], bound)).as_py() or 0
        self._table = table.slice(count)
        return table.slice(0, count)


class _Keys:
    """What is dropped, by key, taken from up to a bound."""

    def __init__(self, dropped: Iterable[tuple[str, str]]) -> None:
        self._dropped = iter(dropped)
        self._next = next(self._dropped, None)

    def take(self, bound: str) -> list[str]:
        rows_taken = []
        while self._next is not None and self._next[0] <= bound:
            rows_taken.append(self._next[1])
            self._next = next(self._dropped, None)
        return rows_taken
