"""The replication slot: what the server says of it, and its end.

PostgreSQL documentation, "Logical Decoding" and the view ``pg_replication_slots``.
"""

from __future__ import annotations

import hashlib
import re
import time
from typing import Any

import psycopg

from exporters.changes import LogState
from exporters.errors import SourceUnreachableError
from exporters.postgres.query_rows import fetch

PREFIX = "moveout_"
_LONGEST = 63
_HASH = 8
OBJECT_IN_USE = "55006"
_RELEASE_SECONDS = 10.0
"""How long a server may take to see that the reader of a slot is gone."""
_AGAIN_SECONDS = 0.2
_PAGE_BYTES = 8192
_HEADERS = (24, 40)
"""The bytes of the header of a page of the log, and of the first page of a file
(src/include/access/xlog_internal.h).
"""

_LOCK_CLASS = 1886350444
"""The first half of the lock that a reader holds who polls: its slot is in use only while it asks."""
_LOCK = f"""l.locktype = 'advisory' AND l.granted AND l.classid = {_LOCK_CLASS} AND l.objsubid = 2
  AND l.objid = hashtext(%(slot)s)::oid
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
_IS_POLLED = f"EXISTS (SELECT FROM pg_locks l WHERE {_LOCK})"
_TRY_TO_LOCK = f"SELECT pg_catalog.pg_try_advisory_lock({_LOCK_CLASS}, pg_catalog.hashtext(%s))"

_STATE = f"""
SELECT pg_current_wal_insert_lsn()::text AS "end", s.confirmed_flush_lsn::text AS acknowledged,
  coalesce(s.active, false) OR {_IS_POLLED} AS active, s.slot_name IS NOT NULL AS exists,
  EXISTS (SELECT FROM pg_publication WHERE pubname = %(publication)s) AS is_published,
  coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), s.restart_lsn), 0)::int8 AS retained,
  coalesce(to_jsonb(s) ->> 'wal_status', '') AS wal_status,
  coalesce(to_jsonb(s) ->> 'invalidation_reason', '') AS invalidation
FROM (SELECT) AS always LEFT JOIN pg_replication_slots s ON s.slot_name = %(slot)s
"""
_END_READER = f"""
SELECT pg_terminate_backend(pid) FROM (
  SELECT active_pid FROM pg_replication_slots WHERE slot_name = %(slot)s AND active_pid IS NOT NULL
  UNION SELECT l.pid FROM pg_locks l WHERE {_LOCK}) AS readers(pid)
"""
_DROP = f"""
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %(slot)s AND NOT {_IS_POLLED}
"""
_IS_THERE = "SELECT FROM pg_replication_slots WHERE slot_name = %s"


def own_name(name: str) -> str:
    """Return the name of slot and publication: what a server takes of ``name``, and a hash where that is not all."""
    plain = re.sub(r"[^a-z0-9_]", "_", name.lower())
    if plain != name or len(plain) > _LONGEST - len(PREFIX):
        digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH]
        plain = f"{plain[: _LONGEST - len(PREFIX) - _HASH - 1]}_{digest}"
    return PREFIX + plain


def parse_lsn(text: str) -> int:
    """Return the number of a position that the server writes as ``1/A0``."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_text(position: int) -> str:
    """Return a position as the server writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def read_state(connection: psycopg.Connection[Any], slot: str, publication: str) -> LogState:
    """Ask for the state of a slot, and of the publication without which it sends nothing: up to PostgreSQL 17 its
    reader gets an error, later servers leave out the changes.
    """
    row = fetch(connection, _STATE, {"slot": slot, "publication": publication})[0]
    lost = ""
    if not row["exists"]:
        lost = f"the replication slot {slot} does not exist any more"
    elif row["wal_status"] == "lost" or row["invalidation"]:
        reason = f" ({row['invalidation']})" if row["invalidation"] else ""
        lost = f"the server has given up the replication slot {slot}{reason}"
    elif not row["is_published"]:
        lost = f"the publication {publication} does not exist any more, so its tables' changes are not in the log"
    return LogState(
        end=_end(parse_lsn(row["end"])),
        acknowledged=parse_lsn(row["acknowledged"] or "0/0"),
        retained_bytes=row["retained"],
        is_read=bool(row["active"]),
        lost=lost,
    )


def _end(insert_position: int) -> int:
    """Return where the last record ends. The server says where the next one begins: behind a header, where it is the
    first of a page.
    """
    within = insert_position % _PAGE_BYTES
    return insert_position - within if within in _HEADERS else insert_position


def try_to_lock(connection: psycopg.Connection[Any], slot: str) -> bool:
    """Take the lock of a reader who polls, until the session ends; tell whether nobody else has it."""
    row = connection.execute(_TRY_TO_LOCK.encode(), (slot,)).fetchone()
    return row is not None and bool(row[0])


def in_use(url: str, reason: str) -> SourceUnreachableError:
    """Return the error that another one reads a slot."""
    return SourceUnreachableError(
        f"somebody else reads the changes: {reason}",
        about=url,
        next_step="stop the other moveout that follows this source",
    )


def end_reader(connection: psycopg.Connection[Any], slot: str) -> None:
    """Disconnect who reads a slot."""
    connection.execute(_END_READER.encode(), {"slot": slot})


def drop_slot(connection: psycopg.Connection[Any], slot: str) -> bool:
    """Drop a slot, and tell whether there was one. Raises ``SourceUnreachableError`` where somebody reads it."""
    deadline = time.monotonic() + _RELEASE_SECONDS
    while True:
        cause: psycopg.Error | None = None
        try:
            if connection.execute(_DROP.encode(), {"slot": slot}).rowcount > 0:
                return True
            if connection.execute(_IS_THERE, (slot,)).rowcount == 0:
                return False
        except psycopg.Error as exc:
            if exc.sqlstate != OBJECT_IN_USE:
                raise
            cause = exc
        if time.monotonic() > deadline:
            raise SourceUnreachableError(
                f"the replication slot {slot} is being read",
                next_step="stop the moveout that follows this source, then run the same command again",
            ) from cause
        time.sleep(_AGAIN_SECONDS)
