"""Roles, types, tables and functions (pre-data) into the target, together with the state of the restore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from exporters.postgres.identifiers import quote_name
from migrate.restore.finished import FinishedRestore, unique
from migrate.restore.postgres import left_out as sql_left_out
from migrate.restore.postgres import target as sql_target
from migrate.restore.postgres.refused import Aid, first_line, is_refusal
from migrate.restore.postgres.rights import is_superuser
from migrate.restore.postgres.roles import make_roles, missing_roles, set_for_database
from migrate.restore.postgres.schema import (
    Definitions,
    begin_as_dumped,
    ddl_error,
    read_script,
    under_settings,
)
from migrate.restore.postgres.script import Entry, Name, Script
from migrate.restore.postgres.selected import select_entries
from migrate.restore.postgres.target import State

_REFUSED = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject)
_ABSENT = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
)
"""What the server says where an entry needs an object that is not there."""
_TAKEN = (
    psycopg.errors.DuplicateFunction,
    psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateTable,
)
_OF_EXTENSION = """
SELECT min(e.extname) FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) AS o
WHERE d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
  AND o.schema = pg_catalog.quote_ident(%s) AND o.identity = ANY (
    SELECT o.schema || '.' || one FROM pg_catalog.unnest(%s::text[]) AS one)
"""
_Refusals = tuple[type[psycopg.Error], ...]
_FORBIDDEN = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidObjectDefinition,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.SyntaxError,
)
"""What the server says where it will never take an entry: the role may not, or a newer one wrote it."""
_OF_ROWS = frozenset({"SCHEMA", "SEQUENCE", "TABLE", "TABLE ATTACH"})
"""Without these there is no place for rows: where one needs what the server does not take, nothing is made."""
_PRE_DATA = "pre-data"
_ROLES = "roles"
_BATCH = 200
_UNIMPORTANT = frozenset({"ACL", "COMMENT", "SECURITY LABEL"})
"""What is not worth a word where the object that it speaks of is missing."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be defined. ``tables``: only these, None for all. ``tolerant``: the bundle has gaps, so
    what needs a missing object is left out instead of ending the restore. ``alone``: the database holds nothing else.
    """

    definitions: Definitions
    state: State
    tables: AbstractSet[Name] | None = None
    tolerant: bool = False
    alone: bool = False


def define(connection: psycopg.Connection[Any], wanted: Wanted) -> State:
    """Make it all in one transaction: first with owners and privileges, then, where the target does not
    permit that, without. A database whose server cannot lock so many tables in one transaction is made in
    several. What is left out is recorded in the target (``left_out``). Returns the state that was begun.
    """
    try:
        return _define(connection, wanted, portable=False)
    except _REFUSED as exc:
        refused = " ".join(str(exc).split())
    note = f"owners and privileges were left out, because the target refused them: {refused}"
    try:
        return _define(connection, wanted, portable=True, notes=[note])
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc


def go_on(connection: psycopg.Connection[Any], wanted: Wanted, done: AbstractSet[str]) -> None:
    """Make what an earlier run in several transactions has not made. Raises ``MoveoutError``."""
    portable = wanted.state.portable
    try:
        _make_in_batches(connection, _script(connection, wanted, portable=portable), done, portable=portable)
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc


def _define(
    connection: psycopg.Connection[Any], wanted: Wanted, *, portable: bool, notes: Sequence[str] = ()
) -> State:
    state = wanted.state.made(portable=portable)
    try:
        script = _script(connection, wanted, portable=portable)
        try:
            with connection.transaction():
                _begin(connection, wanted, state, notes)
                sql_target.mark_done(connection, _PRE_DATA)
                with under_settings(connection, script):
                    left_out = _make(connection, script.entries, tolerant=wanted.tolerant, portable=portable)
                sql_left_out.add(connection, _PRE_DATA, left_out)
        except psycopg.errors.OutOfMemory:  # of locks: max_locks_per_transaction
            with connection.transaction():
                _begin(connection, wanted, state, notes)
            _make_in_batches(connection, script, set(), portable=portable)
    except _REFUSED:
        raise
    except psycopg.Error as exc:
        raise ddl_error(exc, "pre-data.sql") from exc
    return state


def _begin(connection: psycopg.Connection[Any], wanted: Wanted, state: State, notes: Sequence[str]) -> None:
    """Make roles and the state, within the caller's transaction."""
    sql_target.begin_state(connection, state)
    roles = [] if state.portable else wanted.definitions.roles()
    made = missing_roles(connection, roles)
    refused = make_roles(connection, roles, made)
    if wanted.alone and not state.portable:
        begin_as_dumped(connection, wanted.definitions)
    if made:
        notes = [f"these roles were made and have no password yet: {', '.join(made)}", *notes]
    sql_left_out.add(connection, _ROLES, refused, notes)


def _script(connection: psycopg.Connection[Any], wanted: Wanted, *, portable: bool) -> Script:
    script = read_script(connection, wanted.definitions.section("pre-data", portable=portable))
    if wanted.tables is None:
        return script
    missing = {name for name in wanted.tables if not sql_target.has_table(connection, name)}
    schemas = {schema for schema, _ in missing if not sql_target.has_schema(connection, schema)}
    chosen = select_entries(script.entries, missing)
    made = [entry for entry in script.entries if entry.kind == "SCHEMA" and entry.name in schemas]
    return Script(script.head, (*made, *chosen))


def _make(
    connection: psycopg.Connection[Any], entries: Sequence[Entry], *, tolerant: bool, portable: bool
) -> list[str]:
    """Run the entries within the caller's transaction; return what was left out where that is tolerated. To others than
    superusers a refusal matters only once owners and privileges are left out.
    """
    refusals: _Refusals = (*_ABSENT, *_TAKEN, *_FORBIDDEN)
    if not portable and not is_superuser(connection):
        refusals = tuple(one for one in refusals if one is not psycopg.errors.InsufficientPrivilege)
    try:
        with connection.transaction():
            connection.execute(b"".join(entry.sql for entry in entries) or b"SELECT 1")
    except psycopg.Error as exc:
        if not isinstance(exc, refusals):
            raise
        return _make_each(connection, entries, refusals, tolerant=tolerant)
    return []


def _make_each(
    connection: psycopg.Connection[Any], entries: Sequence[Entry], refusals: _Refusals, *, tolerant: bool
) -> list[str]:
    waiting, reasons = list(entries), dict[int, psycopg.Error]()
    while waiting:
        failed = []
        for entry in waiting:
            if (reason := _refused(connection, entry, refusals)) is not None:
                reasons[entry.number] = reason
                failed.append(entry)
        if len(failed) == len(waiting):
            break
        waiting = failed
    taken = _taken(connection, waiting, reasons)
    first = _blocking([entry for entry in waiting if entry.number not in taken], reasons)
    if first is not None and not tolerant:
        reason = reasons[first.number]
        raise reason if isinstance(reason, _REFUSED) else ddl_error(reason, first.label) from reason
    return [
        f"{entry.label}: {taken.get(entry.number) or first_line(reasons[entry.number])}"
        for entry in waiting
        if entry.kind not in _UNIMPORTANT or isinstance(reasons[entry.number], _FORBIDDEN)
    ]


def _blocking(entries: Sequence[Entry], reasons: Mapping[int, psycopg.Error]) -> Entry | None:
    """Return the entry without which nothing is to be made: one whose name is taken; the first of all, unless they fail
    for what the server never takes; else what a table needs, itself at best.
    """
    forbidden = [entry for entry in entries if isinstance(reasons[entry.number], _FORBIDDEN)]
    clashes = [entry for entry in entries if isinstance(reasons[entry.number], _TAKEN)]
    if clashes or not forbidden:
        return next(iter((*clashes, *entries)), None)
    if not any(entry.kind in _OF_ROWS for entry in entries):
        return None
    return next((entry for entry in forbidden if entry.kind in _OF_ROWS), entries[0])


def _taken(
    connection: psycopg.Connection[Any], entries: Sequence[Entry], reasons: Mapping[int, psycopg.Error]
) -> dict[int, str]:
    """Return, by number, of which entries an extension has the objects here: at the source they were taken from it."""
    found = {}
    for entry in entries:
        if not isinstance(reasons[entry.number], _TAKEN):
            continue
        names = [quote_name(entry.name), entry.name]
        row = connection.execute(_OF_EXTENSION.encode(), (entry.schema, names)).fetchone()
        if row and row[0]:
            found[entry.number] = f"the extension {row[0]} has one of its own here"
    return found


def _refused(connection: psycopg.Connection[Any], entry: Entry, refusals: _Refusals) -> psycopg.Error | None:
    """Run an entry, at last with an aid; return why the server refuses it even so."""
    reason: psycopg.Error | None = None
    for aid in Aid:
        try:
            with connection.transaction():
                with aid.given(connection, entry):
                    connection.execute(entry.sql)
                connection.execute("SELECT pg_catalog.set_config('search_path', '', true)")
        except refusals as exc:
            reason = reason or exc
        else:
            return None
    return reason


def _make_in_batches(
    connection: psycopg.Connection[Any], script: Script, done: AbstractSet[str], *, portable: bool
) -> None:
    if _PRE_DATA in done:
        return
    for start in range(0, len(script.entries), _BATCH):
        name = f"{_PRE_DATA}/{start:06d}"
        if name in done:
            continue
        with connection.transaction():
            sql_target.mark_done(connection, name)
            with under_settings(connection, script):
                batch = script.entries[start : start + _BATCH]
                left_out = _make(connection, batch, tolerant=False, portable=portable)
            sql_left_out.add(connection, name, left_out)
    with connection.transaction():
        sql_target.mark_done(connection, _PRE_DATA)


@dataclass(frozen=True, slots=True)
class Last:
    """What a restore does at its end: ``settings`` of the database, and ``entries`` of the script of post-data (event
    triggers, which from then on may forbid anything).
    """

    script: Script
    entries: Sequence[Entry]
    settings: Sequence[Mapping[str, Any]]


def finish(
    connection: psycopg.Connection[Any], last: Last, state: State, record: FinishedRestore
) -> list[str]:
    """Do what is last and forget the state, in one transaction. Returns what was left out of it; where anything was,
    before or now, ``record`` stays in the target with all of it.
    """
    keep = bool(record.left_out)
    while True:
        with connection.transaction() as transaction:
            sql_left_out.end(connection, keep=keep)
            left_out = set_for_database(connection, last.settings)
            with under_settings(connection, last.script):
                left_out += [word for entry in last.entries if (word := _make_last(connection, entry))]
            if left_out and not keep:
                keep = True
                raise psycopg.Rollback(transaction)
            if keep:
                whole = replace(record, left_out=unique(record.left_out, left_out))
                sql_left_out.write_finished(connection, state, whole)
            return left_out


def _make_last(connection: psycopg.Connection[Any], entry: Entry) -> str:
    """Make an entry; return what to say where the server refuses it, else ""."""
    try:
        with connection.transaction():
            connection.execute(entry.sql)
    except psycopg.Error as exc:
        if not (isinstance(exc, psycopg.errors.InsufficientPrivilege) or is_refusal(exc, connection)):
            raise
        return f"{entry.label}: {first_line(exc)}"
    return ""
