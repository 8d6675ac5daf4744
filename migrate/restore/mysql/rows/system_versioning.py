"""The rows of tables WITH SYSTEM VERSIONING: which of them hold still, and which never held. Pure.

A row that is written twice at one instant leaves a version that ends when it begins. Servers keep such rows, but take
none: they come about anew when a row is inserted and deleted at that instant.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from itertools import groupby

import pyarrow as pa

from exporters import arrow_functions as pc
from migrate.bundle.catalog import CatalogRow

FOREVER = [
    dt.datetime(2038, 1, 19, 3, 14, 7, 999999, dt.UTC),
    dt.datetime(2106, 2, 7, 6, 28, 15, 999999, dt.UTC),
]
"""When a row ends that holds still: the last TIMESTAMP, before and since MariaDB 11.5."""
_MICROSECONDS = 10**6


def history_of(table: CatalogRow) -> list[str]:
    """Return the two columns that record from when to when a row was valid; none where all rows are."""
    return list(table.details.get("history", ()))


def holding_still(batch: pa.RecordBatch, history: Sequence[str]) -> pa.RecordBatch:
    """Return the rows that hold still."""
    until = batch.column(history[-1])
    return batch.filter(pc.is_in(until, value_set=pa.array(FOREVER, until.type)))


def lasting(batch: pa.RecordBatch, history: Sequence[str]) -> pa.RecordBatch:
    """Return the rows that held for some time."""
    return batch.filter(pc.invert(_never_held(batch, history)))


def momentary(batch: pa.RecordBatch, history: Sequence[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield the rows that never held, by the time at which they began, as seconds since 1970."""
    batch = batch.filter(_never_held(batch, history))
    batch = batch.take(pc.sort_indices(batch.column(history[0])))
    begins = batch.column(history[0]).cast(pa.int64()).to_pylist()
    first = 0
    for begin, same in groupby(begins):
        rows = len(list(same))
        yield f"{begin // _MICROSECONDS}.{begin % _MICROSECONDS:06d}", batch.slice(first, rows)
        first += rows


def _never_held(batch: pa.RecordBatch, history: Sequence[str]) -> pa.Array:
    begin, end = (batch.column(name) for name in history)
    return pc.fill_null(pc.greater_equal(begin, end), fill_value=False)
