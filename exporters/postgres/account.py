"""The account at the end: one catalog row a table, two counts of everything, what is missing and what was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporters.base import Account, CatalogEntry, DoneUnit, Enumeration, Gap, Loss
from exporters.postgres import large_objects
from exporters.postgres.catalog import Table
from exporters.tally import MODULUS, to_hex


@dataclass(frozen=True, slots=True)
class Finished:
    """What is known at the end. ``tables`` and ``counted`` by number: the exported tables, the server's
    ``count(*)``.
    """

    tables: Mapping[int, Table]
    all_tables: Sequence[Table]
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
    entries = []
    gaps = [
        Gap(table.label, "failed", "the role may not read it")
        for table in finished.all_tables
        if not table.readable and not table.foreign
    ]
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
        losses=finished.losses,
        points=finished.points,
        server=finished.server,
    )


def _entry(number: int, table: Table, done: Sequence[DoneUnit], counted: int) -> CatalogEntry:
    chunks = sorted(done, key=lambda unit: unit.unit.id)
    parts = [part for unit in chunks for part in unit.outcome.facts["parts"]]
    exact = sorted({name for unit in chunks for name in unit.outcome.facts["exact"]})
    return CatalogEntry(
        kind="table",
        number=number,
        schema=table.schema,
        name=table.name,
        items=sum(unit.outcome.items for unit in chunks),
        size_bytes=sum(unit.outcome.size_bytes for unit in chunks),
        digest=to_hex(sum(unit.outcome.digest or 0 for unit in chunks) % MODULUS),
        details={
            "columns": [_column(column) for column in table.columns],
            "parts": parts,
            "exact": exact,
            "server_count": counted,
            "persistence": {"p": "permanent", "u": "unlogged"}.get(table.persistence, table.persistence),
        },
    )


def _column(column: Any) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.sql_type,
        "kind": column.kind.name,
        "arrow": str(column.kind.stored),
        "not_null": column.not_null,
        "generated": column.generated,
        "identity": column.identity,
        "collation": column.collation,
    }


def _enumerations(finished: Finished, entries: Sequence[CatalogEntry]) -> list[Enumeration]:
    wanted = sum(1 for table in finished.all_tables if not table.foreign)
    exported = sum(1 for entry in entries if entry.number != large_objects.NUMBER)
    return [
        Enumeration("tables", "pg_class", wanted),
        Enumeration("tables", "exported", exported),
        Enumeration("rows", "count(*) under the snapshot", sum(finished.counted.values())),
        Enumeration("rows", "rows exported", sum(entry.items for entry in entries)),
    ]
