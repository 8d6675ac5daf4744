"""Values that a server holds otherwise: -0 is 0 in MariaDB; in MySQL TIME ends with a whole second, and every shape is
one. What is computed, each server computes for itself. A table that differs in nothing else is as whole as it can be
there; which values are others is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.api import Loss
from exporters.mysql.identifiers import quote_name
from exporters.mysql.live_digests import digest_tables
from exporters.mysql.rows.arrow_to_rows import texts_of
from exporters.mysql.rows.column_types import GEOMETRIES
from exporters.mysql.rows.long_rows import payload_pieces
from exporters.row_digest import RowsDigest, digest_pieces, digest_texts
from exporters.sql.columns import EXACT_OF, KIND, TYPE, sides_of
from exporters.sql.large_values.long_values import LongRow, batch_of
from exporters.sql.parquet_read import open_part, rows_of
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.restore.common.table_parts import parts_of, reading_part
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.mysql.destination import MysqlDestination

_REALS = (b"mysqlfloat", b"mysqldouble")
_LAST_TIME = r"^(-?838:59:59\.)[0-9]*[1-9][0-9]*$"


_COMPUTED = "the destination computes other values than the source had, which the bundle has"


def held_otherwise(run: TableRestore, destination: MysqlDestination, table: CatalogRow) -> list[Loss]:
    """Return which values the destination has otherwise, nothing where that does not explain all."""
    there = run.destination_digests.get(("", table.name))
    if there is None or there.rows != table.items:
        return []
    mariadb = destination.connection.is_mariadb
    expected, losses = _as_held(run.reader, table, mariadb=mariadb)
    columns = table.columns
    computed = [column["name"] for column in columns if column.get("generated")]
    if computed and expected != there:
        if len(computed) < len(columns):
            expected, losses = _as_held(run.reader, table, mariadb=mariadb, without=computed)
            live = digest_tables(
                destination.address, workers=run.workers, names={table.name}, without=computed
            )
            there = live.digests.get(("", table.name))
        else:  # of such a row nothing is left to compare
            expected, losses = there, []
        label = quote_name(table.name)
        losses += [Loss(f"{label}.{quote_name(name)}", "generated values", _COMPUTED) for name in computed]
    return losses if expected == there else []


def _as_held(
    reader: BundleReader, table: CatalogRow, *, mariadb: bool, without: Collection[str] = ()
) -> tuple[RowsDigest, list[Loss]]:
    """Return a table's rows and digest as the destination holds them, columns of the names ``without`` left out, and
    a row for each column with other values. Raises ``DamageError``.
    """
    digest, counts = RowsDigest(), Counter[tuple[str, str]]()
    for part in parts_of([table]):
        with reading_part(part):
            for batch_or_row in rows_of(open_part(reader.open(part.key))):
                long = batch_or_row.long if isinstance(batch_or_row, LongRow) else {}
                batch = _held(_narrowed(batch_of(batch_or_row), without), counts, long, mariadb=mariadb)
                if isinstance(batch_or_row, LongRow):
                    digest += digest_pieces(payload_pieces(LongRow(batch, batch_or_row.long)))
                else:
                    digest += digest_texts(texts_of(batch))
    label = quote_name(table.name)
    return digest, [
        Loss(f"{label}.{quote_name(name)}", "values", f"{count:,} {reason}")
        for (name, reason), count in counts.items()
    ]


def _narrowed(batch: pa.RecordBatch, without: Collection[str]) -> pa.RecordBatch:
    columns = [
        field.name
        for field in batch.schema
        if (field.metadata.get(EXACT_OF, b"").decode() or field.name) not in without
    ]
    return batch.select(columns)


def _held(
    batch: pa.RecordBatch, counts: Counter[tuple[str, str]], long: Collection[str], *, mariadb: bool
) -> pa.RecordBatch:
    columns = list(batch.columns)
    sides = sides_of(batch.schema)
    for number, field in enumerate(batch.schema):
        kind, at = field.metadata.get(KIND, b""), number
        if mariadb and kind in _REALS:
            (other, count), reason = _without_sign(columns[number]), "of -0 are 0 here: MariaDB has none"
        elif not mariadb and kind.startswith(b"clock") and field.name in sides:
            at = batch.schema.get_field_index(sides[field.name])
            (other, count), reason = _in_range(columns[at]), "beyond 838:59:59 are that here: MySQL has none"
        elif not mariadb and field.metadata.get(TYPE, b"").decode() in GEOMETRIES and field.name not in long:
            (other, count), reason = _set(columns[number]), "that were never set are NULL here"
        else:
            continue
        if count:
            columns[at] = other
            counts[field.name, reason] += count
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _set(values: pa.Array) -> tuple[pa.Array, int]:
    """Return shapes with NULL for those without a byte, and how many these are."""
    empty = pc.fill_null(pc.equal(pc.binary_length(values), 0), fill_value=False)
    return pc.if_else(empty, pa.scalar(None, values.type), values), pc.sum(empty).as_py() or 0


def _without_sign(values: pa.Array) -> tuple[pa.Array, int]:
    """Return numbers with 0 for -0, which equals it, and how many these are."""
    zero = pa.scalar(0.0, values.type)
    minus = pc.and_(pc.equal(values, zero), pc.less(pc.divide(pa.scalar(1.0, values.type), values), zero))
    return pc.if_else(pc.fill_null(minus, fill_value=False), zero, values), pc.sum(minus).as_py() or 0


def _in_range(texts: pa.Array) -> tuple[pa.Array, int]:
    """Return times with nothing behind the last second that MySQL has, and how many had."""
    text = texts.cast(pa.string())
    beyond = pc.fill_null(pc.match_substring_regex(text, _LAST_TIME), fill_value=False)
    cut = [
        None
        if printed is None
        else (printed.partition(".")[0] + "." + "0" * len(printed.partition(".")[2]) if far else printed)
        for printed, far in zip(text.to_pylist(), beyond.to_pylist(), strict=True)
    ]
    return pa.array(cut, pa.string()).cast(texts.type), pc.sum(beyond).as_py() or 0
