"""The publication: which tables' changes a database can be asked for, and why not those of others.

It lists tables by name. A table whose changes are published, and whose rows nothing identifies, refuses UPDATE and
DELETE to the application (PostgreSQL documentation, "Replica Identity"), so such a table is never listed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

import msgspec
import psycopg
from msgspec import Meta, Struct, field

from exporters.changes import NotFollowed
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.identifiers import quote_name, quote_qualified
from exporters.postgres.query_rows import fetch
from exporters.postgres.sessions.lock_timeouts import holder, stays_locked
from exporters.structs import as_dict

TABLES, SENDS_GENERATED = "tables", "generated"
"""Under these names the log of a base has the published tables, and that values of generated columns are sent."""
_BATCH = 500
"""How many tables are added by one statement: it locks each of them until its end."""
_LOCK_SECONDS, _WAIT_SECONDS = 0.5, 60.0
"""How long a lock is waited for at once, while others wait behind it, and in all."""
_GENERATED_VERSION, _ROOT_VERSION, _PUBLISHED_GENERATED_VERSION = 120000, 130000, 180000
_REFUSES = "once published, it refuses UPDATE and DELETE"
_HASHED_ENUM = (
    "it is partitioned by the hash of an enum, which differs between databases: no cutover can switch it",
    "-- export this database without follow, while nobody writes to it, and restore that",
)
_OTHER_KEY = "moveout cutover then reads it again. Or make a key without such columns its replica identity"
_ALTERED = "it was altered since the base, so it sends other changes, or others of their columns"
_IN_PART = "only some of its rows or columns are published since the base"
_WRITTEN_MEANWHILE = "then moveout resync of each table that was written to meanwhile"
_LEFT = "it was made anew since the base, or has left the publication, so its changes are not followed"
_READ_AGAIN = "moveout resync reads it again, else moveout cutover does"

_IDENTITIES = """
SELECT c.oid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relreplident AS identity,
  pg_has_role(c.relowner, 'USAGE') AS owned, pg_get_userbyid(c.relowner)::text AS owner, current_user::text AS role,
  i.indexrelid IS NOT NULL AS has_index,
  EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND {stored})
    AS has_generated_key,
  EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND {stored}) AS has_stored,
  EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND {virtual}) AS has_virtual,
  EXISTS (SELECT FROM pg_partition_ancestors(c.oid::regclass) up JOIN pg_partitioned_table h ON h.partrelid = up.relid
    JOIN pg_attribute a ON a.attrelid = h.partrelid AND a.attnum = ANY (h.partattrs::int2[])
    JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type inner_t ON inner_t.oid IN (t.typbasetype, t.typelem)
    WHERE h.partstrat = 'h' AND 'e' IN (t.typtype, inner_t.typtype)) AS is_hashed_enum
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indimmediate AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
  AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
WHERE c.oid = ANY (%(oids)s::oid[]) ORDER BY 2, 3
"""
"""The index that identifies rows is chosen as the server does it (RelationGetIndexList in
src/backend/utils/cache/relcache.c): a deferrable primary key is none.
"""
_PUBLISHED = """
SELECT r.prrelid::int8 AS oid, to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL AS is_part
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = %(publication)s
"""
_UNPUBLISHED = """
SELECT n.nspname::text AS schema, c.relname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname || '.' || c.relname = ANY (%(names)s) AND NOT EXISTS (
  SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
  WHERE p.pubname = %(publication)s AND r.prrelid = c.oid)
ORDER BY 1, 2
"""
_SENT = """
SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AS is_all,
  coalesce(to_jsonb(p) ->> 'pubviaroot', 'false')::bool AS by_root,
  coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 's' AS with_generated
FROM pg_publication p WHERE pubname = %(publication)s
"""
_PUBLISHED_NAMES = """
SELECT n.nspname::text AS schema, c.relname::text AS name FROM pg_publication p
JOIN pg_publication_rel r ON r.prpubid = p.oid JOIN pg_class c ON c.oid = r.prrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE pubname = %(publication)s AND pubinsert AND pubupdate AND pubdelete AND pubtruncate
  AND to_jsonb(r) ->> 'prqual' IS NULL AND to_jsonb(r) ->> 'prattrs' IS NULL
"""


class BaseTable(Struct, frozen=True):
    """A table as a base has published it: its number, those of its columns by their names, and their types. ``file`` is
    the number of its file then, 0 where that is not known.
    """

    oid: Annotated[int, Meta(ge=0, lt=2**32)]
    columns: dict[str, int] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    file: Annotated[int, Meta(ge=0, lt=2**32)] = 0

    @classmethod
    def of(cls, table: PostgresTable) -> Self:
        """Return what is kept of a table."""
        numbers = {column.name: column.number for column in table.columns}
        types = {column.name: column.sql_type for column in table.columns}
        return cls(table.oid, numbers, types, table.filenode)


class FollowedTables(Struct, frozen=True):
    """The tables that can be published, and the others with the reasons. ``with_generated``: stored generated columns
    have to be published, too, or the server refuses updates of one of the tables.
    """

    tables: Sequence[PostgresTable]
    not_followed: Sequence[NotFollowed]
    with_generated: bool

    @property
    def described(self) -> Mapping[str, Any]:
        """What the base keeps of them."""
        tables = {f"{table.schema}.{table.name}": as_dict(BaseTable.of(table)) for table in self.tables}
        return {TABLES: tables} | ({SENDS_GENERATED: True} if self.with_generated else {})


def followed_tables(connection: psycopg.Connection[Any], tables: Sequence[PostgresTable]) -> FollowedTables:
    """Decide which of the tables of a database are published. Materialized views and foreign tables have no changes of
    their own; what this role may not read is not in the base either.
    """
    version = connection.info.server_version
    candidates = [table for table in tables if not table.view and (table.exported or table.locked)]
    identities = _identities(connection, [table.oid for table in candidates])
    followed: list[PostgresTable] = []
    not_followed: list[NotFollowed] = []
    for table in candidates:
        obstacle = _obstacle(table, identities.get(table.oid), version)
        if obstacle is None:
            followed.append(table)
        else:
            not_followed.append(NotFollowed(table.label, *obstacle))
    with_generated = version >= _PUBLISHED_GENERATED_VERSION and any(
        identities[table.oid]["has_generated_key"]
        or (identities[table.oid]["identity"] == "f" and identities[table.oid]["has_stored"])
        for table in followed
    )
    return FollowedTables(followed, not_followed, with_generated)


def _identities(connection: psycopg.Connection[Any], oids: Sequence[int]) -> dict[int, Mapping[str, Any]]:
    """Return what identifies the rows of tables, by their numbers."""
    generated = (
        "a.attgenerated = '{}'" if connection.info.server_version >= _GENERATED_VERSION else "'{}' = ''"
    )
    query = _IDENTITIES.format(stored=generated.format("s"), virtual=generated.format("v"))
    return {row["oid"]: row for row in fetch(connection, query, {"oids": [*oids]})}


def _obstacle(
    table: PostgresTable, identity: Mapping[str, Any] | None, version: int
) -> tuple[str, str] | None:
    """Return why a table cannot be published, and the statement that removes the reason."""
    if table.locked:
        return f"another session keeps it locked: {table.locked}", ""
    if identity is None:
        return "it was dropped meanwhile", ""
    if table.persistence == "u":
        return "it is unlogged: its changes are not in the log", f"ALTER TABLE {table.label} SET LOGGED;"
    if not identity["owned"]:
        owner, role = quote_name(identity["owner"]), quote_name(identity["role"])
        return f"only its owner {owner} may publish it", f"GRANT {owner} TO {role};"
    if identity["is_hashed_enum"]:
        return _HASHED_ENUM
    can_send = version >= _PUBLISHED_GENERATED_VERSION
    return _unidentified(table.label, identity, version, sends_generated=can_send)


def _unidentified(
    label: str, identity: Mapping[str, Any], version: int, *, sends_generated: bool
) -> tuple[str, str] | None:
    """Return why nothing in the log identifies the rows of a table once it is published, and the statement that ends
    that. ``sends_generated``: the publication sends the values of stored generated columns.
    """
    full = f"ALTER TABLE {label} REPLICA IDENTITY FULL;"
    is_checked = version >= _PUBLISHED_GENERATED_VERSION
    if identity["identity"] == "f":
        if identity["has_virtual"]:
            return f"it has REPLICA IDENTITY FULL and a virtual generated column: {_REFUSES}", ""
        if is_checked and identity["has_stored"] and not sends_generated:
            return f"it has REPLICA IDENTITY FULL and a generated column that is not sent: {_REFUSES}", ""
        return None
    if not identity["has_index"]:
        return f"it has no primary key and no replica identity: {_REFUSES}", full
    if identity["has_generated_key"] and not sends_generated:
        if is_checked:
            return f"a generated column that is not sent is part of its key: {_REFUSES}", ""
        return "a generated column is part of its key, and the log has no values of generated columns", full
    return None


def are_covered(
    connection: psycopg.Connection[Any], publication: str, tables: Sequence[PostgresTable]
) -> bool:
    """Tell whether the tables of a snapshot are those for which a publication was made: a table may have come in
    between.
    """
    followed = followed_tables(connection, tables)
    published = {row["oid"] for row in fetch(connection, _PUBLISHED, {"publication": publication})}
    return published >= {table.oid for table in followed.tables}


def published_tables(connection: psycopg.Connection[Any], publication: str) -> frozenset[tuple[str, str]]:
    """Return schema and name of the tables of a publication that sends all of their changes."""
    rows = fetch(connection, _PUBLISHED_NAMES, {"publication": publication})
    return frozenset((row["schema"], row["name"]) for row in rows)


def base_tables(log: Mapping[str, Any]) -> Mapping[str, BaseTable]:
    """Return the tables that a base has published, by ``schema.name``; none of an older base."""
    return msgspec.convert(log.get(TABLES, {}), dict[str, BaseTable])


def troubled_tables(connection: psycopg.Connection[Any], log: Mapping[str, Any]) -> list[NotFollowed]:
    """Return the publication where it sends other things than at the base. Then the tables of it whose rows nothing in
    the log identifies any more, and those of the base that are not in it any more, or only in part.
    """
    publication, version = log["publication"], connection.info.server_version
    name = quote_name(publication)
    sends_generated = bool(log.get(SENDS_GENERATED))
    published = {
        row["oid"]: row["is_part"] for row in fetch(connection, _PUBLISHED, {"publication": publication})
    }
    left = {"publication": publication, "names": [*base_tables(log)]}
    troubled = [
        NotFollowed(
            f"publication {name}",
            _ALTERED,
            f"at the source: ALTER PUBLICATION {name} SET"
            f" ({_options(version, with_generated=sends_generated)}); {_WRITTEN_MEANWHILE}",
        )
        for sent in fetch(connection, _SENT, {"publication": publication})
        if not sent["is_all"] or sent["by_root"] or sent["with_generated"] != sends_generated
    ]
    for oid, identity in _identities(connection, [*published]).items():
        label = quote_qualified(identity["schema"], identity["name"])
        drop = f"at the source: ALTER PUBLICATION {name} DROP TABLE {label};"
        trouble = _unidentified(label, identity, version, sends_generated=sends_generated)
        if trouble is not None:
            reason, statement = trouble
            remedy = f"at the source: {statement}" if statement else f"{drop} {_OTHER_KEY}"
            troubled.append(NotFollowed(label, reason, remedy))
        elif published[oid]:
            troubled.append(NotFollowed(label, _IN_PART, f"{drop} {_READ_AGAIN}"))
    labels = [quote_qualified(row["schema"], row["name"]) for row in fetch(connection, _UNPUBLISHED, left)]
    return [*troubled, *(NotFollowed(label, _LEFT, _READ_AGAIN) for label in labels)]


def publish_table(connection: psycopg.Connection[Any], publication: str, table: PostgresTable) -> str:
    """Add a table to a publication, unless it is in it. Return why it cannot be published, with the remedy, else "".
    Raises ``SourceUnreachableError`` where others keep it locked.
    """
    followed = followed_tables(connection, [table])
    if not followed.tables:
        return "; ".join(
            f"{item.reason} ({item.remedy})" if item.remedy else item.reason for item in followed.not_followed
        )
    sent = fetch(connection, _SENT, {"publication": publication})
    if followed.with_generated and not any(row["with_generated"] for row in sent):
        return "its generated columns identify rows, and the base's publication does not send them"
    if not are_covered(connection, publication, [table]):
        connection.execute(f"SET lock_timeout = '{_LOCK_SECONDS}s'".encode())
        _add(connection, quote_name(publication), table)
    return ""


def make_publication(connection: psycopg.Connection[Any], name: str, followed: FollowedTables) -> None:
    """Make a publication of these tables. It locks each of them for a moment, against changes of its definition.

    A statement locks all of its tables one after the other. Where an application locks some of them the other way
    round (``TRUNCATE b, a``), the server ends one of both after ``deadlock_timeout``, a second unless set. So locks
    are waited for shorter than that, and then the tables are added one by one.
    Raises ``SourceUnreachableError`` where others keep a table locked.
    """
    options = _options(connection.info.server_version, with_generated=followed.with_generated)
    connection.execute(f"CREATE PUBLICATION {name} WITH ({options})".encode())
    connection.execute(f"SET lock_timeout = '{_LOCK_SECONDS}s'".encode())
    for start in range(0, len(followed.tables), _BATCH):
        batch = followed.tables[start : start + _BATCH]
        if not _are_added(connection, name, batch):
            for table in batch:
                _add(connection, name, table)


def _options(version: int, *, with_generated: bool) -> str:
    """Return the options of a publication as it is made: each of those that decide what it sends."""
    options = "publish = 'insert, update, delete, truncate'"
    if version >= _ROOT_VERSION:
        options += ", publish_via_partition_root = false"
    if version >= _PUBLISHED_GENERATED_VERSION:
        options += f", publish_generated_columns = {'stored' if with_generated else 'none'}"
    return options


def _add(connection: psycopg.Connection[Any], name: str, table: PostgresTable) -> None:
    started = time.monotonic()
    while not _are_added(connection, name, [table]):
        waited = time.monotonic() - started
        if waited > _WAIT_SECONDS:
            wait = holder(connection, table.oid, "RowExclusiveLock", seconds=waited)
            raise stays_locked(table.label, wait, "cannot be followed")
        time.sleep(_LOCK_SECONDS)


def _are_added(connection: psycopg.Connection[Any], name: str, tables: Sequence[PostgresTable]) -> bool:
    """Add tables to a publication; tell whether that was possible without waiting for others."""
    labels = ", ".join(f"ONLY {table.label}" for table in tables)
    try:
        connection.execute(f"ALTER PUBLICATION {name} ADD TABLE {labels}".encode())
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        return False
    return True
