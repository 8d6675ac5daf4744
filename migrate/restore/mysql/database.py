"""A source's tables from a bundle into an empty MySQL or MariaDB database.

Tables (foreign keys are not checked meanwhile), then the rows in parallel, then routines, views, triggers and events;
at the end the target's rows are compared with the catalog's digests. The same command after a crash goes on where it
was: see ``target``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pymysql

from exporters.mysql.catalog import PROGRESS_TABLES
from exporters.mysql.connect import parse_url
from exporters.mysql.errors import DRIVER_ERRORS, translate
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.live import live_tables
from exporters.tally import Tally, to_hex
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.errors import NotEmptyError
from migrate.progress import Progress
from migrate.restore.mysql import target as mysql_target
from migrate.restore.mysql.rows import PartFile, RowWriter, empty_unfinished, parts_of
from migrate.restore.mysql.schema import (
    AFTER_ROWS,
    BEFORE_ROWS,
    Definer,
    Definition,
    ddl_error,
    read_definitions,
    step_of,
)
from migrate.restore.mysql.target import State, Target
from migrate.restore.outcome import RestoreOutcome

_ALREADY = "the database holds all of this already: every table has the bundle's rows; nothing was done"
_NAMES = """
SELECT 'table', TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema}
UNION SELECT LOWER(ROUTINE_TYPE), ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {schema}
UNION SELECT 'trigger', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {schema}
UNION SELECT 'event', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {schema}
"""


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
    reader.info.source(source)
    tables = [row for row in reader.catalog() if row.source == source and row.kind == "table"]
    address = parse_url(target_url, password=password)
    try:
        with mysql_target.open_target(address) as target:
            run = _Run(reader, source, tables, target, workers, progress)
            return _restore(run, into_existing=into_existing)
    except DRIVER_ERRORS as exc:
        raise translate(exc, address.url) from exc


def _restore(run: _Run, *, into_existing: bool) -> RestoreOutcome:
    notes: list[str] = []
    definitions = read_definitions(run.reader, run.source)
    state = mysql_target.read_state(run.target)
    if state is None:
        found = mysql_target.content(run.target)
        if found and not into_existing:
            return _already_there(run, found)
        _refuse_twins(run, definitions)
        mysql_target.begin_state(run.target, State(run.reader.info.id, run.source))
    elif (state.bundle, state.source) != (run.reader.info.id, run.source):
        raise NotEmptyError(
            f"{run.target.address.url} holds an unfinished restore of source {state.source} of bundle {state.bundle}",
            next_step=f"Finish that one, or drop the database (the state is in table {PROGRESS_TABLES[0]}).",
        )
    definer = Definer(run.target.connection, notes)
    if not into_existing:
        definer.set_database(definitions[0])
    _make(run, definer, definitions, BEFORE_ROWS)
    skipped, written = _rows(run)
    _make(run, definer, definitions, AFTER_ROWS)
    findings = differences(run.tables, _live(run))
    if not findings:
        mysql_target.drop_state(run.target)
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


def _refuse_twins(run: _Run, definitions: Sequence[Definition]) -> None:
    """Raise ``NotEmptyError`` if a name is both in the database and in the bundle."""
    query = _NAMES.format(schema=quote_literal(run.target.address.database))
    there = {(str(kind), str(name)) for kind, name in run.target.connection.rows(query)}
    for one in definitions[1:]:
        kind = "table" if one["kind"] in {"view", "sequence"} else one["kind"]
        if (kind, one["name"]) in there:
            raise NotEmptyError(
                f"{run.target.address.url} has a {one['kind']} {quote_name(one['name'])} already",
                next_step="Restore into another database, or rename it.",
            )


def _make(run: _Run, definer: Definer, definitions: Sequence[Definition], kinds: Sequence[str]) -> None:
    """Make the objects of these kinds that are not noted as done."""
    connection = run.target.connection
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


def _rows(run: _Run) -> tuple[int, int]:
    """Write the parts that are not done; return the rows that were, and the bytes of statements written now."""
    parts = parts_of(run.tables)
    done = empty_unfinished(run.target.connection, parts, mysql_target.read_done(run.target.connection))
    todo = [part for part in parts if part.name not in done]
    total_bytes = sum(table.size_bytes for table in run.tables)
    total = sum(part.rows for part in parts)
    run.progress.begin(f"restore {run.source}", items=total, size_bytes=total_bytes)
    skipped = total - sum(part.rows for part in todo)
    if skipped:
        run.progress.skip(items=skipped, size_bytes=total_bytes - sum(map(_estimate, todo)))
    written = _Sum(run.progress)
    RowWriter(run.reader, run.target.address, workers=run.workers, advance=written.add).write_all(todo)
    run.progress.end()
    return skipped, written.size_bytes


def _estimate(part: PartFile) -> int:
    return part.table.size_bytes * part.rows // max(part.table.items, 1)


class _Sum:
    """Adds up what the workers wrote, for people."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.size_bytes = 0

    def add(self, rows: int, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        self._progress.advance(items=rows, size_bytes=size_bytes)


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
        label = quote_name(table.name)
        tally = live.get((table.schema, table.name))
        if tally is None:
            found.append(f"{label} is missing in the target")
        elif tally.rows != table.items:
            found.append(f"{label}: expected {table.items} rows, found {tally.rows}")
        elif to_hex(tally.digest) != table.digest:
            found.append(f"{label}: expected digest {table.digest}, found {to_hex(tally.digest)}")
    return found
