"""Which part of a table holds a row."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from migrate.errors import DamageError, UsageError
from migrate.storage.api import Store
from migrate.storage.file_reader import RandomAccess


def part_with(store: Store, key: str, column: str, value: str) -> bool:
    """Tell whether a part has a row whose ``column`` reads ``value``, or whose exact text beside it does.

    Raises ``UsageError`` where there is no such column.
    """
    try:
        with pq.ParquetFile(RandomAccess(store, key)) as parquet:
            names = [name for name in (column, f"{column}$exact") if name in parquet.schema_arrow.names]
            if not names:
                raise UsageError(
                    f"{key} has no column {column!r}",
                    next_step=f"it has {', '.join(parquet.schema_arrow.names)}",
                )
            for batch in parquet.iter_batches(columns=names):
                if any(pc.any(pc.equal(_text(batch[name]), value)).as_py() for name in names):
                    return True
    except (pa.ArrowException, OSError) as exc:
        raise DamageError(key, expected="a table's part", found=f"something else ({exc})") from exc
    return False


def _text(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        return pa.array([None if one is None else str(one) for one in column.to_pylist()], pa.string())
