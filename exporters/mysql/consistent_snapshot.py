"""The sessions of one snapshot, by the strongest way that the server permits; which one it was is in the position.

``global read lock``   FLUSH TABLES WITH READ LOCK for as long as it takes to begin all transactions (milliseconds).
``table locks``        LOCK TABLES … READ on all tables, for as long.
``one session``        no lock at all: one session reads everything, one unit after the other.

In all three every InnoDB table is seen as of one moment; other engines only as of the moment of reading.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pymysql

from exporters.mysql.catalog import MysqlTable, read_tables
from exporters.mysql.connection import Connection, MysqlAddress, connect
from exporters.mysql.errors import DRIVER_ERRORS, is_about_the_thing, message_of, number_of, translate
from exporters.mysql.rows.row_feed import Feeds

GLOBAL_LOCK, TABLE_LOCKS, ONE_SESSION = "global read lock", "table locks", "one session"
LOCK_SECONDS = 30
"""So long may a lock wait for running statements; others wait behind it meanwhile."""
_BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
_BEGIN_OLD = "START TRANSACTION WITH CONSISTENT SNAPSHOT"
_NOT_NOW = {1205, 1044, 1142, 1227, 1045, 1290, 1146, 3989}
"""A lock that was not granted in time, or not at all."""
_DENIED = {1142, 1143, 1044}
_POSITIONS = ("SHOW BINARY LOG STATUS", "SHOW MASTER STATUS", "SHOW BINLOG STATUS")
_BATCH = 200


@dataclass(frozen=True, slots=True)
class MysqlSession:
    """A snapshot. ``holder`` is one of its sessions, kept for definitions and counts; ``feeds`` read rows.
    ``unreadable``: by table, why it cannot be read.
    """

    address: MysqlAddress
    holder: Connection
    feeds: Feeds
    rung: str
    refusals: Sequence[str]
    position: Mapping[str, Any]
    server: str
    unreadable: Mapping[str, str]


@contextmanager
def hold(address: MysqlAddress, *, workers: int) -> Iterator[tuple[MysqlSession, list[MysqlTable]]]:
    """Take a snapshot that ``workers`` sessions see. Raises ``SourceError``."""
    opened: list[Connection] = []
    feeds: Feeds | None = None
    try:
        opened.extend(connect(address) for _ in range(workers + 1))
        try:
            tables = read_tables(opened[0])
            session = _begin(address, opened, tables)
            feeds = session.feeds
        except DRIVER_ERRORS as exc:
            raise translate(exc, address.url) from exc
        yield session, tables
    finally:
        if feeds is not None:
            feeds.close()
        for connection in opened:
            connection.close()


def _begin(address: MysqlAddress, opened: Sequence[Connection], tables: Sequence[MysqlTable]) -> MysqlSession:
    refusals: list[str] = []
    for connection in opened:
        connection.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    position: Mapping[str, Any] | None = None
    rung = ONE_SESSION
    locker = connect(address)
    try:
        locker.run(f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}")
        for name, statement in _locks(locker, tables):
            refused = _try(locker, statement)
            if refused:
                refusals.append(f"{name}: {refused}")
                continue
            for connection in opened:
                _start(connection)
            position = _position(locker)
            rung = name
            break
        if rung == ONE_SESSION:
            _start(opened[0])
    finally:
        with contextlib.suppress(Exception):
            locker.run("UNLOCK TABLES")
        locker.close()
    holder = opened[0]
    unreadable = unreadable_tables(holder, tables)
    server = f"{'MariaDB' if holder.is_mariadb else 'MySQL'} {holder.version}"
    position = {
        "consistency": rung,
        "refused": refusals,
        "position": position or {},
        "database": address.database,
        "server": server,
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
        "not_transactional": [t.name for t in tables if not t.transactional and not t.elsewhere],
    }
    feeds = Feeds(address.url, opened if rung == ONE_SESSION and len(opened) == 1 else _readers(opened, rung))
    return MysqlSession(address, holder, feeds, rung, refusals, position, server, unreadable)


def _readers(opened: Sequence[Connection], rung: str) -> Sequence[Connection]:
    """Where all sessions see the snapshot the holder stays free for questions; else it is the only one."""
    return opened[:1] if rung == ONE_SESSION else opened[1:]


def _locks(locker: Connection, tables: Sequence[MysqlTable]) -> Iterator[tuple[str, str]]:
    """Yield the kinds of locks, the strongest first. One table that cannot be read would keep all from their locks."""
    yield GLOBAL_LOCK, "FLUSH TABLES WITH READ LOCK"
    unreadable = unreadable_tables(locker, tables)
    lockable = [table for table in tables if not table.elsewhere and table.name not in unreadable]
    if lockable:
        yield TABLE_LOCKS, f"LOCK TABLES {', '.join(f'{table.label} READ' for table in lockable)}"


def _try(connection: Connection, statement: str) -> str:
    """Run a statement; return why not, if it may not be."""
    try:
        connection.run(statement)
    except pymysql.Error as exc:
        if number_of(exc) not in _NOT_NOW:
            raise
        return message_of(exc)
    return ""


def _start(connection: Connection) -> None:
    try:
        connection.run(_BEGIN)
    except pymysql.Error:  # servers that know only one of the two words at once
        connection.run(_BEGIN_OLD)


def _position(connection: Connection) -> dict[str, Any]:
    """Return where the binary log stands, as far as it may be asked."""
    position: dict[str, Any] = {}
    for statement in _POSITIONS:
        try:
            rows = connection.named(statement)
        except pymysql.Error:
            continue
        if rows:
            position = {"file": rows[0]["file"], "position": rows[0]["position"]}
            gtid = rows[0].get("executed_gtid_set")
            position |= {"gtid": gtid} if gtid else {}
        break
    if connection.is_mariadb:
        with contextlib.suppress(pymysql.Error):
            position["gtid"] = connection.value("SELECT @@GLOBAL.gtid_current_pos")
    return position


def unreadable_tables(holder: Connection, tables: Sequence[MysqlTable]) -> dict[str, str]:
    """Touch every table, so that it cannot be altered while the transaction lasts; return those that cannot be read,
    and why.

    information_schema hides columns that the account may not read: only ``SELECT *`` shows that there are some.
    """
    unreadable = {}
    for table in tables:
        try:
            holder.rows(f"SELECT * FROM {table.label} LIMIT 0")
        except pymysql.Error as exc:
            if not is_about_the_thing(exc):
                raise
            denied = number_of(exc) in _DENIED
            unreadable[table.name] = "the account may not read it" if denied else message_of(exc)
    return unreadable
