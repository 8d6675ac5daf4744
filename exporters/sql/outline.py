"""The outline of a database: its definitions and tables, noted in the workspace as soon as its snapshot stands.

From it comes the summary of a source, with the server's own counts; also of one that is gone before it was read to its
end. Then these counts are lost, and rows that were not read. If tables were altered or dropped between two snapshots,
that of the snapshot of which more rows were exported is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from exporters.api import OUTLINE, DoneUnit, Gap, Loss, Sink, SourceSummary, Workspace
from exporters.errors import SourceError, SourceStateError, reading_state
from exporters.sql.chunk_plan import Plan, PlannedTable, spec, unit_id
from exporters.sql.source_summary import (
    Counted,
    Exported,
    HowCounted,
    entries_of,
    enumerations,
    one_each,
    settled,
    uncounted,
)

MOST = 3
"""At most so many outlines are kept: that of the last snapshot, and earlier ones."""
NO_DEFINITIONS = Gap(
    "definitions",
    "failed",
    "the source was gone before they were read: its tables have their columns, those of its own types as text, and no"
    " default, index or constraint",
)
"""The gap of an outline that is bare, and of no other."""
_DROPPED = (
    "this table was dropped or renamed; its rows of an earlier snapshot are here, but not in the catalog"
)


class Outline(Struct, frozen=True):
    """What is known of a database before its rows are read. ``files``: its definitions, by the names that they have in
    the bundle. ``planned``: the chunks of each of the ``tables``, in the same order.
    """

    files: dict[str, bytes]
    tables: Sequence[Exported]
    planned: Sequence[PlannedTable]
    gaps: Sequence[Gap]
    losses: Sequence[Loss]
    positions: Sequence[dict[str, Any]]
    server: str

    @property
    def is_bare(self) -> bool:
        """Whether its files make the tables and nothing else, as until the definitions have been read."""
        return NO_DEFINITIONS in self.gaps

    def note(self, workspace: Workspace) -> None:
        """Write this outline in front of those of earlier snapshots. Those with other tables are kept, since more may
        have been exported of them. One of the same tables is replaced; but only its positions are where it has
        definitions and this one ``is_bare``.
        """
        outlines, plan = [self], self.plan()
        with suppress(SourceStateError):
            for outline in _noted(workspace):
                if outline.plan() != plan:
                    outlines.append(outline)
                elif self.is_bare and not outline.is_bare:
                    outlines[0] = replace(outline, positions=self.positions)
        workspace.write(OUTLINE, json.dumps(msgspec.to_builtins(outlines[:MOST])).encode())

    def plan(self) -> bytes:
        """Return the chunks as JSON."""
        return Plan(tuple(self.planned)).dump()

    def finished(
        self, done: Iterable[DoneUnit], counts: Mapping[int, Counted | str], how: HowCounted
    ) -> SourceSummary:
        """Return the summary of a source whose counts are there: the units of these tables, as they are cut now, are
        added up, and compared with the server's ``counts``, or why there is none. A table is a gap, too, of which some
        units were not compared and are of another snapshot than others.
        """
        units = _units_of(self.planned, done)
        whole = settled(counts)
        tables = [
            replace(table, counted=whole[table.number].rows, octets=whole[table.number].octets)
            for table in self.tables
        ]
        entries, gaps = entries_of(tables, units)
        positions = self._positions_of(units)
        uncompared = {int(unit.unit.spec["table"]) for unit in units if not unit.is_compared}
        gaps += [
            Gap(table.label, "failed", f"{lack} before the export was ended")
            for table in tables
            if table.number in uncompared and (lack := _lack(positions[table.number], 0))
        ]
        labels = {table.number: table.label for table in tables}
        return SourceSummary(
            entries,
            enumerations(tables, entries, how),
            gaps=one_each([*self.gaps, *uncounted(labels, counts), *gaps]),
            losses=self.losses,
            positions=self.positions,
            server=self.server,
        )

    def summary_of_gone(self, done: Sequence[DoneUnit], sink: Sink) -> SourceSummary:
        """Write the definitions; add up the units that are of these tables. A table that lacks some is a gap, and so is
        one whose units were read under several snapshots: a row may have moved from one to the other. So are rows of
        tables that there are no more.
        """
        write_files(sink, self.files)
        units = _units_of(self.planned, done)
        entries, _ = entries_of(self.tables, units)
        positions = self._positions_of(units)
        missing = [
            Gap(table.label, "failed", f"{lack} before the source was gone")
            for table, planned in zip(self.tables, self.planned, strict=True)
            if (lack := _lack(positions[table.number], len(planned.ranges)))
        ]
        directories = {planned.directory for planned in self.planned}
        missing += [
            Gap(directory, "failed", _DROPPED)
            for directory in sorted({str(unit.unit.spec["directory"]) for unit in done} - directories)
        ]
        return SourceSummary(
            entries,
            [],
            gaps=one_each([*self.gaps, *missing]),
            losses=self.losses,
            positions=self.positions,
            server=self.server,
        )

    def _positions_of(self, units: Iterable[DoneUnit]) -> dict[int, list[str]]:
        """Return the snapshot of each unit, by the number of its table."""
        positions: dict[int, list[str]] = {table.number: [] for table in self.tables}
        for unit in units:
            positions[int(unit.unit.spec["table"])].append(json.dumps(unit.position))
        return positions


def _lack(positions: Sequence[str], planned: int) -> str:
    """Return what a table with ``planned`` chunks lacks, "" for nothing. ``positions``: one for each exported chunk."""
    if not positions:
        return "its rows were not exported"
    if len(positions) < planned:
        return f"only {len(positions)} of its {planned} chunks were exported"
    snapshots = len({*positions})
    return f"its rows are of {snapshots} snapshots, and were not compared" if snapshots > 1 else ""


def write_files(sink: Sink, files: Mapping[str, bytes]) -> None:
    """Write files of a source, by name."""
    for name, data in files.items():
        with sink.create(name) as file:
            file.write(data)


def summary_of_gone(
    workspace: Workspace, done: Iterable[DoneUnit], sink: Sink, error: SourceError
) -> SourceSummary | None:
    """See ``exporters.engine.SummaryOfGone``."""
    del error
    units, outlines = list(done), _noted(workspace)
    outlines = [_as_exported(outline, outlines, units) for outline in outlines]
    most = max(
        outlines, key=lambda outline: (_size(outline.planned, units), not outline.is_bare), default=None
    )
    return None if most is None else most.summary_of_gone(units, sink)


def _as_exported(outline: Outline, outlines: Sequence[Outline], done: Sequence[DoneUnit]) -> Outline:
    """Return an outline with each table in those chunks, among the ``outlines``, of which most was exported. A table
    that was only rewritten, such as by VACUUM FULL, differs between them in its chunks alone.
    """
    tables = {table.number: table for table in outline.tables}
    cuts: dict[int, list[PlannedTable]] = {number: [] for number in tables}
    for each in (outline, *outlines):
        for table, planned in zip(each.tables, each.planned, strict=True):
            if tables.get(table.number) == table:
                cuts[table.number].append(planned)
    units: dict[int, list[DoneUnit]] = {number: [] for number in tables}
    for unit in done:
        units.get(int(unit.unit.spec["table"]), []).append(unit)

    def most(number: int) -> PlannedTable:
        return max(cuts[number], key=lambda planned: _size([planned], units[number]))

    return replace(outline, planned=list(map(most, tables)), positions=outlines[0].positions)


def _units_of(planned: Iterable[PlannedTable], done: Iterable[DoneUnit]) -> Sequence[DoneUnit]:
    """Return the finished units that are chunks of these tables."""
    specs = {
        unit_id(table.directory, chunk): spec(table, chunk)
        for table in planned
        for chunk in range(len(table.ranges))
    }
    return [unit for unit in done if specs.get(unit.unit.id) == unit.unit.spec]


def _size(planned: Iterable[PlannedTable], done: Iterable[DoneUnit]) -> tuple[int, int]:
    units = _units_of(planned, done)
    return sum(unit.outcome.items for unit in units), len(units)


def _noted(workspace: Workspace) -> Sequence[Outline]:
    """Return the outlines that were noted, the latest first. Raises ``SourceStateError``."""
    data = workspace.read(OUTLINE)
    with reading_state(OUTLINE):
        return [] if data is None else msgspec.convert(json.loads(data), list[Outline])
