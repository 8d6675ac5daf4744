"""All rows of a Parquet file, or an error. Where the header of a page is damaged, Arrow may end without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def whole_batches(
    file: Any, rows: int, row_groups: Sequence[int] | None = None, **options: Any
) -> Iterator[Any]:
    """Yield the rows of an open file, or of some of its row groups, in batches of so many ``rows``. Raises
    ``ValueError`` at the end where they are not as many as its footer says, and what Arrow raises.
    """
    groups = range(file.num_row_groups) if row_groups is None else row_groups
    expected = sum(file.metadata.row_group(number).num_rows for number in groups)
    count = 0
    for batch in file.iter_batches(rows, row_groups=row_groups, **options):
        count += batch.num_rows
        yield batch
    if count != expected:
        raise ValueError(f"only {count} of {expected} rows can be read")
