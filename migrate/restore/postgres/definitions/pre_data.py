"""Roles, types, tables and functions (pre-data) into the destination, together with the state of the restore."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import psycopg
from msgspec import Struct, field
from msgspec.structs import replace

from migrate.restore.postgres import destination as postgres_destination
from migrate.restore.postgres import restore_state
from migrate.restore.postgres.definitions.column_order import Orders
from migrate.restore.postgres.definitions.dump_script import (
    DumpEntry,
    Name,
    Script,
    begin_as_dumped,
    read_script,
    under_settings,
)
from migrate.restore.postgres.definitions.extensions import members, with_versions
from migrate.restore.postgres.definitions.pre_data_entries import EntryMaker
from migrate.restore.postgres.definitions.recorded_definitions import Definitions
from migrate.restore.postgres.definitions.refusals import ddl_error, is_superuser
from migrate.restore.postgres.definitions.roles import (
    logging_in,
    make_roles,
    missing_roles,
    note_kept,
)
from migrate.restore.postgres.definitions.selected_entries import select_entries
from migrate.restore.postgres.restore_state import PostgresState
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
_BEFORE_MEMBERS = frozenset({"SCHEMA", "EXTENSION"})


class DefinitionRequest(Struct, frozen=True):
    """What is to be defined. ``tables``: only these, None for all. ``alone``: the database holds nothing else.
    ``orders``: the tables' columns, as the source has them. ``was_left_out``: whether an earlier restore could not make
    the entry of a label, which is asked for in addition to the tables. ``retried``: only such entries are; one
    whose object is there already costs only itself.
    """

    definitions: Definitions
    state: PostgresState
    tables: AbstractSet[Name] | None = None
    alone: bool = False
    orders: Orders = field(default_factory=dict)
    was_left_out: Callable[[str], bool] = lambda _label: False
    retried: bool = False


def define(connection: psycopg.Connection[Any], request: DefinitionRequest) -> PostgresState:
    """Make it all in one transaction: first with owners and privileges, then, where the destination does not
    permit that, without. A database whose server cannot lock so many tables in one transaction is made in
    several. What is left out is recorded in the destination (``left_out``). Returns the state that was begun.
    """
    try:
        return _define(connection, request, portable=False)
    except _REFUSED as exc:
        refused = " ".join(str(exc).split())
    note = f"owners and privileges were left out, because the destination refused them: {refused}"
    try:
        return _define(connection, request, portable=True, notes=[note])
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc


def go_on(connection: psycopg.Connection[Any], request: DefinitionRequest, done: AbstractSet[str]) -> None:
    """Make what an earlier run in several transactions has not made. Raises ``MoveoutError``."""
    if _PRE_DATA in done:
        return
    portable = request.state.portable
    try:
        script = _script(connection, request, _read_missing(done), portable=portable)
        _make_in_batches(connection, script, done, request, portable=portable)
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc


def _define(
    connection: psycopg.Connection[Any],
    request: DefinitionRequest,
    *,
    portable: bool,
    notes: Sequence[str] = (),
) -> PostgresState:
    state = replace(request.state, portable=portable)
    try:
        missing = _find_missing(connection, request)
        script = _script(connection, request, missing, portable=portable)
        try:
            with durable("restore.postgres.pre_data"), connection.transaction():
                _begin(connection, request, state, notes)
                restore_state.mark_done(connection, _PRE_DATA)
                with under_settings(connection, script):
                    left_out = _make_all(connection, script.entries, request, portable=portable)
                restore_state.add_left_out(connection, _PRE_DATA, left_out)
        except psycopg.errors.OutOfMemory:  # of locks: max_locks_per_transaction
            with durable("restore.postgres.begin"), connection.transaction():
                _begin(connection, request, state, notes)
                restore_state.mark_done(connection, *missing.words())
            _make_in_batches(connection, script, set(), request, portable=portable)
    except _REFUSED:
        raise
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc
    return state


def _begin(
    connection: psycopg.Connection[Any],
    request: DefinitionRequest,
    state: PostgresState,
    notes: Sequence[str],
) -> None:
    """Make roles and the state, within the caller's transaction."""
    restore_state.begin_state(connection, state)
    roles = [] if state.portable else request.definitions.roles()
    missing = missing_roles(connection, roles)
    kept = note_kept(connection, [role for role in roles if role["name"] not in set(missing)])
    refused = make_roles(connection, roles, missing)
    if request.alone and not state.portable:
        begin_as_dumped(connection, request.definitions.section("pre-data", portable=False))
    passwordless = logging_in([role for role in roles if role["name"] in missing])
    restore_state.add_left_out(connection, _ROLES, refused, [*notes, *kept], passwordless=passwordless)


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


def _find_missing(connection: psycopg.Connection[Any], request: DefinitionRequest) -> _Missing:
    if request.tables is None:
        return _Missing()
    tables = postgres_destination.absent_tables(connection, request.tables)
    schemas = {schema for schema, _ in tables}
    return _Missing(
        tables,
        frozenset(schema for schema in schemas if not postgres_destination.has_schema(connection, schema)),
    )


def _script(
    connection: psycopg.Connection[Any], request: DefinitionRequest, missing: _Missing, *, portable: bool
) -> Script:
    script = read_script(connection, request.definitions.section("pre-data", portable=portable))
    extensions = request.definitions.extensions()
    if request.tables is None:
        return Script(script.head, with_versions(connection, script.entries, extensions))
    chosen = select_entries(script.entries, missing.tables, request.was_left_out)
    schemas_made = [
        entry for entry in script.entries if entry.kind == "SCHEMA" and entry.name in missing.schemas
    ]
    return Script(script.head, with_versions(connection, [*schemas_made, *chosen], extensions))


def _without_present(
    connection: psycopg.Connection[Any], entries: Sequence[DumpEntry]
) -> tuple[DumpEntry, ...]:
    """Return the entries but those for functions in the server's own schema that are here already, as they are where a
    provider puts them into every database.
    """
    present = [definition.encode() for (definition,) in connection.execute(_SYSTEM_FUNCTIONS)]
    return tuple(
        entry
        for entry in entries
        if entry.schema != "pg_catalog" or not any(definition in entry.sql for definition in present)
    )


def _make_all(
    connection: psycopg.Connection[Any],
    entries: Sequence[DumpEntry],
    request: DefinitionRequest,
    *,
    portable: bool,
) -> list[str]:
    """Run all entries of pre-data within the caller's transaction, with what was added to extensions, for which those
    must be there; return what was left out.
    """
    extensions = request.definitions.extensions()
    if request.tables is not None:
        names = {entry.name for entry in entries if entry.kind == "EXTENSION"}
        extensions = [extension for extension in extensions if extension["name"] in names]
    if not extensions:
        return _make(connection, entries, request, portable=portable)
    first = [entry for entry in entries if entry.kind in _BEFORE_MEMBERS]
    left_out = _make(connection, first, request, portable=portable)
    added = members(connection, extensions, portable=portable)
    rest = [entry for entry in entries if entry.kind not in _BEFORE_MEMBERS]
    return [*left_out, *_make(connection, [*added, *rest], request, portable=portable)]


def _make(
    connection: psycopg.Connection[Any],
    entries: Sequence[DumpEntry],
    request: DefinitionRequest,
    *,
    portable: bool,
) -> list[str]:
    """Run the entries within the caller's transaction; return what was left out. To others than superusers a refusal
    for lack of privileges matters only once owners and privileges are left out.
    """
    privileged = portable or is_superuser(connection)
    alone = request.alone or request.retried
    maker = EntryMaker(connection, alone=alone, privileged=privileged, orders=request.orders)
    return maker.make(_without_present(connection, entries))


def _make_in_batches(
    connection: psycopg.Connection[Any],
    script: Script,
    done: AbstractSet[str],
    request: DefinitionRequest,
    *,
    portable: bool,
) -> None:
    for start in range(0, len(script.entries), _BATCH):
        name = f"{_PRE_DATA}/{start:06d}"
        if name in done:
            continue
        with durable("restore.postgres.pre_data_batch"), connection.transaction():
            restore_state.mark_done(connection, name)
            with under_settings(connection, script):
                batch = script.entries[start : start + _BATCH]
                left_out = _make(connection, batch, request, portable=portable)
            restore_state.add_left_out(connection, name, left_out)
    with durable("restore.postgres.pre_data_batches"), connection.transaction():
        restore_state.mark_done(connection, _PRE_DATA)
