"""The summary of a source: one catalog row a table, two counts of everything, what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from exporters.api import CatalogEntry, DoneUnit, Enumeration, Gap, ItemKind, Loss
from exporters.row_digest import MODULUS, to_hex
from exporters.sql.columns import Column


def of_a_restore(item: str, *, finished: bool = False) -> Loss:
    """Return the loss of an object that a restore keeps in a database for itself. ``finished``: the object only records
    what the restore left out, or changes that were applied since.
    """
    reason = "a restore that is not finished keeps its place there; it is no part of the data"
    if finished:
        reason = "the record of what a restore left out here, or of changes since; it is no part of the data"
    return Loss(item, "all of it", reason)


BYTES = "bytes of text and binary values"


GIVEN_UP = "there was no time left before the deadline"
"""Why a table was not counted whose count was given up."""


class Counted(Struct, frozen=True):
    """What a server counts of a table: its rows, and the bytes of text and binary columns by name."""

    rows: int
    octets: Mapping[str, int]


class Exported(Struct, frozen=True):
    """An exported table. ``counted`` is the server's own count of its rows, None where there is none. ``octets``: its
    own sums of the bytes of columns, by name. ``details``: what the engine adds to its catalog row. ``label``: its name
    for people.
    """

    number: int
    schema: str
    name: str
    label: str
    counted: int | None
    details: Mapping[str, Any]
    octets: Mapping[str, int] = field(default_factory=dict)
    kind: ItemKind = "table"


def settled(counted: Mapping[int, Counted | str]) -> dict[int, Counted]:
    """Return the counts by number, 0 for a table that could not be counted."""
    return {number: Counted(0, {}) if isinstance(count, str) else count for number, count in counted.items()}


def uncounted(labels: Mapping[int, str], counted: Mapping[int, Counted | str]) -> Iterator[Gap]:
    """Yield a gap for each table whose rows the server could not count, with the reason."""
    for number, reason in counted.items():
        if isinstance(reason, str):
            yield Gap(labels[number], "failed", f"its rows cannot be counted: {reason}")


def one_each(gaps: Iterable[Gap]) -> list[Gap]:
    """Return the first gap of each item, which says most."""
    gaps_by_item: dict[str, Gap] = {}
    for gap in gaps:
        gaps_by_item.setdefault(gap.item, gap)
    return list(gaps_by_item.values())


def entries_of(tables: Sequence[Exported], done: Iterable[DoneUnit]) -> tuple[list[CatalogEntry], list[Gap]]:
    """Add up the units by table; return the catalog's rows, and a gap for each table whose count is another."""
    by_table: dict[int, list[DoneUnit]] = {table.number: [] for table in tables}
    for unit in done:
        by_table[int(unit.unit.spec["table"])].append(unit)
    entries = [_entry(table, by_table[table.number]) for table in tables]
    gaps = [
        Gap(table.label, "failed", f"{entry.items} of {table.counted} rows were exported")
        for table, entry in zip(tables, entries, strict=True)
        if table.counted not in {None, entry.items}
    ]
    for table, entry in zip(tables, entries, strict=True):
        if entry.items == table.counted:
            gaps += _octet_gaps(table, by_table[table.number])
    return entries, gaps


def _octet_gaps(table: Exported, done: Sequence[DoneUnit]) -> list[Gap]:
    """Return a gap for each column whose bytes are not as many as the server says."""
    byte_counts = _exported_bytes(done, table.octets)
    return [
        Gap(
            f"{table.label}.{name}",
            "failed",
            f"{byte_counts[name]} of {expected} bytes of its values were exported",
        )
        for name, expected in table.octets.items()
        if byte_counts is not None and byte_counts[name] != expected
    ]


def _exported_bytes(done: Iterable[DoneUnit], names: Iterable[str]) -> dict[str, int] | None:
    """Return the bytes of these columns in the finished units; None where a unit was done by a version that did not
    measure.
    """
    sums = dict.fromkeys(names, 0)
    for unit in done:
        measured: Mapping[str, Any] | None = unit.outcome.facts.get("octets")
        if measured is None or not sums.keys() <= measured.keys():
            return None
        for name in sums:
            sums[name] += int(measured[name])
    return sums


def _entry(table: Exported, done: Sequence[DoneUnit]) -> CatalogEntry:
    chunks = sorted(done, key=lambda unit: unit.unit.id)
    measured = _exported_bytes(chunks, table.octets)
    return CatalogEntry(
        kind=table.kind,
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
            **({} if table.counted is None else {"server_count": table.counted}),
            "server_octets": dict(table.octets) if measured is not None else {},
            "octets": measured or {},
            **_proof(chunks),
            **table.details,
        },
    )


def _proof(chunks: Sequence[DoneUnit]) -> dict[str, str]:
    """Return the digest as Parquet gives it back, where all chunks were read back at export: it is the source's."""
    if not chunks or not all(unit.outcome.facts.get("proved") is True for unit in chunks):
        return {}
    return {"parquet_digest": to_hex(sum(unit.outcome.digest or 0 for unit in chunks) % MODULUS)}


def _chunk(done: DoneUnit) -> dict[str, Any]:
    """Return what the catalog keeps of a chunk. Its digest shows later in which chunk a table differs."""
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


class HowCounted(Struct, frozen=True):
    """How a server counts. ``listed``: how it lists tables, and how many. ``counted``, ``measured``: how it counts rows
    and bytes. ``not_measured``: why it counts no bytes, where it does not. ``other_entries``: the number of entries
    that are no tables.
    """

    listed: tuple[str, int]
    counted: str
    measured: str
    not_measured: str = ""
    other_entries: int = 0


def enumerations(
    tables: Sequence[Exported], entries: Sequence[CatalogEntry], how: HowCounted
) -> list[Enumeration]:
    """Return the counts of tables, rows and bytes of texts: those of the server, and those of the export."""
    byte_counts = [
        Enumeration(BYTES, how.measured, _octets(entries, "server_octets")),
        Enumeration(BYTES, "in the exported rows", _octets(entries, "octets")),
    ]
    if how.not_measured and not any(entry.details["server_octets"] for entry in entries):
        byte_counts = [Enumeration(BYTES, how.measured, 0, how.not_measured)]
    return [
        Enumeration("tables", *how.listed),
        Enumeration("tables", "exported", len(entries) - how.other_entries),
        Enumeration("rows", how.counted, sum(table.counted or 0 for table in tables)),
        Enumeration("rows", "rows exported", sum(entry.items for entry in entries)),
        *byte_counts,
    ]


def _octets(entries: Sequence[CatalogEntry], count_name: str) -> int:
    return sum(size for entry in entries for size in entry.details[count_name].values())
