"""Objects into the destination, in the order in which they need one another; each is noted when it is made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import pymysql

from exporters.api import Loss
from exporters.mysql.catalog import ELSEWHERE
from exporters.mysql.definitions.spatial_reference_systems import KIND as SPATIAL
from exporters.mysql.definitions.spatial_reference_systems import reference_systems
from exporters.mysql.errors import said_by
from exporters.mysql.identifiers import quote_literal, quote_name
from migrate.errors import NotEmptyError
from migrate.restore.mysql import left_out as mysql_left_out
from migrate.restore.mysql.context import MysqlRestore
from migrate.restore.mysql.definitions import Definer, Definition, ddl_error, needs_the_user, step_of
from migrate.restore.mysql.degrade.reduced_table import make_reduced
from migrate.restore.mysql.destination import Destination, mark_done, read_done
from migrate.restore.mysql.table_ddl import options_of, unplaced

_NAMES = """
SELECT 'table', TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema}
UNION SELECT LOWER(ROUTINE_TYPE), ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {schema}
UNION SELECT 'trigger', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {schema}
UNION SELECT 'event', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {schema}
"""
_LIBRARIES = "SELECT LIBRARY_NAME FROM information_schema.LIBRARIES WHERE LIBRARY_SCHEMA = {schema}"
_EVENTS = "SELECT EVENT_NAME, STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {schema}"
_ENABLED = re.compile(r" ON COMPLETION (?:NOT )?PRESERVE ENABLE ")
_ENGINE = re.compile(r"\bENGINE=(\w+)")
_LATE = frozenset({"view", "trigger", "event"})


def make_all(
    job: MysqlRestore, definer: Definer, definitions: Sequence[Definition], kinds: Sequence[str]
) -> None:
    """Make the objects of these kinds that are not noted as done. What the server refuses, also for something that is
    not there, is left out by name. Raises ``MoveoutError``.
    """
    done = read_done(job.destination.connection)
    todo = [one for one in definitions if one["kind"] in kinds and step_of(one) not in done]
    if todo:
        job.run.progress.note(f"{job.run.source}: making {kinds[0]}s to {kinds[-1]}s")

    for one in todo:
        if one["kind"] not in _LATE:
            _make(job, definer, one)
    views = [one for one in todo if one["kind"] == "view"]
    for one, error in definer.make_views(views, partial(_made, job)):
        _leave_out(job, one, error)
    for one in todo:
        if one["kind"] in _LATE and one["kind"] != "view":
            _make(job, definer, one)


def _make(job: MysqlRestore, definer: Definer, one: Definition) -> None:
    try:
        _make_here(job, definer, one)
    except pymysql.Error as exc:
        if needs_the_user(exc):
            raise ddl_error(exc, one) from exc
        _leave_out(job, one, exc)
    else:
        if one["kind"] == SPATIAL:
            _compare_system(job, one)
        _made(job, one)


def _compare_system(job: MysqlRestore, one: Definition) -> None:
    """Name a spatial reference system whose number is that of another one on the destination."""
    if one not in reference_systems(job.destination.connection):
        item, reason = f"{SPATIAL} {one['name']}", "the destination has another one of this number"
        job.losses.append(Loss(item, "definition", reason))
        job.notes.append(f"{item}: {reason}")


def _make_here(job: MysqlRestore, definer: Definer, one: Definition) -> None:
    """Make an object; a table where the server puts it by itself, if it cannot lie where it lay, and without what the
    server refuses of it. Raises the driver's errors, those of the first attempt if it makes no difference.
    """
    try:
        definer.make(one)
    except pymysql.Error as exc:
        if one["kind"] != "table" or needs_the_user(exc):
            raise
        engine = _ENGINE.search(options_of(one["sql"]))
        if engine is not None and engine[1].upper() in ELSEWHERE:
            raise
        sql, words = unplaced(one["sql"])
        if not words:
            if not _reduced(job, definer, one):
                raise
            return
        item, reason = f"table {quote_name(one['name'])}", f"{', '.join(words)}: {said_by(exc)}"
        loss, note = Loss(item, "location", reason), f"{item} does not lie where it lay: {reason}"
        mysql_left_out.add(
            job.destination.connection, job.run.state, step_of(one), notes=[note], losses=[loss]
        )
        try:
            definer.make({**one, "sql": sql})
        except pymysql.Error:
            if not _reduced(job, definer, {**one, "sql": sql}):
                mysql_left_out.forget(job.destination.connection, step_of(one))
                raise exc from None


def _reduced(job: MysqlRestore, definer: Definer, one: Definition) -> bool:
    return make_reduced(job.destination.connection, definer, one, {table.name for table in job.run.tables})


def _made(job: MysqlRestore, one: Definition) -> None:
    """Mark an object as made, together with what was left out of it."""
    connection = job.destination.connection
    left_out = [entry for entry in job.left_out if entry not in job.recorded]
    notes = [note for note in job.notes if note not in job.recorded]
    losses = [loss for loss in job.losses if loss not in job.recorded]
    connection.run("BEGIN")
    mark_done(connection, step_of(one))
    mysql_left_out.add(connection, job.run.state, step_of(one), left_out=left_out, notes=notes, losses=losses)
    connection.run("COMMIT")
    job.recorded.update(left_out, notes, losses)


def _leave_out(job: MysqlRestore, one: Definition, error: BaseException) -> None:
    if one["kind"] == "table":
        job.absent.add(one["name"])
    job.refusals.append(f"{one['kind']} {quote_name(one['name'])}: {said_by(error)}")


def note_expired(job: MysqlRestore, definitions: Sequence[Definition]) -> None:
    """Name the events whose time was over: the server drops or disables them when they are made."""
    schema = quote_literal(job.destination.address.database)
    states = {
        str(name): str(state)
        for name, state in job.destination.connection.rows(_EVENTS.format(schema=schema))
    }
    done = read_done(job.destination.connection)
    for one in definitions:
        if one["kind"] != "event" or step_of(one) not in done:
            continue
        item, state = f"event {quote_name(one['name'])}", states.get(one["name"], "")
        if not state:
            loss = Loss(item, "definition", "its time is over: the server drops it at once")
        elif state == "DISABLED" and _ENABLED.search(one["sql"]):
            loss = Loss(item, "state", "it is disabled: its time is over")
        else:
            continue
        job.losses.append(loss)
        job.left_out.append(f"{loss.item}: {loss.reason}")


def refuse_twins(destination: Destination, definitions: Sequence[Definition]) -> None:
    """Raise ``NotEmptyError`` if a name is both in the database and in the bundle."""
    query = _NAMES.format(schema=quote_literal(destination.address.database))
    there = {(str(kind), str(name)) for kind, name in destination.connection.rows(query)}
    if any(one["kind"] == "library" for one in definitions):
        query = _LIBRARIES.format(schema=quote_literal(destination.address.database))
        there |= {("library", str(name)) for (name,) in destination.connection.rows(query)}
    for one in definitions:
        kind = "table" if one["kind"] in {"view", "sequence"} else one["kind"]
        if (kind, one["name"]) in there:
            raise NotEmptyError(
                f"{destination.address.url} has a {one['kind']} {quote_name(one['name'])} already",
                next_step="Restore into another database, or rename it.",
            )
