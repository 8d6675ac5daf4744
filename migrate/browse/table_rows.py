"""Rows of a bundle's tables, by their numbers: of what lies before and behind them as little as can be is read."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.sql.columns import ENCODING, EXACT_OF, OWN
from exporters.sql.parquet_read import ParquetPart, open_part
from exporters.sql.value_codec import is_utf8
from exporters.sql.whole_parquet import reading, whole_batches
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow, did_you_mean
from migrate.bundle.commit_records import FileRecord
from migrate.bundle.reader import BundleReader, check_hash
from migrate.errors import DamageError, GoneError, UsageError
from migrate.number_text import things

_ROWS_AT_ONCE = 1000
_READ_AT_ONCE_BYTES = 64 * 2**20
"""A part up to this size is hashed in memory, and so is read once."""


def table_of(reader: BundleReader, source: str, name: str) -> CatalogRow:
    """Return the catalog's row of a table: ``schema.table``, or the table alone where that is one only.

    Raises ``GoneError`` where there is none, ``UsageError`` where there are several.
    """
    tables = reader.tables(source)
    matches = [row for row in tables if row.full_name == name] or [row for row in tables if row.name == name]
    if not matches:
        raise GoneError(
            f"{source} has no table {name!r}",
            next_step=f"{did_you_mean(name, tables)}moveout ls {shlex.quote(reader.store.location)} shows them",
        )
    if len(matches) > 1:
        names = ", ".join(row.full_name for row in matches)
        raise UsageError(f"{name!r} may be {names}", next_step="write the schema, too")
    return matches[0]


def rows(reader: BundleReader, table: CatalogRow, start: int, end: int | None) -> Iterator[dict[str, Any]]:
    """Yield rows ``start`` to ``end`` (without it) in the order of the parts, as JSON can hold them: exact texts
    where a type cannot hold a value. A part of which all rows are read is hashed before the first of them; of other
    parts the rows are counted. Raises ``DamageError``.
    """
    position = 0
    files: dict[str, FileRecord] = {}
    for part in table.parts:
        count, key = int(part["rows"]), layout.source_file(table.source, str(part["name"]))
        first, last = max(0, start - position), count if end is None else min(count, end - position)
        position += count
        if first >= last:
            continue
        if (first, last) != (0, count):
            yield from _rows_of_part(reader.open(key), key, count, first, last)
            continue
        if not files:
            files = {file.key: file for file in reader.source_files(table.source, f"{table.directory}/")}
        if key not in files:
            raise DamageError(key, expected="a line in the manifest", found="none")
        yield from _rows_of_part(_checked(reader, files[key]), key, count, first, last)


def _checked(reader: BundleReader, file: FileRecord) -> Any:
    """Return an open part whose bytes are those of the manifest. Raises ``DamageError``."""
    if file.size_bytes <= _READ_AT_ONCE_BYTES:
        return pa.BufferReader(reader.read_checked(file))
    check_hash(reader.store, file.key, file.sha256)
    return reader.open(file.key)


def _rows_of_part(file: Any, key: str, rows: int, start: int, end: int) -> Iterator[dict[str, Any]]:
    with reading(key, "a table's part"), open_part(file) as part:
        if not part.metadata.num_columns:  # then the file has no rows either, and the catalog counts them
            yield from ({} for _ in range(start, end))
            return
        if part.metadata.num_rows != rows:
            raise DamageError(key, expected=things(rows, "row"), found=f"{part.metadata.num_rows}")
        position = 0
        for group in range(part.num_row_groups):
            count = part.metadata.row_group(group).num_rows
            first, last = max(0, start - position), min(count, end - position)
            position += count
            if first < last:
                yield from _rows_of_group(part, group, first, last)


def _rows_of_group(part: ParquetPart, group: int, start: int, end: int) -> Iterator[dict[str, Any]]:
    """Yield rows of a row group; what lies behind them is not read."""
    position = 0
    for batch in whole_batches(part, _ROWS_AT_ONCE, [group], use_threads=False):
        if position >= end:
            return
        yield from _plain_rows(batch[max(0, start - position) : end - position])
        position += batch.num_rows


def _plain_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    sides: Mapping[str, pa.Field] = {
        field.metadata[EXACT_OF].decode(): field
        for field in batch.schema
        if EXACT_OF in (field.metadata or {})
    }
    names = {field.name for field in sides.values()}
    for row in _with_far_years(_with_short_singles(batch)).to_pylist(maps_as_pydicts="strict"):
        yield {
            name: _plain(value)
            if name not in sides or row[sides[name].name] is None
            else _exact(sides[name], row[sides[name].name])
            for name, value in row.items()
            if name not in names
        }


def _with_short_singles(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return single-precision numbers as the doubles that have their digits: 0.1, and not 0.10000000149."""
    for number, field in enumerate(batch.schema):
        text_type = _singles_as(pa.string(), field.type)
        if text_type != field.type:
            doubles = batch.column(number).cast(text_type).cast(_singles_as(pa.float64(), field.type))
            batch = batch.set_column(number, field.with_type(doubles.type), doubles)
    return batch


def _with_far_years(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return dates and times as texts where one of a column is in a year that Python has not: 0, or beyond 9999."""
    for number, field in enumerate(batch.schema):
        column = batch.column(number)
        if pa.types.is_date32(field.type) or pa.types.is_timestamp(field.type):
            years = pc.year(column)
            if pc.any(pc.or_(pc.less(years, 1), pc.greater(years, 9999)), min_count=0).as_py():
                texts = pc.replace_substring(column.cast(pa.string()), " ", "T")
                batch = batch.set_column(number, field.with_type(pa.string()), texts)
    return batch


def _singles_as(other: pa.DataType, data_type: pa.DataType) -> pa.DataType:
    """Return a type with another one for single-precision numbers, also within it."""
    if pa.types.is_float32(data_type):
        return other
    if pa.types.is_list(data_type):
        return pa.list_(_field_as(other, data_type.value_field))
    if pa.types.is_struct(data_type):
        return pa.struct([_field_as(other, field) for field in data_type])
    return data_type


def _field_as(other: pa.DataType, field: pa.Field) -> pa.Field:
    return field.with_type(_singles_as(other, field.type))


def _exact(side: pa.Field, value: Any) -> Any:
    """Return a value of a side column: bytes of the database's own encoding say which that is."""
    if ENCODING not in side.metadata:
        return _plain(value)
    if is_utf8(value):
        return value.decode()
    encoding = side.metadata[ENCODING].decode()
    own_encoding = value if encoding == "UTF8" else value.removeprefix(OWN)
    return {"encoding": encoding, "base64": base64.b64encode(own_encoding).decode()}


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: numbers that JSON has, else text; bytes in base64."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal | UUID | timedelta):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
