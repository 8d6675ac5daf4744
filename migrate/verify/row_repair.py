"""``verify --repair``: the rows of a live database are made those of a bundle, or of a live source."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

from exporters.engine import Engine, LocatedRows, PartReader, live_reader_of, load_part, part_reader_of
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.changes.apply import Mark
from migrate.changes.segments import START
from migrate.engines import registry
from migrate.errors import UsageError
from migrate.repair.contract import OpenRepair, RepairDestination
from migrate.repair.repair import TablePair, TableRepair, repair_tables
from migrate.repair.row_differences import RowSide
from migrate.repair.sides import BundleRows, bundle_side, live_sides, located_side
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
    engine = _engine_of(endpoint)
    _check_not_followed(engine, source, endpoint)
    part_reader = part_reader_of(engine)
    tables = [
        row
        for row in reader.catalog()
        if row.source == source and row.has_rows and part_reader.label(row.schema, row.name) in labels
    ]
    with _open(engine, endpoint) as destination:
        pairs = (_bundle_pair(part_reader, reader, table, destination) for table in tables)
        return repair_tables(pairs, destination, part_reader, dry_run=dry_run, cancellation=cancellation)


def repair_from_source(
    source: Endpoint,
    endpoint: Endpoint,
    *,
    dry_run: bool,
    cancellation: CancellationToken,
    labels: Collection[str] | None = None,
) -> list[TableRepair]:
    """Make the tables of a database, or those that ``labels`` name, equal to those of a live source, which is of the
    same kind. Raises errors of ``exporters.errors``.
    """
    engine = _engine_of(endpoint)
    if registry.engine_for(source.url, source.shown) != engine:
        raise UsageError(
            f"{source.shown} and {endpoint.shown} are of different kinds",
            next_step=f"give --from a {engine.schemes[0]}:// URL",
        )
    part_reader, live_reader = part_reader_of(engine), live_reader_of(engine)
    with (
        live_reader.live_rows(source.url, secrets=source.reveal()) as rows,
        _open(engine, endpoint) as destination,
    ):
        located = cast("LocatedRows", rows)
        pairs = (
            pair
            for pair in live_pairs(located, destination, part_reader)
            if labels is None or pair.label in labels
        )
        extra = sorted(destination.rows.tables().keys() - located.tables().keys())
        repaired = repair_tables(pairs, destination, part_reader, dry_run=dry_run, cancellation=cancellation)
        return [
            *repaired,
            *(
                TableRepair(part_reader.label(*name), reason="it is only at the destination")
                for name in extra
            ),
        ]


def live_pairs(
    rows: LocatedRows, destination: RepairDestination, part_reader: PartReader
) -> Iterator[TablePair]:
    """Yield the tables of a live source with those of a destination."""
    for (schema, name), count in sorted(rows.tables().items()):
        yield TablePair(
            schema,
            name,
            part_reader.label(schema, name),
            rows.columns(schema, name) or (),
            count,
            partial(_live_sides, rows, destination, schema, name),
        )


def _live_sides(
    rows: LocatedRows, destination: RepairDestination, schema: str, name: str
) -> tuple[RowSide, RowSide]:
    return live_sides(rows, destination.rows, schema, name)


def _bundle_pair(
    part_reader: PartReader, reader: BundleReader, table: CatalogRow, destination: RepairDestination
) -> TablePair:
    rows = BundleRows(part_reader, reader, table)
    schema, name = table.schema, table.name

    def open_sides() -> tuple[RowSide, RowSide]:
        return bundle_side(rows), located_side(destination.rows, schema, name)

    label = part_reader.label(schema, name)
    columns = rows.columns or destination.rows.columns(schema, name) or ()
    return TablePair(schema, name, label, columns, table.items, open_sides)


@contextmanager
def _open(engine: Engine, endpoint: Endpoint) -> Iterator[RepairDestination]:
    reference = registry.require(engine, engine.row_repair, "repaired")
    open_repair = cast("OpenRepair", load_part(reference))
    with open_repair(endpoint.url, endpoint.reveal()) as destination:
        yield destination


def _engine_of(endpoint: Endpoint) -> Engine:
    return registry.engine_for(endpoint.url, endpoint.shown)


def _check_not_followed(engine: Engine, source: str, endpoint: Endpoint) -> None:
    """Raise ``UsageError`` where a destination has changes that came after the bundle: they would be undone."""
    if not engine.change_mark:
        return
    mark: Mark | None = load_part(engine.change_mark)(endpoint.url, endpoint.reveal(), source)
    if mark is not None and mark.place != START:
        raise UsageError(
            f"{endpoint.shown} has changes that {source} made after the bundle; a repair would undo them",
            next_step=f"repair it from the live source: --from {source}=URL",
        )
