"""The destination database: it is made as the source's was, with its encoding, collation and character types; it is
locked, and asked for what is in it. Sessions write to it without triggers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import psycopg
from msgspec import Struct, field

from exporters.postgres.definitions.collation import create_words
from exporters.postgres.errors import in_one_line, translate
from exporters.postgres.identifiers import quote_literal, quote_name, quote_qualified
from exporters.postgres.schemas import PROGRESS_SCHEMA
from exporters.postgres.sessions.connection import PostgresAddress, connect, connect_to_server, parse_url
from migrate.bundle.reader import BundleReader
from migrate.errors import BusyError
from migrate.restore.common.api import Created, is_missing, naming_create
from migrate.restore.postgres.definitions.refusals import is_refusal

_NO_LOCALE = {"22023", "42704", "42601", "0A000", "42P17"}
"""SQLSTATEs of a server that lacks a locale, an encoding or a provider."""
_LOCK = 0x6D6F7665
"""The advisory lock that a restore holds ("move")."""
_LOCK_SECONDS = 20
_HOLDER = (
    f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = {_LOCK}"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
"""The server process of the session that holds the lock."""

_WRITER_SETTINGS = """
SELECT set_config(w.name, w.value, false) FROM (VALUES ('synchronous_commit', 'off'),
  ('default_transaction_read_only', 'off'), ('client_connection_check_interval', '2s'), ('tcp_keepalives_idle', '30'),
  ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3')) AS w(name, value)
WHERE pg_catalog.current_setting(w.name, true) IS NOT NULL
"""

_GENERATED_VERSION = 120000
"""From here on a server has generated columns."""

_CONTENT = """
SELECT what FROM (
  SELECT 1 AS rank, CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' WHEN 'S' THEN 'sequence '
    ELSE 'table ' END || n.nspname || '.' || c.relname AS what, c.oid, 'pg_class'::regclass AS class, n.nspname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL SELECT 2, 'function ' || n.nspname || '.' || p.proname, p.oid, 'pg_proc'::regclass, n.nspname
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  UNION ALL SELECT 3, 'type ' || n.nspname || '.' || t.typname, t.oid, 'pg_type'::regclass, n.nspname
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r')
  UNION ALL SELECT 4, 'large object ' || oid, oid, 'pg_largeobject'::regclass, '' FROM pg_largeobject_metadata
) AS found
WHERE nspname <> 'information_schema' AND nspname !~ '^pg_' AND nspname <> '{own}'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = found.class AND d.objid = found.oid
    AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
ORDER BY rank, what
""".replace("{own}", PROGRESS_SCHEMA)


_ACTING = """
SELECT kind, name, CASE state WHEN 'O' THEN '' WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END FROM (
  SELECT 'TRIGGER', tgname, tgenabled FROM pg_trigger WHERE tgrelid = {table}::regclass AND NOT tgisinternal
  UNION ALL SELECT 'RULE', rulename, ev_enabled FROM pg_rewrite
  WHERE ev_class = {table}::regclass AND rulename <> '_RETURN') AS actors(kind, name, state)
WHERE state IN ('A', CASE current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)
"""
"""The triggers and rules of a table that act in this session."""

_ACTING_ON_EVENTS = """
SELECT quote_ident(evtname), CASE evtenabled WHEN 'O' THEN '' WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END
FROM pg_catalog.pg_event_trigger WHERE pg_has_role(evtowner, 'USAGE')
AND evtenabled IN ('A', CASE current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)
"""
"""The event triggers that act in this session, and that this role may alter."""
_ONE_AT_A_TIME = f"SELECT pg_catalog.pg_advisory_xact_lock({0x6D6F7667})"
"""Where two transactions alter one event trigger, the server refuses the later one: "tuple concurrently updated". So
it waits for the end of the first one ("movg").
"""


class PostgresDestination(Struct, frozen=True):
    """The database and the connection on which everything but rows is done; it holds the lock."""

    address: PostgresAddress
    connection: psycopg.Connection[Any]


def create_database(
    reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
) -> Created | None:
    """Make the database of a URL where there is none. See ``CreateDestination``."""
    address = parse_url(url, secrets)
    if not is_missing(partial(connect, address)):
        return None
    name = address.keywords["dbname"]
    with connect_to_server(address) as connection:
        return _create(connection, name, list(_clauses(reader, source)), address.url)


def create_statement(name: str, clause: str) -> str:
    """Return the statement that makes a database."""
    return f"CREATE DATABASE {quote_name(name)} TEMPLATE template0{clause}"


def source_clause(encoding: str | None, locale: Mapping[str, str] | None) -> str:
    """Return the clause of CREATE DATABASE for what is known of the source."""
    encoded = f" ENCODING {quote_literal(encoding)}" if encoding else ""
    return f"{encoded} {create_words(locale)}" if locale else encoded


def _clauses(reader: BundleReader, source: str) -> Iterator[str]:
    """Yield clauses of CREATE DATABASE: the source's own, then some that more servers take."""
    encoding = reader.last_position_value(source, "encoding")
    locale = reader.last_position_value(source, "locale")
    if locale:
        yield source_clause(encoding, locale)
    if encoding:
        encoded = source_clause(encoding, None)
        yield encoded
        yield f"{encoded} LC_COLLATE 'C' LC_CTYPE 'C'"
    yield ""


def _create(connection: psycopg.Connection[Any], name: str, clauses: list[str], shown: str) -> Created:
    """Make the database with the first clause that the server takes. Return what was done."""
    refusals: list[str] = []
    for clause in clauses:
        try:
            connection.execute(create_statement(name, clause).encode())
        except psycopg.Error as exc:
            if exc.sqlstate not in _NO_LOCALE or clause == clauses[-1]:
                raise translate(exc, shown) from exc
            refusals.append(in_one_line(exc))
            continue
        made = f"made the database {name}:{clause or ' as the server makes them'}"
        if not refusals:
            return Created(made)
        otherwise = f"{made}, since the server has not what the source had ({refusals[0]})"
        return Created(otherwise, as_source=False)
    raise AssertionError("there is always a clause")


@contextlib.contextmanager
def open_destination(address: PostgresAddress) -> Iterator[PostgresDestination]:
    """Connect and lock out other restores. Raises ``BusyError``, ``SourceError``."""
    connection = connect_writer(address)
    try:
        _lock(connection, address)
        yield PostgresDestination(address, connection)
    finally:
        connection.close()


def connect_writer(address: PostgresAddress) -> psycopg.Connection[Any]:
    """Return a connection for restoring: a server that loses its client gives up soon, and a commit need
    not wait for the disk, because state and data are lost together. It writes also where sessions begin as readers.
    """
    with naming_create():
        connection = connect(address)
    try:
        connection.execute(_WRITER_SETTINGS)
    except psycopg.Error as exc:
        connection.close()
        raise translate(exc, address.url) from exc
    return connection


def _lock(connection: psycopg.Connection[Any], address: PostgresAddress) -> None:
    """Wait a little: the session of a run that was killed may still be ending."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while not _value(connection, f"SELECT pg_try_advisory_lock({_LOCK})"):
        if time.monotonic() > deadline:
            pid = _value(connection, _HOLDER)
            end = (
                f"SELECT pg_terminate_backend({pid})" if pid else "pg_stat_activity, application_name moveout"
            )
            raise BusyError(
                f"another restore works on {address.url}",
                next_step=f"wait for it; or end its session, if its machine is gone: {end}",
            )
        time.sleep(0.2)


def holds_lock(connection: psycopg.Connection[Any], pid: int) -> bool:
    """Tell whether the session of that server process holds the lock of this database."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = %s AND objid = %s"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
        (pid, _LOCK),
    ).fetchone()
    return bool(row and row[0])


def content(destination: PostgresDestination) -> str:
    """Return the name of something in the database that is neither the system's nor an extension's, or ""."""
    return str(_value(destination.connection, f"{_CONTENT} LIMIT 1") or "")


def all_content(destination: PostgresDestination) -> set[str]:
    """Return the kinds and names of all that ``content`` looks for, such as ``view public.v``."""
    return {str(row[0]) for row in destination.connection.execute(_CONTENT.encode())}


def has_table(connection: psycopg.Connection[Any], name: tuple[str, str]) -> bool:
    """Tell whether there is a table (schema, name)."""
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (quote_qualified(*name),)).fetchone()
    return bool(row and row[0])


class ColumnTypes(Struct, frozen=True):
    """The types of a table's columns, by name. ``declared``: as ``format_type`` writes them; ``bases``: of types that
    users have made, as which their values can be received: a domain's own type, text for an enum and for citext,
    ``struct(integer,text)`` for a composite.
    """

    declared: dict[str, str] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)


_COLUMN_TYPES = """
SELECT label, attname, format_type(atttypid, atttypmod), CASE typtype WHEN 'e' THEN 'text'
  WHEN 'd' THEN format_type(typbasetype, typtypmod)
  WHEN 'c' THEN (SELECT 'struct(' || string_agg(format_type(f.atttypid, f.atttypmod), ',' ORDER BY f.attnum) || ')'
    FROM pg_attribute f WHERE f.attrelid = typrelid AND f.attnum > 0 AND NOT f.attisdropped)
  ELSE (SELECT 'text' FROM pg_proc p WHERE p.oid = typreceive AND prosrc = 'textrecv') END
FROM unnest(%s::text[]) AS l(label)
JOIN pg_attribute a ON a.attrelid = to_regclass(label) AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
"""


def column_types(connection: psycopg.Connection[Any], labels: Collection[str]) -> dict[str, ColumnTypes]:
    """Return the types of the columns of tables, which are named as in SQL."""
    types = {label: ColumnTypes() for label in labels}
    for label, name, declared, base in connection.execute(_COLUMN_TYPES, (list(labels),)):
        types[label].declared[name] = declared
        if base is not None:
            types[label].bases[name] = base
    return types


def has_generated(connection: psycopg.Connection[Any], label: str) -> bool:
    """Tell whether the server computes columns of a table, which is named as in SQL."""
    if connection.info.server_version < _GENERATED_VERSION:
        return False
    query = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = %s::regclass AND attgenerated <> '')"
    row = connection.execute(query, (label,)).fetchone()
    return bool(row and row[0])


def absent_tables(
    connection: psycopg.Connection[Any], names: Collection[tuple[str, str]]
) -> frozenset[tuple[str, str]]:
    """Return those of these tables (schema, name) that are not there."""
    query = (
        "SELECT s, n FROM unnest(%s::text[], %s::text[]) AS u(s, n)"
        " WHERE to_regclass(quote_ident(s) || '.' || quote_ident(n)) IS NULL"
    )
    schemas, tables = [schema for schema, _ in names], [name for _, name in names]
    return frozenset(connection.execute(query.encode(), (schemas, tables)).fetchall())


def table_with_rows(connection: psycopg.Connection[Any], names: Collection[tuple[str, str]]) -> str:
    """Return the name of one of these tables that is there and has rows, or ""."""
    for name in names:
        if has_table(connection, name) and _has_rows(connection, quote_qualified(*name)):
            return f"table {name[0]}.{name[1]} with rows in it"
    return ""


def _has_rows(connection: psycopg.Connection[Any], label: str) -> bool:
    """Tell whether a table has rows; where the server plans no query of it, whether it has room for some."""
    try:
        return bool(_value(connection, f"SELECT EXISTS (SELECT FROM ONLY {label})"))
    except psycopg.Error as exc:
        if not is_refusal(exc, connection):
            raise
        size = f"pg_catalog.pg_relation_size({quote_literal(label)}::pg_catalog.regclass)"
        return bool(_value(connection, f"SELECT {size} > 0"))


def has_schema(connection: psycopg.Connection[Any], name: str) -> bool:
    """Tell whether there is such a schema."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", (name,)
    ).fetchone()
    return bool(row and row[0])


def without_triggers(connection: psycopg.Connection[Any]) -> bool:
    """Keep triggers and foreign keys from firing in this session; False where that is not permitted."""
    try:
        connection.execute("SET session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


@contextlib.contextmanager
def without_user_triggers(
    connection: psycopg.Connection[Any], label: str, kinds: Collection[str] = ("TRIGGER", "RULE")
) -> Iterator[None]:
    """Within the caller's transaction, keep the rules of a table, and its triggers but for those of constraints, from
    acting, also where ``without_triggers`` is not permitted. ``label``: the table, as in SQL. For rules nobody may read
    the table.
    """
    rows = connection.execute(_ACTING.format(table=quote_literal(label)).encode()).fetchall()
    acting = [row for row in rows if row[0] in kinds]
    if not acting:
        yield
        return
    with without_event_triggers(connection):
        for kind, name, _ in acting:
            connection.execute(f"ALTER TABLE {label} DISABLE {kind} {quote_name(name)}".encode())
        yield
        for kind, name, word in acting:
            connection.execute(f"ALTER TABLE {label} ENABLE {word} {kind} {quote_name(name)}".encode())


@contextlib.contextmanager
def without_event_triggers(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Within the caller's transaction, keep event triggers from acting on our own statements, such as those that write
    down each definition that changes. No event trigger acts on a statement about one.
    """
    acting = connection.execute(_ACTING_ON_EVENTS.encode()).fetchall()
    if acting:
        connection.execute(_ONE_AT_A_TIME.encode())
    for name, _ in acting:
        connection.execute(f"ALTER EVENT TRIGGER {name} DISABLE".encode())
    yield
    for name, word in acting:
        connection.execute(f"ALTER EVENT TRIGGER {name} ENABLE {word}".encode())


@contextlib.contextmanager
def with_compression(connection: psycopg.Connection[Any], label: str) -> Iterator[None]:
    """Within the caller's transaction, let the server compress values of columns that are STORAGE PLAIN: a row that was
    stored before its column became so may be larger than a page. ``label``: the table, as in SQL.
    """
    query = (
        "SELECT a.attname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = %s::regclass"
        " AND a.attnum > 0 AND NOT a.attisdropped AND a.attstorage = 'p' AND t.typstorage <> 'p'"
    )
    columns = [quote_name(name) for (name,) in connection.execute(query.encode(), (label,)).fetchall()]
    for column in columns:
        connection.execute(f"ALTER TABLE {label} ALTER COLUMN {column} SET STORAGE EXTENDED".encode())
    yield
    for column in columns:
        connection.execute(f"ALTER TABLE {label} ALTER COLUMN {column} SET STORAGE PLAIN".encode())


def table_with_triggers(connection: psycopg.Connection[Any], names: Collection[tuple[str, str]]) -> str:
    """Return the name of one of these tables that has an enabled trigger or foreign key, or ""."""
    row = connection.execute(
        "SELECT min(c.oid::regclass::text) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " WHERE t.tgenabled <> 'D' AND c.oid = ANY (SELECT to_regclass(n)::oid FROM unnest(%s::text[]) AS u(n))",
        ([quote_qualified(*name) for name in names],),
    ).fetchone()
    return str(row[0]) if row and row[0] else ""


def _value(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def make_durable(url: str, secrets: Mapping[str, str], source: str) -> None:
    """Wait until all that was committed at a destination is on its disk, what the sessions of ``connect_writer`` have
    committed, too: the engine's part ``activation``. A commit waits for all earlier ones (PostgreSQL documentation,
    "Asynchronous Commit"). Raises ``SourceError``.
    """
    del source
    address = parse_url(url, secrets)
    with contextlib.closing(connect(address)) as connection:
        try:
            connection.execute("SET synchronous_commit = on")
            # Without a number nothing would be written.
            connection.execute("SELECT pg_catalog.txid_current()")
        except psycopg.Error as exc:
            raise translate(exc, address.url) from exc
