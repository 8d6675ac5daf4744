"""One consistent view of a PostgreSQL database, cut into chunks of tables."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress

from msgspec import Struct
from msgspec.structs import replace
from pyarrow import ArrowInvalid

from exporters.api import DoneUnit, Gap, Json, Outcome, Sink, SourceSummary, Unit, Workspace
from exporters.connections.open_connections import waking
from exporters.errors import (
    SourceError,
    SourceSilentError,
    SourceSnapshotLostError,
    SourceUnreachableError,
)
from exporters.postgres import changed_chunks, large_objects
from exporters.postgres.catalog import PostgresColumn, PostgresTable, have_moved, types_have_changed
from exporters.postgres.charset.encodings import AS_STORED
from exporters.postgres.definitions.definition_files import (
    DefinitionFiles,
    bare_definitions,
    read_definitions,
)
from exporters.postgres.definitions.moved_objects import moved_object
from exporters.postgres.discovery import OWN_OBJECTS
from exporters.postgres.errors import DRIVER_ERRORS, as_source_errors, in_one_line, replaced_since
from exporters.postgres.query_rows import fetch
from exporters.postgres.rows.copy_feed import Chunk, Feeds
from exporters.postgres.server_counts import Counting
from exporters.postgres.sessions.snapshot_session import PostgresSession
from exporters.sql.chunk_plan import Plan, units_of
from exporters.sql.columns import Layout, ParsedBlock
from exporters.sql.outline import Outline, write_files
from exporters.sql.snapshots import snapshot_lost
from exporters.sql.source_summary import (
    Exported,
    HowCounted,
    column_details,
)


class _Planned(Struct, frozen=True):
    """What one table's units share."""

    table: PostgresTable
    layout: Layout

    @property
    def lenient(self) -> Layout:
        """The layout for a table whose text has bytes that are not UTF-8, which a server may have accepted."""
        columns = [
            column if column.kind.plain else replace(column, kind=replace(column.kind, encoding="UTF8"))
            for column in self.table.columns
        ]
        return Layout.of(columns)


class PostgresSnapshot:
    """See ``exporters.api.Snapshot``. Opened by ``PostgresSource.snapshot``; thread-safe."""

    def __init__(
        self,
        session: PostgresSession,
        tables: Sequence[PostgresTable],
        plan: Plan,
        positions: Sequence[Json],
        workers: int,
    ) -> None:
        self.position = session.position
        self.ticket = session.ticket
        self._session = session
        self._plan = plan
        self._workers = workers
        self._tables = [table for table in tables if table.exported]
        self._all_tables = tables
        by_name = {(table.schema, table.name): table for table in self._tables}
        self._planned = {
            planned.number: _Planned(
                by_name[planned.schema, planned.name],
                Layout.of(by_name[planned.schema, planned.name].columns),
            )
            for planned in plan.tables
        }
        if session.large_objects:
            condition = large_objects.readable(session.version)
            objects = large_objects.table(session.large_objects, condition)
            self._planned[large_objects.NUMBER] = _Planned(objects, Layout.of(objects.columns))
        self._specs = {unit.id: unit.spec for unit in self.units()}
        self._feeds = Feeds(session, workers=workers)
        self._read_ahead: dict[str, ParsedBlock] = {}
        self._positions = positions
        self._holder_lock = threading.Lock()
        self._stop = waking(session.address.url, threading.Event(), threading.Event.set)
        self._definers = ThreadPoolExecutor(2, thread_name_prefix="moveout-define")
        self._defining: Future[DefinitionFiles] | None = None
        self._counting: Counting | None = None
        self._moved = ""

    def units(self) -> Iterator[Unit]:
        """Yield the chunks of every table, and one unit for all large objects where there are any."""
        for planned in self._plan.tables:
            table = self._planned[planned.number].table
            yield from units_of(planned, table.estimate, table.size_bytes)
        if self._session.large_objects:
            yield large_objects.unit(self._planned[large_objects.NUMBER].table)

    def export(self, unit: Unit, sink: Sink) -> Outcome:
        """Export one chunk."""
        from exporters.postgres.rows.chunk_export import (  # noqa: PLC0415  meanwhile the server counts
            export_rows,
            export_small,
        )

        planned = self._planned[unit.spec["table"]]
        first, last = unit.spec["range"]
        facts = {name: self.position[name] for name in ("snapshot", "history", "lsn")}
        small = self._read_ahead.pop(unit.id, None)
        if small is not None:
            return export_small(small, planned.layout, sink, unit.spec, facts)
        with self._unless_lost(planned.table):
            try:
                rows = self._feeds.rows(planned.table, (first, last))
                return export_rows(rows, planned.layout, sink, unit.spec, facts)
            except ArrowInvalid:
                if self.position["encoding"] != "UTF8":
                    raise
                rows = self._feeds.rows(planned.table, (first, last))
                return export_rows(rows, planned.lenient, sink, unit.spec, facts)

    @contextmanager
    def _unless_lost(self, table: PostgresTable) -> Iterator[None]:
        """Raise ``SourceSnapshotLostError`` where a server cannot be reached that has ended: it may begin anew. Also
        where a table is not there by its name since, or is another one, or definitions were altered.
        """
        self._check_moved()
        try:
            yield
        except (SourceSnapshotLostError, SourceSilentError):
            raise
        except SourceUnreachableError:
            self._check_holder(wait=False)
            raise
        except SourceError:
            self._check_holder()
            self._check_names([table])
            raise

    def read_ahead(self, units: Sequence[Unit]) -> None:
        """See ``exporters.api.ReadingAhead``."""
        small: list[tuple[Unit, _Planned]] = []
        chunks: list[Chunk] = []
        for unit in units:
            planned, (first, last) = self._planned[unit.spec["table"]], unit.spec["range"]
            if self._feeds.is_small(planned.table):
                small.append((unit, planned))
                chunks.append((planned.table, (first, last)))
        read = self._feeds.read_all(chunks) if len(chunks) > 1 else []
        if not read:
            return
        from exporters.postgres.rows.chunk_export import typed_together  # noqa: PLC0415  see ``export``

        typed = typed_together(
            [(planned.layout, rows) for (_, planned), rows in zip(small, read, strict=True)]
        )
        for (unit, _), chunk in zip(small, typed, strict=True):
            if chunk is not None:
                self._read_ahead[unit.id] = chunk

    def still_holds(self, done: DoneUnit) -> bool:
        """Tell whether a chunk has the same rows under this snapshot: by one scan of its pages at most, or by reading
        and digesting them again where the versions of rows do not say.
        """
        planned_spec = self._specs.get(done.unit.id)
        if planned_spec is None or dict(planned_spec) != dict(done.unit.spec):
            return False
        outcome, now = done.outcome, self.position["snapshot"]
        before = str(outcome.facts.get("snapshot", ""))
        if not changed_chunks.is_continued(outcome.facts, self.position):
            before = ""
        if changed_chunks.nothing_happened(before, now):
            return True
        table = self._planned[planned_spec["table"]].table
        first, last = planned_spec["range"]
        query = changed_chunks.query(table, (first, last), before, now)
        if query is not None:
            with self._unless_lost(table):
                return self._feeds.numbers(query, table) == [outcome.items, 0]
        from exporters.postgres.rows.chunk_export import digest_rows  # noqa: PLC0415  only a further run needs it

        with self._unless_lost(table):
            rows = self._feeds.rows(table, (first, last))
            digest = digest_rows(rows, None, has_columns=bool(table.columns))
        return (digest.rows, digest.digest) == (outcome.items, outcome.digest)

    @property
    def prepares_early(self) -> bool:
        """See ``exporters.api.PreparesFinish``: all is read as of the snapshot."""
        return True

    def begin_outline(self, workspace: Workspace) -> None:
        """See ``exporters.api.Outlined``: waits for it where the units need the connections of pg_dump."""
        self._defining = self._definers.submit(self._read_definitions)
        noting = self._definers.submit(self._note_outline, workspace, self._defining)
        if self._limited:
            wait([noting])

    def _note_outline(self, workspace: Workspace, defining: Future[DefinitionFiles]) -> None:
        """Note it without definitions, and again with them."""
        self._outline(bare_definitions(self._tables), ()).note(workspace)
        self._outline(defining.result(), self._unreadable_objects()).note(workspace)

    def prepare_finish(self) -> None:
        """See ``exporters.api.PreparesFinish``: begins to count, unless that needs connections that are not free."""
        if not self._limited:
            self._begun_counting()

    def finish(self, done: Iterator[DoneUnit], sink: Sink) -> SourceSummary:
        """Write the definitions and return the summary, with the server's own count of every table."""
        try:
            summary_of_all = self._finish(done, sink)
        except SourceSnapshotLostError:
            raise
        except SourceError:
            self._check_holder()
            self._check_names(self._tables)
            raise
        self._check_holder()
        return summary_of_all

    def _check_holder(self, *, wait: bool = True) -> None:
        """Raise ``SourceSnapshotLostError`` unless snapshot and locks were held until now: without its lock, a table
        that was truncated meanwhile looks empty under an old snapshot, too. Unless one is to ``wait`` for that, nothing
        is checked while somebody else asks the holder.
        """
        if not self._holder_lock.acquire(blocking=wait):
            return
        try:
            self._session.holder.execute("SELECT")
        except DRIVER_ERRORS as exc:
            raise snapshot_lost(self._session.address.url, in_one_line(exc)) from exc
        finally:
            self._holder_lock.release()

    def _check_names(self, tables: Sequence[PostgresTable]) -> None:
        """Raise ``SourceSnapshotLostError`` where tables have other names since the snapshot, by which they are read:
        the lock of a table keeps its own name, and not that of its schema.
        """
        url = self._session.address.url
        with as_source_errors(url), self._holder_lock, self._session.holder.transaction():
            have_other_names = have_moved(self._session.holder, tables)
        if have_other_names:
            raise replaced_since(url)

    def _check_types(self, counting: Counting) -> None:
        """Raise ``SourceSnapshotLostError`` where types of values were defined otherwise since the snapshot: no lock
        keeps them, and a row has the text of the moment when it was read.
        """
        url = self._session.address.url
        with as_source_errors(url), counting.present() as now, self._holder_lock:
            have_changed = types_have_changed(self._session.holder, now)
        if have_changed:
            raise SourceSnapshotLostError(
                "types were altered while rows were read: some have the text of before", about=url
            )

    def _finish(self, done: Iterator[DoneUnit], sink: Sink) -> SourceSummary:
        if self._limited:
            self._feeds.close()  # their connections are pg_dump's, then the counts'
            definitions = self._definitions()
            counting = self._begun_counting()
        else:
            counting = self._begun_counting()
            definitions = self._definitions()
        self._check_moved()
        write_files(sink, definitions.files)
        outline = self._outline(definitions, self._unreadable_objects())
        counts = counting.result()
        columns = [column for planned in self._planned.values() for column in planned.table.columns]
        if any(column.definition for column in columns):
            self._check_types(counting)
        how = HowCounted(
            listed=("pg_class", sum(1 for table in self._all_tables if not table.foreign)),
            counted="count(*) under the snapshot",
            measured="sum(octet_length()) under the snapshot",
            not_measured=self._not_measured(columns),
            other_entries=1 if self._session.large_objects else 0,
        )
        summary = outline.finished(done, counts, how)
        return replace(summary, has_definitions=not self._planned and self._has_definitions())

    def _outline(self, definitions: DefinitionFiles, unreadable_objects: Sequence[Gap]) -> Outline:
        """Return what is known before rows are read and counted."""
        large = [large_objects.planned(0)] if self._session.large_objects else []
        planned = [*self._plan.tables, *large]
        unreadable = [Gap(table.item, "failed", table.gap) for table in self._all_tables if table.gap]
        return Outline(
            files={**definitions.files},
            tables=[_exported(table.number, self._planned[table.number].table) for table in planned],
            planned=planned,
            gaps=[*unreadable, *definitions.gaps, *unreadable_objects],
            losses=definitions.losses,
            positions=[dict(position) for position in self._positions],
            server=self._session.server,
        )

    def _not_measured(self, columns: Iterable[PostgresColumn]) -> str:
        """Return why the server counts no bytes of text; "" where it does, or where there is no text."""
        encoding = self.position["encoding"]
        has_text = any(str(column.kind.stored) == "string" for column in columns)
        if encoding in AS_STORED or not has_text:
            return ""
        return f"the server has them in {encoding}, and they leave in UTF-8"

    def _has_definitions(self) -> bool:
        """Tell whether the database has anything that a fresh one has not."""
        with self._holder_lock:
            row = self._session.holder.execute(OWN_OBJECTS.encode()).fetchone()
        return bool(row and row[0])

    def _unreadable_objects(self) -> list[Gap]:
        """Return a gap for each large object that this role may not read."""
        if not self._session.large_objects:
            return []
        with self._holder_lock:
            rows = fetch(self._session.holder, large_objects.unreadable_query(self._session.version))
        return [
            Gap(f"large object {row['oid']}", "failed", "this role has no SELECT privilege on it")
            for row in rows
        ]

    @property
    def _limited(self) -> bool:
        return self._session.session_limits.limits.max_connections is not None

    def _begun_counting(self) -> Counting:
        if self._counting is None:
            tables = {number: planned.table for number, planned in self._planned.items()}
            workers = self._session.session_limits.workers(self._workers)
            self._counting = Counting(self._session, tables, workers=workers)
        return self._counting

    def _definitions(self) -> DefinitionFiles:
        """Return the definitions. What failed while units were read is tried again."""
        if self._defining is not None:
            with suppress(SourceError):
                return self._defining.result()
        return self._read_definitions()

    def _read_definitions(self) -> DefinitionFiles:
        try:
            with self._holder_lock:
                definitions = read_definitions(self._session, self._all_tables, self._stop)
        except SourceUnreachableError:
            raise
        except SourceError:
            self._look_for_moved()
            self._check_moved()
            raise
        self._look_for_moved()
        return definitions

    def _look_for_moved(self) -> None:
        """Note an object that was dropped or renamed since the snapshot, if there is one. Where the server lets nobody
        in for that, nobody looks.
        """
        session = self._session
        try:
            present = session.session_limits.connect(session.address)
        except SourceUnreachableError:
            return
        with as_source_errors(session.address.url), closing(present), self._holder_lock:
            self._moved = moved_object(session.holder, present)

    def _check_moved(self) -> None:
        """Raise ``SourceSnapshotLostError`` where definitions were altered while they were read. What was read of them
        stays in the outline: another snapshot may fare no better.
        """
        if self._moved:
            raise SourceSnapshotLostError(
                f"{self._moved} was dropped or renamed while definitions were read: they do not fit together",
                about=self._session.address.url,
            )

    def count_no_more(self) -> None:
        """See ``exporters.api.InterruptibleCount``."""
        if self._counting is not None:
            self._counting.give_up()

    def close(self) -> None:
        """End what is under way, and close the connections for rows and counts."""
        self._stop.set()
        self._definers.shutdown()
        if self._counting is not None:
            self._counting.close()
        self._feeds.close()


def _exported(number: int, table: PostgresTable) -> Exported:
    columns = [column_details(column) | {"identity": column.identity} for column in table.columns]
    persistence = {"p": "permanent", "u": "unlogged"}.get(table.persistence, table.persistence)
    ancestors = [list(name) for name in table.ancestors]
    details = {"columns": columns, "persistence": persistence, "ancestors": ancestors}
    details |= {"extension": table.extension} if table.extension else {}
    return Exported(number, table.schema, table.name, table.item, None, details, kind=table.kind)
