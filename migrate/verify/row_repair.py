"""``verify --repair``: the rows of a live database are made those of a bundle."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from exporters.engine import PartReader, load_part, part_reader_of
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.changes.apply import Mark
from migrate.changes.delta_record import read_delta
from migrate.changes.segments import START
from migrate.errors import UsageError
from migrate.repair.live_repair import open_repair
from migrate.repair.repair import RepairDestination, TablePair, TableRepair, repair_tables
from migrate.repair.row_sides import BundleRows, HashedSide, TableSides, located_side
from migrate.runtime.cancellation import CancellationToken


def repair_from_bundle(
    reader: BundleReader,
    source: str,
    endpoint: Endpoint,
    labels: Collection[str],
    *,
    dry_run: bool,
    cancellation: CancellationToken,
) -> list[TableRepair]:
    """Make those tables of a database that ``labels`` name equal to the bundle's. Raises errors of the location and of
    ``exporters.errors``, ``UsageError`` where changes of the source were applied since the snapshot.
    """
    _check_not_followed(reader, source, endpoint)
    part_reader = part_reader_of(endpoint.engine)
    tables = [row for row in reader.tables(source) if part_reader.label(row.schema, row.name) in labels]
    with open_repair(endpoint) as destination:
        pairs = (_bundle_pair(part_reader, reader, table, destination) for table in tables)
        return repair_tables(pairs, destination, part_reader, dry_run=dry_run, cancellation=cancellation)


def _bundle_pair(
    part_reader: PartReader, reader: BundleReader, table: CatalogRow, destination: RepairDestination
) -> TablePair:
    rows = BundleRows(part_reader, reader, table)
    schema, name = table.schema, table.name

    def open_sides() -> TableSides:
        return TableSides(HashedSide.of_texts(rows.each), located_side(destination.rows, schema, name))

    label = part_reader.label(schema, name)
    columns = rows.columns or destination.rows.columns(schema, name) or ()
    return TablePair(schema, name, label, columns, table.items, open_sides)


def _check_not_followed(reader: BundleReader, source: str, endpoint: Endpoint) -> None:
    """Raise ``UsageError`` where a destination has changes that the bundle lacks: a repair would undo them."""
    delta = read_delta(reader.store, source)
    mark: Mark | None = None
    if reference := endpoint.engine.change_mark:
        mark = load_part(reference)(endpoint.url, endpoint.reveal(), source)
    if (mark is not None and mark.place != START) or (delta is not None and delta.passes):
        raise UsageError(
            f"{endpoint.shown} has changes that {source} made after the bundle; a repair would undo them",
            next_step="repair it from the live source:"
            f" --from {shlex.quote(f'{source}={reader.info.source(source).url}')}",
        )
