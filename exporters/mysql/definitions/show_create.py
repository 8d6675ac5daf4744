"""Definitions, each as the server's own SHOW CREATE prints it, with the settings under which it was made.

``schema/definitions.json`` is what restore reads: a list in the order in which it is run. ``schema/schema.sql`` is
the same for people and for the ``mariadb``/``mysql`` client. ``schema/grants.sql`` is what accounts may do, without
passwords.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

import pymysql
from msgspec import Struct, field

from exporters.api import Gap, Loss
from exporters.errors import SourceError
from exporters.mysql.catalog import MysqlColumn, MysqlTable, read_sequences
from exporters.mysql.connection import Connection, MysqlAddress, connect
from exporters.mysql.control_tables import find_control_tables
from exporters.mysql.definitions.account_grants import read_grants
from exporters.mysql.definitions.connection_secrets import NO_SECRETS, without_secrets
from exporters.mysql.definitions.show_create_parser import (
    for_people,
    with_bytes,
    with_comment,
    with_null,
    with_returned,
    without_database,
)
from exporters.mysql.definitions.spatial_reference_systems import KIND as SPATIAL
from exporters.mysql.definitions.spatial_reference_systems import reference_systems
from exporters.mysql.definitions.statement_begin import trigger_of_any_database
from exporters.mysql.definitions.unprintable_text import with_expressions, with_labels
from exporters.mysql.definitions.unrepresented import unrepresented_losses
from exporters.mysql.errors import DRIVER_ERRORS, is_about_the_thing, message_of, number_of
from exporters.mysql.identifiers import of_database, quote_literal, quote_name
from exporters.mysql.sessions.account_rights import read_rights
from exporters.sql.outline import NO_DEFINITIONS
from exporters.sql.source_summary import of_a_restore

DEFINITIONS = "schema/definitions.json"
SCRIPT = "schema/schema.sql"
GRANTS = "schema/grants.sql"

_VIEWS = "SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {schema} ORDER BY 1"
_ROUTINES = (
    f"SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE {of_database('ROUTINE_SCHEMA')}"
    " ORDER BY 1, 2"
)
_TRIGGERS = (
    "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS"
    f" WHERE {of_database('TRIGGER_SCHEMA')}"
    " ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER"
)
_TRIGGERS_OF = (
    f"SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE {of_database('TRIGGER_SCHEMA')}"
    " AND EVENT_OBJECT_TABLE = {table} ORDER BY ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER"
)
_LIBRARIES = (
    "SELECT LIBRARY_NAME FROM information_schema.LIBRARIES WHERE LIBRARY_SCHEMA = {schema} ORDER BY 1"
)
_HAS_LIBRARIES = (
    "SELECT 1 FROM information_schema.TABLES"
    " WHERE TABLE_SCHEMA = 'information_schema' AND TABLE_NAME = 'LIBRARIES'"
)
_DELIMITERS = ("$$", "//", ";;", *("~" * length for length in range(2, 80)))
"""What may end a statement for the client that reads the script: what is not in it."""
_EVENTS = f"SELECT EVENT_NAME FROM information_schema.EVENTS WHERE {of_database('EVENT_SCHEMA')} ORDER BY 1"
_NAMED = (
    _VIEWS.replace("TABLE_NAME", "TABLE_NAME, CRC32(VIEW_DEFINITION)", 1),
    _EVENTS.replace("EVENT_NAME", "EVENT_NAME, CRC32(EVENT_DEFINITION)", 1),
)
_TRIES = 5
"""How often definitions are read where views or events have got other names meanwhile: no lock keeps them."""
_RENAMED = (
    "some got other names each time that they were read: what is here as one may be another's definition"
)
_LISTED = ((_VIEWS, "view"), (_TRIGGERS, "trigger"), (_EVENTS, "event"))
"""Catalogs of what is made when tables and routines exist."""
_DATABASE = "SELECT * FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {schema}"
_ROUTINES_OF_OTHERS = "those of others are hidden, if there are any: the account has no {}"
_TABLES_OF_OTHERS = (
    "tables on which the account has no right are hidden, if there are any: GRANT SELECT ON {}.* names all"
)
_REFERENCES = (
    "SELECT DISTINCT CONSTRAINT_NAME, TABLE_NAME, REFERENCED_TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE"
    " WHERE TABLE_SCHEMA = {schema} AND REFERENCED_TABLE_SCHEMA = {schema} ORDER BY 3, 2, 1"
)
_READ_ONLY = 1792
_REFUSED = {1044, 1142, 1143, 1227, 1370, 1305, 1356, 1141, 1403}

Definition = dict[str, Any]


class Missing(Struct, frozen=True):
    """What definitions do not hold: ``losses`` what is hidden, ``gaps`` what the server itself cannot print."""

    losses: list[Loss] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


class Schema(Struct, frozen=True):
    """The files of all definitions, by their names, and what they do not hold."""

    files: Mapping[str, bytes]
    missing: Missing


def read_schema(connection: Connection, tables: Sequence[MysqlTable]) -> Schema:
    """Return all definitions. Raises the driver's errors."""
    control, _ = find_control_tables(connection)
    finished = all(name.endswith(("_left_out", "_follow")) for name in control)
    restored = [of_a_restore(quote_name(name), finished=finished) for name in sorted(control)]
    now = _views_and_events(connection.address)
    for _ in range(_TRIES):
        missing, before = Missing([*restored, *unrepresented_losses(connection)]), now
        definitions = read_definitions(connection, tables, missing)
        now = _views_and_events(connection.address)
        if now == before:
            break
    else:
        missing.losses.append(Loss("views and events", "definitions", _RENAMED))
    written = json.dumps(definitions, indent=1, ensure_ascii=False)
    shown = [
        definition | {"sql": for_people(connection, definition)} if "client" in definition else definition
        for definition in definitions
    ]
    script = script_of(shown, connection.defining_mode)
    files = {
        DEFINITIONS: written.encode(errors="backslashreplace") + b"\n",
        SCRIPT: script.encode(errors="surrogateescape"),
    }
    if grants := read_grants(connection, missing.losses):
        files[GRANTS] = grants.encode()
    return Schema(files, missing)


def _views_and_events(address: MysqlAddress) -> list[list[tuple[Any, ...]]]:
    """Return their names and checksums of their texts as of now: in a snapshot MySQL lists those of then. Nothing where
    nobody else is let in.
    """
    try:
        with closing(connect(address)) as other:
            return [_listed(other, query, "", Missing()) for query in _NAMED]
    except (SourceError, *DRIVER_ERRORS):
        return []


def bare_schema(connection: Connection, tables: Iterable[MysqlTable]) -> Schema:
    """Return what stands for the definitions until they have been read: tables with their columns, and with the history
    that their rows have. Values of ENUM and SET are text where a label may not be what it is printed as
    (``unprintable_text``). Raises the driver's errors.
    """
    schema = quote_literal(connection.address.database)
    definitions: list[Definition] = [_database(connection.named(_DATABASE.format(schema=schema))[0])]
    for table in tables:
        parts = [f"  {quote_name(column.name)} {_bare_type(table, column)}" for column in table.columns]
        options = ""
        if table.history:
            parts.append(f"  PERIOD FOR SYSTEM_TIME ({', '.join(map(quote_name, table.history))})")
            options = " WITH SYSTEM VERSIONING"
        body = ",\n".join(parts)
        sql = f"CREATE TABLE {table.label} (\n{body}\n){options}"
        definitions.append({"kind": "table", "name": table.name, "sql": sql})
    files = {DEFINITIONS: json.dumps(definitions).encode(), SCRIPT: script_of(definitions, "").encode()}
    return Schema(files, Missing(gaps=[NO_DEFINITIONS]))


def _bare_type(table: MysqlTable, column: MysqlColumn) -> str:
    """Return what stands behind the name of a column in a bare definition."""
    if column.name in table.history:
        place = "START" if column.name == table.history[0] else "END"
        hidden = " INVISIBLE" * ("INVISIBLE" in column.extra)
        return f"{column.sql_type} GENERATED ALWAYS AS ROW {place}{hidden}"
    sql_type = "LONGTEXT" if "?" in column.sql_type else column.sql_type
    collation = f" COLLATE {column.collation}" if column.collation else ""
    return f"{sql_type}{collation} {'NOT NULL' if column.not_null else 'NULL'}"


def read_definitions(
    connection: Connection, tables: Sequence[MysqlTable], missing: Missing
) -> list[Definition]:
    """Return all objects in the order in which they can be made: functions before views, triggers after the rows."""
    schema = quote_literal(connection.address.database)
    definitions: list[Definition] = [_database(connection.named(_DATABASE.format(schema=schema))[0])]
    definitions += [] if connection.is_mariadb else reference_systems(connection)
    for name in read_sequences(connection):
        definitions += _define(connection, "sequence", name, missing)
    for table in tables:
        definitions += _define(connection, "table", table.name, missing)
    missing.losses.extend(hidden_routines(connection))
    _note_hidden_tables(connection, tables, missing)
    if connection.value(_HAS_LIBRARIES):
        for (name,) in connection.rows(_LIBRARIES.format(schema=schema)):
            definitions += _define(connection, "library", str(name), missing)
    for kind, name in _listed(connection, _ROUTINES, "routines", missing):
        definitions += _define(connection, str(kind).lower(), str(name), missing)
    for query, kind in _LISTED:
        for name, *of in _listed(connection, query, f"{kind}s", missing):
            new_definitions = _define(connection, kind, str(name), missing)
            definitions += (
                [definition | {"table": str(of[0])} for definition in new_definitions]
                if of
                else new_definitions
            )
    return definitions


def _listed(connection: Connection, query: str, kinds: str, missing: Missing) -> list[tuple[Any, ...]]:
    """Return what a catalog lists; one that the server cannot read is a gap. Raises the driver's errors."""
    try:
        return connection.rows(query.format(schema=quote_literal(connection.address.database)))
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        missing.gaps.append(Gap(kinds, "failed", f"they cannot be listed: {message_of(exc)}"))
        return []


def unlisted_kinds(connection: Connection) -> list[Gap]:
    """Return a gap for each kind of objects that the server cannot list, as where its system tables are those of
    another version. Raises the driver's errors.
    """
    missing = Missing()
    for query, kind in ((_ROUTINES, "routine"), *_LISTED):
        _listed(connection, query, f"{kind}s", missing)
    return missing.gaps


def _database(row: Mapping[str, Any]) -> Definition:
    """Return the database's own definition; MariaDB's may have a comment."""
    comment = {"comment": row["schema_comment"]} if row.get("schema_comment") else {}
    charset, collation = row["default_character_set_name"], row["default_collation_name"]
    return {"kind": "database", "name": "", "charset": charset, "collation": collation, **comment}


def hidden_routines(connection: Connection) -> list[Loss]:
    """Servers list only routines that the account may see, and do not say whether there are others."""
    if connection.is_mariadb:
        try:
            connection.rows("SELECT 1 FROM mysql.proc LIMIT 0")
        except pymysql.Error as exc:
            if number_of(exc) in _REFUSED:
                return [Loss("routines", "definition", _ROUTINES_OF_OTHERS.format("SELECT on mysql.proc"))]
        return []
    rights = read_rights(connection)
    if any(rights.has(name, "*") for name in ("SELECT", "SHOW_ROUTINE")):
        return []
    return [Loss("routines", "definition", _ROUTINES_OF_OTHERS.format("SHOW_ROUTINE on *.*"))]


def _note_hidden_tables(connection: Connection, tables: Sequence[MysqlTable], missing: Missing) -> None:
    """Note that servers list only tables on which the account has a right; one that a foreign key names is a gap."""
    schema = connection.address.database
    if read_rights(connection).lists_tables_of(schema):
        return
    missing.gaps.append(Gap("other tables", "excluded", _TABLES_OF_OTHERS.format(quote_name(schema))))
    missing.gaps.extend(
        Gap(quote_name(name), "failed", f"{reason}: GRANT SELECT ON {quote_name(schema)}.{quote_name(name)}")
        for name, reason in hidden_tables(connection, tables).items()
    )


def hidden_tables(connection: Connection, tables: Iterable[MysqlTable]) -> dict[str, str]:
    """Return the names of tables that the server does not list for the account, as far as foreign keys of those that it
    lists name them, and why they are needed. Raises the driver's errors.
    """
    listed = {table.name for table in tables}
    rows = connection.rows(_REFERENCES.format(schema=quote_literal(connection.address.database)))
    reasons: dict[str, str] = {}
    for key, table, name in rows:
        if str(name) not in listed:
            reason = (
                f"the foreign key {quote_name(str(key))} of {quote_name(str(table))} needs it, and this account has"
                " no right on it"
            )
            reasons.setdefault(str(name), reason)
    return reasons


def _define(connection: Connection, kind: str, name: str, missing: Missing) -> list[Definition]:
    label = quote_name(name)
    try:
        definition = _read(connection, kind, name)
        if kind == "table":
            definition["sql"] = with_expressions(connection, name, definition["sql"])
            definition["sql"] = with_labels(connection, name, definition["sql"], missing.losses)
            definition["sql"], secrets = without_secrets(definition["sql"])
            missing.losses.extend([Loss(label, "password", NO_SECRETS)] if secrets else [])
        if kind == "sequence":
            definition |= sequence_state(connection, name)
    except pymysql.Error as exc:
        if number_of(exc) in _REFUSED:
            missing.losses.append(Loss(f"{kind} {label}", "definition", message_of(exc)))
        elif is_about_the_thing(exc):
            item = label if kind == "table" else f"{kind} {label}"
            missing.gaps.append(Gap(item, "failed", f"its definition cannot be read: {message_of(exc)}"))
        else:
            raise
        return []
    if not definition["sql"]:
        missing.losses.append(Loss(f"{kind} {label}", "definition", "the account may not see it"))
        return []
    return [definition]


def _read(connection: Connection, kind: str, name: str) -> Definition:
    """Return a definition. Some are not shown to a session that only reads: views that take numbers from a sequence, or
    whose functions write. Those are read by another session. Nothing is executed.
    """
    try:
        return read_definition(connection, kind, name)
    except pymysql.Error as exc:
        if number_of(exc) != _READ_ONLY:
            raise
    with closing(connect(connection.address)) as other:
        return read_definition(other, kind, name)


def trigger_names(connection: Connection, table: str) -> list[str]:
    """Return the names of the triggers of a table in the order in which they act. Raises the driver's errors."""
    schema = quote_literal(connection.address.database)
    rows = connection.rows(_TRIGGERS_OF.format(schema=schema, table=quote_literal(table)))
    return [str(name) for (name,) in rows]


def read_trigger(connection: Connection, name: str, table: str) -> Definition:
    """Return the definition of a trigger of a table. Raises the driver's errors."""
    return read_definition(connection, "trigger", name) | {"table": table}


def read_definition(connection: Connection, kind: str, name: str) -> Definition:
    """Return the definition of an object as SHOW CREATE prints it. Raises the driver's errors."""
    row = connection.named(f"SHOW CREATE {kind.upper()} {quote_name(name)}")[0]
    definition: Definition = {"kind": kind, "name": name, **_settings(row)}
    definition["sql"] = with_bytes(connection, definition)
    definition["sql"] = with_comment(connection, definition)
    definition["sql"] = with_returned(definition)
    definition["sql"] = with_null(definition)
    definition["sql"] = without_database(definition["sql"], connection.address.database)
    if kind == "trigger":
        definition["sql"] = trigger_of_any_database(definition["sql"])
    return definition


def _settings(row: Mapping[str, Any]) -> Definition:
    """Return the statement and the session under which the object was made, from a row of SHOW CREATE."""
    sql = next((v for k, v in row.items() if k.startswith("create ") or k == "sql original statement"), None)
    names = {
        "sql_mode": "sql_mode",
        "time_zone": "time_zone",
        "character_set_client": "client",
        "collation_connection": "connection",
        "database collation": "database_collation",
    }
    settings = {key: row[column] for column, key in names.items() if row.get(column) is not None}
    return {"sql": sql.decode() if isinstance(sql, bytes) else sql or "", **settings}


def label_of(definition: Definition) -> str:
    """Return what messages call it."""
    return f"{definition['kind']} {quote_name(definition['name'])}"


def script_of(definitions: Sequence[Definition], mode: str) -> str:
    """Return the definitions as a script for the command-line client; tables and views are made under ``mode``."""
    lines = ["SET FOREIGN_KEY_CHECKS = 0;"]
    for definition in definitions:
        if definition["kind"] == "database":
            lines.append(f"ALTER DATABASE {defaults_of(definition)};")
            continue
        lines.append(f"SET SESSION sql_mode = {quote_literal(definition.get('sql_mode', mode))};")
        compound = definition["kind"] not in {"table", "view", "sequence", SPATIAL}
        mark = next(mark for mark in _DELIMITERS if mark not in definition["sql"])
        lines.append(
            f"DELIMITER {mark}\n{definition['sql']}{mark}\nDELIMITER ;"
            if compound
            else f"{definition['sql']};"
        )
        if definition["kind"] == "sequence":
            lines.append(f"{set_sequence(definition)};")
    return "\n\n".join(lines) + "\n"


def defaults_of(database: Definition) -> str:
    """Return the words for what a database has by itself."""
    comment = f" COMMENT {quote_literal(database['comment'])}" if database.get("comment") else ""
    return f"CHARACTER SET {database['charset']} COLLATE {database['collation']}{comment}"


def create_database_statement(name: str, defaults: str = "") -> str:
    """Return the statement that makes a database. ``defaults``: see ``defaults_of``."""
    return f"CREATE DATABASE {quote_name(name)} {defaults}".rstrip()


def sequence_state(connection: Connection, name: str) -> Definition:
    """Return where a sequence is. Raises the driver's errors."""
    value, rounds = connection.rows(f"SELECT next_not_cached_value, cycle_count FROM {quote_name(name)}")[0]
    return {"next": int(value), "rounds": int(rounds)}


def set_sequence(definition: Definition) -> str:
    """Return the statement that lets a sequence go on where it was, in the same round."""
    return (
        f"SELECT SETVAL({quote_name(definition['name'])}, {int(definition['next'])}, 0,"
        f" {int(definition.get('rounds', 0))})"
    )
