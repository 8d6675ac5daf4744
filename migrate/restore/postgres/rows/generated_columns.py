"""Generated columns whose values the destination computes otherwise: the function behind them was changed since the
rows were written, or reads what is another here. Nobody can write into such a column, so those values stay in the
bundle only.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporters.api import Loss
from exporters.postgres.identifiers import quote_name, quote_qualified
from exporters.postgres.live_digests import TablesToRead, live_tables
from exporters.postgres.rows.parquet_read import digest_part
from exporters.row_digest import RowsDigest, to_hex
from exporters.sql.parquet_read import READ_ERRORS
from migrate.bundle.catalog import CatalogRow
from migrate.restore.common.table_parts import damage, parts_of
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.postgres.context import PostgresRestore
from migrate.restore.postgres.definitions.dump_script import Name

_REASON = "the destination computes other values than the source had stored, or shows none; the bundle has the source's"


def computed_otherwise(job: PostgresRestore, run: TableRestore) -> dict[Name, list[Loss]]:
    """Return the tables that ``run.compare`` has found to differ, although all but their generated columns is equal;
    for each the losses.
    """
    digests: Mapping[Name, RowsDigest] = run.found
    doubtful = [table for table in run.tables if _columns(table) and _differs(table, digests)]
    if not doubtful:
        return {}
    names = {(table.schema, table.name) for table in doubtful}
    to_read = TablesToRead(names, generated=False, orders=job.orders)
    live = live_tables(job.destination.address, to_read, workers=run.workers)
    return {
        (table.schema, table.name): _losses(table)
        for table in doubtful
        if live[table.schema, table.name] == _in_bundle(run, table)
    }


def _columns(table: CatalogRow) -> list[str]:
    return [column["name"] for column in table.details.get("columns", ()) if column.get("generated")]


def _differs(table: CatalogRow, digests: Mapping[Name, RowsDigest]) -> bool:
    """Tell whether a table has as many rows as in the bundle, but others."""
    digest = digests.get((table.schema, table.name))
    return digest is not None and digest.rows == table.items and to_hex(digest.digest) != table.digest


def _in_bundle(run: TableRestore, table: CatalogRow) -> RowsDigest:
    digest = RowsDigest()
    for part in parts_of([table]):
        try:
            digest += digest_part(run.reader.open(part.key), part.rows, generated=False)
        except READ_ERRORS as exc:
            raise damage(part, exc) from exc
    return digest


def _losses(table: CatalogRow) -> list[Loss]:
    label = quote_qualified(table.schema, table.name)
    return [Loss(f"{label}.{quote_name(name)}", "generated values", _REASON) for name in _columns(table)]
