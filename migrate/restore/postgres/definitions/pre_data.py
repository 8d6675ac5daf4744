"""Roles, types, tables and functions (pre-data) into the destination, together with the state of the restore."""

from __future__ import annotations

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import psycopg
from msgspec import Struct

from migrate.restore.postgres import restore_state
from migrate.restore.postgres.context import PostgresRestore
from migrate.restore.postgres.definitions.dump_script import (
    DumpEntry,
    Name,
    Script,
    begin_as_dumped,
    read_script,
    under_settings,
)
from migrate.restore.postgres.definitions.extensions import members, with_versions
from migrate.restore.postgres.definitions.optional_clauses import as_before_18
from migrate.restore.postgres.definitions.pre_data_entries import EntryMaker
from migrate.restore.postgres.definitions.refusals import ddl_error, is_superuser
from migrate.restore.postgres.definitions.roles import (
    logging_in,
    make_roles,
    missing_roles,
    note_default_privileges,
    note_kept,
    note_not_given,
)
from migrate.restore.postgres.definitions.selected_entries import select_entries
from migrate.restore.postgres.destination import absent_tables, has_schema
from migrate.runtime.crash_points import durable

_REFUSED = psycopg.errors.InsufficientPrivilege
_PRE_DATA = "pre-data"
_ROLES = "roles"
_MISSING = "pre-data of "
"""Begins the names of what was missing when a part began to be made in batches: a table or a schema, as JSON. By then
some of it is there, and the numbers of batches count from all of it.
"""
_BATCH = 200
_SYSTEM_FUNCTIONS = """
SELECT pg_catalog.regexp_replace(pg_catalog.pg_get_functiondef(oid), '^CREATE OR REPLACE ', 'CREATE ')
FROM pg_catalog.pg_proc WHERE pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND oid >= 16384 AND prokind <> 'a'
"""
"""Functions that somebody has made in pg_catalog, as ``exporters.postgres.definitions.system_schema`` writes them."""
_VIRTUAL_VERSION = 180000
"""From this version on generated columns may be virtual."""
_BEFORE_MEMBERS = frozenset({"SCHEMA", "EXTENSION"})


def define(job: PostgresRestore) -> None:
    """Make it all in one transaction: first with owners and privileges, then, where the destination does not permit
    that, without owners, and with the privileges that it takes. A database whose server cannot lock so many tables in
    one transaction is made in several. What is left out is recorded in the destination (``restore_state``).
    """
    try:
        return _define(job)
    except _REFUSED as exc:
        refused = " ".join(str(exc).split())
    note = (
        f"owners were left out, because the destination refused them: {refused}; all belongs to this role, and what"
        " others could do by privileges of the owners they cannot do here"
    )
    job.portable = True
    try:
        _define(job, [note])
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc


def resume(job: PostgresRestore, done: AbstractSet[str]) -> None:
    """Make what an earlier run in several transactions has not made. Raises ``MoveoutError``."""
    if _PRE_DATA in done:
        return
    try:
        missing = _read_missing(done)
        _make_in_batches(job, _script(job, missing), missing, done)
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc


def _define(job: PostgresRestore, notes: Sequence[str] = ()) -> None:
    connection = job.destination.connection
    try:
        missing = _find_missing(job)
        script = _script(job, missing)
        notes = [*notes, *_stored_here(connection, script.entries)]
        try:
            with durable("restore.postgres.pre_data"), connection.transaction():
                _begin(job, notes)
                restore_state.mark_done(connection, _PRE_DATA)
                with under_settings(connection, script):
                    left_out = _make_all(job, script.entries)
                    lacking = _give_privileges(job, missing)
                restore_state.add_left_out(connection, _PRE_DATA, left_out, lacking)
        except psycopg.errors.OutOfMemory:  # of locks: max_locks_per_transaction
            with durable("restore.postgres.begin"), connection.transaction():
                _begin(job, notes)
                restore_state.mark_done(connection, *missing.words())
            _make_in_batches(job, script, missing, set())
    except _REFUSED:
        raise
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc


def _begin(job: PostgresRestore, notes: Sequence[str]) -> None:
    """Make roles and the state, within the caller's transaction."""
    connection = job.destination.connection
    restore_state.begin_state(connection, job.state)
    roles = [] if job.portable else job.definitions.roles()
    missing = missing_roles(connection, roles)
    kept = note_kept(connection, [role for role in roles if role["name"] not in set(missing)])
    granted = note_default_privileges(connection)
    refused = make_roles(connection, roles, missing)
    if job.alone and not job.portable:
        begin_as_dumped(connection, job.section("pre-data"))
    passwordless = logging_in([role for role in roles if role["name"] in missing])
    restore_state.add_left_out(
        connection, _ROLES, refused, [*notes, *kept, *granted], passwordless=passwordless
    )


class _Missing(Struct, frozen=True):
    """What a part lacks at the destination before it is made: tables, and the schemas of such."""

    tables: AbstractSet[Name] = frozenset()
    schemas: AbstractSet[str] = frozenset()

    def words(self) -> list[str]:
        """Return what is kept of it in the destination."""
        names = [*sorted(self.tables), *((schema,) for schema in sorted(self.schemas))]
        return [_MISSING + json.dumps(name) for name in names]


def _read_missing(done: AbstractSet[str]) -> _Missing:
    names = [json.loads(word.removeprefix(_MISSING)) for word in done if word.startswith(_MISSING)]
    tables = frozenset((name[0], name[1]) for name in names if len(name) > 1)
    return _Missing(tables, frozenset(name[0] for name in names if len(name) == 1))


def _find_missing(job: PostgresRestore) -> _Missing:
    if not job.selection.is_part:
        return _Missing()
    connection = job.destination.connection
    tables = absent_tables(connection, job.defined)
    schemas = {schema for schema, _ in tables}
    return _Missing(tables, frozenset(schema for schema in schemas if not has_schema(connection, schema)))


def _script(job: PostgresRestore, missing: _Missing) -> Script:
    connection, extensions = job.destination.connection, job.definitions.extensions()
    script = read_script(connection, job.section("pre-data"))
    if not job.selection.is_part:
        return Script(script.head, with_versions(connection, script.entries, extensions))
    chosen = select_entries(script.entries, missing.tables, job.run.was_left_out)
    schemas_made = [
        entry for entry in script.entries if entry.kind == "SCHEMA" and entry.name in missing.schemas
    ]
    return Script(script.head, with_versions(connection, [*schemas_made, *chosen], extensions))


def _without_present(
    connection: psycopg.Connection[Any], entries: Sequence[DumpEntry]
) -> tuple[DumpEntry, ...]:
    """Return the entries but those of functions in pg_catalog that are here, as where a provider puts them."""
    present = [definition.encode() for (definition,) in connection.execute(_SYSTEM_FUNCTIONS)]
    return tuple(
        entry
        for entry in entries
        if entry.schema != "pg_catalog" or not any(definition in entry.sql for definition in present)
    )


def _stored_here(connection: psycopg.Connection[Any], entries: Sequence[DumpEntry]) -> list[str]:
    """Return notes about columns that are virtual at the source, and are made as stored ones here."""
    if connection.info.server_version >= _VIRTUAL_VERSION:
        return []
    names = ((entry.label, as_before_18(entry)[1]) for entry in entries)
    return [
        f"{label}: {', '.join(columns)} stored, virtual at the source: PostgreSQL has that from 18 on"
        for label, columns in names
        if columns
    ]


def _make_all(job: PostgresRestore, entries: Sequence[DumpEntry]) -> list[str]:
    """Run all entries, with what was added to extensions behind these; return what was left out."""
    extensions = job.definitions.extensions()
    if job.selection.is_part:
        names = {entry.name for entry in entries if entry.kind == "EXTENSION"}
        extensions = [extension for extension in extensions if extension["name"] in names]
    if not extensions:
        return _make(job, entries)
    left_out = _make(job, [entry for entry in entries if entry.kind in _BEFORE_MEMBERS])
    added = members(job.destination.connection, extensions, portable=job.portable)
    rest = [entry for entry in entries if entry.kind not in _BEFORE_MEMBERS]
    return [*left_out, *_make(job, [*added, *rest])]


def _make(job: PostgresRestore, entries: Sequence[DumpEntry]) -> list[str]:
    """Run the entries within the caller's transaction; return what was left out. To others than superusers a refusal
    for lack of privileges matters only once owners and privileges are left out. Where only what earlier restores left
    out is tried again, an entry whose object is there already costs only itself.
    """
    connection = job.destination.connection
    privileged = job.portable or is_superuser(connection)
    alone = job.alone or job.selection.left_out
    maker = EntryMaker(connection, alone=alone, privileged=privileged, orders=job.orders)
    entries = _without_present(connection, entries)
    if connection.info.server_version < _VIRTUAL_VERSION:
        entries = [as_before_18(entry)[0] for entry in entries]
    left_out = maker.make(entries)
    job.notes += note_not_given(maker.not_given)
    return left_out


def _give_privileges(job: PostgresRestore, missing: _Missing) -> list[str]:
    """Give the privileges that the destination takes where all is made without owners, within the caller's transaction:
    without a REVOKE all might use what few may. Return a note about the others.
    """
    if not job.portable:
        return []
    connection = job.destination.connection
    before, after = (
        read_script(connection, job.definitions.section(name, portable=False)).entries
        for name in ("pre-data", "post-data")
    )
    entries: Sequence[DumpEntry] = [entry for entry in before if entry.kind == "ACL"]
    defaults = [f"{entry.label}: of the source's owner" for entry in after if entry.kind == "DEFAULT ACL"]
    if job.selection.is_part:
        entries, defaults = select_entries(entries, missing.tables), []
    maker = EntryMaker(connection, alone=True, privileged=True, orders=job.orders)
    refused = [*maker.make(entries), *maker.not_given, *defaults]
    return note_not_given(refused)


def _make_in_batches(job: PostgresRestore, script: Script, missing: _Missing, done: AbstractSet[str]) -> None:
    connection = job.destination.connection
    for start in range(0, len(script.entries), _BATCH):
        name = f"{_PRE_DATA}/{start:06d}"
        if name in done:
            continue
        with durable("restore.postgres.pre_data_batch"), connection.transaction():
            restore_state.mark_done(connection, name)
            with under_settings(connection, script):
                left_out = _make(job, script.entries[start : start + _BATCH])
            restore_state.add_left_out(connection, name, left_out)
    with durable("restore.postgres.pre_data_batches"), connection.transaction():
        restore_state.mark_done(connection, _PRE_DATA)
        with under_settings(connection, script):
            lacking = _give_privileges(job, missing)
        restore_state.add_left_out(connection, _PRE_DATA, notes=lacking)
