"""The outline of a database: its definitions and tables, noted in the workspace as soon as its snapshot stands.

From it comes the summary of a source that is gone before it was read to its end. What is lost are rows that were not
read, and the server's own counts.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from exporters.api import OUTLINE, DoneUnit, Gap, Loss, Sink, SourceSummary, Workspace
from exporters.errors import SourceError, reading_state
from exporters.sql.chunk_plan import PlannedTable, spec, unit_id
from exporters.sql.source_summary import Exported, entries_of, one_each
from exporters.structs import as_dict


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

    def note(self, workspace: Workspace) -> None:
        """Write it; the one of an earlier snapshot is replaced."""
        files = {name: b64encode(data).decode() for name, data in self.files.items()}
        workspace.write(OUTLINE, json.dumps(as_dict(self) | {"files": files}).encode())

    def summary(self, done: Iterable[DoneUnit], sink: Sink) -> SourceSummary:
        """Write the definitions; add up the units that are of these tables. A table that lacks some is a gap, and so is
        one whose units were read under several snapshots: a row may have moved from one to the other.
        """
        write_files(sink, self.files)
        specs = {
            unit_id(table.directory, chunk): spec(table, chunk)
            for table in self.planned
            for chunk in range(len(table.ranges))
        }
        units = [unit for unit in done if specs.get(unit.unit.id) == unit.unit.spec]
        entries, _ = entries_of(self.tables, units)
        positions: dict[int, list[str]] = {table.number: [] for table in self.tables}
        for unit in units:
            positions[int(unit.unit.spec["table"])].append(json.dumps(unit.position, sort_keys=True))
        missing = [
            Gap(table.label, "failed", f"{lack} before the source was gone")
            for table, planned in zip(self.tables, self.planned, strict=True)
            if (lack := _lack(positions[table.number], len(planned.ranges)))
        ]
        return SourceSummary(
            entries,
            [],
            gaps=one_each([*self.gaps, *missing]),
            losses=self.losses,
            positions=self.positions,
            server=self.server,
        )


def _lack(positions: Sequence[str], planned: int) -> str:
    """Return what is wrong with a table of so many planned chunks, "" if nothing is. ``positions``: a chunk each."""
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
    data = workspace.read(OUTLINE)
    if data is None:
        return None
    with reading_state(OUTLINE):
        outline = msgspec.convert(json.loads(data), Outline)
    return outline.summary(done, sink)
