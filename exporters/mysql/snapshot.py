"""One consistent view of a MySQL or MariaDB database, cut into chunks of tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from exporters.api import DoneUnit, Gap, Loss, Outcome, Sink, SourceSummary, Unit, Workspace
from exporters.errors import SourceError
from exporters.mysql.catalog import MysqlTable
from exporters.mysql.chunk_plan import Range
from exporters.mysql.consistent_snapshot import MysqlSession
from exporters.mysql.definitions.show_create import Schema, bare_schema, read_schema
from exporters.mysql.discovery import is_empty
from exporters.mysql.errors import DRIVER_ERRORS, is_refused, last_session_error
from exporters.mysql.rows.chunk_export import digest_rows, export_rows
from exporters.mysql.server_counts import Counting
from exporters.mysql.sessions.snapshot_locks import GLOBAL_LOCK, ONE_SESSION
from exporters.sql.chunk_plan import Plan, units_of
from exporters.sql.columns import Layout
from exporters.sql.outline import Outline, write_files
from exporters.sql.snapshots import remember_position
from exporters.sql.source_summary import (
    Counted,
    Exported,
    HowCounted,
    column_details,
    settled,
)


class _Planned(Struct, frozen=True):
    """What one table's units share."""

    table: MysqlTable
    layout: Layout


class MysqlSnapshot:
    """See ``exporters.api.Snapshot``. Opened by ``MysqlSource.snapshot``; thread-safe."""

    def __init__(
        self,
        session: MysqlSession,
        tables: Sequence[MysqlTable],
        plan: Plan,
        workspace: Workspace,
        workers: int,
    ) -> None:
        self.position = session.position
        self._session = session
        self._plan = plan
        self._all_tables = tables
        by_name = {table.name: table for table in tables}
        self._planned = {
            planned.number: _Planned(by_name[planned.name], Layout.of(by_name[planned.name].columns))
            for planned in plan.tables
        }
        tables_by_number = {number: planned.table for number, planned in self._planned.items()}
        self._counting = Counting(session, tables_by_number, workers=workers)
        self._specs = {unit.id: unit.spec for unit in self.units()}
        self._positions = remember_position(workspace, self.position)
        self._defining: Future[Schema] | None = None

    def units(self) -> Iterator[Unit]:
        """Yield the plan's chunks."""
        for planned in self._plan.tables:
            table = self._planned[planned.number].table
            yield from units_of(planned, table.estimate, table.size_bytes)

    def export(self, unit: Unit, sink: Sink) -> Outcome:
        """Export one chunk. While the first one is exported, the tables are counted where a session is free for that. A
        scan takes about as long as a third of the rows, and one at the end would have the server to itself.
        """
        if self._session.consistency != ONE_SESSION:
            self._counting.begin()
        planned = self._planned[unit.spec["table"]]
        keys = _keys(unit)
        return self._session.feeds.use(
            lambda feed: export_rows(
                feed, planned.table, keys, layout=planned.layout, sink=sink, spec=unit.spec
            )
        )

    def still_holds(self, done: DoneUnit) -> bool:
        """Tell whether a chunk has the same rows under this snapshot, by reading and digesting them again."""
        planned_spec = self._specs.get(done.unit.id)
        if planned_spec is None or dict(planned_spec) != dict(done.unit.spec):
            return False
        table = self._planned[planned_spec["table"]].table
        digest = self._session.feeds.use(lambda feed: digest_rows(feed, table, _keys(done.unit)))
        return (digest.rows, digest.digest) == (done.outcome.items, done.outcome.digest)

    def begin_outline(self, workspace: Workspace) -> None:
        """See ``exporters.api.Outlined``: definitions are of the time when they are read, best near the snapshot. The
        holder reads them; it is waited for where it is the one that reads rows.
        """
        self._counting.on_holder(partial(self._note_bare, workspace))
        self._defining = self._counting.on_holder(self._read_schema)
        noting = self._counting.on_holder(partial(self._note_outline, workspace, self._defining))
        if self._session.consistency == ONE_SESSION:
            wait([noting])

    def _note_bare(self, workspace: Workspace) -> None:
        bare = bare_schema(self._session.holder, (planned.table for planned in self._planned.values()))
        self._outline(bare).note(workspace)

    def _note_outline(self, workspace: Workspace, defining: Future[Schema]) -> None:
        self._outline(defining.result()).note(workspace)

    def finish(self, done: Iterator[DoneUnit], sink: Sink) -> SourceSummary:
        """Write the definitions and return the summary, with the server's own count of every table. Raises
        ``SourceSnapshotLostError`` unless the holder kept all tables until now: without it one may have been renamed,
        and another one have been read in its place.
        """
        counted = self._counting.result()
        try:
            schema = self._schema()
            has_definitions = not self._planned and not is_empty(
                self._session.holder, self._session.address.database
            )
            self._check_holder()
        except DRIVER_ERRORS as exc:
            raise last_session_error(exc, self._session.address.url) from exc
        write_files(sink, schema.files)
        schema.missing.losses.extend(self._counting.losses)
        not_counted = self._not_counted(settled(counted))
        how = HowCounted(
            listed=("information_schema", sum(1 for table in self._all_tables if not table.elsewhere)),
            counted="count(*) under the snapshot",
            measured=f"sum(length()) under the snapshot{f', {not_counted}' if not_counted else ''}",
            not_measured=f"the server cannot say how many bytes they have in UTF-8 ({not_counted})"
            if not_counted
            else "",
        )
        summary = self._outline(schema).finished(done, counted, how)
        return replace(summary, has_definitions=has_definitions)

    def _check_holder(self) -> None:
        """Raise the driver's error where the holder has ended. One that refuses has not: a count that is given up may
        end the next statement instead (``Counting.give_up``).
        """
        try:
            self._session.holder.run("DO 0")
        except DRIVER_ERRORS as exc:
            if not is_refused(exc):
                raise
            self._session.holder.run("DO 0")

    def _outline(self, schema: Schema) -> Outline:
        """Return what is known before rows are read and counted."""
        unreadable = [
            Gap(table.label, "failed", self._session.unreadable[table.name])
            for table in self._all_tables
            if table.name in self._session.unreadable and not table.elsewhere
        ]
        return Outline(
            files={**schema.files},
            tables=[_exported(number, planned.table) for number, planned in self._planned.items()],
            planned=self._plan.tables,
            gaps=[*unreadable, *schema.missing.gaps],
            losses=[*schema.missing.losses, *_table_losses(self._all_tables, self.position)],
            positions=[dict(position) for position in self._positions],
            server=self._session.server,
        )

    def _not_counted(self, counts: Mapping[int, Counted]) -> str:
        """Return how many columns of text and bytes the server did not count, as words."""
        columns = sum(
            1
            for number, planned in self._planned.items()
            for column in planned.table.columns
            if column.has_octets and column.name not in counts[number].octets
        )
        return f"{columns} column{'' if columns == 1 else 's'} not counted" if columns else ""

    def count_no_more(self) -> None:
        """See ``exporters.api.InterruptibleCount``."""
        self._counting.give_up()

    def _schema(self) -> Schema:
        """Return the definitions. What failed while units were read is tried again."""
        if self._defining is not None:
            with suppress(*DRIVER_ERRORS, SourceError):
                return self._defining.result()
        return self._read_schema()

    def _read_schema(self) -> Schema:
        return read_schema(self._session.holder, self._all_tables)

    def close(self) -> None:
        """Count no more."""
        self._counting.close()


def _keys(unit: Unit) -> Range:
    first, last = unit.spec["range"]
    return first, last


def _table_losses(tables: Sequence[MysqlTable], position: Mapping[str, Any]) -> list[Loss]:
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


def _exported(number: int, table: MysqlTable) -> Exported:
    columns = [column_details(column) | {"extra": column.extra} for column in table.columns]
    details = {"columns": columns, "engine": table.engine}
    details |= {"history": list(table.history)} if table.history else {}
    return Exported(number, table.schema, table.name, table.label, None, details)
