"""Values in the source's own encoding (``OWN``) that a destination of another encoding holds otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from xxhash import xxh3_128

from exporters import arrow_functions as pc
from exporters.api import Loss
from exporters.postgres.identifiers import quote_name, quote_qualified
from exporters.postgres.rows.block_parser import digest_block
from exporters.row_digest import RowsDigest, to_hex
from exporters.sql.columns import OWN, sides_of
from exporters.sql.large_values.long_values import LongRow
from exporters.sql.parquet_read import READ_ERRORS, ParquetPart, open_part, rows_of
from exporters.sql.value_codec import is_utf8
from migrate.bundle.catalog import CatalogRow
from migrate.restore.common.table_parts import damage, parts_of
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.postgres.context import PostgresRestore
from migrate.restore.postgres.definitions.dump_script import Name
from migrate.restore.postgres.rows.source_charset import OwnEncoding, encoding_of

_PROPERTY = "bytes of its values"


def held_otherwise(job: PostgresRestore, run: TableRestore) -> dict[Name, list[Loss]]:
    """Return the tables that ``run.compare`` has found to differ in nothing but such values; for each the losses."""
    losses_of_table: dict[Name, list[Loss]] = {}
    for table in run.tables:
        name = table.schema, table.name
        digest = run.found.get(name)
        if digest is None or not table.details.get("exact") or to_hex(digest.digest) == table.digest:
            continue
        expected, losses = _as_sent(job, run, table)
        if losses and expected == digest:
            losses_of_table[name] = losses
    return losses_of_table


def _as_sent(job: PostgresRestore, run: TableRestore, table: CatalogRow) -> tuple[RowsDigest, list[Loss]]:
    """Return what the destination has of a table, if it took what it was sent, and the losses in that."""
    digest = RowsDigest()
    counts: Counter[tuple[str, str]] = Counter()
    for part in parts_of([table]):
        try:
            file = open_part(run.reader.open(part.key))
            encoding = encoding_of(file.schema_arrow)
            own = OwnEncoding(job.destination.connection, encoding)
            if not own.kept:
                counts.update(
                    {(column, encoding): many for column, many in _values(file, encoding).items() if many}
                )
            digest += _digest(own, file)
        except READ_ERRORS as exc:
            raise damage(part, exc) from exc
    label = quote_qualified(table.schema, table.name)
    return digest, [
        Loss(f"{label}.{quote_name(column)}", _PROPERTY, _reason(many, encoding))
        for (column, encoding), many in sorted(counts.items())
    ]


def _reason(values: int, encoding: str) -> str:
    return (
        f"{values} have bytes of {encoding} for which there is no character, or a second code of one: the "
        f"destination has"
        " the characters, a replacement where there is none; the bundle has the bytes"
    )


def _values(file: ParquetPart, encoding: str) -> Mapping[str, int]:
    """Return how many values of each column stand in the source's own encoding."""
    counts: Counter[str] = Counter()
    for batch_or_row in rows_of(file):
        batch = batch_or_row.batch if isinstance(batch_or_row, LongRow) else batch_or_row
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


def _digest(own: OwnEncoding, file: ParquetPart) -> RowsDigest:
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
