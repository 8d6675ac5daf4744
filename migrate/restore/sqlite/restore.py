"""A source's tables from a bundle into a new SQLite file.

Tables, then the rows, then in one transaction indexes, views, triggers, virtual tables and settings. At the end the
file is checked by SQLite and its rows are compared with the catalog's digests. The same command after a crash goes on
where it was: see ``destination``.

A part of a source (``--only``) may come into a file that holds other things: it takes plain statements, and nothing
else in the file is touched. Tables that are there already only get their rows. Their triggers would fire for every row:
those that are the bundle's own are dropped for as long, and noted, so that any run that ends the restore makes them
again.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress

from msgspec import Struct
from msgspec.structs import replace

from exporters.sqlite.address import SqliteAddress, parse_url
from exporters.sqlite.catalog import SchemaEntry, check_library, read_catalog
from exporters.sqlite.files.backup import open_file
from exporters.sqlite.identifiers import label, quote_name
from exporters.sqlite.live_reader import quiet_tables
from exporters.sqlite.part_reader import PartRows, read_part
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError, MoveoutError, NotEmptyError, UsageError
from migrate.restore.common.api import RestoreOutcome, RestoreRequest
from migrate.restore.common.left_out import FinishedRestore, now_there, unique
from migrate.restore.common.selection import strange_trigger
from migrate.restore.common.table_parts import REPAIR, WrittenRows, parts_of, readable
from migrate.restore.common.table_restore import TableRestore
from migrate.restore.sqlite import definitions as sqlite_schema
from migrate.restore.sqlite import destination as sqlite_destination
from migrate.restore.sqlite import left_out as sqlite_left_out
from migrate.restore.sqlite.application_functions import StandIns
from migrate.restore.sqlite.context import SqliteRestore
from migrate.restore.sqlite.definitions import SEQUENCE, Definitions
from migrate.restore.sqlite.destination import SqliteDestination, make_directory, mark_done, read_files
from migrate.restore.sqlite.load_rows import bring_rows
from migrate.runtime.crash_points import durable

_ASIDE = "aside "
_NEW_FILE = "name a file that does not exist yet"
_PRIVATE = "{path} is open to this account only: chown or chmod it for the application's"
_FROM_THE_DATA = ("NULL value in", "CHECK constraint failed", "NUMERIC value in", "TEXT value in", "non-")
"""Lines of ``integrity_check`` that concern rows, not pages: they hold for the source, too."""


class SqliteRestorer:
    """Restores SQLite files; see ``Restorer``."""

    def restore(self, request: RestoreRequest) -> RestoreOutcome:
        """See ``Restorer``. Raises ``NotEmptyError`` if the file holds what is in the way, ``UsageError`` for
        ``merge``, ``BusyError``, ``DamageError``, ``NoSpaceError``, ``NotAllowedError`` and errors of
        ``exporters.errors``.
        """
        check_library()
        reader, source, merge = request.reader, request.source, request.merge
        address = parse_url(request.url)
        run = TableRestore.of(request)
        files = read_files(reader, source)
        if files is None:
            job = SqliteRestore.of(run, Definitions.read(reader, source), address)
            return _restore(job, merge=merge)
        outcomes, damages = [], list[DamageError]()
        sizes = {
            name: sum(table.size_bytes for table in run.tables if table.schema == name) for name in files
        }
        for name, folder in files.items():
            destination = address.below(name)
            try:
                definitions = Definitions.read(reader, source, f"{folder}/")
            except DamageError as exc:
                damages.append(exc)
                continue
            job = SqliteRestore.of(replace(run, span=_span(sizes, name)), definitions, destination, name)
            if run.selection.tables and not job.run.tables:
                continue
            make_directory(destination.path.parent)
            outcomes.append(_in_file(name, _restore(job, merge=merge)))
        if damages:
            raise damages[0]
        return _together(source, outcomes)

    def finished(
        self, reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
    ) -> Sequence[FinishedRestore]:
        """Read the record that restores keep next to the file."""
        return sqlite_left_out.finished_restores(reader, source, url, secrets)


def _span(sizes: Mapping[str, int], name: str) -> tuple[float, float]:
    """Return which part of all files' bytes those of a file are: from and to, 0 to 1."""
    names = [*sizes]
    before = sum(sizes[earlier] for earlier in names[: names.index(name)])
    whole = max(1, sum(sizes.values()))
    return before / whole, (before + sizes[name]) / whole


def _in_file(name: str, outcome: RestoreOutcome) -> RestoreOutcome:
    """Return the outcome of one file of several, with the file's name in it."""
    return replace(
        outcome,
        findings=tuple(f"{name}: {finding}" for finding in outcome.findings),
        notes=tuple(f"{name}: {note}" for note in outcome.notes),
        routine=tuple(f"{name}: {note}" for note in outcome.routine),
        tables=tuple(replace(table, schema=name) for table in outcome.tables),
    )


def _together(source: str, outcomes: Sequence[RestoreOutcome]) -> RestoreOutcome:
    return RestoreOutcome(
        source,
        items=sum(outcome.items for outcome in outcomes),
        size_bytes=sum(outcome.size_bytes for outcome in outcomes),
        skipped_items=sum(outcome.skipped_items for outcome in outcomes),
        findings=tuple(finding for outcome in outcomes for finding in outcome.findings),
        notes=tuple(note for outcome in outcomes for note in outcome.notes),
        routine=tuple(note for outcome in outcomes for note in outcome.routine),
        left_out=tuple(dict.fromkeys(entry for outcome in outcomes for entry in outcome.left_out)),
        tables=tuple(table for outcome in outcomes for table in outcome.tables),
    )


def _restore(job: SqliteRestore, *, merge: bool) -> RestoreOutcome:
    run, address = job.run, job.address
    with sqlite_destination.open_destination(address) as destination:
        loaded = _load(job, destination)
    if not isinstance(loaded, _Loaded):
        records = sqlite_left_out.read_finished(address, run.reader.info.id, run.source)
        same = any(record.only == run.selection.words() for record in records)
        if run.selection.rows or same:
            findings = _findings(job, [entry for record in records for entry in record.left_out])
            if same and not findings:
                remaining, notes = _retry(job, records) if records else ((), [])
                how = [sqlite_left_out.how_to_forget(address)] if remaining else []
                return run.nothing_to_do("file", remaining, notes=[*notes, *how])
            if not findings or same:
                how = [sqlite_left_out.how_to_forget(address)] if records else []
                return run.nothing_to_do("file", records, findings, notes=how)
        if merge and run.whole:
            raise UsageError("a SQLite database needs a new file", next_step=_NEW_FILE)
        raise loaded
    if not loaded.finished:
        return run.outcome(loaded.rows, loaded.findings, loaded.notes, loaded.left_out)
    checked, notes = _check(address)
    how = [sqlite_left_out.how_to_forget(address)] if loaded.left_out else []
    findings = [*_findings(job, loaded.left_out), *checked]
    outcome = run.outcome(loaded.rows, findings, [*loaded.notes, *notes, *how], loaded.left_out)
    is_private = not stat.S_IMODE(address.path.stat().st_mode) & 0o077
    return replace(outcome, routine=(_PRIVATE.format(path=address.path),)) if is_private else outcome


class _Loaded(Struct, frozen=True):
    """What this run did, and what it could not do. ``finished``: all of it is there, and what came after the rows."""

    rows: WrittenRows
    findings: Sequence[str]
    left_out: Sequence[str]
    notes: Sequence[str]
    finished: bool = True


def _load(job: SqliteRestore, destination: SqliteDestination) -> _Loaded | MoveoutError:
    """Bring all of it into the destination; return the error where something else is in the way."""
    run, connection = job.run, destination.connection
    stand_ins = StandIns(connection)
    state = sqlite_destination.read_state(destination)
    if state is None:
        if (error := _in_the_way(job, connection)) is not None:
            return error
        _begin(job, connection, stand_ins)
    else:
        run.require_same(state, where=str(job.address.path), how="remove the file")
    if not run.selection.definitions:
        _put_aside(job, connection)
    rows, damaged = WrittenRows(0, 0), list[str]()
    if run.selection.rows:
        rows, damaged = bring_rows(job, connection, stand_ins)
    notes = stand_ins.take_back()
    if damaged:
        left_out = ["indexes, views and triggers: they come when all rows are there"]
        return _Loaded(rows, damaged, left_out, [*notes, REPAIR], finished=False)
    run.progress.begin(f"indexes of {run.source}", items=0, size_bytes=0, of=run.indexes_task)
    return _Loaded(rows, [], _complete(job, connection, notes), notes)


def _in_the_way(job: SqliteRestore, connection: sqlite3.Connection) -> NotEmptyError | None:
    """Return the error where the file is not ours to write to: where it has anything, or, for a part, where a table is
    in the way; see ``RestoreSelection.conflict``.
    """
    run, virtual_of = job.run, job.virtual
    if run.whole:
        if sqlite_destination.is_fresh(connection):
            return None
        return NotEmptyError(f"{job.address.path} holds something else already", next_step=_NEW_FILE)

    def has_rows(name: str) -> bool:
        """A shadow table has some even where its virtual table has none."""
        if (virtual := virtual_of.get(name)) is not None:
            with suppress(sqlite3.OperationalError):
                return _is_filled(connection, virtual)
        return _is_filled(connection, name)

    names = [table.name for table in run.tables]
    return run.selection.conflict(names, lambda name: _has(connection, name), has_rows, str(job.address.path))


def _has(connection: sqlite3.Connection, name: str) -> bool:
    query = "SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND lower(name) = lower(?)"
    return connection.execute(query, (name,)).fetchone() is not None


def _is_filled(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute(f"SELECT 1 FROM {quote_name(name)} LIMIT 1").fetchone() is not None


def _begin(job: SqliteRestore, connection: sqlite3.Connection, stand_ins: StandIns) -> None:
    """Make the tables, and the state."""
    if sqlite_destination.is_fresh(connection):
        sqlite_destination.prepare(connection, job.definitions.pragmas)
    connection.execute("BEGIN IMMEDIATE")
    sqlite_destination.begin_state(connection, job.run.state)
    if job.run.selection.definitions:
        sqlite_schema.make_tables(connection, job.entries, stand_ins, empty=not job.run.selection.rows)
    with durable("restore.sqlite.tables"):
        connection.execute("COMMIT")


def _put_aside(job: SqliteRestore, connection: sqlite3.Connection) -> None:
    """Drop the triggers of the tables that get rows. Raises ``NotEmptyError`` for one that is not the bundle's."""
    ours = {entry.name: entry for entry in job.definitions.entries if entry.type == "trigger"}
    cursor = connection.execute("SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'trigger'")
    triggers = [row for row in cursor.fetchall() if row[1] in job.names]
    for name, table, sql in triggers:
        if name not in ours or ours[name].sql != sql:
            raise strange_trigger(name, table, str(job.address.path))
    connection.execute("BEGIN IMMEDIATE")
    for name, _, _ in triggers:
        mark_done(connection, _ASIDE + name)
        connection.execute(f"DROP TRIGGER {quote_name(name)}")
    with durable("restore.sqlite.triggers_aside"):
        connection.execute("COMMIT")


def _complete(job: SqliteRestore, connection: sqlite3.Connection, notes: Sequence[str]) -> list[str]:
    """Do all that comes after the rows, in one transaction with the end of the state; return what is left out."""
    run, pragmas = job.run, job.definitions.pragmas
    done, refused = sqlite_destination.read_done(connection), sqlite_destination.read_refused(connection)
    if run.whole and pragmas.get("journal_mode") == "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("BEGIN IMMEDIATE")
    sqlite_destination.drop_state(connection)
    if run.whole:
        left_out = [*refused, *sqlite_schema.make_indexes(connection, job.entries)]
        for name in ("user_version", "application_id"):
            connection.execute(f"PRAGMA {name} = {int(pragmas[name])}")
        sqlite_schema.complete(connection, job.definitions)
    else:
        left_out = [*refused, *_complete_part(job, connection, done)]
    sqlite_left_out.write(job.address, run.state, FinishedRestore(run.selection.words(), left_out, notes))
    with durable("restore.sqlite.finish"):
        connection.execute("COMMIT")
    return left_out


def _complete_part(job: SqliteRestore, connection: sqlite3.Connection, done: AbstractSet[str]) -> list[str]:
    """Do what comes after the rows, last in the transaction; return what is left out. ``done``: what was noted."""
    selection, left_out = job.run.selection, list[str]()
    if selection.definitions:
        left_out = sqlite_schema.make_indexes(connection, job.entries)
        sqlite_schema.make_triggers(connection, job.entries)
    else:
        aside = [entry for entry in job.definitions.entries if _ASIDE + entry.name in done]
        sqlite_schema.make_triggers(connection, aside)
    if selection.rows and _has(connection, SEQUENCE):
        for name, value in _counters(job).items():
            connection.execute(f"DELETE FROM {SEQUENCE} WHERE name = ?", (name,))
            connection.execute(f"INSERT INTO {SEQUENCE} (name, seq) VALUES (?, ?)", (name, value))
    if selection.definitions:
        sqlite_schema.add_virtual(connection, job.entries)
    return left_out


def _counters(job: SqliteRestore) -> dict[str, int]:
    """Return AUTOINCREMENT's counters of the selected tables, from the bundle."""
    counters: dict[str, int] = {}
    for part in parts_of([job.counters] if job.counters is not None else []):
        with job.run.reader.open(part.key) as file:
            for some in readable(part, read_part(file)):
                assert isinstance(some, PartRows)  # their values are names and numbers
                columns = dict(
                    zip(some.shown.names, (column.to_list() for column in some.columns), strict=True)
                )
                rows: Iterable[tuple[str, int]] = zip(columns["name"], columns["seq"], strict=True)
                counters |= {name: value for name, value in rows if name in job.names}
    return counters


def _retry(
    job: SqliteRestore, records: Sequence[FinishedRestore]
) -> tuple[Sequence[FinishedRestore], list[str]]:
    """Try the left out indexes again. Return records of what is still left out, and notes about the rest."""
    before = unique(*(record.left_out for record in records))
    with sqlite_destination.open_destination(job.address) as destination:
        connection = destination.connection
        present = read_catalog(connection).entries
        entries = sqlite_schema.indexes_left_out(job.definitions.entries, before, present)
        connection.execute("BEGIN IMMEDIATE")
        refused = [sentence for sentence in before if not sqlite_schema.is_about_an_index(sentence)]
        still = [*refused, *sqlite_schema.make_indexes(connection, entries)]
        with durable("restore.sqlite.retry"):
            connection.execute("COMMIT")
    records = [record.with_left_out(still) for record in records]
    for record in records:
        sqlite_left_out.write(job.address, replace(job.run.state, only=record.only), record)
    return [record for record in records if record.left_out], now_there(before, still)


def _findings(job: SqliteRestore, left_out: Sequence[str]) -> list[str]:
    """Compare rows and definitions of the finished file with the bundle, but for what is ``left_out`` of them."""
    rows = _differences(job) if job.run.selection.rows else []
    if not job.run.selection.definitions:
        return rows
    with (
        closing(open_file(job.address.path, immutable=True)) as connection,
        sqlite_destination.translated(job.address),
    ):
        catalog = read_catalog(connection)
    if not job.run.whole:
        selected_names = {(entry.type, entry.name) for entry in job.entries}
        present = [entry for entry in catalog.entries if (entry.type, entry.name) in selected_names]
        return [*rows, *_definition_differences(job.entries, present, left_out)]
    pragmas = {name: value for name, value in job.definitions.pragmas.items() if name in catalog.pragmas}
    settings = [
        f"{name}: expected {value!r}, found {catalog.pragmas[name]!r}"
        for name, value in pragmas.items()
        if catalog.pragmas[name] != value
    ]
    definitions = _definition_differences(job.definitions.entries, catalog.entries, left_out)
    return [*rows, *definitions, *settings]


def _definition_differences(
    entries: Sequence[SchemaEntry], present: Sequence[SchemaEntry], left_out: Sequence[str]
) -> list[str]:
    absent = sqlite_schema.indexes_left_out(entries, left_out, present)
    return sqlite_schema.schema_differences([entry for entry in entries if entry not in absent], present)


def _differences(job: SqliteRestore) -> list[str]:
    """Compare the finished file's rows with the bundle's."""
    path, url, workers = job.address.path, job.address.url, job.run.workers
    names = None if job.run.whole else job.names
    advance = job.run.begin_comparison()
    job.run.end_comparison(quiet_tables(path, url, workers=workers, advance=advance, names=names))
    return job.run.findings(job.run.tables, label)


def _check(address: SqliteAddress) -> tuple[list[str], list[str]]:
    """Let SQLite check the file. Return findings about the file, and notes about its rows."""
    findings: list[str] = []
    notes: list[str] = []
    with closing(open_file(address.path, immutable=True)) as connection:
        try:
            for (line,) in connection.execute("PRAGMA integrity_check").fetchall():
                if line.startswith(_FROM_THE_DATA):
                    notes.append(f"integrity_check says of the rows, which are the source's: {line}")
                elif line != "ok":
                    findings.append(f"integrity_check: {line}")
            if broken := len(connection.execute("PRAGMA foreign_key_check").fetchall()):
                notes.append(
                    f"foreign_key_check: {broken} rows refer to rows that are not there, as in the source"
                )
        except sqlite3.OperationalError as exc:
            notes.append(f"SQLite could not check all of the file: {exc}")
        except sqlite3.DatabaseError as exc:
            findings.append(f"integrity_check: {exc}")
    return findings, notes
