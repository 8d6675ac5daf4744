"""All rows of a Parquet file, or an error. Where the header of a page is damaged, Arrow may end without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from exporters.errors import DamageError, in_words


def read_errors() -> tuple[type[Exception], ...]:
    """Return what reading a damaged file can raise. The metadata of its fields may be gone, and times in a list may lie
    beyond the calendar.
    """
    import pyarrow as pa  # noqa: PLC0415  a third of a second of a start, and many commands read no Parquet

    return (
        pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError,
    )  # fmt: skip


@contextmanager
def reading(key: str, expected: str, *, next_step: str = "") -> Iterator[None]:
    """Raise ``DamageError`` that names the file, and what was ``expected`` of it, for all that reading it may raise.
    ``next_step`` takes the place of the usual one.
    """
    try:
        yield
    except read_errors() as exc:
        raise DamageError(
            key, expected=expected, found=f"something else ({in_words(exc)})", next_step=next_step
        ) from exc


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
