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
from exporters.sql.large_values.long_values import LongRow, batch_of
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


def require_history(schema: pa.Schema, history: Sequence[str]) -> None:
    """Raise ``ValueError`` where a part lacks a column that records when a row was valid."""
    for name in history:
        if name not in schema.names or not pa.types.is_timestamp(schema.field(name).type):
            raise ValueError(f"there is no column {name!r} of moments")


def holding_still(rows: pa.RecordBatch | LongRow, history: Sequence[str]) -> pa.RecordBatch | LongRow:
    """Return the rows that hold still: all of a table that has no ``history``."""
    if not history:
        return rows
    until = batch_of(rows).column(history[-1])
    return _filtered(rows, pc.is_in(until, value_set=pa.array(FOREVER, until.type)))


def lasting(rows: pa.RecordBatch | LongRow, history: Sequence[str]) -> pa.RecordBatch | LongRow:
    """Return the rows that held for some time: all of a table that has no ``history``."""
    return _filtered(rows, pc.invert(_never_held(batch_of(rows), history))) if history else rows


def momentary(
    rows: pa.RecordBatch | LongRow, history: Sequence[str]
) -> Iterator[tuple[str, pa.RecordBatch | LongRow]]:
    """Yield the rows that never held, by the time at which they began, as seconds since 1970."""
    batch = batch_of(rows)
    batch = batch.filter(_never_held(batch, history))
    batch = batch.take(pc.sort_indices(batch.column(history[0])))
    begins = batch.column(history[0]).cast(pa.int64()).to_pylist()
    first = 0
    for begin, same in groupby(begins):
        some = batch.slice(first, len(list(same)))
        first += some.num_rows
        time = f"{begin // _MICROSECONDS}.{begin % _MICROSECONDS:06d}"
        yield time, LongRow(some, rows.long) if isinstance(rows, LongRow) else some


def _filtered(rows: pa.RecordBatch | LongRow, mask: pa.Array) -> pa.RecordBatch | LongRow:
    batch = batch_of(rows).filter(mask)
    return LongRow(batch, rows.long) if isinstance(rows, LongRow) else batch


def _never_held(batch: pa.RecordBatch, history: Sequence[str]) -> pa.Array:
    begin, end = (batch.column(name) for name in history)
    return pc.fill_null(pc.greater_equal(begin, end), fill_value=False)
