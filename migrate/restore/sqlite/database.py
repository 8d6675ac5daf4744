"""A source's tables from a bundle into a new SQLite file.

Tables, then the rows, then in one transaction indexes, views, triggers, virtual tables and settings; at the end the
file is checked by SQLite and its rows are compared with the catalog's digests. The same command after a crash goes on
where it was: see ``target``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from exporters.sqlite.address import Address, parse_url
from exporters.sqlite.backup import open_file
from exporters.sqlite.catalog import check_library, read_catalog
from exporters.sqlite.identifiers import SCHEMA, label
from exporters.sqlite.live import quiet_tables
from exporters.tally import Advance
from migrate.bundle.reader import BundleReader
from migrate.errors import NotEmptyError, UsageError
from migrate.progress import Progress
from migrate.restore.outcome import RestoreOutcome
from migrate.restore.relational.parts import PartFile
from migrate.restore.relational.run import Run, Written
from migrate.restore.sqlite import schema as sqlite_schema
from migrate.restore.sqlite import target as sqlite_target
from migrate.restore.sqlite.files import make_room, read_files
from migrate.restore.sqlite.functions import Lent
from migrate.restore.sqlite.rows import parts_in_order, write_parts
from migrate.restore.sqlite.schema import Definitions
from migrate.restore.sqlite.target import Target

_NEW_FILE = "Name a file that does not exist yet."
_FROM_THE_DATA = ("NULL value in", "CHECK constraint failed", "NUMERIC value in", "TEXT value in", "non-")
"""What ``integrity_check`` says of rows rather than of pages: the source's rows say the same."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A restore: what, and where to."""

    run: Run
    definitions: Definitions
    address: Address


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What this run did, and what it could not do."""

    rows: Written
    findings: Sequence[str]
    notes: Sequence[str]


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
    """Restore one source. Raises ``NotEmptyError`` if the file holds something else, ``UsageError`` for
    ``into_existing``, ``BusyError``, ``DamageError``, ``NoSpaceError``, ``NotAllowedError`` and errors of
    ``exporters.errors``.
    """
    del password
    check_library()
    address = parse_url(target_url)
    run = Run.of(reader, source, workers=workers, progress=progress)
    files = read_files(reader, source)
    if files is None:
        return _restore(_Job(run, Definitions.read(reader, source), address), into_existing=into_existing)
    outcomes = []
    for name, folder in files.items():
        tables = [replace(table, schema=SCHEMA) for table in run.tables if table.schema == name]
        target = address.below(name)
        make_room(target.path.parent)
        own = Run(reader, source, tables, workers, progress)
        job = _Job(own, Definitions.read(reader, source, f"{folder}/"), target)
        outcomes.append(_in_file(name, _restore(job, into_existing=into_existing)))
    return _together(source, outcomes)


def _in_file(name: str, one: RestoreOutcome) -> RestoreOutcome:
    """Return the outcome of one file of several, which says so."""
    return replace(
        one,
        findings=tuple(f"{name}: {finding}" for finding in one.findings),
        notes=tuple(f"{name}: {note}" for note in one.notes),
        tables=tuple(replace(table, schema=name) for table in one.tables),
    )


def _together(source: str, outcomes: Sequence[RestoreOutcome]) -> RestoreOutcome:
    return RestoreOutcome(
        source,
        items=sum(one.items for one in outcomes),
        size_bytes=sum(one.size_bytes for one in outcomes),
        skipped_items=sum(one.skipped_items for one in outcomes),
        findings=tuple(finding for one in outcomes for finding in one.findings),
        notes=tuple(note for one in outcomes for note in one.notes),
        tables=tuple(table for one in outcomes for table in one.tables),
    )


def _restore(job: _Job, *, into_existing: bool) -> RestoreOutcome:
    run, address = job.run, job.address
    with sqlite_target.open_target(address) as target:
        loaded = _load(job, target)
    if loaded is None:
        if not _findings(job):
            return run.already("file")
        if into_existing:
            raise UsageError("a SQLite database is restored into a file of its own", next_step=_NEW_FILE)
        raise NotEmptyError(f"{address.path} holds something else already", next_step=_NEW_FILE)
    findings = [*loaded.findings, *_findings(job)]
    checked, notes = _check(address)
    return run.outcome(loaded.rows, [*findings, *checked], [*loaded.notes, *notes])


def _load(job: _Job, target: Target) -> _Loaded | None:
    """Bring tables, rows and the rest into the target; None where the file is not ours to write to."""
    run, connection = job.run, target.connection
    lent = Lent(connection)
    state = sqlite_target.read_state(target)
    ours = run.state
    if state is None:
        if not sqlite_target.is_fresh(target):
            return None
        sqlite_target.prepare(connection, job.definitions.pragmas)
        connection.execute("BEGIN IMMEDIATE")
        sqlite_target.begin_state(connection, ours)
        sqlite_schema.make_tables(connection, job.definitions.entries, lent)
        connection.execute("COMMIT")
    else:
        run.ours(state.bundle, state.source, where=str(job.address.path), how="remove the file")
    written = _rows(job, target, lent)
    notes = lent.take_back()
    run.progress.note(f"{run.source}: making indexes")
    return _Loaded(written, _complete(job, connection), notes)


def _rows(job: _Job, target: Target, lent: Lent) -> Written:
    """Insert the parts that are not done."""
    run, connection = job.run, target.connection
    connection.execute("PRAGMA ignore_check_constraints = ON")
    tables = {table.name: table for table in read_catalog(connection).tables}
    lent.lend_for_rows(tables.values())

    def write(todo: Sequence[PartFile], advance: Advance) -> None:
        write_parts(run.reader, connection, tables, todo, advance)

    return run.rows(parts_in_order(run.tables), sqlite_target.read_done(target), write)


def _complete(job: _Job, connection: sqlite3.Connection) -> list[str]:
    """Do all that comes after the rows, in one transaction; the state goes with it."""
    pragmas = job.definitions.pragmas
    if pragmas.get("journal_mode") == "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("BEGIN IMMEDIATE")
    sqlite_target.drop_state(connection)
    findings = sqlite_schema.make_indexes(connection, job.definitions.entries)
    for name in ("user_version", "application_id"):
        connection.execute(f"PRAGMA {name} = {int(pragmas[name])}")
    sqlite_schema.complete(connection, job.definitions.entries)
    connection.execute("COMMIT")
    return findings


def _findings(job: _Job) -> list[str]:
    """Compare rows and definitions of the finished file with the bundle."""
    rows = _differences(job)
    connection = open_file(job.address.path, immutable=True)
    try:
        with sqlite_target.translated(job.address):
            found = read_catalog(connection)
    finally:
        connection.close()
    wanted = {name: value for name, value in job.definitions.pragmas.items() if name in found.pragmas}
    settings = [
        f"{name}: expected {value!r}, found {found.pragmas[name]!r}"
        for name, value in wanted.items()
        if found.pragmas[name] != value
    ]
    definitions = sqlite_schema.schema_differences(job.definitions.entries, found.entries)
    return [*rows, *definitions, *settings]


def _differences(job: _Job) -> list[str]:
    """Compare the finished file's rows with the bundle's."""
    path, url = job.address.path, job.address.url
    return job.run.compared(
        lambda advance: quiet_tables(path, url, workers=job.run.workers, advance=advance), label
    )


def _check(address: Address) -> tuple[list[str], list[str]]:
    """Let SQLite check the file. Return findings about the file, and notes about its rows."""
    findings: list[str] = []
    notes: list[str] = []
    connection = open_file(address.path, immutable=True)
    try:
        said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        for line in said:
            if line.startswith(_FROM_THE_DATA):
                notes.append(f"integrity_check says of the rows, which are the source's: {line}")
            elif line != "ok":
                findings.append(f"integrity_check: {line}")
        broken = len(connection.execute("PRAGMA foreign_key_check").fetchall())
        if broken:
            notes.append(
                f"foreign_key_check: {broken} rows refer to rows that are not there, as in the source"
            )
    except sqlite3.OperationalError as exc:
        notes.append(f"SQLite could not check all of the file: {exc}")
    finally:
        connection.close()
    return findings, notes
