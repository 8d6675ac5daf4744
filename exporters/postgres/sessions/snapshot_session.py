"""The holder: one transaction that keeps the snapshot and the tables' locks until the export is over."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any

import psycopg
from msgspec import Struct, field
from msgspec.structs import replace

from exporters.changes import FOLLOW, ChangeBase, ChangeLog, note_not_followed
from exporters.errors import SourceError, SourceUnreachableError
from exporters.postgres.catalog import PostgresTable, have_moved, read_tables
from exporters.postgres.changes.publication import are_covered
from exporters.postgres.definitions.collation import read_locale
from exporters.postgres.errors import DRIVER_ERRORS, has_ended, translate
from exporters.postgres.query_rows import fetch
from exporters.postgres.rows.unplannable_tables import note_refusals
from exporters.postgres.sessions import lock_timeouts
from exporters.postgres.sessions.connection import PostgresAddress, pinned, session_settings
from exporters.postgres.sessions.lock_waits import POLL_SECONDS, WaitWatch
from exporters.postgres.sessions.session_limits import SessionLimits, explained
from exporters.postgres.sessions.snapshot_transaction import begin_statement
from exporters.sql.snapshots import lost_with_sessions

_LOCK_BATCH = 500
_LOCKING = {
    False: "LOCK TABLE {} IN ACCESS SHARE MODE",
    True: "PREPARE moveout_lock AS SELECT FROM {}; DEALLOCATE moveout_lock",
}
"""How tables, and how materialized views are locked until the end of the transaction. LOCK TABLE takes no materialized
view, and a query locks what it names when it is parsed (src/backend/commands/lockcmds.c, parser/parse_relation.c).
"""
_NAMES = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (%(oids)s::oid[])
"""
_TRIES = 5


class PostgresSession(Struct, frozen=True):
    """An exported snapshot. ``address`` is that of the one server that has it; ``exported`` its name for other
    sessions; ``position`` what the bundle says about it.
    """

    address: PostgresAddress
    holder: psycopg.Connection[Any]
    exported: str
    position: Mapping[str, Any]
    server: str
    version: int
    large_objects: int
    session_limits: SessionLimits
    watch: WaitWatch | None = None
    locked: Mapping[int, str] = field(default_factory=dict)
    """Relations that are left out, and which session holds their locks."""

    @property
    def ticket(self) -> Mapping[str, Any]:
        """What others need to ``join``."""
        names = ("exported", "position", "server", "version", "large_objects")
        locked = {str(oid): reason for oid, reason in self.locked.items()}
        return {name: getattr(self, name) for name in names} | {"locked": locked}


@contextmanager
def open_snapshot(
    address: PostgresAddress,
    session_limits: SessionLimits | None = None,
    *,
    tolerant: bool = False,
    log: ChangeLog | None = None,
    snapshot: str = "",
) -> Iterator[tuple[PostgresSession, list[PostgresTable]]]:
    """Take a snapshot and lock every readable table against being dropped or rewritten. ``tolerant``: without those
    that others keep locked for longer than one waits. With a ``log`` the snapshot is that of a new base of it, which is
    given up where the context ends by an error. ``snapshot``: the name of one that another session has exported.
    Raises ``SourceError``: ``SourceSnapshotLostError`` where the session ends meanwhile.
    """
    session_limits = session_limits or SessionLimits()
    with ExitStack() as stack:
        # It has its limits from the beginning: to ask for a table's size is to wait for its lock.
        holder = stack.enter_context(closing(session_limits.connect(address)))
        address = pinned(address, holder)
        watch = stack.enter_context(_watch(address, session_limits)) if session_limits.watches else None
        try:
            beginning = _Beginning(holder, log, session_limits, snapshot)
            stack.push(beginning.give_up)
            if tolerant:
                read = partial(_consistent, beginning)
                tables = lock_timeouts.around(holder, read, seconds=session_limits.limits.lock_seconds)
            else:
                tables = _consistent(beginning, {})
            tables = note_refusals(holder, tables)
            session = _describe(address, holder, session_limits)
            if beginning.base is not None:
                followed = {FOLLOW: beginning.base.described}
                session = replace(session, position={**session.position, **followed})
                note_not_followed(beginning.base.not_followed, session_limits.note)
        except DRIVER_ERRORS as exc:
            with lost_with_sessions(address.url, has_ended):
                raise explained(_with_cause(translate(exc, address.url), exc), watch) from exc
        without = {table.oid: table.locked for table in tables if table.locked}
        yield replace(session, watch=watch, locked=without), tables


@contextmanager
def join_snapshot(
    address: PostgresAddress, ticket: Mapping[str, Any], session_limits: SessionLimits
) -> Iterator[tuple[PostgresSession, list[PostgresTable]]]:
    """See the snapshot that another machine's holder has exported, and the tables that it has locked. Raises
    ``SourceError``, among them where that holder is gone.
    """
    with closing(session_limits.connect(address)) as holder:
        address = pinned(address, holder)
        try:
            holder.execute(begin_statement(ticket["exported"]).encode())
            without = {int(oid): reason for oid, reason in ticket["locked"].items()}
            tables = note_refusals(holder, read_tables(holder, without))
        except DRIVER_ERRORS as exc:
            raise _with_cause(translate(exc, address.url), exc) from exc
        yield (
            PostgresSession(address, holder, **{**ticket, "locked": without}, session_limits=session_limits),
            tables,
        )


def _watch(address: PostgresAddress, session_limits: SessionLimits) -> WaitWatch:
    poll_seconds = min(POLL_SECONDS, max(session_limits.limits.lock_seconds / 4, 0.05))
    return WaitWatch(address, session_limits.application, session_limits.note, poll_seconds=poll_seconds)


def _with_cause(error: SourceError, cause: BaseException) -> SourceError:
    error.__cause__ = cause
    return error


class _Beginning(Struct):
    """Begins the holder's transaction: in a snapshot of its own, or in that of a new base of a change log."""

    holder: psycopg.Connection[Any]
    log: ChangeLog | None
    session_limits: SessionLimits
    snapshot: str = ""
    base: ChangeBase | None = None

    def begin(self) -> None:
        if self.log is None:
            self.holder.execute(begin_statement(self.snapshot).encode())
            return
        with self.log.open_base(self.session_limits.note) as base:
            self.holder.execute(begin_statement(base.snapshot).encode())
        self.base = base

    def has_moved(self, tables: Sequence[PostgresTable]) -> bool:
        """Tell whether the snapshot does not show these tables as they are now, or the log does not follow them."""
        if have_moved(self.holder, tables):
            return True
        return self.base is not None and not are_covered(self.holder, self.base.log["publication"], tables)

    def give_up(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Remove the base from the server where there was an error."""
        if error is not None and self.log is not None and self.base is not None:
            with suppress(SourceError):
                self.log.drop(self.base.log)


def _consistent(beginning: _Beginning, without: Mapping[int, str]) -> list[PostgresTable]:
    """Begin until the locked tables are the ones that the snapshot shows, ``without`` some. A table that was truncated
    or rewritten between the snapshot and the lock would look empty. Where one was, or was dropped or renamed, those
    that were there are locked before the next snapshot, which comes with the first query: so none of them can have
    moved.
    """
    holder = beginning.holder
    tables: Sequence[PostgresTable] = ()
    for _ in range(_TRIES):
        beginning.begin()
        try:
            _lock(tables, holder)
            tables = read_tables(holder, without)
            _lock(tables, holder)
            if not beginning.has_moved(tables):
                return tables
            holder.execute("ROLLBACK")
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            holder.execute("ROLLBACK")
            rows = fetch(holder, _NAMES, {"oids": [table.oid for table in tables]})
            present = {(row["oid"], row["schema"], row["name"]) for row in rows}
            tables = [table for table in tables if (table.oid, table.schema, table.name) in present]
    raise SourceUnreachableError(
        "tables are being rewritten faster than they can be locked",
        next_step="stop schema changes and TRUNCATE on the source, then run the same command again",
    )


def _lock(tables: Sequence[PostgresTable], holder: psycopg.Connection[Any]) -> None:
    lockable = [table for table in tables if table.readable and not table.foreign and not table.locked]
    for view, statement in _LOCKING.items():
        names = [f"ONLY {table.label}" for table in lockable if table.view == view]
        for start in range(0, len(names), _LOCK_BATCH):
            batch = ", ".join(names[start : start + _LOCK_BATCH])
            holder.execute(statement.format(batch).encode())


_HISTORY = {
    False: "SELECT concat_ws(' ', left(pg_walfile_name(pg_current_wal_lsn()), 8), {reset})",
    True: "SELECT concat_ws(' ', (SELECT timeline_id FROM pg_control_checkpoint()), {reset})",
}
"""By whether it is a standby. The name of a file of the log begins with the timeline."""
_RESET = "(SELECT extract(epoch FROM stats_reset) FROM pg_stat_archiver)"
"""After a crash the statistics begin anew (PostgreSQL documentation, "The Cumulative Statistics System")."""


def _history(holder: psycopg.Connection[Any], *, is_standby: bool) -> str:
    """Return what is another text once transactions may be lost: after a crash or a failover, or where the server was
    put back. "" where the server does not say.
    """
    with suppress(*DRIVER_ERRORS), holder.transaction():
        row = holder.execute(_HISTORY[is_standby].format(reset=_RESET).encode()).fetchone()
        return str(row[0]) if row else ""
    return ""


def _describe(
    address: PostgresAddress, holder: psycopg.Connection[Any], session_limits: SessionLimits
) -> PostgresSession:
    version = holder.info.server_version
    current = "pg_current_snapshot()" if version >= 130000 else "txid_current_snapshot()"
    lsn = (
        "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"
        if version >= 100000
        else "NULL"
    )
    row = holder.execute(
        f"SELECT pg_export_snapshot(), {current}::text, ({lsn})::text, current_database(),"
        " pg_is_in_recovery(), getdatabaseencoding(),"
        " (SELECT count(*) FROM pg_largeobject_metadata), pg_postmaster_start_time()::text".encode()
    ).fetchone()
    assert row is not None
    server = f"PostgreSQL {holder.info.parameter_status('server_version')}"
    position = {
        "snapshot": row[1],
        "history": _history(holder, is_standby=row[4]),
        "lsn": row[2],
        "database": row[3],
        "standby": row[4],
        "encoding": row[5],
        "locale": read_locale(holder),
        "server": server,
        "server_started": row[7],
        "sessions": session_settings(holder),
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
    }
    return PostgresSession(
        address=address,
        holder=holder,
        exported=row[0],
        position=position,
        server=server,
        version=version,
        large_objects=row[6],
        session_limits=session_limits,
    )
