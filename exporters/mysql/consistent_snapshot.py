"""The sessions of one snapshot. They begin under a lock (``sessions.snapshot_locks``); the position says under which.

Without a lock one session reads everything, one unit after the other. Either way every InnoDB table is seen as of one
moment; other engines only as of the moment of reading.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pymysql
from msgspec import Struct, field

from exporters.changes import FOLLOW, ChangeLog, note_not_followed
from exporters.errors import SourceUnreachableError
from exporters.limits import Note
from exporters.mysql.catalog import MysqlTable, read_tables
from exporters.mysql.changes.binlog_files import read_status
from exporters.mysql.connection import LOCK_SECONDS, Connection, MysqlAddress, connect
from exporters.mysql.errors import LOCK_TIMEOUT, as_source_errors, has_ended, number_of
from exporters.mysql.rows.row_feed import Feeds
from exporters.mysql.sessions.server_settings import server_settings
from exporters.mysql.sessions.snapshot_locks import NO_LOCK, ONE_SESSION, snapshot_lock, unreadable_tables
from exporters.sql.snapshots import lost_with_sessions

_BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
_BEGIN_OLD = "START TRANSACTION WITH CONSISTENT SNAPSHOT"
_TRIES = 5
_TOUCH_SECONDS = 2
"""How long a session waits for a table that the holder has: only behind somebody who waits for the holder."""


class MysqlSession(Struct, frozen=True):
    """A snapshot. ``holder`` is one of its sessions, kept for definitions and counts; ``feeds`` read rows.
    ``unreadable``: by table, why it cannot be read.
    """

    address: MysqlAddress
    holder: Connection
    feeds: Feeds
    consistency: str
    refusals: Sequence[str]
    position: Mapping[str, Any]
    server: str
    unreadable: Mapping[str, str]


@contextmanager
def open_snapshot(
    address: MysqlAddress,
    *,
    workers: int,
    log: ChangeLog | None = None,
    note: Note = lambda _: None,
    is_one_moment: bool = True,
) -> Iterator[tuple[MysqlSession, list[MysqlTable]]]:
    """Take a snapshot that ``workers`` sessions see. With a ``log`` it is that of a new base of it. Unless it
    ``is_one_moment``, no lock is asked for, and each session has a snapshot of its own. Raises ``SourceError``:
    ``SourceSnapshotLostError`` where a session ends meanwhile.
    """
    opened: list[Connection] = []
    feeds: Feeds | None = None
    try:
        opened.extend(connect(address) for _ in range(workers + 1))
        with lost_with_sessions(address.url, has_ended), as_source_errors(address.url):
            tables = read_tables(opened[0])
            for connection in opened:
                connection.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            for left in reversed(range(_TRIES)):
                begun = (
                    _begin_base(opened, log, note)
                    if log
                    else _begin_snapshot(address, opened, tables)
                    if is_one_moment
                    else _begin_apart(opened)
                )
                unreadable = unreadable_tables(opened[0], tables)
                readable = [t for t in tables if not t.elsewhere and t.name not in unreadable]
                are_kept = begun.consistency in {ONE_SESSION, NO_LOCK} or _keep(opened[1:], readable)
                listed = read_tables(opened[0])
                before, now = _shapes(tables), _shapes(listed)
                is_altered = any(now.get(name, shape) != shape for name, shape in before.items())
                # Some programs make and drop tables all the time.
                if (are_kept and before == now) or not (left or is_altered):
                    break
                tables = listed
                for connection in opened:
                    connection.run("ROLLBACK")
            else:
                raise SourceUnreachableError(
                    f"tables of {address.url} are altered faster than a snapshot can begin",
                    next_step="stop changes of definitions at the source, then run the same command again",
                )
            session = _session(address, opened, tables, begun, unreadable)
            feeds = session.feeds
        yield session, tables
    finally:
        if feeds is not None:
            feeds.close()
        for connection in opened:
            connection.close()


def _keep(readers: Sequence[Connection], tables: Sequence[MysqlTable]) -> bool:
    """Touch all tables by the sessions that read rows, too: one that came later to a table would wait behind an ALTER
    TABLE that waits for the holder. False where one waits already.
    """

    def touch(reader: Connection) -> bool:
        reader.run(f"SET SESSION lock_wait_timeout = {_TOUCH_SECONDS}")
        try:
            unreadable_tables(reader, tables)
        except pymysql.Error as exc:
            if number_of(exc) != LOCK_TIMEOUT:
                raise
            return False
        finally:
            reader.run(f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}")
        return True

    with ThreadPoolExecutor(len(readers)) as pool:
        return all([*pool.map(touch, readers)])


def _shapes(tables: Sequence[MysqlTable]) -> Mapping[str, tuple[str, str, Sequence[str]]]:
    """Return what must be the same before and after tables are locked: an ``ALTER TABLE`` may have ended between."""
    return {table.name: (table.fingerprint, table.engine, table.history) for table in tables}


def _session(
    address: MysqlAddress,
    opened: Sequence[Connection],
    tables: Sequence[MysqlTable],
    begun: _Begun,
    unreadable: Mapping[str, str],
) -> MysqlSession:
    holder = opened[0]
    server = f"{'MariaDB' if holder.is_mariadb else 'MySQL'} {holder.version}"
    position = {
        "consistency": begun.consistency,
        "refused": begun.refusals,
        "position": begun.log_position,
        "database": address.database,
        "server": server,
        "sessions": server_settings(holder),
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
        "not_transactional": [t.name for t in tables if not t.transactional and not t.elsewhere],
        **begun.followed,
    }
    feeds = Feeds(address.url, _readers(opened, begun.consistency))
    return MysqlSession(
        address=address,
        holder=holder,
        feeds=feeds,
        consistency=begun.consistency,
        refusals=begun.refusals,
        position=position,
        server=server,
        unreadable=unreadable,
    )


class _Begun(Struct, frozen=True):
    """How the transactions began. ``log_position``: where the binary log stood. ``followed``: what a base adds."""

    consistency: str
    refusals: Sequence[str] = ()
    log_position: Mapping[str, Any] = field(default_factory=dict)
    followed: Mapping[str, Any] = field(default_factory=dict)


def _begin_snapshot(
    address: MysqlAddress, opened: Sequence[Connection], tables: Sequence[MysqlTable]
) -> _Begun:
    with snapshot_lock(address, tables) as lock:
        if lock.name == ONE_SESSION:
            _start(opened[0])
            return _Begun(lock.name, lock.refusals)
        for connection in opened:
            _start(connection)
        return _Begun(lock.name, lock.refusals, _position(lock.connection))


def _begin_apart(opened: Sequence[Connection]) -> _Begun:
    """Begin the transactions one after the other."""
    for connection in opened:
        _start(connection)
    return _Begun(NO_LOCK)


def _begin_base(opened: Sequence[Connection], log: ChangeLog, note: Note) -> _Begun:
    """Begin the transactions under the lock of a new base."""
    with log.open_base(note) as base:
        for connection in opened:
            _start(connection)
        position = _position(opened[0])
    note_not_followed(base.not_followed, note)
    return _Begun(base.snapshot, (), position, {FOLLOW: base.described})


def _readers(opened: Sequence[Connection], consistency: str) -> Sequence[Connection]:
    """Where all sessions see the snapshot the holder stays free for questions; else it is the only one."""
    return opened[:1] if consistency == ONE_SESSION else opened[1:]


def _start(connection: Connection) -> None:
    try:
        connection.run(_BEGIN)
    except pymysql.Error:  # servers that know only one of the two words at once
        connection.run(_BEGIN_OLD)


def _position(connection: Connection) -> dict[str, Any]:
    """Return where the binary log stands, as far as it may be asked."""
    position: dict[str, Any] = {}
    if row := read_status(connection):
        position = {"file": row["file"], "position": row["position"]}
        gtid = row.get("executed_gtid_set")
        position |= {"gtid": gtid} if gtid else {}
    if connection.is_mariadb:
        with contextlib.suppress(pymysql.Error):
            position["gtid"] = connection.value("SELECT @@GLOBAL.gtid_current_pos")
    return position
