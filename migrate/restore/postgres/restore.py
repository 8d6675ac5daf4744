"""A source's tables from a bundle into a PostgreSQL database.

Definitions (pre-data), then the rows in parallel, then indexes and constraints in parallel, then foreign keys. Then the
rest in order (triggers, rules, policies, materialized views) and sequences. Then the destination's rows are compared
with the catalog's digests. Event triggers come last of all. The same command after a crash goes on where it was: see
``restore_state``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec.structs import replace

from exporters.postgres.definitions.collation import create_words, read_locale, same
from exporters.postgres.errors import DRIVER_ERRORS
from exporters.postgres.identifiers import quote_qualified
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.postgres.sessions.connection import connect, parse_url, session_settings
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_comparison import compare_tables
from migrate.changes.segments import START
from migrate.errors import NotEmptyError
from migrate.restore.common.api import RestoreOutcome, RestoreRequest
from migrate.restore.common.environment import note_other_settings
from migrate.restore.common.left_out import FinishedRestore, unique
from migrate.restore.common.report import RestoreReport
from migrate.restore.common.selection import require_tables
from migrate.restore.common.table_parts import WrittenRows
from migrate.restore.common.table_restore import TableRestore, sentences
from migrate.restore.postgres import destination as postgres_destination
from migrate.restore.postgres import restore_state
from migrate.restore.postgres.changes.follow_marks import read_mark
from migrate.restore.postgres.context import PostgresRestore
from migrate.restore.postgres.definitions import pre_data
from migrate.restore.postgres.definitions.column_order import describe_order, misordered
from migrate.restore.postgres.definitions.dump_script import Name, content_of, held_otherwise, read_script
from migrate.restore.postgres.definitions.extensions import filled_otherwise, note_other_rows, unlike
from migrate.restore.postgres.definitions.pre_data_entries import holds_objects
from migrate.restore.postgres.definitions.refusals import destination_error
from migrate.restore.postgres.definitions.roles import note_made, note_passwordless
from migrate.runtime.crash_points import durable

if TYPE_CHECKING:
    from migrate.restore.postgres.rows.prepared_parts import PreparedParts

_SHOWN = 5
"""How many tables that cannot be made are named at once; the outcome has all."""


class PostgresRestorer:
    """Restores PostgreSQL databases; see ``Restorer``."""

    def restore(self, request: RestoreRequest) -> RestoreOutcome:
        """See ``Restorer``. What is lost is what names its database itself. Raises ``NotEmptyError`` if the database
        holds something else and neither ``merge`` nor a selection is given, ``BusyError``, ``DamageError``,
        ``UsageError`` and errors of ``exporters.errors``.
        """
        run = TableRestore.of(request)
        names = frozenset(run.selection.names([*run.tables, *run.views]))
        address = parse_url(request.url, request.secrets)
        try:
            with postgres_destination.open_destination(address) as destination:
                job = PostgresRestore(
                    run=run,
                    merge=request.merge,
                    destination=destination,
                    names=names,
                    open_pool=request.open_pool,
                )
                outcome = _restore(job)
                if not job.losses:
                    return outcome
                return RestoreReport(request.report, request.source).add_losses(outcome, job.losses)
        except DRIVER_ERRORS as exc:
            raise destination_error(exc, address.url) from exc

    def finished(
        self, reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
    ) -> Sequence[FinishedRestore]:
        """Read the record that restores keep in the database."""
        return restore_state.read_records(reader, source, url, secrets)


def _restore(job: PostgresRestore) -> RestoreOutcome:
    run, destination, selection = job.run, job.destination, job.selection
    state = restore_state.read_state(destination)
    prepared = None
    if state is None:
        if (outcome := _restored_before(job)) is not None:
            return outcome
        _note_locale(job)
        prepared = _begin_and_prepare(job)
    else:
        how = f"drop the database (the state is in schema {PROGRESS_SCHEMA})"
        run.require_same(state, where=destination.address.url, how=how)
        job.portable = state.portable
        _note_locale(job)
    done = restore_state.read_done(destination)
    if selection.definitions:
        pre_data.resume(job, done)
    from migrate.restore.postgres import row_steps  # noqa: PLC0415  see ``_prepare_parts``
    from migrate.restore.postgres.definitions import after_rows  # noqa: PLC0415

    absent = _tables_not_made(job)
    filled = filled_otherwise(job, done) if selection.rows else frozenset()
    without = absent | filled
    run = replace(run, tables=[table for table in run.tables if table.key not in without])
    written = row_steps.copy_rows(job, run, done, prepared) if selection.rows else WrittenRows(0, 0)
    script = after_rows.complete(job, done)
    findings = _compare(job, run, filled) if selection.rows else []
    _note_left_out(job, run, absent)
    if findings:
        job.left_out.extend(after_rows.not_finished(job, script))
    else:
        after_rows.finish(job, script)
    made = _passwordless(job, run.earlier) if selection.left_out else note_made(job.passwordless)
    notes = [*made, *job.notes, *_other_settings(job)]
    return run.outcome(written, findings, notes, job.left_out)


def _other_settings(job: PostgresRestore) -> list[str]:
    """Return a note about settings with which an application's sessions begin otherwise than at the source."""
    there = job.run.position_value("sessions")
    if there is None or not job.selection.is_everything:
        return []
    with closing(connect(job.destination.address)) as begun_now:
        return note_other_settings(there, session_settings(begun_now))


def _compare(job: PostgresRestore, run: TableRestore, filled: frozenset[Name]) -> list[str]:
    """Compare the rows with the bundle's, but for tables that something else ``filled``; return what differs."""
    from migrate.restore.postgres import row_steps  # noqa: PLC0415  see ``_prepare_parts``

    with row_steps.analyzed(job):
        compared = row_steps.read_back(job, run)
    damaged = [finding for findings in job.damaged.values() for finding in findings]
    findings = [*damaged, *row_steps.unexplained_differences(job, compared)]
    row_steps.note_recomputed(job)
    note_other_rows(job, filled)
    return findings


def _note_left_out(job: PostgresRestore, run: TableRestore, absent: frozenset[Name]) -> None:
    """Gather what this restore and earlier ones have left out; ``absent``: tables that could not be made."""
    still = run.still_left_out(_tried_again(job), quote_qualified)
    recorded = restore_state.read_left_out(job.destination.connection)
    if job.selection.definitions:
        _note_definitions(job, [*recorded.left_out, *still])
    rows = [f"the rows of {quote_qualified(*name)}: it could not be made" for name in sorted(absent)]
    job.losses[:] = unique(run.still_lost(quote_qualified), job.losses)
    job.left_out[:] = unique(recorded.left_out, job.left_out, rows, still)
    job.notes[:] = unique(recorded.notes, job.notes)
    job.passwordless[:] = recorded.passwordless


def _note_definitions(job: PostgresRestore, known: Sequence[str]) -> None:
    """Note what definitions are here that are not as at the source; ``known``: what was left out of them."""
    _note_database_names(job)
    job.left_out.extend(_bytes_without_character(job))
    if job.selection.left_out or not job.selection.is_part:
        extensions = job.definitions.extensions()
        left_out, notes = unlike(job.destination.connection, extensions, known, portable=job.portable)
        job.left_out.extend(left_out)
        job.notes.extend(notes)
    job.left_out.extend(_other_column_orders(job))


def _tried_again(job: PostgresRestore) -> set[str]:
    """Return the definitions that earlier restores left out and this one has tried again."""
    if not job.run.earlier:
        return set()
    sections = [job.section(name) for name in ("pre-data", "post-data")]
    entries = [
        entry for section in sections for entry in read_script(job.destination.connection, section).entries
    ]
    return {entry.label for entry in entries if job.run.was_left_out(entry.label)}


def _note_locale(job: PostgresRestore) -> None:
    """Note at first that text sorts otherwise here: partitions, checks and ranges of text may refuse rows."""
    there, here = job.run.position_value("locale"), read_locale(job.destination.connection)
    if there is None or same(there, here):
        return
    words = f"text sorts as {create_words(here)} here, at the source as {create_words(there)}"
    note = f"{words}: CREATE DATABASE … TEMPLATE template0 with that is like it"
    job.run.progress.note(f"{job.run.source}: {note}")
    job.notes.append(note)


_NAMING = """
SELECT lower(l.kind) || ' ' || p.oid::pg_catalog.regprocedure::text, p.prosrc
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language w ON w.oid = p.prolang AND w.lanname NOT IN ('internal', 'c')
CROSS JOIN LATERAL (SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END) AS l(kind)
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    AND d.objid = p.oid AND d.deptype = 'e')
UNION ALL SELECT 'foreign server ' || pg_catalog.quote_ident(s.srvname), o.value || '.x'
FROM pg_catalog.pg_foreign_server s CROSS JOIN LATERAL (SELECT pg_catalog.regexp_replace(option, '^dbname=', '')
  FROM pg_catalog.unnest(s.srvoptions) AS option WHERE option LIKE 'dbname=%') AS o(value)
ORDER BY 1
"""
"""What may name a database: bodies, and where foreign servers lead. All else names nothing beyond its schema."""


def _note_database_names(job: PostgresRestore) -> None:
    """Note what names the source's database itself, where the destination is called otherwise."""
    connection = job.destination.connection
    now = str(connection.info.dbname)
    if job.run.source_database not in {"", now}:
        job.note_database_name(connection.execute(_NAMING), now, '"')


def _other_column_orders(job: PostgresRestore) -> list[str]:
    """Return sentences about tables whose columns are in another order than at the source."""
    orders = job.orders
    return [
        f"the order of the columns of {quote_qualified(*name)}: {describe_order(columns)},"
        f" at the source {describe_order(orders[name])}"
        for name, columns in misordered(job.destination.connection, orders).items()
    ]


def _bytes_without_character(job: PostgresRestore) -> list[str]:
    """Return sentences about definitions with bytes for which the destination has no character."""
    sections = [job.section(name) for name in ("pre-data", "post-data")]
    names = [name for script in sections for name in held_otherwise(job.destination.connection, script)]
    return [f"the bytes of some text in {name}: there is no character for them here" for name in names]


def _restored_before(job: PostgresRestore) -> RestoreOutcome | None:
    """Return the outcome if all is there already. Raises ``NotEmptyError`` if something is in the way of
    what is to come, ``DamageError`` where the bundle does not show it.
    """
    connection, run = job.destination.connection, job.run
    names = [table.key for table in job.tables]
    conflict = _conflict(job, names)
    records, same = run.finished_records(
        lambda bundle: restore_state.read_finished(connection, bundle, run.source)
    )
    mark = read_mark(connection, run.source)
    is_followed = mark is not None and mark.base == job.followed_from and mark.place != START
    if is_followed and (conflict or not job.selection.is_everything):
        notes, url = _passwordless(job, records), job.destination.address.url
        return run.nothing_to_do_for_follow(url, records, notes, job.left_out)
    if same and not conflict and job.selection.definitions:
        absent = postgres_destination.absent_tables(connection, names)
        conflict = next((f"table {'.'.join(name)}" for name in names if name not in absent), "")
    if not conflict:
        if run.whole and not run.tables and _holds_definitions(job, any if same else all):
            return _nothing_to_do(job, records)
        return None
    if same and not job.selection.rows:
        return _nothing_to_do(job, records)
    if job.selection.rows and run.tables:
        from migrate.restore.postgres import row_steps  # noqa: PLC0415  see ``_prepare_parts``

        differing = row_steps.read_back(job, run).differing(records)
        findings = sentences(compare_tables(differing, run.destination_digests), quote_qualified)
        if same or not findings:
            row_steps.note_recomputed(job)
            return _nothing_to_do(job, records, findings)
    elif run.whole and not run.tables and _all_there(job):
        return _nothing_to_do(job, records)
    raise NotEmptyError(
        f"{job.destination.address.url} is not empty: it has the {conflict}",
        next_step="restore into a fresh, empty database, or say --merge if no name is in both"
        if run.whole
        else "empty that table (TRUNCATE), remove that large object (lo_unlink), or leave it out",
    )


def _conflict(job: PostgresRestore, names: Sequence[Name]) -> str:
    """Return what is in the way of these tables, or of a whole database; empty where nothing is."""
    connection, run = job.destination.connection, job.run
    if job.alone:
        return postgres_destination.content(job.destination)
    conflict = "" if run.whole else postgres_destination.table_with_rows(connection, names)
    if conflict or all(table.number for table in run.tables):
        return conflict
    from migrate.restore.postgres.rows import large_objects  # noqa: PLC0415  see ``_prepare_parts``

    return large_objects.in_the_way(connection, run, filled=not run.whole)


def _all_there(job: PostgresRestore) -> bool:
    """Tell whether a database without tables holds the bundle's views, routines, sequences and types, and no others."""
    script = job.section("pre-data")
    objects = content_of(read_script(job.destination.connection, script))
    there = postgres_destination.all_content(job.destination)
    types = {name for name in objects if name.startswith("type ")}  # some kinds of types are not looked for
    return objects - types <= there <= objects


def _holds_definitions(job: PostgresRestore, enough: Callable[[Iterable[bool]], bool]) -> bool:
    """Tell whether a database holds enough of the definitions that are in nobody's way, such as schemas."""
    connection, definitions = job.destination.connection, job.definitions
    scripts = [
        read_script(connection, definitions.section(name, portable=False))
        for name in ("pre-data", "post-data")
    ]
    return holds_objects(connection, scripts, enough)


def _nothing_to_do(
    job: PostgresRestore, records: Sequence[FinishedRestore], findings: Sequence[str] = ()
) -> RestoreOutcome:
    """Return that nothing was to be done, with what earlier restores have left out."""
    job.losses[:] = unique(job.losses, *(record.losses for record in records))
    notes = _passwordless(job, records)
    if records:
        notes.append(restore_state.HOW_TO_FORGET)
    names = [row.key for row in (*job.run.tables, *job.run.views) if row.number]
    absent = postgres_destination.absent_tables(job.destination.connection, names)
    return job.run.nothing_to_do(
        "database", records, findings, left_out=job.left_out, notes=notes, absent=absent
    )


def _passwordless(job: PostgresRestore, records: Sequence[FinishedRestore]) -> list[str]:
    """Return the note about roles again: a restore that was killed before its end has printed none."""
    if not (job.selection.left_out or job.run.whole):
        return []
    made = unique(*(record.passwordless for record in records), job.passwordless)
    return note_passwordless(job.destination.connection, job.definitions.roles(), made)


def _begin_and_prepare(job: PostgresRestore) -> PreparedParts:
    """Make what the rows need, and the state. Meanwhile a thread prepares rows."""
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="moveout-prepare") as pool:
        prepared = pool.submit(_prepare_parts, job, stop)
        try:
            _begin(job)
        finally:
            stop.set()
        return prepared.result()


def _prepare_parts(job: PostgresRestore, stop: threading.Event) -> PreparedParts:
    """Import what works on rows, and prepare parts until ``stop`` is set: the server is busy with the definitions."""
    from migrate.restore.postgres import row_steps  # noqa: PLC0415  a third of what a restore imports

    return row_steps.prepare(job, stop)


def _begin(job: PostgresRestore) -> None:
    """Make what the rows need, and the state."""
    connection = job.destination.connection
    restore_state.forget_finished(connection, job.state, every=job.alone)
    if job.selection.definitions:
        job.run.progress.note(f"{job.run.source}: making tables, types and functions")
        pre_data.define(job)
        return
    names = [table.key for table in job.tables]
    absent = postgres_destination.absent_tables(connection, names)
    require_tables([quote_qualified(*name) for name in names if name in absent], job.destination.address.url)
    with durable("restore.postgres.begin_rows"), connection.transaction():
        restore_state.begin_state(connection, job.state)


def _tables_not_made(job: PostgresRestore) -> frozenset[Name]:
    """Return the tables that could not be made, because of what the destination refuses or the bundle lacks."""
    absent = postgres_destination.absent_tables(
        job.destination.connection, [table.key for table in job.tables]
    )
    for name in sorted(absent)[:_SHOWN]:
        job.run.progress.note(f"{job.run.source}: the table {quote_qualified(*name)} cannot be made")
    return absent
