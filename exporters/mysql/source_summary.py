"""The summary of a source: one catalog row a table, two counts of everything, what is missing and what was lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from exporters.api import DoneUnit, Gap, Loss, SourceSummary
from exporters.mysql.catalog import MysqlTable
from exporters.mysql.definitions.show_create import Missing
from exporters.mysql.sessions.snapshot_locks import GLOBAL_LOCK
from exporters.sql.chunk_plan import PlannedTable
from exporters.sql.outline import Outline
from exporters.sql.source_summary import (
    Counted,
    Exported,
    column_details,
    entries_of,
    enumerations,
    one_each,
    settled,
    uncounted,
)


class MysqlFinish(Struct, frozen=True):
    """What is known at the end. ``tables`` and ``counted`` by number: the exported tables, the server's own
    counts, or why there is none. ``unreadable``: by table, why it cannot be read.
    """

    tables: Mapping[int, MysqlTable]
    all_tables: Sequence[MysqlTable]
    unreadable: Mapping[str, str]
    counted: Mapping[int, Counted | str]
    done: Sequence[DoneUnit]
    positions: Sequence[Mapping[str, Any]]
    server: str
    missing: Missing


def summary(finished: MysqlFinish) -> SourceSummary:
    """Add up the units by table and compare them with what the server counted."""
    counts = settled(finished.counted)
    exported = [_exported(number, table, counts[number]) for number, table in finished.tables.items()]
    entries, gaps = entries_of(exported, finished.done)
    listed = sum(1 for table in finished.all_tables if not table.elsewhere)
    not_counted = _not_counted(finished.tables.values(), exported)
    return SourceSummary(
        entries,
        enumerations(
            exported,
            entries,
            listed=("information_schema", listed),
            counted="count(*) under the snapshot",
            measured=f"sum(length()) under the snapshot{f', {not_counted}' if not_counted else ''}",
            not_measured=f"the server cannot say how many bytes they have in UTF-8 ({not_counted})"
            if not_counted
            else "",
        ),
        gaps=one_each([*_unreadable(finished), *finished.missing.gaps, *gaps]),
        losses=[*finished.missing.losses, *table_losses(finished.all_tables, finished.positions[-1])],
        positions=finished.positions,
        server=finished.server,
    )


def outline(known: MysqlFinish, planned: Sequence[PlannedTable], files: Mapping[str, bytes]) -> Outline:
    """Return what is known before rows are read and counted."""
    return Outline(
        files={**files},
        tables=[_exported(table.number, known.tables[table.number], None) for table in planned],
        planned=planned,
        gaps=[*_unreadable(known), *known.missing.gaps],
        losses=[*known.missing.losses, *table_losses(known.all_tables, known.positions[-1])],
        positions=[dict(position) for position in known.positions],
        server=known.server,
    )


def _not_counted(tables: Iterable[MysqlTable], exported: Sequence[Exported]) -> str:
    """Return how many columns of text and bytes the server did not count, as words."""
    pairs = zip(tables, exported, strict=True)
    columns = sum(
        1
        for table, count in pairs
        for column in table.columns
        if column.has_octets and column.name not in count.octets
    )
    return f"{columns} columns not counted" if columns else ""


def table_losses(tables: Sequence[MysqlTable], position: Mapping[str, Any]) -> list[Loss]:
    """Return what of tables is not in the bundle, and where the snapshot is weaker than it could be."""
    losses = []
    if position["consistency"] != GLOBAL_LOCK:
        reason = f"{position['consistency']} ({'; '.join(position['refused'])}): the binary log's position is not exact"
        losses.append(Loss("snapshot", "position", reason))
    for table in tables:
        if table.elsewhere:
            reason = f"{table.engine}: the rows lie elsewhere; only the definition is exported"
            losses.append(Loss(table.label, "rows", reason))
        elif table.engine and not table.transactional:
            reason = f"{table.engine} has no snapshots: its rows are those of the moment of reading"
            losses.append(Loss(table.label, "consistency", reason))
        if table.versioned and not table.history:
            reason = "versioned by transaction numbers, which no other server has: only its current rows are exported"
            losses.append(Loss(table.label, "history", reason))
        losses += [
            Loss(
                f"{table.label}.{name}",
                "values",
                "the server sets or computes it by itself, anew in the destination",
            )
            for name in table.hidden
        ]
    return losses


def _unreadable(finished: MysqlFinish) -> Iterator[Gap]:
    """Yield a gap for each table whose rows the server did not give, or could not count."""
    for table in finished.all_tables:
        if table.name in finished.unreadable and not table.elsewhere:
            yield Gap(table.label, "failed", finished.unreadable[table.name])
    labels = {number: table.label for number, table in finished.tables.items()}
    yield from uncounted(labels, finished.counted)


def _exported(number: int, table: MysqlTable, counted: Counted | None) -> Exported:
    columns = [column_details(column) | {"extra": column.extra} for column in table.columns]
    details = {"columns": columns, "engine": table.engine}
    details |= {"history": list(table.history)} if table.history else {}
    rows, octets = (counted.rows, counted.octets) if counted else (None, {})
    return Exported(number, table.schema, table.name, table.label, rows, details, octets)
