"""Tables of which the destination does not take some values (``value_filter``), and has all else."""

from __future__ import annotations

from exporters.api import Loss
from exporters.postgres.identifiers import quote_name, quote_qualified
from exporters.row_digest import RowsDigest, digest_texts, to_hex
from exporters.sql.parquet_read import READ_ERRORS, open_part
from migrate.bundle.catalog import CatalogRow
from migrate.restore.common.table_parts import damage, parts_of
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.postgres.context import PostgresRestore
from migrate.restore.postgres.definitions.dump_script import Name
from migrate.restore.postgres.rows.value_filter import ValueFilter, lines_of_part


def without_refused(job: PostgresRestore, run: TableRestore) -> dict[Name, list[Loss]]:
    """Return the tables that ``run.compare`` has found to differ in nothing but such values; for each the losses."""
    losses_of_table: dict[Name, list[Loss]] = {}
    for table in run.tables:
        name = table.schema, table.name
        digest = run.found.get(name)
        if digest is None or not table.number or to_hex(digest.digest) == table.digest:
            continue
        with job.destination.connection.transaction(force_rollback=True):
            expected, losses = _as_taken(job, run, table)
        if losses and expected == digest:
            losses_of_table[name] = losses
    return losses_of_table


def _as_taken(job: PostgresRestore, run: TableRestore, table: CatalogRow) -> tuple[RowsDigest, list[Loss]]:
    """Return what the destination has of a table if it lacks nothing but such values, and the losses in that."""
    label = quote_qualified(table.schema, table.name)
    values = ValueFilter(job.destination.connection, label, job.orders[table.schema, table.name])
    digest = RowsDigest()
    for part in parts_of([table]) if values.doubtful else ():
        try:
            file = open_part(run.reader.open(part.key))
            for lines in lines_of_part(file, generated=True):
                digest += digest_texts(values.filtered(lines))
        except READ_ERRORS as exc:
            raise damage(part, exc) from exc
    losses = [
        Loss(f"{label}.{quote_name(name)}", "values", f"{count} came as NULL{_why(values, name)}")
        for name, count in sorted(values.values.items())
    ]
    losses += [
        Loss(label, "rows", f"{count} did not come, for column {quote_name(name)}{_why(values, name)}")
        for name, count in sorted(values.rows.items())
    ]
    return digest, losses


def _why(values: ValueFilter, name: str) -> str:
    return f", which the bundle has: {values.reasons[name]}"
