"""A source's tables from a bundle into an empty PostgreSQL database.

Definitions (pre-data), then the rows in parallel, then indexes, constraints, triggers (post-data) and
sequences; at the end the target's rows are compared with the catalog's digests. The same command after a
crash goes on where it was: see ``target``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from exporters.postgres.catalog import PROGRESS_SCHEMA
from exporters.postgres.connect import parse_url
from exporters.postgres.errors import DRIVER_ERRORS, translate
from exporters.postgres.identifiers import quote_qualified
from exporters.postgres.live import live_tables
from exporters.tally import Tally, to_hex
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.errors import NotEmptyError, UsageError
from migrate.progress import Progress
from migrate.restore.outcome import RestoreOutcome
from migrate.restore.postgres import target as sql_target
from migrate.restore.postgres.rows import PartFile, RowWriter, parts_of
from migrate.restore.postgres.schema import (
    Definitions,
    ddl_error,
    make_roles,
    missing_roles,
    run_section,
    set_sequences,
)
from migrate.restore.postgres.target import State, Target

_POST_DATA = "post-data"
_ALREADY = "the database holds all of this already: every table has the bundle's rows; nothing was done"


@dataclass(frozen=True, slots=True)
class _Run:
    """One restore: what from where to where."""

    reader: BundleReader
    source: str
    tables: Sequence[CatalogRow]
    target: Target
    workers: int
    progress: Progress


def restore_database(
    reader: BundleReader,
    source: str,
    target_url: str,
    *,
    workers: int,
    progress: Progress,
    into_existing: bool = False,
    password: str | None = None,
) -> RestoreOutcome:
    """Restore one source. Raises ``NotEmptyError`` if the database holds something else and ``into_existing``
    is not given, ``BusyError``, ``DamageError``, ``UsageError`` and errors of ``exporters.errors``.
    """
    tables = [row for row in reader.catalog() if row.source == source and row.kind == "table"]
    if source not in reader.sources:
        names = ", ".join(sorted(reader.sources))
        raise UsageError(f"the bundle has no source {source}", next_step=f"It has: {names}.")
    address = parse_url(target_url, password=password)
    try:
        with sql_target.open_target(address) as target:
            run = _Run(reader, source, tables, target, workers, progress)
            return _restore(run, into_existing=into_existing)
    except DRIVER_ERRORS as exc:
        raise translate(exc, address.url) from exc


def _restore(run: _Run, *, into_existing: bool) -> RestoreOutcome:
    notes: list[str] = []
    state = sql_target.read_state(run.target)
    if state is None:
        found = sql_target.content(run.target)
        if found and not into_existing:
            return _already_there(run, found)
        state = _define(run, notes)
    elif (state.bundle, state.source) != (run.reader.info.id, run.source):
        raise NotEmptyError(
            f"{run.target.address.url} holds an unfinished restore of source {state.source} of bundle {state.bundle}",
            next_step=f"Finish that one, or drop the database (the state is in schema {PROGRESS_SCHEMA}).",
        )
    done = sql_target.read_done(run.target)
    skipped, written = _rows(run, done)
    if _POST_DATA not in done:
        _complete(run, state)
    run.target.connection.execute("ANALYZE")
    findings = differences(run.tables, _live(run))
    if not findings:
        sql_target.drop_state(run.target)
    total = sum(table.items for table in run.tables)
    return RestoreOutcome(run.source, total, written, skipped, tuple(findings), tuple(notes))


def _already_there(run: _Run, found: str) -> RestoreOutcome:
    """Return that nothing is to be done if the database equals the bundle. Raises ``NotEmptyError``."""
    if run.tables and not differences(run.tables, _live(run)):
        total = sum(table.items for table in run.tables)
        return RestoreOutcome(run.source, total, 0, total, notes=(_ALREADY,))
    raise NotEmptyError(
        f"{run.target.address.url} is not empty: it has the {found}",
        next_step="Restore into a fresh, empty database, or say --merge if no name is in both.",
    )


def _define(run: _Run, notes: list[str]) -> State:
    """Make roles, types, tables, functions and the state in one transaction: first with owners and
    privileges, then, where the target does not permit that, without.
    """
    definitions = Definitions.read(run.reader, run.source)
    run.progress.note(f"{run.source}: making tables, types and functions")
    try:
        return _try_define(run, definitions, portable=False, notes=notes)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject) as exc:
        refused = " ".join(str(exc).split())
    try:
        state = _try_define(run, definitions, portable=True, notes=notes)
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc
    notes.append(f"owners and privileges were left out, because the target refused them: {refused}")
    return state


def _try_define(run: _Run, definitions: Definitions, *, portable: bool, notes: list[str]) -> State:
    connection = run.target.connection
    state = State(run.reader.info.id, run.source, portable)
    made: list[str] = []
    try:
        with connection.transaction():
            if not portable:
                made = missing_roles(connection, definitions.roles())
                make_roles(connection, definitions.roles(), made)
            run_section(connection, definitions.section("pre-data", portable=portable))
            sql_target.begin_state(connection, state)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject):
        raise
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc
    if made:
        notes.append(f"these roles were made and have no password yet: {', '.join(made)}")
    return state


def _rows(run: _Run, done: set[str]) -> tuple[int, int]:
    """Copy the parts that are not done; return the rows that were, and the bytes of text written now."""
    parts = parts_of(run.tables)
    todo = [part for part in parts if part.name not in done]
    total_bytes = sum(table.size_bytes for table in run.tables)
    run.progress.begin(
        f"restore {run.source}", items=sum(part.rows for part in parts), size_bytes=total_bytes
    )
    skipped = sum(part.rows for part in parts) - sum(part.rows for part in todo)
    if skipped:
        run.progress.skip(items=skipped, size_bytes=total_bytes - sum(map(_estimate, todo)))
    written = _Sum(run.progress)
    RowWriter(run.reader, run.target.address, workers=run.workers, advance=written.add).write_all(todo)
    run.progress.end()
    return skipped, written.size_bytes


def _estimate(part: PartFile) -> int:
    return part.table.size_bytes * part.rows // max(part.table.items, 1)


class _Sum:
    """Adds up what the workers wrote; integer addition under the interpreter's lock loses nothing that matters here."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.size_bytes = 0

    def add(self, rows: int, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        self._progress.advance(items=rows, size_bytes=size_bytes)


def _complete(run: _Run, state: State) -> None:
    """Indexes, constraints, triggers, materialized views, sequences: one transaction."""
    definitions = Definitions.read(run.reader, run.source)
    connection = run.target.connection
    run.progress.note(f"{run.source}: making indexes and constraints")
    try:
        with connection.transaction():
            sql_target.mark_done(connection, _POST_DATA)
            set_sequences(connection, definitions.sequences())
            run_section(connection, definitions.section("post-data", portable=state.portable))
    except psycopg.Error as exc:
        raise ddl_error(exc, "post-data.sql") from exc


def _live(run: _Run) -> Mapping[tuple[str, str], Tally]:
    items = sum(table.items for table in run.tables)
    run.progress.begin(f"compare {run.source}", items=items, size_bytes=sum(t.size_bytes for t in run.tables))
    found = live_tables(
        run.target.address,
        workers=run.workers,
        advance=lambda rows, size_bytes: run.progress.advance(items=rows, size_bytes=size_bytes),
    )
    run.progress.end()
    return found


def differences(tables: Sequence[CatalogRow], live: Mapping[tuple[str, str], Tally]) -> list[str]:
    """Return a sentence for every table of the bundle whose rows in the database are not the bundle's."""
    found = []
    for table in tables:
        label = quote_qualified(table.schema, table.name)
        tally = live.get((table.schema, table.name))
        if tally is None:
            found.append(f"{label} is missing in the target")
        elif tally.rows != table.items:
            found.append(f"{label}: expected {table.items} rows, found {tally.rows}")
        elif to_hex(tally.digest) != table.digest:
            found.append(f"{label}: expected digest {table.digest}, found {to_hex(tally.digest)}")
    return found
