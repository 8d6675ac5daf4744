"""A source's tables from a bundle into an empty MySQL or MariaDB database.

Tables (foreign keys are not checked meanwhile), then the rows in parallel, then the keys of large tables, routines,
views, triggers and events; at the end the target's rows are compared with the catalog's digests. The same command
after a crash goes on where it was: see ``target``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pymysql

from exporters.mysql.catalog import PROGRESS_TABLES
from exporters.mysql.connect import parse_url
from exporters.mysql.errors import DRIVER_ERRORS, translate
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.live import live_tables
from exporters.tally import Advance
from migrate.bundle.reader import BundleReader
from migrate.errors import NotEmptyError
from migrate.progress import Progress
from migrate.restore.mysql import target as mysql_target
from migrate.restore.mysql.grants import restore_grants
from migrate.restore.mysql.keys import add_keys, set_aside
from migrate.restore.mysql.rows import RowWriter, empty_unfinished
from migrate.restore.mysql.schema import (
    AFTER_ROWS,
    BEFORE_ROWS,
    Definer,
    Definition,
    ddl_error,
    read_definitions,
    step_of,
)
from migrate.restore.mysql.target import Target
from migrate.restore.outcome import RestoreOutcome
from migrate.restore.relational.parts import PartFile, parts_of
from migrate.restore.relational.run import Run, Written

_NAMES = """
SELECT 'table', TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema}
UNION SELECT LOWER(ROUTINE_TYPE), ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {schema}
UNION SELECT 'trigger', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {schema}
UNION SELECT 'event', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {schema}
"""


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
        with mysql_target.open_target(address) as target:
            return _restore(_Job(run, target), into_existing=into_existing)
    except DRIVER_ERRORS as exc:
        raise translate(exc, address.url) from exc


def _restore(job: _Job, *, into_existing: bool) -> RestoreOutcome:
    notes: list[str] = []
    run, target = job.run, job.target
    definitions = read_definitions(run.reader, run.source)
    state = mysql_target.read_state(target)
    if state is None:
        found = mysql_target.content(target)
        if found and not into_existing:
            return _already_there(job, found)
        _refuse_twins(target, definitions)
        state = run.state
        mysql_target.begin_state(target, state)
    run.ours(
        state.bundle,
        state.source,
        where=target.address.url,
        how=f"drop the database (the state is in table {PROGRESS_TABLES[0]})",
    )
    definer = Definer(target.connection, notes)
    if not into_existing:
        definer.set_database(definitions[0])
    definitions, later = set_aside(definitions, run.tables)
    _make(job, definer, definitions, BEFORE_ROWS)
    written = _rows(job)
    if later:
        run.progress.note(f"{run.source}: making keys")
        add_keys(target.address, later, mysql_target.read_done(target.connection), run.workers)
    _make(job, definer, definitions, AFTER_ROWS)
    if not into_existing:
        notes += _grants(job)
    findings = _differences(job)
    if not findings:
        mysql_target.drop_state(target)
    return run.outcome(written, findings, notes)


def _already_there(job: _Job, found: str) -> RestoreOutcome:
    """Return that nothing is to be done if the database equals the bundle. Raises ``NotEmptyError``."""
    if job.run.tables and not _differences(job):
        return job.run.already("database")
    raise NotEmptyError(
        f"{job.target.address.url} is not empty: it has the {found}",
        next_step="Restore into a fresh, empty database, or say --merge if no name is in both.",
    )


def _refuse_twins(target: Target, definitions: Sequence[Definition]) -> None:
    """Raise ``NotEmptyError`` if a name is both in the database and in the bundle."""
    query = _NAMES.format(schema=quote_literal(target.address.database))
    there = {(str(kind), str(name)) for kind, name in target.connection.rows(query)}
    for one in definitions[1:]:
        kind = "table" if one["kind"] in {"view", "sequence"} else one["kind"]
        if (kind, one["name"]) in there:
            raise NotEmptyError(
                f"{target.address.url} has a {one['kind']} {quote_name(one['name'])} already",
                next_step="Restore into another database, or rename it.",
            )


def _make(job: _Job, definer: Definer, definitions: Sequence[Definition], kinds: Sequence[str]) -> None:
    """Make the objects of these kinds that are not noted as done."""
    run, connection = job.run, job.target.connection
    done = mysql_target.read_done(connection)
    todo = [one for one in definitions if one["kind"] in kinds and step_of(one) not in done]
    if todo:
        run.progress.note(f"{run.source}: making {kinds[0]}s to {kinds[-1]}s")
    views = [one for one in todo if one["kind"] == "view"]
    after = {"trigger", "event"}

    def made(one: Definition) -> None:
        mysql_target.mark_done(connection, step_of(one))

    def make(one: Definition) -> None:
        try:
            definer.make(one)
        except pymysql.Error as exc:
            raise ddl_error(exc, one) from exc
        made(one)

    for one in todo:
        if one["kind"] != "view" and one["kind"] not in after:
            make(one)
    definer.make_views(views, made)
    for one in todo:
        if one["kind"] in after:
            make(one)


def _rows(job: _Job) -> Written:
    """Write the parts that are not done."""
    run, connection = job.run, job.target.connection
    parts = parts_of(run.tables)
    done = empty_unfinished(connection, parts, mysql_target.read_done(connection))

    def write(todo: Sequence[PartFile], advance: Advance) -> None:
        RowWriter(run.reader, job.target.address, workers=run.workers, advance=advance).write_all(todo)

    return run.rows(parts, done, write)


def _grants(job: _Job) -> list[str]:
    """Grant on the target what the source's accounts may on the source's database."""
    database = next((str(table.point.get("database", "")) for table in job.run.tables), "")
    return restore_grants(job.run.reader, job.run.source, database, job.target.connection)


def _differences(job: _Job) -> list[str]:
    """Compare the target's rows with the bundle's."""
    return job.run.compared(
        lambda advance: live_tables(job.target.address, workers=job.run.workers, advance=advance),
        lambda _, name: quote_name(name),
    )
