"""Translates the drivers' errors into the source errors, by SQLSTATE (PostgreSQL documentation, appendix
A).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from exporters.errors import (
    SourceError,
    SourceGoneError,
    SourceNotAllowedError,
    SourceSilentError,
    SourceSnapshotLostError,
    SourceUnreachableError,
)
from exporters.sql.snapshots import snapshot_lost

DRIVER_ERRORS = (psycopg.Error, OSError, EOFError)
"""What psycopg may raise while it talks to a server, or a socket. What asyncpg raises besides: see ``asyncpg_feed``."""

_LOGIN_STEP = (
    "check user and password: the case file's, else PGPASSWORD or ~/.pgpass (after chmod 600)."
    " It may have expired, too (VALID UNTIL of the role)"
)
_OTHER_PROTOCOL = "invalid response to SSL negotiation"
_OTHER_SERVER_STEP = "a server that is no PostgreSQL listens there: check the port"
_GRANT_STEP = "use a role that may read everything: the owner, a superuser, or a member of pg_read_all_data"
_RLS_STEP = "use a superuser, or a role with BYPASSRLS (ALTER ROLE … BYPASSRLS)"
LOCKS_STEP = (
    "raise max_locks_per_transaction on the server (it restarts for that), or export when it is less busy"
)
_SLOTS_STEP = (
    "free one: moveout clean --changes ends what a case has kept, pg_replication_slots lists all. Or raise"
    " max_replication_slots, and restart the server"
)
_LABEL = re.compile(r"^\w+:  ")
"""What libpq writes before a line of a message, in the server's language: ``DETAIL:  ``, two spaces each."""
_SNAPSHOT = re.compile(r"\b[0-9A-F]{8}-[0-9A-F]{8}-\d+\b")
_NO_SNAPSHOT = {"22023", "42704"}
"""A snapshot is gone with its session: a wrong parameter up to PostgreSQL 16, later an undefined object. Its name tells
it from others.
"""
_TOO_MANY_STEP = (
    "add --workers 1, or end other sessions of the role, or raise the limit (ALTER ROLE … CONNECTION LIMIT, ALTER"
    " DATABASE … CONNECTION LIMIT, max_connections); then run the same command again: finished work is kept"
)
_CONFLICT = "conflict with recovery"
"""What a standby says of what it ends."""
STANDBY_STEP = (
    "a standby ends what its replay has waited for: there ALTER SYSTEM SET hot_standby_feedback = on; SELECT"
    " pg_reload_conf() (or raise max_standby_streaming_delay), then run the same command again: finished work is kept"
)
_AGAIN_STEP = "check host, port and network, then run the same command again: finished work is kept"


def sqlstate(error: BaseException) -> str:
    """Return the five-character SQLSTATE of an error, or of the driver's that it was translated from, or ""."""
    return str(getattr(error, "sqlstate", None) or getattr(error.__cause__, "sqlstate", None) or "")


@contextmanager
def as_source_errors(source: str) -> Iterator[None]:
    """Raise the drivers' errors as the source errors that they stand for; ``source``: see ``translate``."""
    try:
        yield
    except DRIVER_ERRORS as exc:
        raise translate(exc, source) from exc


def translate(error: BaseException, source: str, *, is_passing: bool = False) -> SourceError:
    """Return the source error that ``error`` stands for. ``source`` names what was being done or read. ``is_passing``:
    it passes, whatever its type and SQLSTATE are.
    """
    state = sqlstate(error)
    message = in_one_line(error)
    if state.startswith("28"):
        return SourceNotAllowedError(
            f"the server refuses the login: {message}", about=source, next_step=_LOGIN_STEP
        )
    if state == "42501":
        return _not_allowed(error, message, source)
    if state == "3D000":
        return SourceGoneError(message, about=source, next_step="check the database name in the URL")
    if state in {"42P01", "3F000"}:
        return SourceGoneError(
            message, about=source, next_step="it was dropped meanwhile; run the same command again"
        )
    if state == "55P03":
        return SourceUnreachableError(
            f"a table is locked by somebody else: {message}",
            about=source,
            next_step="find the session that holds the lock (pg_locks), end it, and run the same command again",
        )
    if state == "57014":
        return SourceUnreachableError(
            message,
            about=source,
            next_step="raise --statement-timeout, or come back when the server is less busy: finished work is kept",
        )
    if state == "53200" and "shared memory" in message:
        return SourceUnreachableError(
            f"{message}: it has no room for a lock on every table", about=source, next_step=LOCKS_STEP
        )
    if state == "53400" and "replication slots" in message:
        return SourceUnreachableError(message, about=source, next_step=_SLOTS_STEP)
    if is_passing or _is_passing(error, state):
        return SourceUnreachableError(message, about=source, next_step=_passing_step(state, message))
    is_lost = state in _NO_SNAPSHOT and names_snapshot(message)
    other = SourceError(message, about=source, next_step="the server's log says more")
    return snapshot_lost(source, message) if is_lost else other


def _not_allowed(error: BaseException, message: str, source: str) -> SourceNotAllowedError:
    """Return the error of a missing right. Where row-level security hides rows, which the place in the server tells,
    for the message has any language, the server advises to take FORCE from the table: that would be another table.
    """
    place = getattr(getattr(error, "diag", None), "source_function", None)
    if (place or getattr(error, "server_source_function", None)) != "check_enable_rls":
        return SourceNotAllowedError(message, about=source, next_step=_GRANT_STEP)
    refused = message.partition(". ")[0]
    words = f"row-level security hides rows of it from this role ({refused}): {_RLS_STEP}"
    return SourceNotAllowedError(words, about=source, next_step=_RLS_STEP)


def replaced_since(source: str) -> SourceSnapshotLostError:
    """Return the error of a snapshot that shows a table as it is no more: see ``chunk_plan.is_replaced``."""
    return SourceSnapshotLostError(
        "a table was truncated or replaced since the snapshot, or it or its schema was renamed", about=source
    )


def names_snapshot(message: str) -> bool:
    """Tell whether a message names an exported snapshot, in whichever language."""
    return _SNAPSHOT.search(message) is not None


def has_ended(error: SourceUnreachableError) -> bool:
    """Tell whether a connection has ended, by whomever; a server that starts lets nobody in for a while."""
    state = sqlstate(error)
    return error.__cause__ is not None and (not state or state.startswith(("08", "57P")))


def silent_error(
    error: psycopg.Error, source: str, kind: type[SourceSilentError] = SourceSilentError
) -> SourceSilentError:
    """Return the source error of a new connection that has had no answer."""
    return kind(f"no answer from the server: {in_one_line(error)}", about=source, next_step=_AGAIN_STEP)


def _passing_step(state: str, message: str) -> str:
    """Return what to do about an error that may pass."""
    if _OTHER_PROTOCOL in message:
        return _OTHER_SERVER_STEP
    if _CONFLICT in message:
        return STANDBY_STEP
    return _TOO_MANY_STEP if state == "53300" else _AGAIN_STEP


def _is_passing(error: BaseException, state: str) -> bool:
    """Connection trouble (08), too many connections (53), operator intervention (57)."""
    if state:
        return state[:2] in {"08", "53", "57", "40"} or state in {"25006", "55000"}
    return isinstance(error, psycopg.OperationalError | OSError | EOFError)


def in_one_line(error: BaseException) -> str:
    """Return the driver's message, its first two lines as one: the second often says why."""
    text = str(error).strip().removeprefix("connection failed: ") or type(error).__name__
    lines = [_LABEL.sub("", line.strip()) for line in text.splitlines()[:2] if line.strip()]
    return (". " if lines[0][-1] not in ".:;" and lines[-1][0].isupper() else " ").join(lines)
