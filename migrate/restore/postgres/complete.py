"""What comes after the rows: indexes, constraints, foreign keys, the rest of post-data, sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from migrate.restore.postgres import target as sql_target
from migrate.restore.postgres.job import Job
from migrate.restore.postgres.schema import (
    Definitions,
    begun_as,
    ddl_error,
    describe_large_objects,
    read_script,
    set_sequences,
)
from migrate.restore.postgres.script import Script
from migrate.restore.postgres.selected import OwnedSequences, select_entries
from migrate.restore.postgres.stages import Stage, stages
from migrate.restore.postgres.steps import StepRunner
from migrate.restore.postgres.target import State
from migrate.restore.postgres.triggers import Trigger, names_constraint_trigger, set_constraint_triggers

_SEQUENCES = "sequences"
_LARGE_OBJECTS = "large-objects"
_TRIGGERS = "constraint-triggers"
_ROW_KINDS = frozenset({"MATERIALIZED VIEW DATA"})
"""Entries of post-data that fill something."""


def complete(job: Job, state: State, done: set[str]) -> Script:
    """Make what is not done yet, and set sequences; return the script of post-data."""
    connection, progress = job.target.connection, job.run.progress
    definitions = job.definitions()
    script = read_script(connection, definitions.section("post-data", portable=state.portable))
    triggers = definitions.constraint_triggers()
    if triggers:
        kept = tuple(entry for entry in script.entries if not names_constraint_trigger(entry))
        script = replace(script, entries=kept)
    planned = _stages(job, script)
    steps = sum(len(stage.steps) for stage in planned)
    if steps:
        progress.begin(f"indexes and constraints of {job.run.source}", items=steps, size_bytes=0)
        runner = StepRunner(
            job.target.address,
            script.head + begun_as(connection, job.run.said("sessions")),
            workers=job.run.workers,
            advance=lambda: progress.advance(items=1),
        )
        progress.skip(items=runner.count_done(planned, done))
        runner.run(planned, done)
        job.left_out.extend(runner.left_out)
        progress.end()
    if job.selection.is_everything and _LARGE_OBJECTS not in done:
        try:
            with connection.transaction():
                sql_target.mark_done(connection, _LARGE_OBJECTS)
                describe_large_objects(connection, definitions.large_objects(), portable=state.portable)
        except psycopg.Error as exc:
            raise ddl_error(exc, "large-objects.json") from exc
    if job.selection.definitions and _TRIGGERS not in done:
        _set_triggers(job, triggers)
    if job.selection.rows and _SEQUENCES not in done:
        try:
            with connection.transaction():
                sql_target.mark_done(connection, _SEQUENCES)
                set_sequences(connection, _sequences(job, definitions))
        except psycopg.Error as exc:
            raise ddl_error(exc, "sequences.json") from exc
    return script


def _set_triggers(job: Job, triggers: Sequence[Trigger]) -> None:
    """Let triggers of constraints fire as at the source."""
    if job.selection.tables:
        triggers = [one for one in triggers if (one["schema"], one["table"]) in job.names]
    if not triggers:
        return
    connection = job.target.connection
    try:
        with connection.transaction():
            sql_target.mark_done(connection, _TRIGGERS)
            job.left_out.extend(set_constraint_triggers(connection, triggers))
    except psycopg.Error as exc:
        raise ddl_error(exc, "constraint-triggers.json") from exc


def _stages(job: Job, script: Script) -> list[Stage]:
    """Return what is to be made of post-data by this restore."""
    selection = job.selection
    wanted = [
        entry
        for entry in script.entries
        if (selection.rows if entry.kind in _ROW_KINDS else selection.definitions)
    ]
    if selection.tables:
        wanted = select_entries(wanted, job.names)
    return stages(wanted, {(table.schema, table.name): table.size_bytes for table in job.tables})


def _sequences(job: Job, definitions: Definitions) -> Sequence[Mapping[str, Any]]:
    every = definitions.sequences()
    if not job.selection.tables:
        return every
    script = read_script(job.target.connection, definitions.section("pre-data", portable=True))
    owned = OwnedSequences.of(script.entries).of_tables(job.names)
    return [one for one in every if (one["schema"], one["name"]) in owned]
