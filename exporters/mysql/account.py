"""The account at the end: one catalog row a table, two counts of everything, what is missing and what was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporters.base import Account, CatalogEntry, DoneUnit, Enumeration, Gap, Loss
from exporters.mysql.catalog import Column, Table
from exporters.mysql.session import GLOBAL_LOCK
from exporters.tally import MODULUS, to_hex


@dataclass(frozen=True, slots=True)
class Finished:
    """What is known at the end. ``tables`` and ``counted`` by number: the exported tables, the
    server's ``count(*)``.
    """

    tables: Mapping[int, Table]
    all_tables: Sequence[Table]
    unreadable: Sequence[str]
    counted: Mapping[int, int]
    done: Sequence[DoneUnit]
    points: Sequence[Mapping[str, Any]]
    server: str
    losses: Sequence[Loss]


def account(finished: Finished) -> Account:
    """Add up the units by table and set them beside what the server counted."""
    by_table: dict[int, list[DoneUnit]] = {number: [] for number in finished.tables}
    for done in finished.done:
        by_table[int(done.unit.spec["table"])].append(done)
    gaps = [
        Gap(table.label, "failed", "the account may not read it")
        for table in finished.all_tables
        if table.name in finished.unreadable and not table.elsewhere
    ]
    entries = []
    for number, table in finished.tables.items():
        entry = _entry(number, table, by_table[number], finished.counted[number])
        entries.append(entry)
        if entry.items != finished.counted[number]:
            reason = f"{entry.items} of {finished.counted[number]} rows were exported"
            gaps.append(Gap(table.label, "failed", reason))
    return Account(
        entries,
        _enumerations(finished, entries),
        gaps=gaps,
        losses=[*finished.losses, *table_losses(finished.all_tables, finished.points[-1])],
        points=finished.points,
        server=finished.server,
    )


def table_losses(tables: Sequence[Table], point: Mapping[str, Any]) -> list[Loss]:
    """Return what of tables is not in the bundle, and where the snapshot is weaker than it could be."""
    losses = []
    if point["consistency"] != GLOBAL_LOCK:
        reason = (
            f"{point['consistency']} ({'; '.join(point['refused'])}): the binary log's position is not exact"
        )
        losses.append(Loss("snapshot", "position", reason))
    for table in tables:
        if table.elsewhere:
            reason = f"{table.engine}: the rows lie elsewhere; only the definition is exported"
            losses.append(Loss(table.label, "rows", reason))
        elif not table.transactional:
            reason = f"{table.engine} has no snapshots: its rows are those of the moment of reading"
            losses.append(Loss(table.label, "consistency", reason))
        if table.versioned:
            reason = "a system-versioned table: only its current rows are exported"
            losses.append(Loss(table.label, "history", reason))
        losses += [
            Loss(f"{table.label}.{name}", "values", "the server sets it by itself, anew in the target")
            for name in table.hidden
        ]
    return losses


def _entry(number: int, table: Table, done: Sequence[DoneUnit], counted: int) -> CatalogEntry:
    chunks = sorted(done, key=lambda unit: unit.unit.id)
    return CatalogEntry(
        kind="table",
        number=number,
        schema="",
        name=table.name,
        items=sum(unit.outcome.items for unit in chunks),
        size_bytes=sum(unit.outcome.size_bytes for unit in chunks),
        digest=to_hex(sum(unit.outcome.digest or 0 for unit in chunks) % MODULUS),
        details={
            "columns": [_column(column) for column in table.columns],
            "parts": [part for unit in chunks for part in unit.outcome.facts["parts"]],
            "exact": sorted({name for unit in chunks for name in unit.outcome.facts["exact"]}),
            "server_count": counted,
            "engine": table.engine,
        },
    )


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.sql_type,
        "kind": column.kind.name,
        "arrow": str(column.kind.stored),
        "not_null": column.not_null,
        "generated": column.generated,
        "collation": column.collation,
        "extra": column.extra,
    }


def _enumerations(finished: Finished, entries: Sequence[CatalogEntry]) -> list[Enumeration]:
    return [
        Enumeration("tables", "information_schema", sum(1 for t in finished.all_tables if not t.elsewhere)),
        Enumeration("tables", "exported", len(entries)),
        Enumeration("rows", "count(*) under the snapshot", sum(finished.counted.values())),
        Enumeration("rows", "rows exported", sum(entry.items for entry in entries)),
    ]
