"""What comes after the rows: indexes, constraints, foreign keys, the rest of post-data, sequences, and triggers of
constraints that do not fire as new ones do, because somebody disabled them at the source. At last what may forbid
anything, and the end of the restore.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import psycopg
from msgspec.structs import replace

from exporters.postgres.definitions.constraint_triggers import constraint_triggers
from exporters.postgres.identifiers import quote_literal, quote_name, quote_qualified
from exporters.postgres.large_objects import NUMBER
from migrate.restore.common.left_out import unique
from migrate.restore.common.selection import ancestors
from migrate.restore.postgres import restore_state
from migrate.restore.postgres.changes.follow_marks import begin_mark
from migrate.restore.postgres.context import PostgresRestore, is_users_table
from migrate.restore.postgres.definitions.dump_script import (
    DumpEntry,
    Script,
    begun_as,
    read_script,
    under_settings,
)
from migrate.restore.postgres.definitions.post_data import OF_ROWS, StepRunner, mark_of
from migrate.restore.postgres.definitions.post_data_order import (
    Stage,
    is_event_trigger,
    split_at_rows,
    stages,
)
from migrate.restore.postgres.definitions.recorded_definitions import Definitions, RecordedSequence
from migrate.restore.postgres.definitions.refusals import ddl_error, is_superuser, refusal_of
from migrate.restore.postgres.definitions.roles import (
    describe_database,
    differing_database,
    must_keep,
    note_not_given,
    set_for_database,
)
from migrate.restore.postgres.definitions.selected_entries import OwnedSequences, select_entries
from migrate.restore.postgres.destination import absent_tables
from migrate.restore.postgres.rows.large_objects import describe_large_objects
from migrate.restore.postgres.rows.load_rows import RowWriter
from migrate.runtime.crash_points import durable

_SEQUENCES = "sequences"
_LARGE_OBJECTS = "large-objects"
_TRIGGERS = "constraint-triggers"
_STATES = {
    "O": ("ENABLE", "fired"),
    "D": ("DISABLE", "were disabled"),
    "R": ("ENABLE REPLICA", "fired on replicas only"),
    "A": ("ENABLE ALWAYS", "fired on replicas, too"),
}
"""What pg_trigger.tgenabled stands for: in ALTER TABLE, and in messages."""
_IDENTITY = ("schema", "table", "constraint_schema", "constraint_table", "constraint", "function")
_BY_NUMBER = re.compile(
    rb'^ALTER TABLE [^\n]* TRIGGER "(?:RI|PK)_ConstraintTrigger_[a-z_]*\d+";$', re.MULTILINE
)
Trigger = Mapping[str, Any]


def complete(job: PostgresRestore, done: set[str]) -> Script:
    """Make what is not done yet, and set sequences; return the script of post-data."""
    connection, definitions = job.destination.connection, job.definitions
    script = read_script(connection, job.section("post-data"))
    triggers = definitions.constraint_triggers()
    if triggers:
        remaining = tuple(entry for entry in script.entries if not names_constraint_trigger(entry))
        script = replace(script, entries=remaining)
    planned = _stages(job, script)
    if any(stage.steps for stage in planned):
        _make_stages(job, script, planned, done)
    else:
        _write_refused_parts(job)
    objects = [row.key for row in job.run.tables if row.number == NUMBER]
    damaged = any(name in job.damaged for name in objects)
    if job.selection.is_everything and _LARGE_OBJECTS not in done and not damaged:
        statements = list(describe_large_objects(definitions.large_objects(), portable=job.portable))
        _set(connection, _LARGE_OBJECTS, statements)
    if job.selection.definitions and _TRIGGERS not in done and not job.damaged:
        _set_triggers(job, triggers)
    if job.selection.rows and _SEQUENCES not in done:
        _set(connection, _SEQUENCES, list(set_sequences(_sequences(job, definitions))))
    return script


def _make_stages(job: PostgresRestore, script: Script, planned: Sequence[Stage], done: set[str]) -> None:
    """Make indexes, constraints and what else comes behind rows; in between the rows that were refused before."""
    progress, steps = job.run.progress, [step for stage in planned for step in stage.steps]
    progress.begin(
        f"indexes and constraints of {job.run.source}",
        items=len(steps),
        size_bytes=0,
        of=job.run.indexes_task,
    )
    progress.skip(items=sum(mark_of(step) in done for step in steps))
    runner = StepRunner(
        job.destination.address,
        script.head + begun_as(job.destination.connection, job.run.position_value("sessions")),
        done,
        workers=job.run.workers,
        advance=lambda: progress.advance(items=1),
    )
    before_rows, others = split_at_rows(planned)
    with closing(runner):
        runner.rows_missing = bool(job.damaged)
        runner.make(before_rows)
        _write_refused_parts(job)
        runner.rows_missing = bool(job.damaged)
        runner.make(others)
        runner.finish()
    job.left_out.extend(runner.left_out)
    progress.end()


def _set(connection: psycopg.Connection[Any], step: str, statements: Sequence[tuple[str, str]]) -> None:
    """Run statements, each with the name of what it sets, as one step; what the server refuses is left out by name."""
    every = "; ".join(sql for _, sql in statements) or "SELECT 1"
    try:
        with durable("restore.postgres.settings"), connection.transaction():
            restore_state.mark_done(connection, step)
            if refusal_of(connection, step, every.encode()):
                refusals = [refusal_of(connection, name, sql.encode()) for name, sql in statements]
                restore_state.add_left_out(connection, step, [refusal for refusal in refusals if refusal])
    except psycopg.Error as exc:
        raise ddl_error(exc, step) from exc


def _write_refused_parts(job: PostgresRestore) -> None:
    """Write the rows that the destination refused before it had indexes and constraints."""
    if not job.refused_parts:
        return
    writer = RowWriter(
        job.run.reader, job.destination.address, workers=1, advance=lambda _rows, _size_bytes: None
    )
    writer.rows_missing = bool(job.damaged)
    writer.write_last(job.refused_parts)
    job.left_out.extend(writer.left_out)
    job.note_damage(writer.damaged, quote_qualified)


def _set_triggers(job: PostgresRestore, triggers: Sequence[Trigger]) -> None:
    """Let triggers of constraints fire as at the source."""
    if job.selection.is_part:
        triggers = [trigger for trigger in triggers if (trigger["schema"], trigger["table"]) in job.names]
    if not triggers:
        return
    connection = job.destination.connection
    try:
        with durable("restore.postgres.triggers"), connection.transaction():
            restore_state.mark_done(connection, _TRIGGERS)
            restore_state.add_left_out(connection, _TRIGGERS, set_constraint_triggers(connection, triggers))
    except psycopg.Error as exc:
        raise ddl_error(exc, "constraint-triggers.json") from exc


def _stages(job: PostgresRestore, script: Script) -> list[Stage]:
    """Return what is to be made of post-data by this restore."""
    selection = job.selection
    selected = [
        entry
        for entry in script.entries
        if (selection.rows if entry.kind in OF_ROWS else selection.definitions)
    ]
    if selection.is_part:
        selected = select_entries(selected, job.defined, job.run.was_left_out)
    if job.damaged:
        selected = _without_triggers(job, selected)
    return stages(selected, {table.key: table.size_bytes for table in job.tables})


def _without_triggers(job: PostgresRestore, entries: Sequence[DumpEntry]) -> list[DumpEntry]:
    """Leave out the triggers of tables that wait for rows: those must not fire them."""
    rows = [row for row in job.tables if row.key in job.damaged]
    names = {name for row in rows for name in (row.key, *ancestors(row))}
    waiting = {entry for entry in select_entries(entries, names) if entry.kind == "TRIGGER"}
    job.left_out.extend(
        f"{entry.label}: it comes when the rows of its table are there"
        for entry in entries
        if entry in waiting
    )
    return [entry for entry in entries if entry not in waiting]


def _sequences(job: PostgresRestore, definitions: Definitions) -> Sequence[RecordedSequence]:
    every = definitions.sequences()
    if not job.selection.is_part:
        return every
    script = read_script(job.destination.connection, definitions.section("pre-data", portable=True))
    owned = OwnedSequences.of(script.entries).of_tables(job.names)
    return [
        sequence
        for sequence in every
        if (sequence["schema"], sequence["name"]) in owned
        or job.run.was_left_out(f"SEQUENCE {sequence['schema']}.{sequence['name']}")
    ]


def set_sequences(sequences: Sequence[RecordedSequence]) -> Iterator[tuple[str, str]]:
    """Yield the statements that set sequences, and what each sets. A missing sequence was left out before."""
    for sequence in sequences:
        label = quote_qualified(sequence["schema"], sequence["name"])
        name = quote_literal(label)
        value, called = sequence["last_value"], "true" if sequence["is_called"] else "false"
        sql = f"SELECT pg_catalog.setval(pg_catalog.to_regclass({name}), {value}, {called})"
        yield f"the value of sequence {label}", sql


def names_constraint_trigger(entry: DumpEntry) -> bool:
    """Tell whether an entry is about the trigger of a constraint. pg_dump writes such entries for partitions, and
    names the trigger as it was called on the source server.
    """
    return entry.kind == "TRIGGER" and _BY_NUMBER.search(entry.sql) is not None


def set_constraint_triggers(connection: psycopg.Connection[Any], triggers: Iterable[Trigger]) -> list[str]:
    """Let triggers of constraints fire as at the source (``triggers`` of the exporter has the rows), within the
    caller's transaction; return what only a superuser may do. Those of constraints that are not here are passed over.
    """
    existing = {
        _identity(trigger): trigger["name"] for trigger in constraint_triggers(connection, every=True)
    }
    matched = [
        (trigger, existing[_identity(trigger)]) for trigger in triggers if _identity(trigger) in existing
    ]
    if not is_superuser(connection):
        return list(dict.fromkeys(_refused(trigger) for trigger, _ in matched))
    for trigger, name in matched:
        action, _ = _STATES[trigger["state"]]
        statement = f"ALTER TABLE ONLY {_table(trigger)} {action} TRIGGER {quote_name(name)}"
        connection.execute(statement.encode())
    return []


def _identity(trigger: Trigger) -> tuple[str, ...]:
    return tuple(trigger[word] for word in _IDENTITY)


def _table(trigger: Trigger) -> str:
    return quote_qualified(trigger["schema"], trigger["table"])


def _refused(trigger: Trigger) -> str:
    owner = quote_qualified(trigger["constraint_schema"], trigger["constraint_table"])
    _, words = _STATES[trigger["state"]]
    return (
        f"constraint {quote_name(trigger['constraint'])} of {owner}: its triggers on {_table(trigger)} {words} at the"
        " source, and fire here: only a superuser may change that"
    )


def finish(job: PostgresRestore, script: Script) -> None:
    """All is there and equal: do what comes last, and forget the state, in one transaction. Where anything was left
    out, before or now, or ``must_keep``, a record stays in the destination with all of it.
    """
    connection, run = job.destination.connection, job.run
    settings = job.definitions.settings() if job.selection.is_everything else ()
    if settings and job.merge:
        job.notes.append("what the source had set for its database is not set here: others use this one")
        settings = ()
    database = _missing_properties(job) if job.selection.is_everything and not job.merge else {}
    record = run.record(job.left_out, job.notes, job.losses, job.passwordless)
    keep = bool(record.left_out) or must_keep(connection, record)
    following = _following(job)
    while True:
        with durable("restore.postgres.finish"), connection.transaction() as transaction:
            restore_state.forget_superseded(connection, job.state, run.superseded)
            restore_state.end_state(connection, keep=keep)
            if following is not None:
                begin_mark(connection, run.source, *following)
            left_out = set_for_database(connection, settings)
            refused = describe_database(connection, database)
            left_out += [] if job.portable else refused
            with under_settings(connection, script):
                refusals = [
                    refusal_of(connection, entry.label, entry.sql) for entry in _event_triggers(job, script)
                ]
            left_out += filter(None, refusals)
            if left_out and not keep:
                keep = True
                raise psycopg.Rollback(transaction)
            if keep:
                whole = replace(record, left_out=unique(record.left_out, left_out))
                restore_state.write_finished(connection, job.state, whole)
            break
    job.left_out.extend(left_out)
    job.notes += note_not_given(refused) if job.portable else ()
    if keep:
        job.notes.append(restore_state.HOW_TO_FORGET)


def _event_triggers(job: PostgresRestore, script: Script) -> list[DumpEntry]:
    """Return the entries that come last of all: from then on they may forbid anything."""
    if not job.selection.definitions:
        return []
    entries = list(filter(is_event_trigger, script.entries))
    return select_entries(entries, frozenset(), job.run.was_left_out) if job.selection.is_part else entries


def _following(job: PostgresRestore) -> tuple[int, list[str]] | None:
    """Return, where all rows came, the base from which changes go on, and which tables are missing here."""
    base, run = job.followed_from, job.run
    if base is None or not job.has_all_rows:
        return None
    rows = [row for row in run.reader.catalog() if row.source == run.source and is_users_table(row)]
    absent = absent_tables(job.destination.connection, [row.key for row in rows])
    return base, sorted(map(".".join, absent))


def not_finished(job: PostgresRestore, script: Script) -> Iterator[str]:
    """Yield what ``finish`` would make."""
    selection, reason = job.selection, "not made before the rows are those of the bundle"
    if selection.definitions and not selection.is_part:
        yield from (f"{entry.label}: {reason}" for entry in script.entries if is_event_trigger(entry))
    if selection.is_everything and not job.merge:
        names = ["settings"] if job.definitions.settings() else []
        if (source := job.definitions.database()) is not None:
            lacking, _ = differing_database(job.destination.connection, source, portable=job.portable)
            names += [name.replace("_", " ") for name in lacking]
        if names:
            yield f"{', '.join(names)} of the database: {reason}"


def _missing_properties(job: PostgresRestore) -> dict[str, Any]:
    """Return what a new database is given of the source's own properties; note what another one keeps of its own."""
    source = job.definitions.database()
    if source is None:
        return {}
    lacking, new = differing_database(job.destination.connection, source, portable=job.portable)
    if lacking and not new:
        words = ", ".join(
            f"{name.replace('_', ' ')} {value or 'the default'}" for name, value in lacking.items()
        )
        job.notes.append(f"the database keeps what it has of its own; at the source: {words}")
        return {}
    return lacking
