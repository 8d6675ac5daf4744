"""The summary of a source: one catalog row a table, two counts of everything, what is missing and what was
lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from exporters.api import DoneUnit, Gap, Loss, SourceSummary
from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.charset.encodings import AS_STORED
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


class PostgresFinish(Struct, frozen=True):
    """What is known at the end. ``tables`` and ``counted`` by number: the exported tables, the server's
    own counts, or why there is none; ``gaps`` of the definitions.
    """

    tables: Mapping[int, PostgresTable]
    all_tables: Sequence[PostgresTable]
    counted: Mapping[int, Counted | str]
    done: Sequence[DoneUnit]
    positions: Sequence[Mapping[str, Any]]
    server: str
    losses: Sequence[Loss]
    gaps: Sequence[Gap] = ()


def summary(finished: PostgresFinish) -> SourceSummary:
    """Add up the units by table and compare them with what the server counted."""
    counts = settled(finished.counted)
    exported = [_exported(number, table, counts[number]) for number, table in finished.tables.items()]
    entries, gaps = entries_of(exported, finished.done)
    labels = {number: table.item for number, table in finished.tables.items()}
    return SourceSummary(
        entries,
        enumerations(
            exported,
            entries,
            listed=("pg_class", sum(1 for table in finished.all_tables if not table.foreign)),
            counted="count(*) under the snapshot",
            measured="sum(octet_length()) under the snapshot",
            not_measured=_not_measured(finished),
            other_entries=sum(1 for entry in entries if entry.number == large_objects.NUMBER),
        ),
        gaps=one_each([*_unreadable(finished), *uncounted(labels, finished.counted), *finished.gaps, *gaps]),
        losses=finished.losses,
        positions=finished.positions,
        server=finished.server,
    )


def outline(known: PostgresFinish, planned: Sequence[PlannedTable], files: Mapping[str, bytes]) -> Outline:
    """Return what is known before rows are read and counted."""
    return Outline(
        files={**files},
        tables=[_exported(table.number, known.tables[table.number], None) for table in planned],
        planned=planned,
        gaps=[*_unreadable(known), *known.gaps],
        losses=known.losses,
        positions=[dict(position) for position in known.positions],
        server=known.server,
    )


def _unreadable(known: PostgresFinish) -> list[Gap]:
    return [Gap(table.item, "failed", table.gap) for table in known.all_tables if table.gap]


def _not_measured(finished: PostgresFinish) -> str:
    """Return why the server counts no bytes of text; "" where it does, or where there is no text."""
    encoding = str(finished.positions[-1]["encoding"]) if finished.positions else ""
    has_text = any(
        str(column.kind.stored) == "string" for table in finished.tables.values() for column in table.columns
    )
    if encoding in {"", *AS_STORED} or not has_text:
        return ""
    return f"the server has them in {encoding}, and they leave in UTF-8"


def _exported(number: int, table: PostgresTable, counted: Counted | None) -> Exported:
    columns = [column_details(column) | {"identity": column.identity} for column in table.columns]
    persistence = {"p": "permanent", "u": "unlogged"}.get(table.persistence, table.persistence)
    ancestors = [list(name) for name in table.ancestors]
    details = {"columns": columns, "persistence": persistence, "ancestors": ancestors}
    details |= {"extension": table.extension} if table.extension else {}
    rows, octets = (counted.rows, counted.octets) if counted else (None, {})
    return Exported(number, table.schema, table.name, table.item, rows, details, octets, table.kind)
