"""The lock under which all sessions of a snapshot begin at the same moment, by the strongest way that a server permits.

``global read lock``   FLUSH TABLES WITH READ LOCK for as long as it takes to begin all transactions (milliseconds).
``table locks``        LOCK TABLES … READ on all tables, for as long.
``one session``        no lock could be had.
``no lock``            none was asked for: each session has a snapshot of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pymysql
from msgspec import Struct

from exporters.mysql.catalog import MysqlTable
from exporters.mysql.connection import Connection, MysqlAddress, connect
from exporters.mysql.errors import LOCK_TIMEOUT, is_about_the_thing, message_of, number_of

GLOBAL_LOCK, TABLE_LOCKS, ONE_SESSION, NO_LOCK = "global read lock", "table locks", "one session", "no lock"
_WAITS_SECONDS = (2, 2, 2, 2, 30)
"""How long each try of a lock may wait for running statements; others wait behind it meanwhile. A running statement may
wait for a row of a transaction that waits behind the lock. No server sees that, so the first tries are short.
"""
_PAUSE_SECONDS = 0.2
"""For those who waited behind the lock."""
IDLE_SECONDS = 60
"""How long the session that holds a lock may send nothing: then the server ends it, for this machine may be gone. It
reads no rows, so it is never slow. Sessions that read may be: see ``PINNED`` in ``connection``.
"""
_NOT_NOW = {LOCK_TIMEOUT, 1044, 1142, 1227, 1045, 1290, 1146, 3989}
"""A lock that was not granted in time, or not at all."""
_DENIED = {1142, 1143, 1044}
_TOUCHED_TOGETHER = 50
_TOUCH = "EXISTS (SELECT 1 FROM (SELECT * FROM {}) AS rows_of_it LIMIT 0)"
"""For EXISTS itself a server looks at no column, so the columns are those of a derived table."""


class SnapshotLock(Struct, frozen=True):
    """Which lock is held, and why stronger ones are not. ``connection`` holds it."""

    name: str
    refusals: Sequence[str]
    connection: Connection


@contextmanager
def snapshot_lock(address: MysqlAddress, tables: Sequence[MysqlTable]) -> Iterator[SnapshotLock]:
    """Hold the strongest lock that one may have. No transaction that has written to the tables is unfinished then, and
    none ends. Raises the driver's errors, ``SourceError``, also where the lock was lost before the context ended.
    """
    locker, refusals, name = connect(address), list[str](), ONE_SESSION
    try:
        locker.run(f"SET SESSION wait_timeout = {IDLE_SECONDS}")
        for lock, statement in _locks(locker, tables):
            refused = _try(locker, statement)
            if not refused:
                name = lock
                break
            refusals.append(f"{lock}: {refused}")
        yield SnapshotLock(name, refusals, locker)
        locker.run("UNLOCK TABLES")
    finally:
        locker.close()


def _locks(locker: Connection, tables: Sequence[MysqlTable]) -> Iterator[tuple[str, str]]:
    """Yield the kinds of locks, the strongest first. One table that cannot be read would keep all from their locks."""
    yield GLOBAL_LOCK, "FLUSH TABLES WITH READ LOCK"
    unreadable = unreadable_tables(locker, tables)
    lockable = [table for table in tables if not table.elsewhere and table.name not in unreadable]
    if lockable:
        yield TABLE_LOCKS, f"LOCK TABLES {', '.join(f'{table.label} READ' for table in lockable)}"


def _try(connection: Connection, statement: str) -> str:
    """Run a statement; return why not, if it may not be."""
    for seconds in _WAITS_SECONDS:
        connection.run(f"SET SESSION lock_wait_timeout = {seconds}")
        try:
            connection.run(statement)
        except pymysql.Error as exc:
            if number_of(exc) not in _NOT_NOW:
                raise
            refusal = message_of(exc)
            if number_of(exc) != LOCK_TIMEOUT:
                break
        else:
            return ""
        time.sleep(_PAUSE_SECONDS)
    connection.run(f"SET SESSION lock_wait_timeout = {_WAITS_SECONDS[-1]}")
    return refusal


def unreadable_tables(holder: Connection, tables: Sequence[MysqlTable]) -> dict[str, str]:
    """Touch every table, so that it cannot be altered while the transaction lasts; return those that cannot be read,
    and why.

    information_schema hides columns that the account may not read: only ``SELECT *`` shows that there are some.
    """
    unreadable: dict[str, str] = {}
    for first in range(0, len(tables), _TOUCHED_TOGETHER):
        some = tables[first : first + _TOUCHED_TOGETHER]
        try:
            holder.rows(f"SELECT {', '.join(_TOUCH.format(table.label) for table in some)}")
        except pymysql.Error as exc:
            if not is_about_the_thing(exc):
                raise
            unreadable |= _unreadable_among(holder, some)
    return unreadable


def _unreadable_among(holder: Connection, tables: Sequence[MysqlTable]) -> dict[str, str]:
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
