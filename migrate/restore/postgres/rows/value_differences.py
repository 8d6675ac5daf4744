"""Tables that differ from the bundle's only in values that the destination cannot hold as they were.

It may compute a generated column otherwise, have no bytes of the source's encoding for a text, or not take a value, or
take it as another.
Those values stay in the bundle only, and are recorded as lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from xxhash import xxh3_128

from exporters import arrow_functions as pc
from exporters.api import Loss
from exporters.postgres.identifiers import quote_name, quote_qualified
from exporters.postgres.live_digests import TablesToRead, live_tables
from exporters.postgres.part_reader import digest_part
from exporters.postgres.rows.csv_rows import digest_block
from exporters.row_digest import RowsDigest, digest_texts, to_hex
from exporters.sql.columns import OWN, sides_of
from exporters.sql.large_values.long_values import LongRow, batch_of
from exporters.sql.parquet_read import ParquetPart, open_part, rows_of
from exporters.sql.value_codec import is_utf8
from migrate.bundle.catalog import CatalogRow
from migrate.restore.common.table_parts import parts_of, reading_part
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.postgres.context import PostgresRestore
from migrate.restore.postgres.definitions.dump_script import Name
from migrate.restore.postgres.rows.source_charset import OwnEncoding, encoding_of
from migrate.restore.postgres.rows.value_filter import ValueFilter, lines_of_part

_COMPUTED = (
    "the destination computes other values than the source had stored, or shows none; "
    "the bundle has the source's"
)

_INFINITE = (
    "{count} are infinite here, as PostgreSQL 17 and newer read the largest or smallest interval of an older server;"
    " the bundle has the source's"
)


def explained(job: PostgresRestore, run: TableRestore) -> dict[Name, list[Loss]]:
    """Return the tables that ``run.compare`` has found to differ in nothing but such values; for each the losses.
    Raises ``DamageError``, ``SourceError``.
    """
    differing = [
        table
        for table in run.tables
        if (digest := run.destination_digests.get(table.key)) is not None
        and to_hex(digest.digest) != table.digest
    ]
    losses_of_table = _computed_otherwise(job, run, differing)
    for table in differing:
        for explain in (_as_taken, _as_sent):  # each reads the table in the bundle
            expected, losses = explain(job, run, table)
            if losses and expected == run.destination_digests[table.key]:
                losses_of_table[table.key] = losses
                break
    return losses_of_table


def _computed_otherwise(
    job: PostgresRestore, run: TableRestore, differing: Sequence[CatalogRow]
) -> dict[Name, list[Loss]]:
    """Return the losses of tables of which all but their generated columns is equal: the function behind them was
    changed since the rows were written, or reads what is another here. Nobody can write into such a column.
    """
    columns = {
        table.key: [column["name"] for column in table.columns if column.get("generated")]
        for table in differing
        if run.destination_digests[table.key].rows == table.items
    }
    doubtful = [table for table in differing if columns.get(table.key)]
    if not doubtful:
        return {}
    to_read = TablesToRead({table.key for table in doubtful}, generated=False, orders=job.orders)
    live = live_tables(job.destination.address, to_read, workers=run.workers)
    return {
        table.key: [
            Loss(f"{quote_qualified(*table.key)}.{quote_name(column)}", "generated values", _COMPUTED)
            for column in columns[table.key]
        ]
        for table in doubtful
        if live[table.key] == _without_generated(run, table)
    }


def _without_generated(run: TableRestore, table: CatalogRow) -> RowsDigest:
    """Return what the bundle has of a table, generated columns left out."""
    digest = RowsDigest()
    for part in parts_of([table]):
        with reading_part(part):
            digest += digest_part(run.reader.open(part.key), part.rows, generated=False)
    return digest


def _as_sent(job: PostgresRestore, run: TableRestore, table: CatalogRow) -> tuple[RowsDigest, list[Loss]]:
    """Return what a destination of another encoding has of a table if it took all, and the losses in that."""
    digest = RowsDigest()
    counts: Counter[tuple[str, str]] = Counter()
    for part in parts_of([table]) if table.details.get("exact") else ():
        with reading_part(part):
            file = open_part(run.reader.open(part.key))
            encoding = encoding_of(file.schema_arrow)
            own = OwnEncoding(job.destination.connection, encoding)
            if not own.kept:
                counts.update(
                    {(column, encoding): many for column, many in _own_values(file, encoding).items() if many}
                )
            digest += _digest_sent(own, file)
    return digest, [
        Loss(
            f"{quote_qualified(*table.key)}.{quote_name(column)}",
            "bytes of its values",
            f"{many} have bytes of {encoding} for which there is no character, or a second code of one: the destination"
            " has the characters, a replacement where there is none; the bundle has the bytes",
        )
        for (column, encoding), many in sorted(counts.items())
    ]


def _own_values(file: ParquetPart, encoding: str) -> Mapping[str, int]:
    """Return how many values of each column stand in the source's own encoding (``OWN``)."""
    counts: Counter[str] = Counter()
    for batch_or_row in rows_of(file):
        batch = batch_of(batch_or_row)
        for column, side in sides_of(batch.schema).items():
            if isinstance(batch_or_row, LongRow) and side in batch_or_row.long:
                counts[column] += next(iter(batch_or_row.long[side].pieces())).startswith(OWN)
            elif encoding == "UTF8":
                counts[column] += sum(
                    not is_utf8(value) for value in batch.column(side).drop_null().to_pylist()
                )
            else:
                counts[column] += pc.sum(pc.starts_with(batch.column(side), OWN)).as_py() or 0
    return counts


def _digest_sent(own: OwnEncoding, file: ParquetPart) -> RowsDigest:
    digest = RowsDigest()
    long = None
    for block, rows in own.blocks_of(file, generated=True):
        if not rows:
            long = long or xxh3_128()
            long.update(block)
        elif long is not None:
            long.update(block[:-1])
            digest += RowsDigest(1, long.intdigest())
            long = None
        else:
            digest += digest_block(block)
    return digest


def _as_taken(job: PostgresRestore, run: TableRestore, table: CatalogRow) -> tuple[RowsDigest, list[Loss]]:
    """Return what the destination has of a table if it lacks nothing but values that it does not take, and the losses
    in that. Large objects are no table, and have none.
    """
    label, digest = quote_qualified(*table.key), RowsDigest()
    if not table.number:
        return digest, []
    with job.destination.connection.transaction(force_rollback=True):
        values = ValueFilter(job.destination.connection, label, job.orders[table.key])
        fewer = run.destination_digests[table.key].rows < table.items
        for part in parts_of([table]) if values.doubtful or fewer else ():
            with reading_part(part):
                file = open_part(run.reader.open(part.key))
                for lines in lines_of_part(file, generated=True):
                    digest += digest_texts(values.filtered(lines))
    losses = [
        Loss(f"{label}.{quote_name(name)}", "values", f"{count} came as NULL{_why(values, name)}")
        for name, count in sorted(values.values.items())
    ]
    losses += [
        Loss(label, "rows", f"{count} did not come, for column {quote_name(name)}{_why(values, name)}")
        for name, count in sorted(values.rows.items())
    ]
    losses += [
        Loss(f"{label}.{quote_name(name)}", "values", _INFINITE.format(count=count))
        for name, count in sorted(values.infinite.items())
    ]
    return digest, losses


def _why(values: ValueFilter, name: str) -> str:
    return f", which the bundle has: {values.reasons[name]}"
