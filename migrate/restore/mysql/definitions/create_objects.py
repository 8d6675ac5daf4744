"""Objects into the destination, in the order in which they need one another; they are noted when they are made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import pymysql
from msgspec import Struct, field

from exporters.api import Loss
from exporters.mysql.catalog import ELSEWHERE
from exporters.mysql.definitions.event_status import DISABLED, read_events
from exporters.mysql.definitions.show_create import label_of
from exporters.mysql.definitions.spatial_reference_systems import KIND as SPATIAL
from exporters.mysql.definitions.spatial_reference_systems import reference_systems
from exporters.mysql.errors import message_of
from exporters.mysql.identifiers import of_database, quote_literal, quote_name
from migrate.errors import NotEmptyError, SourceError
from migrate.restore.common.connection_workers import ConnectionWorkers
from migrate.restore.mysql.context import MysqlRestore
from migrate.restore.mysql.definitions.object_maker import ObjectMaker, ddl_error, needs_the_user
from migrate.restore.mysql.definitions.recorded_definitions import ENABLED, Definition, step_of
from migrate.restore.mysql.definitions.reduced_table import make_reduced
from migrate.restore.mysql.definitions.table_ddl import options_of, unplaced
from migrate.restore.mysql.destination import DestinationConnection, MysqlDestination
from migrate.restore.mysql.restore_state import add_left_out, forget_left_out, mark_done, read_done
from migrate.runtime.crash_points import durable

_NAMES = f"""
SELECT 'table', TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {{schema}}
UNION SELECT LOWER(ROUTINE_TYPE), ROUTINE_NAME FROM information_schema.ROUTINES WHERE {of_database("ROUTINE_SCHEMA")}
UNION SELECT 'trigger', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE {of_database("TRIGGER_SCHEMA")}
UNION SELECT 'event', EVENT_NAME FROM information_schema.EVENTS WHERE {of_database("EVENT_SCHEMA")}
"""
_LIBRARIES = "SELECT LIBRARY_NAME FROM information_schema.LIBRARIES WHERE LIBRARY_SCHEMA = {schema}"
_QUALIFIER = re.compile(r"`((?:[^`]|``)+)`\s*\.")
_ENGINE = re.compile(r"\bENGINE=(\w+)")
_MARKED_TOGETHER = 100
_LATE = frozenset({"view", "trigger", "event"})
_SESSIONS = 4
"""How many sessions make tables at once, or as many as there are workers: a server waits for its disk several times for
each table, and not more often for several.
"""
_TABLES_EACH = 4
"""A session of fewer tables is not worth its login."""


def make_all(job: MysqlRestore, definitions: Sequence[Definition], kinds: Sequence[str]) -> None:
    """Make the objects of these kinds that are not noted as done. What the server refuses, also because of a
    missing object, is recorded as left out. Raises ``MoveoutError``.
    """
    done = read_done(job.destination.connection)
    todo = [item for item in definitions if item["kind"] in kinds and step_of(item) not in done]
    if todo:
        names = dict.fromkeys(f"{item['kind']}s".replace("bodys", "bodies") for item in todo)
        job.run.progress.note(f"{job.run.source}: making {', '.join(names)}")
    made = _Made(job)
    tables = [item for item in todo if item["kind"] == "table"]
    for item in todo:
        if item["kind"] not in {*_LATE, "table"}:
            _make(job, item, made)
    created = _create_at_once(job, tables)
    for item in tables:
        if (words := created.get(item["name"])) is None:
            _make(job, item, made)
        else:
            job.notes.extend(words.notes)
            job.left_out.extend(words.left_out)
            made.add(item)
    views = [item for item in todo if item["kind"] == "view"]
    for item, error in job.object_maker.make_views(views, made.add):
        _leave_out(job, item, error)
    for item in todo:
        if item["kind"] in _LATE and item["kind"] != "view":
            _make(job, item, made)
    made.write()


class _Words(Struct, frozen=True):
    """What there is to say about a table that was made."""

    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def _create_at_once(job: MysqlRestore, tables: Sequence[Definition]) -> Mapping[str, _Words]:
    """Make tables by several sessions, return what there is to say about each. Those that were refused are not among
    them: one may need another table, or be made without a part. Nor are those that were left because a session was
    refused, or a table for a reason that may hold for all: a lock of somebody else would be waited for each time.
    """
    created: dict[str, _Words] = {}

    def create(connection: DestinationConnection, table: Definition) -> None:
        words = _Words()
        try:
            ObjectMaker(connection, words.notes, words.left_out).make(table)
        except pymysql.Error as exc:
            if needs_the_user(exc):
                raise
        else:
            created[table["name"]] = words

    sessions = min(max(_SESSIONS, job.run.workers), len(tables) // _TABLES_EACH)
    if sessions > 1:
        with suppress(SourceError, pymysql.Error):
            ConnectionWorkers(job.destination.connection.another, sessions).run(tables, create)
    return created


class _Made:
    """Marks objects as made, those that are whole many at a time. Until then they are seen to be there."""

    def __init__(self, job: MysqlRestore) -> None:
        self._job = job
        self._steps: list[str] = []

    def add(self, definition: Definition) -> None:
        """Mark an object, together with what was left out of it. Raises the driver's errors."""
        job, step = self._job, step_of(definition)
        self._steps.append(step)
        left_out = [entry for entry in job.left_out if entry not in job.recorded]
        notes = [note for note in job.notes if note not in job.recorded]
        losses = [loss for loss in job.losses if loss not in job.recorded]
        if left_out or notes or losses or len(self._steps) == _MARKED_TOGETHER:
            self.write(partial(_record, job, step, left_out, notes, losses))

    def write(self, record: Callable[[], None] = lambda: None) -> None:
        """Mark the objects that are left; ``record`` writes what belongs to them. Raises the driver's errors."""
        if not self._steps:
            return
        connection = self._job.destination.connection
        connection.run("BEGIN")
        mark_done(connection, *self._steps)
        record()
        with durable("restore.mysql.object"):
            connection.run("COMMIT")
        self._steps.clear()


def _record(
    job: MysqlRestore, step: str, left_out: Sequence[str], notes: Sequence[str], losses: Sequence[Loss]
) -> None:
    connection = job.destination.connection
    add_left_out(connection, job.run.state, step, left_out=left_out, notes=notes, losses=losses)
    job.recorded.update(left_out, notes, losses)


def _make(job: MysqlRestore, definition: Definition, made: _Made) -> None:
    try:
        _make_here(job, definition)
    except pymysql.Error as exc:
        if needs_the_user(exc):
            raise ddl_error(exc, definition) from exc
        _leave_out(job, definition, exc)
    else:
        if definition["kind"] == SPATIAL:
            _compare_system(job, definition)
        made.add(definition)


def _compare_system(job: MysqlRestore, definition: Definition) -> None:
    """Name a spatial reference system whose number is that of another one on the destination."""
    if definition not in reference_systems(job.destination.connection):
        item, reason = f"{SPATIAL} {definition['name']}", "the destination has another one of this number"
        job.losses.append(Loss(item, "definition", reason))
        job.notes.append(f"{item}: {reason}")


def _make_here(job: MysqlRestore, definition: Definition) -> None:
    """Make an object; a table where the server puts it by itself, if it cannot lie where it lay, and without what the
    server refuses of it. Raises the driver's errors, those of the first attempt if it makes no difference.
    """
    try:
        job.object_maker.make(definition)
    except pymysql.Error as exc:
        if definition["kind"] != "table" or needs_the_user(exc):
            raise
        engine = _ENGINE.search(options_of(definition["sql"]))
        if engine is not None and engine[1].upper() in ELSEWHERE:
            raise
        sql, words = unplaced(definition["sql"])
        if not words:
            if not _reduced(job, definition):
                raise
            return
        item, reason = f"table {quote_name(definition['name'])}", f"{', '.join(words)}: {message_of(exc)}"
        loss, note = Loss(item, "location", reason), f"{item} does not lie where it lay: {reason}"
        add_left_out(
            job.destination.connection, job.run.state, step_of(definition), notes=[note], losses=[loss]
        )
        try:
            job.object_maker.make({**definition, "sql": sql})
        except pymysql.Error:
            if not _reduced(job, {**definition, "sql": sql}):
                forget_left_out(job.destination.connection, step_of(definition))
                raise exc from None


def _reduced(job: MysqlRestore, definition: Definition) -> bool:
    return make_reduced(
        job.destination.connection, job.object_maker, definition, {table.name for table in job.run.tables}
    )


def _leave_out(job: MysqlRestore, definition: Definition, error: BaseException) -> None:
    if definition["kind"] == "table":
        job.absent.add(definition["name"])
    job.refusals.append(f"{label_of(definition)}: {message_of(error)}")
    job.needed.update(name.replace("``", "`") for name in _QUALIFIER.findall(definition.get("sql", "")))


def note_expired(job: MysqlRestore, definitions: Sequence[Definition]) -> None:
    """Name the events whose time was over: the server drops or disables them when they are made."""
    events = read_events(job.destination.connection.rows, job.destination.address.database)
    states = {event.name: event.status for event in events}
    done = read_done(job.destination.connection)
    for definition in definitions:
        if definition["kind"] != "event" or step_of(definition) not in done:
            continue
        item, state = f"event {quote_name(definition['name'])}", states.get(definition["name"], "")
        if not state:
            job.note_loss(Loss(item, "definition", "its time is over: the server drops it at once"))
        elif state == DISABLED and ENABLED.search(definition["sql"]):
            job.note_loss(Loss(item, "state", "it is disabled: its time is over"))


def refuse_twins(destination: MysqlDestination, definitions: Sequence[Definition]) -> None:
    """Raise ``NotEmptyError`` if a name is both in the database and in the bundle."""
    query = _NAMES.format(schema=quote_literal(destination.address.database))
    existing = {(str(kind), str(name)) for kind, name in destination.connection.rows(query)}
    if any(definition["kind"] == "library" for definition in definitions):
        query = _LIBRARIES.format(schema=quote_literal(destination.address.database))
        existing |= {("library", str(name)) for (name,) in destination.connection.rows(query)}
    for definition in definitions:
        kind = "table" if definition["kind"] in {"view", "sequence"} else definition["kind"]
        if (kind, definition["name"]) in existing:
            raise NotEmptyError(
                f"{destination.address.url} has a {definition['kind']} {quote_name(definition['name'])} already",
                next_step="restore into another database, or rename it",
            )
