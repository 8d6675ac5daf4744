"""The account at the end: one catalog row a table, two counts of everything, what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporters.base import CatalogEntry, DoneUnit, Enumeration, Gap
from exporters.relational.layout import Column
from exporters.tally import MODULUS, to_hex


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported table. ``counted`` is the server's own count of its rows; ``details`` what the engine adds to its
    catalog row; ``label`` its name for people.
    """

    number: int
    schema: str
    name: str
    label: str
    counted: int
    details: Mapping[str, Any]


def entries_of(tables: Sequence[Exported], done: Iterable[DoneUnit]) -> tuple[list[CatalogEntry], list[Gap]]:
    """Add up the units by table; return the catalog's rows, and a gap for each table whose count is another."""
    by_table: dict[int, list[DoneUnit]] = {table.number: [] for table in tables}
    for unit in done:
        by_table[int(unit.unit.spec["table"])].append(unit)
    entries = [_entry(table, by_table[table.number]) for table in tables]
    gaps = [
        Gap(table.label, "failed", f"{entry.items} of {table.counted} rows were exported")
        for table, entry in zip(tables, entries, strict=True)
        if entry.items != table.counted
    ]
    return entries, gaps


def _entry(table: Exported, done: Sequence[DoneUnit]) -> CatalogEntry:
    chunks = sorted(done, key=lambda unit: unit.unit.id)
    return CatalogEntry(
        kind="table",
        number=table.number,
        schema=table.schema,
        name=table.name,
        items=sum(unit.outcome.items for unit in chunks),
        size_bytes=sum(unit.outcome.size_bytes for unit in chunks),
        digest=to_hex(sum(unit.outcome.digest or 0 for unit in chunks) % MODULUS),
        details={
            "parts": [part for unit in chunks for part in unit.outcome.facts["parts"]],
            "chunks": [_chunk(unit) for unit in chunks],
            "exact": sorted({name for unit in chunks for name in unit.outcome.facts["exact"]}),
            "server_count": table.counted,
            **table.details,
        },
    )


def _chunk(done: DoneUnit) -> dict[str, Any]:
    """Return what the catalog keeps of a chunk: by the digests of chunks a later difference is narrowed down."""
    return {
        "rows": done.outcome.items,
        "digest": to_hex(done.outcome.digest or 0),
        "range": done.unit.spec["range"],
        "parts": [part["name"] for part in done.outcome.facts["parts"]],
    }


def column_details(column: Column) -> dict[str, Any]:
    """Return what the catalog says of a column, whichever engine it is of."""
    return {
        "name": column.name,
        "type": column.sql_type,
        "kind": column.kind.name,
        "arrow": str(column.kind.stored),
        "not_null": column.not_null,
        "generated": column.generated,
        "collation": column.collation,
    }


def enumerations(
    tables: Sequence[Exported],
    entries: Sequence[CatalogEntry],
    *,
    listed: tuple[str, int],
    counted: str,
    beside: int = 0,
) -> list[Enumeration]:
    """Return the two ways in which tables, and rows, were counted. ``listed``: how the server lists tables, and how
    many; ``counted``: how it counts rows; so many entries, ``beside`` the tables, are none.
    """
    return [
        Enumeration("tables", *listed),
        Enumeration("tables", "exported", len(entries) - beside),
        Enumeration("rows", counted, sum(table.counted for table in tables)),
        Enumeration("rows", "rows exported", sum(entry.items for entry in entries)),
    ]
