"""Rows of the record by key: what was done is put between what was known. Pure; memory holds a table of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

KEY = "key"


def folded(old: Iterable[pa.Table], new: Iterable[pa.Table], dropped: Iterable[str]) -> Iterator[pa.Table]:
    """Yield the rows of ``old`` and ``new``, each by key (``new`` wins where both have one), without those whose keys
    are ``dropped``, which come by key too. A row of ``new`` is never dropped.
    """
    olds, news, drops = _Tables(old), _Tables(new), _Keys(dropped)
    while (bound := _least(olds.last, news.last)) is not None:
        before, after = olds.take(bound), news.take(bound)
        gone = drops.take(bound) + (after[KEY].to_pylist() if after.num_rows else [])
        if before.num_rows and gone:
            keep = pc.invert(pc.is_in(before[KEY], value_set=pa.array(gone, pa.string())))
            before = before.filter(keep)
        if before.num_rows and after.num_rows:
            yield pa.concat_tables([before, after]).sort_by(KEY)
        elif before.num_rows or after.num_rows:
            yield before if before.num_rows else after


def grouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Gather tables, in order, into ones of exactly so many rows, the last one of fewer."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows)
            held, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(held)


def _least(one: str | None, other: str | None) -> str | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


class _Tables:
    """Tables by key, taken from up to a bound. ``last`` is the last key of the one at hand, None after the end."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._tables = (table for table in tables if table.num_rows)
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
    """Keys in order, taken from up to a bound."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = iter(keys)
        self._next = next(self._keys, None)

    def take(self, bound: str) -> list[str]:
        found = []
        while self._next is not None and self._next <= bound:
            found.append(self._next)
            self._next = next(self._keys, None)
        return found
