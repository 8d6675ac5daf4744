"""Relations that another session keeps from being read, for longer than one waits: what cannot be had without them, and
how the rest is.

Whoever reads a relation waits for an ACCESS EXCLUSIVE lock, and for those that wait for one. So does whoever lets the
server print a definition that looks into it: pg_get_viewdef and its like lock all that a query reads
(src/backend/utils/adt/ruleutils.c). pg_dump sets no limit to that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import psycopg
from msgspec import Struct

from exporters.errors import SourceUnreachableError
from exporters.postgres.identifiers import quote_qualified
from exporters.postgres.query_rows import fetch
from exporters.postgres.sessions.lock_waits import Wait

TRIES = 5
LET_IT_END = "let that session end (pg_stat_activity), then run the same command again"
_AGAIN_SECONDS = 0.2

_HELD = """
SELECT DISTINCT ON (l.relation) l.relation::int8 AS oid, coalesce(l.pid, 0) AS pid,
  coalesce(b.usename::text, '') AS "user", coalesce(b.application_name, '') AS application,
  coalesce(b.client_addr::text, 'local') AS address,
  coalesce(b.state, '') AS state, coalesce(extract(epoch FROM now() - b.xact_start), 0)::int8 AS since_seconds,
  left(coalesce(b.query, ''), 40) AS query
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
LEFT JOIN pg_catalog.pg_stat_activity b ON b.pid = l.pid
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND c.relpersistence <> 't'
ORDER BY l.relation, l.granted DESC
"""
_HOLDER = """
SELECT coalesce(l.pid, 0) AS pid, coalesce(b.usename::text, '') AS "user",
  coalesce(b.application_name, '') AS application, coalesce(b.client_addr::text, 'local') AS address,
  coalesce(b.state, '') AS state, coalesce(extract(epoch FROM now() - b.xact_start), 0)::int8 AS since_seconds,
  left(coalesce(b.query, ''), 40) AS query
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity b ON b.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.relation = %(oid)s::int8::pg_catalog.oid
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', %(mode)s) AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
ORDER BY b.xact_start NULLS FIRST LIMIT 1
"""
_DEPENDING = """
WITH RECURSIVE found(oid) AS (
  SELECT pg_catalog.unnest(%(oids)s::pg_catalog.oid[])
  UNION SELECT r.ev_class FROM found f
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = f.oid
      AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
  WHERE c.relkind IN ('v', 'm'))
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind FROM found f
JOIN pg_catalog.pg_class c ON c.oid = f.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
"""
_IN_THE_WAY = """
SELECT pg_catalog.pg_describe_object(classid, objid, 0) FROM pg_catalog.pg_depend
WHERE refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND refobjid = ANY (%(oids)s::pg_catalog.oid[])
  AND classid = 'pg_catalog.pg_proc'::pg_catalog.regclass ORDER BY 1 LIMIT 1
"""
"""Whose definition pg_dump prints in any case: functions in standard SQL."""
_LOOKING = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
  pg_catalog.min(pg_catalog.pg_describe_object(d.classid, d.objid, 0)) AS what
FROM pg_catalog.pg_depend d
LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
LEFT JOIN pg_catalog.pg_policy p ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = d.objid
JOIN pg_catalog.pg_class c ON c.oid IN (r.ev_class, p.polrelid) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = ANY (%(locked)s::pg_catalog.oid[])
  AND c.oid <> ALL (%(oids)s::pg_catalog.oid[])
GROUP BY 1, 2, 3, 4
"""
"""Relations with a rule or a policy that looks into what is locked."""
_KINDS = {"v": "view", "m": "materialized view", "S": "sequence"}

Oids = Mapping[int, str]
"""Relations, and for each a sentence that names the session that holds its lock."""
Read = TypeVar("Read")


class Kept(Struct, frozen=True):
    """A relation that pg_dump has to leave out, and why. ``item`` is its name for people."""

    oid: int
    label: str
    item: str
    reason: str


def held(connection: psycopg.Connection[Any], *, seconds: float) -> dict[int, str]:
    """Return what others have locked, or wait to lock, for that long already."""
    rows = fetch(connection, _HELD)
    return {
        row.pop("oid"): Wait(**row, waiting_seconds=round(seconds), also_waits=False).sentence()
        for row in rows
        if not row["pid"] or not row["state"] or row["since_seconds"] >= int(seconds)
    }


def kept_locked(connection: psycopg.Connection[Any], *, seconds: float) -> dict[int, str]:
    """Return what others have locked, or wait to lock, whenever one looks within that time."""
    locked = held(connection, seconds=0)
    deadline = time.monotonic() + seconds
    while locked and time.monotonic() < deadline:
        time.sleep(_AGAIN_SECONDS)
        locked = {oid: why for oid, why in held(connection, seconds=0).items() if oid in locked}
    return locked


def holder(
    connection: psycopg.Connection[Any], oid: int, compatible_mode: str, *, seconds: float
) -> Wait | None:
    """Return the session that has longest held a lock in our way after ``seconds`` of waiting, None where it has ended.
    We wait for a lock that goes together with readers and the ``compatible_mode`` of ``pg_locks`` only.
    """
    rows = fetch(connection, _HOLDER, {"oid": oid, "mode": compatible_mode})
    return Wait(**rows[0], waiting_seconds=round(seconds), also_waits=False) if rows else None


def stays_locked(label: str, wait: Wait | None, obstacle: str) -> SourceUnreachableError:
    """Return the error for a table that others keep locked for too long. Nothing was done, so it can be tried again."""
    who = wait.sentence() if wait else "others keep it locked, or a transaction open, in turns"
    return SourceUnreachableError(f"{label} {obstacle}: {who}", next_step=wait.step() if wait else LET_IT_END)


def around(connection: psycopg.Connection[Any], read: Callable[[Oids], Read], *, seconds: float) -> Read:
    """Return what ``read`` does without the relations that others keep locked. Each time that it runs into its limit
    for locks, ``seconds``, it is called again without those that were in the way, the transaction that it had begun
    rolled back. Raises ``psycopg.errors.LockNotAvailable`` where no session is found that is.
    """
    without: dict[int, str] = {}
    for _ in range(TRIES):
        try:
            return read(without)
        except psycopg.errors.LockNotAvailable:
            connection.execute("ROLLBACK")
            locked = held(connection, seconds=seconds)
            if not locked.keys() - without.keys():
                raise
            without |= locked
    return read(without)


def kept(connection: psycopg.Connection[Any], known: Oids, *, seconds: float) -> list[Kept]:
    """Return what pg_dump is to leave out: the ``known`` relations; what others keep locked now, after ``seconds`` of
    waiting; views of all these; relations with a rule or policy that looks in. Raises ``SourceUnreachableError``
    where something does that it cannot leave out.
    """
    deadline = time.monotonic() + seconds
    while (locked := held(connection, seconds=0)).keys() - known.keys() and time.monotonic() < deadline:
        time.sleep(_AGAIN_SECONDS)
    reasons = {**locked, **known}
    if not reasons:
        return []
    rows = fetch(connection, _DEPENDING, {"oids": list(reasons)})
    row = connection.execute(_IN_THE_WAY, {"oids": list(reasons)}).fetchone()
    if row is not None:
        raise SourceUnreachableError(
            f"{row[0]} cannot be dumped, for it reads what is locked: {next(iter(reasons.values()))}",
            next_step=LET_IT_END,
        )
    oids = [relation["oid"] for relation in rows]
    looking = fetch(connection, _LOOKING, {"locked": list(reasons), "oids": oids})
    return [_kept(relation, reasons) for relation in (*rows, *looking)]


def _kept(row: Mapping[str, Any], reasons: Oids) -> Kept:
    label = quote_qualified(row["schema"], row["name"])
    kind = _KINDS.get(row["kind"], "")
    reason = reasons.get(row["oid"])
    reason_text = reason or f"{row.get('what', 'it')} reads what is locked: {next(iter(reasons.values()))}"
    return Kept(row["oid"], label, f"{kind} {label}".lstrip(), reason_text)
