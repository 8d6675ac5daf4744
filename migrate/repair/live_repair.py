"""Repairs of a destination from a live source of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, nullcontext
from typing import cast

from msgspec import Struct, field

from exporters.engine import (
    LocatedRows,
    PartReader,
    TableName,
    VersionedRows,
    live_reader_of,
    load_part,
    part_reader_of,
)
from migrate.case.model import Endpoint
from migrate.engines import registry
from migrate.errors import UsageError
from migrate.repair.repair import (
    OpenRepair,
    RepairDestination,
    TableGuard,
    TablePair,
    TableRepair,
    repair_tables,
)
from migrate.repair.row_sides import live_sides
from migrate.runtime.cancellation import CancellationToken


def repair_named_tables(
    rows: LocatedRows,
    destination: Endpoint,
    tables: Sequence[tuple[str, str]],
    *,
    cancellation: CancellationToken,
) -> list[TableRepair]:
    """Make tables of a destination equal to an open source's; return what was done of each."""
    part_reader = part_reader_of(destination.engine)
    counts = rows.tables()
    with open_repair(destination) as opened:
        pairs = [_pair(rows, opened, part_reader, table, counts.get(table, 0)) for table in tables]
        repaired = repair_tables(pairs, opened, part_reader, cancellation=cancellation)
    differed = {table.table: table for table in repaired}
    return [differed.get(pair.label) or TableRepair(pair.label) for pair in pairs]


class LiveRepair(Struct):
    """What a repair from a live source did. ``tables``: those that differed. ``read``: how many tables were compared;
    others had not been written to. ``states`` of the source's tables by label, see ``VersionedRows``.
    """

    tables: list[TableRepair]
    read: int = 0
    states: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows differed."""
        return sum(table.rows for table in self.tables)


def repair_from_source(
    source: Endpoint,
    destination: Endpoint,
    *,
    opened: RepairDestination | None = None,
    dry_run: bool = False,
    cancellation: CancellationToken | None = None,
    chosen: Callable[[str], bool] = lambda _: True,
    states: Mapping[str, str] | None = None,
    guard: TableGuard | None = None,
) -> LiveRepair:
    """Make the tables of a database, of which ``chosen`` says by label whether they are meant, equal to those of a live
    source. ``opened``: the destination, where the caller has opened it. ``states``: what an earlier repair returned;
    tables that were not written to since are equal. ``guard``: what allows to write to a table. Raises ``UsageError``
    for endpoints of different kinds, errors of ``exporters.errors``, and those of the guard.
    """
    engine = destination.engine
    if source.engine != engine:
        raise UsageError(
            f"{source.shown} and {destination.shown} are of different kinds",
            next_step=f"give a source of {engine.schemes[0]}://",
        )
    part_reader, live_reader = part_reader_of(engine), live_reader_of(engine)
    with (
        live_reader.live_rows(source.url, secrets=source.reveal()) as live_rows,
        nullcontext(opened) if opened else open_repair(destination) as opposite,
    ):
        rows = cast("LocatedRows", live_rows)
        tables = {name: count for name, count in rows.tables().items() if chosen(part_reader.label(*name))}
        result = LiveRepair([])
        listed = opposite.rows.tables().keys()
        spelled = _spelled_otherwise(rows.tables().keys() - listed, opposite)
        meant = {name: spelled.get((name[0], name[1].lower()), name) for name in tables}
        same = {name: count for name, count in tables.items() if meant[name] == name}
        pairs = _pairs(rows, same, opposite, part_reader, result, states=states)
        result.tables = repair_tables(
            pairs, opposite, part_reader, dry_run=dry_run, guard=guard, cancellation=cancellation
        )
        for name in sorted(tables.keys() - same.keys()):
            reason = f"the destination takes its name for {part_reader.label(*meant[name])}"
            result.tables.append(TableRepair(part_reader.label(*name), reason=reason))
        extra = sorted(listed - tables.keys() - spelled.keys())
        labels = [label for name in extra if chosen(label := part_reader.label(*name))]
        result.tables += [TableRepair(label, reason="it is only at the destination") for label in labels]
    for table in result.tables:
        if table.reason:
            result.states.pop(table.table, None)
    return result


def _spelled_otherwise(
    names: AbstractSet[TableName], destination: RepairDestination
) -> dict[TableName, TableName]:
    """Return the tables of a destination that keeps names in lower case, and which of the source's ``names`` each has:
    of several the first one, as after a restore. Such a server answers to the other spellings, too.
    """
    spelled: dict[TableName, TableName] = {}
    for schema, name in sorted(names):
        if destination.rows.columns(schema, name) is not None:
            spelled.setdefault((schema, name.lower()), (schema, name))
    return spelled


def _pairs(
    rows: LocatedRows,
    tables: Mapping[tuple[str, str], int],
    destination: RepairDestination,
    part_reader: PartReader,
    result: LiveRepair,
    *,
    states: Mapping[str, str] | None,
) -> Iterator[TablePair]:
    """Yield the tables that may differ, of ``tables``: one that is not as it was at the destination may, too."""
    for (schema, name), count in sorted(tables.items()):
        label = part_reader.label(schema, name)
        if states is not None and isinstance(rows, VersionedRows):
            is_changed, result.states[label] = rows.changed_since(schema, name, states.get(label, ""))
            there = destination.rows.columns(schema, name)
            if not is_changed and there is not None and {*there} == {*(rows.columns(schema, name) or ())}:
                continue
        result.read += 1
        yield _pair(rows, destination, part_reader, (schema, name), count)


def _pair(
    rows: LocatedRows,
    destination: RepairDestination,
    part_reader: PartReader,
    table: tuple[str, str],
    count: int,
) -> TablePair:
    columns, label = rows.columns(*table) or (), part_reader.label(*table)
    return TablePair(*table, label, columns, count, lambda: live_sides(rows, destination.rows, *table))


@contextmanager
def open_repair(endpoint: Endpoint) -> Iterator[RepairDestination]:
    """Open a destination to be repaired. Raises ``UsageError`` where its engine cannot, and what ``OpenRepair`` may."""
    reference = registry.require(endpoint.engine, endpoint.engine.row_repair, "repaired")
    opening = cast("OpenRepair", load_part(reference))
    with opening(endpoint.url, endpoint.reveal()) as destination:
        yield destination
