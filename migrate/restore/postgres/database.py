"""A source's tables from a bundle into an empty PostgreSQL database.

Definitions (pre-data), then the rows in parallel, then indexes, constraints, triggers (post-data) and
sequences; at the end the target's rows are compared with the catalog's digests. The same command after a
crash goes on where it was: see ``target``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from exporters.postgres.catalog import PROGRESS_SCHEMA
from exporters.postgres.connect import parse_url
from exporters.postgres.errors import DRIVER_ERRORS, translate
from exporters.postgres.identifiers import quote_qualified
from exporters.postgres.live import live_tables
from exporters.tally import Advance
from migrate.bundle.reader import BundleReader
from migrate.errors import NotEmptyError
from migrate.progress import Progress
from migrate.restore.outcome import RestoreOutcome
from migrate.restore.postgres import target as sql_target
from migrate.restore.postgres.rows import RowWriter
from migrate.restore.postgres.schema import (
    Definitions,
    ddl_error,
    make_roles,
    missing_roles,
    run_section,
    set_sequences,
)
from migrate.restore.postgres.target import State, Target
from migrate.restore.relational.parts import PartFile, parts_of
from migrate.restore.relational.run import Run, Written

_POST_DATA = "post-data"


@dataclass(frozen=True, slots=True)
class _Job:
    """A restore, and where to."""

    run: Run
    target: Target


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
    run = Run.of(reader, source, workers=workers, progress=progress)
    address = parse_url(target_url, password=password)
    try:
        with sql_target.open_target(address) as target:
            return _restore(_Job(run, target), into_existing=into_existing)
    except DRIVER_ERRORS as exc:
        raise translate(exc, address.url) from exc


def _restore(job: _Job, *, into_existing: bool) -> RestoreOutcome:
    notes: list[str] = []
    run, target = job.run, job.target
    state = sql_target.read_state(target)
    if state is None:
        found = sql_target.content(target)
        if found and not into_existing:
            return _already_there(job, found)
        state = _define(job, notes)
    run.ours(
        state.bundle,
        state.source,
        where=target.address.url,
        how=f"drop the database (the state is in schema {PROGRESS_SCHEMA})",
    )
    done = sql_target.read_done(target)
    written = _rows(job, done)
    if _POST_DATA not in done:
        _complete(job, state)
    target.connection.execute("ANALYZE")
    findings = _differences(job)
    if not findings:
        sql_target.drop_state(target)
    return run.outcome(written, findings, notes)


def _already_there(job: _Job, found: str) -> RestoreOutcome:
    """Return that nothing is to be done if the database equals the bundle. Raises ``NotEmptyError``."""
    if job.run.tables and not _differences(job):
        return job.run.already("database")
    raise NotEmptyError(
        f"{job.target.address.url} is not empty: it has the {found}",
        next_step="Restore into a fresh, empty database, or say --merge if no name is in both.",
    )


def _define(job: _Job, notes: list[str]) -> State:
    """Make roles, types, tables, functions and the state in one transaction: first with owners and
    privileges, then, where the target does not permit that, without.
    """
    run = job.run
    definitions = Definitions.read(run.reader, run.source)
    run.progress.note(f"{run.source}: making tables, types and functions")
    try:
        return _try_define(job, definitions, portable=False, notes=notes)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject) as exc:
        refused = " ".join(str(exc).split())
    try:
        state = _try_define(job, definitions, portable=True, notes=notes)
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc
    notes.append(f"owners and privileges were left out, because the target refused them: {refused}")
    return state


def _try_define(job: _Job, definitions: Definitions, *, portable: bool, notes: list[str]) -> State:
    connection = job.target.connection
    state = State(job.run.reader.info.id, job.run.source, portable)
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


def _rows(job: _Job, done: set[str]) -> Written:
    """Copy the parts that are not done."""
    run = job.run

    def write(todo: Sequence[PartFile], advance: Advance) -> None:
        RowWriter(run.reader, job.target.address, workers=run.workers, advance=advance).write_all(todo)

    return run.rows(parts_of(run.tables), done, write)


def _complete(job: _Job, state: State) -> None:
    """Indexes, constraints, triggers, materialized views, sequences: one transaction."""
    run, connection = job.run, job.target.connection
    definitions = Definitions.read(run.reader, run.source)
    run.progress.note(f"{run.source}: making indexes and constraints")
    try:
        with connection.transaction():
            sql_target.mark_done(connection, _POST_DATA)
            set_sequences(connection, definitions.sequences())
            run_section(connection, definitions.section("post-data", portable=state.portable))
    except psycopg.Error as exc:
        raise ddl_error(exc, "post-data.sql") from exc


def _differences(job: _Job) -> list[str]:
    """Compare the target's rows with the bundle's."""
    return job.run.compared(
        lambda advance: live_tables(job.target.address, workers=job.run.workers, advance=advance),
        quote_qualified,
    )
