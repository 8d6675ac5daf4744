"""A source's tables from a bundle into a new SQLite file.

Tables, then the rows, then in one transaction indexes, views, triggers, virtual tables and settings; at the end the
file is checked by SQLite and its rows are compared with the catalog's digests. The same command after a crash goes on
where it was: see ``target``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporters.sqlite.address import Address, parse_url
from exporters.sqlite.backup import open_file
from exporters.sqlite.catalog import check_library, read_catalog
from exporters.sqlite.identifiers import label
from exporters.sqlite.live import quiet_tables
from exporters.tally import Tally, to_hex
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.errors import NotEmptyError, UsageError
from migrate.progress import Progress
from migrate.restore.outcome import RestoreOutcome
from migrate.restore.sqlite import schema as sqlite_schema
from migrate.restore.sqlite import target as sqlite_target
from migrate.restore.sqlite.rows import parts_of, write_parts
from migrate.restore.sqlite.schema import Definitions
from migrate.restore.sqlite.target import State, Target

_ALREADY = "the file holds all of this already: every table has the bundle's rows; nothing was done"
_NEW_FILE = "Name a file that does not exist yet."
_FROM_THE_DATA = ("NULL value in", "CHECK constraint failed", "NUMERIC value in", "TEXT value in", "non-")
"""What ``integrity_check`` says of rows rather than of pages: the source's rows say the same."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One restore: what from where to where."""

    reader: BundleReader
    source: str
    tables: Sequence[CatalogRow]
    definitions: Definitions
    address: Address
    workers: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What this run did, and what it could not do."""

    skipped_items: int
    size_bytes: int
    findings: Sequence[str]


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
    reader.info.source(source)
    check_library()
    address = parse_url(target_url)
    tables = [row for row in reader.catalog() if row.source == source and row.kind == "table"]
    definitions = Definitions.read(reader, source)
    run = _Run(reader, source, tables, definitions, address, workers, progress)
    with sqlite_target.open_target(address) as target:
        loaded = _load(run, target)
    total = sum(table.items for table in tables)
    if loaded is None:
        if not _findings(run):
            return RestoreOutcome(source, total, 0, total, notes=(_ALREADY,))
        if into_existing:
            raise UsageError("a SQLite database is restored into a file of its own", next_step=_NEW_FILE)
        raise NotEmptyError(f"{address.path} holds something else already", next_step=_NEW_FILE)
    findings = [*loaded.findings, *_findings(run)]
    checked, notes = _check(run)
    return RestoreOutcome(
        source, total, loaded.size_bytes, loaded.skipped_items, (*findings, *checked), tuple(notes)
    )


def _load(run: _Run, target: Target) -> _Loaded | None:
    """Bring tables, rows and the rest into the target; None where the file is not ours to write to."""
    connection = target.connection
    state = sqlite_target.read_state(target)
    ours = State(run.reader.info.id, run.source)
    if state is None:
        if not sqlite_target.is_fresh(target):
            return None
        sqlite_target.prepare(connection, run.definitions.pragmas)
        connection.execute("BEGIN IMMEDIATE")
        sqlite_target.begin_state(connection, ours)
        sqlite_schema.make_tables(connection, run.definitions.entries)
        connection.execute("COMMIT")
    elif state != ours:
        raise NotEmptyError(
            f"{run.address.path} holds an unfinished restore of source {state.source} of bundle {state.bundle}",
            next_step="Finish that one, or remove the file.",
        )
    skipped, written = _rows(run, target)
    run.progress.note(f"{run.source}: making indexes")
    return _Loaded(skipped, written, _complete(run, connection))


def _rows(run: _Run, target: Target) -> tuple[int, int]:
    """Insert the parts that are not done; return the rows that were, and the bytes written now."""
    done = sqlite_target.read_done(target)
    parts = parts_of(run.tables)
    todo = [part for part in parts if part.name not in done]
    run.progress.begin(
        f"restore {run.source}",
        items=sum(part.rows for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
    )
    skipped = [part for part in parts if part.name in done]
    if skipped:
        run.progress.skip(
            items=sum(part.rows for part in skipped), size_bytes=sum(part.size_bytes for part in skipped)
        )
    target.connection.execute("PRAGMA ignore_check_constraints = ON")
    tables = {table.name: table for table in read_catalog(target.connection).tables}
    write_parts(
        run.reader,
        target.connection,
        tables,
        todo,
        lambda rows, size_bytes: run.progress.advance(items=rows, size_bytes=size_bytes),
    )
    run.progress.end()
    return sum(part.rows for part in skipped), sum(part.size_bytes for part in todo)


def _complete(run: _Run, connection: sqlite3.Connection) -> list[str]:
    """Do all that comes after the rows, in one transaction; the state goes with it."""
    pragmas = run.definitions.pragmas
    if pragmas.get("journal_mode") == "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("BEGIN IMMEDIATE")
    sqlite_target.drop_state(connection)
    findings = sqlite_schema.make_indexes(connection, run.definitions.entries)
    for name in ("user_version", "application_id"):
        connection.execute(f"PRAGMA {name} = {int(pragmas[name])}")
    sqlite_schema.complete(connection, run.definitions.entries)
    connection.execute("COMMIT")
    return findings


def _findings(run: _Run) -> list[str]:
    """Compare rows and definitions of the finished file with the bundle."""
    live = _live(run)
    connection = open_file(run.address.path, immutable=True)
    try:
        with sqlite_target.translated(run.address):
            found = read_catalog(connection)
    finally:
        connection.close()
    wanted = {name: value for name, value in run.definitions.pragmas.items() if name in found.pragmas}
    settings = [
        f"{name}: expected {value!r}, found {found.pragmas[name]!r}"
        for name, value in wanted.items()
        if found.pragmas[name] != value
    ]
    definitions = sqlite_schema.schema_differences(run.definitions.entries, found.entries)
    return [*differences(run.tables, live), *definitions, *settings]


def _live(run: _Run) -> Mapping[tuple[str, str], Tally]:
    items = sum(table.items for table in run.tables)
    run.progress.begin(f"compare {run.source}", items=items, size_bytes=sum(t.size_bytes for t in run.tables))
    found = quiet_tables(
        run.address.path,
        run.address.url,
        workers=run.workers,
        advance=lambda rows, size_bytes: run.progress.advance(items=rows, size_bytes=size_bytes),
    )
    run.progress.end()
    return found


def differences(tables: Sequence[CatalogRow], live: Mapping[tuple[str, str], Tally]) -> list[str]:
    """Return a sentence for every table of the bundle whose rows in the file are not the bundle's."""
    found = []
    for table in tables:
        name = label(table.schema, table.name)
        tally = live.get((table.schema, table.name))
        if tally is None:
            found.append(f"{name} is missing in the target")
        elif tally.rows != table.items:
            found.append(f"{name}: expected {table.items} rows, found {tally.rows}")
        elif to_hex(tally.digest) != table.digest:
            found.append(f"{name}: expected digest {table.digest}, found {to_hex(tally.digest)}")
    return found


def _check(run: _Run) -> tuple[list[str], list[str]]:
    """Let SQLite check the file. Return findings about the file, and notes about its rows."""
    findings: list[str] = []
    notes: list[str] = []
    connection = open_file(run.address.path, immutable=True)
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
