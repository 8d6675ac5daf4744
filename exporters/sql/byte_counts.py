"""Bytes of text and binary values, column by column: what the server adds up itself under the same snapshot.

Beside the count of rows it is the guard against a reader that drops, cuts or doubles something, since it comes from the
server and not through our stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from exporters.api import DoneUnit
from exporters.sql.columns import Layout, Typed
from exporters.sql.large_values.long_values import LongValue

FACT = "octets"


class Octets:
    """Adds up the bytes of every column that is kept as text or bytes."""

    def __init__(self, layout: Layout) -> None:
        self._byte_columns = [i for i, field in enumerate(layout.fields) if _is_bytes(field.type)]
        self._names = [layout.fields[i].name for i in self._byte_columns]
        self._sides = [side.name for side in layout.sides]
        self._sums = [0] * len(self._byte_columns)

    def add(self, typed: Typed, long: Mapping[str, LongValue] | None = None) -> None:
        """Take a block of rows, or one with these ``long`` values, by name of field."""
        for number, column in enumerate(self._byte_columns):
            self._sums[number] += _sum(typed.columns[column]) + _sum(typed.sides.get(column))
        for number, column in enumerate(self._byte_columns if long else ()):
            for name in (self._names[number], self._sides[column]):
                self._sums[number] += long[name].size_bytes if long and name in long else 0

    def by_name(self) -> dict[str, int]:
        """Return bytes by the name of the column."""
        return dict(zip(self._names, self._sums, strict=True))


def _is_bytes(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_string(data_type) or pa.types.is_binary(data_type))


def _sum(values: pa.Array | None) -> int:
    if values is None:
        return 0
    if values.null_count:  # bytes may stand where a value is NULL
        return pc.sum(pc.binary_length(values)).as_py() or 0
    return int(values.view(pa.binary()).total_values_length)


def exported(done: Iterable[DoneUnit], names: Iterable[str]) -> dict[str, int] | None:
    """Return the bytes of these columns in the finished units; None where a unit was done by a version that did not
    measure.
    """
    sums = dict.fromkeys(names, 0)
    for unit in done:
        measured: Mapping[str, Any] | None = unit.outcome.facts.get(FACT)
        if measured is None or not sums.keys() <= measured.keys():
            return None
        for name in sums:
            sums[name] += int(measured[name])
    return sums
