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
        self._columns = [
            (position, field.name, side.name)
            for position, (field, side) in enumerate(zip(layout.fields, layout.sides, strict=True))
            if pa.types.is_string(field.type) or pa.types.is_binary(field.type)
        ]
        self.by_name = {name: 0 for _, name, _ in self._columns}
        """Bytes by the name of the column."""

    def add(self, typed: Typed, long: Mapping[str, LongValue] | None = None) -> None:
        """Take a block of rows, or one with these ``long`` values, by name of field."""
        long = long or {}
        for position, name, side in self._columns:
            for values in (typed.columns[position], typed.sides.get(position)):
                if values is None:
                    continue
                if values.null_count:  # bytes may stand where a value is NULL
                    self.by_name[name] += pc.sum(pc.binary_length(values)).as_py() or 0
                else:
                    self.by_name[name] += int(values.view(pa.binary()).total_values_length)
            self.by_name[name] += sum(long[field].size_bytes for field in (name, side) if field in long)


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
