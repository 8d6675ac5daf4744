"""Columns of many small tables, computed together: a call of Arrow costs more than the values of a small table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import pyarrow as pa

Key = TypeVar("Key", bound=Hashable)
Pieces = Sequence[pa.Array | pa.Scalar]
"""What is computed of a column: arrays of its length, and scalars that hold for all of its values."""


def compute_by_key(
    columns: Sequence[tuple[Key, pa.Array]], compute: Callable[[Key, pa.Array], Pieces]
) -> list[Pieces]:
    """Return what ``compute`` makes of each column, by one call for all of the same key and type."""
    groups: dict[tuple[Key, pa.DataType], list[int]] = {}
    for position, (key, values) in enumerate(columns):
        groups.setdefault((key, values.type), []).append(position)
    results: list[Pieces] = [()] * len(columns)
    for (key, _), positions in groups.items():
        arrays = [columns[position][1] for position in positions]
        pieces = compute(key, arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays))
        start = 0
        for position, values in zip(positions, arrays, strict=True):
            results[position] = [
                piece if isinstance(piece, pa.Scalar) else piece.slice(start, len(values)) for piece in pieces
            ]
            start += len(values)
    return results
