"""One consistent view of a MySQL or MariaDB database, cut into chunks of tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from exporters.api import DoneUnit, Outcome, Sink, SourceSummary, Unit, Workspace
from exporters.errors import SourceError
from exporters.mysql.catalog import MysqlTable
from exporters.mysql.chunk_plan import Range
from exporters.mysql.consistent_snapshot import MysqlSession
from exporters.mysql.definitions.show_create import Schema, read_schema
from exporters.mysql.discovery import is_empty
from exporters.mysql.errors import DRIVER_ERRORS, last_session_error
from exporters.mysql.rows.chunk_export import digest_rows, export_rows
from exporters.mysql.server_counts import Counting
from exporters.mysql.sessions.snapshot_locks import ONE_SESSION
from exporters.mysql.source_summary import MysqlFinish, outline, summary
from exporters.sql import snapshot_positions
from exporters.sql.chunk_plan import Plan, stem, units_of
from exporters.sql.columns import Layout
from exporters.sql.outline import write_files
from exporters.structs import as_dict


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
        self._positions = snapshot_positions.remember(workspace, self.position)
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
        keys, begin = _keys(unit), stem(unit.spec)
        chunk = self._session.feeds.use(
            lambda feed: export_rows(feed, planned.table, keys, layout=planned.layout, sink=sink, stem=begin)
        )
        facts = {"parts": [as_dict(part) for part in chunk.parts], "exact": list(chunk.exact)}
        facts["octets"] = dict(chunk.octets)
        return Outcome(chunk.rows, chunk.text_bytes, chunk.digest, facts=facts)

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
        self._defining = self._counting.on_holder(self._read_schema)
        noting = self._counting.on_holder(partial(self._note_outline, workspace, self._defining))
        if self._session.consistency == ONE_SESSION:
            wait([noting])

    def _note_outline(self, workspace: Workspace, defining: Future[Schema]) -> None:
        schema = defining.result()
        outline(self._known(schema), self._plan.tables, schema.files).note(workspace)

    def finish(self, done: Iterator[DoneUnit], sink: Sink) -> SourceSummary:
        """Write the definitions and return the summary, with the server's own count of every table. Raises
        ``SourceSnapshotLostError`` unless the holder kept all tables until now: without it one may have been renamed,
        and another one have been read in its place.
        """
        current_units = [unit for unit in done if self._specs.get(unit.unit.id) == unit.unit.spec]
        counted = self._counting.result()
        try:
            schema = self._schema()
            has_definitions = not self._planned and not is_empty(
                self._session.holder, self._session.address.database
            )
            self._session.holder.run("DO 0")
        except DRIVER_ERRORS as exc:
            raise last_session_error(exc, self._session.address.url) from exc
        write_files(sink, schema.files)
        schema.missing.losses.extend(self._counting.losses)
        finished = replace(self._known(schema), counted=counted, done=current_units)
        return replace(summary(finished), has_definitions=has_definitions)

    def _known(self, schema: Schema) -> MysqlFinish:
        """Return what is known when the definitions have been read."""
        return MysqlFinish(
            tables={number: planned.table for number, planned in self._planned.items()},
            all_tables=self._all_tables,
            unreadable=self._session.unreadable,
            counted={},
            done=(),
            positions=self._positions,
            server=self._session.server,
            missing=schema.missing,
        )

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
