"""Rows in blocks that the compiled core fetches by functions of SQLite's library: no value becomes a Python object."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct

from exporters import _rows
from exporters.row_digest import RowsDigest, digest_of_core
from exporters.sql.columns import array_of
from exporters.sqlite.files.immutable_file import ImmutableFile
from exporters.sqlite.rows.value_text import ARROW, SqliteColumn

FIRST_ROWS = 500
"""Of the first block: few, so that a chunk is proved with all of them."""
_KINDS = {int: b"l\0\0", float: b"R\0\0", str: b"st\0", bytes: b"sb\0"}
"""The core's letters (``columns.h``)."""


class FetchedBlock(Struct, frozen=True):
    """Some rows by columns, and their digest."""

    columns: tuple[SqliteColumn, ...]
    digest: RowsDigest


def fetched_blocks(
    file: ImmutableFile, query: str, classes: Sequence[type], most_rows: int
) -> Iterator[FetchedBlock | None]:
    """Yield the rows of a query in blocks; only None where they have to be read by ``sqlite3``. ``classes``: what the
    values of every column are expected to be. Raises ``sqlite3.Error``.
    """
    kinds, most, is_last = b"".join(_KINDS[of] for of in classes), FIRST_ROWS, False
    with file.prepared(query) as pointers:
        if _rows.core is None or pointers is None:
            yield None
            return
        while not is_last:
            block, is_last = _rows.core.sqlite_rows(pointers, kinds, most)
            if block is None:
                raise _error_of(file, query)
            rows, digest, columns = block
            if rows:
                made = [_column(of, rows, *column) for of, column in zip(classes, columns, strict=True)]
                yield FetchedBlock(tuple(made), digest_of_core(rows, digest))
            most = most_rows


def _error_of(file: ImmutableFile, query: str) -> sqlite3.Error:
    """Return why the rows of a query cannot be fetched, as ``sqlite3`` says it."""
    try:
        for _ in file.execute(query):
            pass
    except sqlite3.Error as exc:
        return exc
    return sqlite3.DataError("a row is too large")


def _column(
    of: type, rows: int, is_raw: bool, validity: Any, offsets: Any, values: Any, nulls: int
) -> SqliteColumn:
    """Return a column that the core has filled; one with another class in it has the text of each value."""
    buffers = [validity, offsets, values]
    if not is_raw:
        return SqliteColumn.of_array(of, array_of(ARROW[of], rows, buffers, nulls))
    return SqliteColumn(None, None, texts=array_of(pa.binary(), rows, buffers, nulls))
