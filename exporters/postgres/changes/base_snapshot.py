"""A base without the replication protocol: the slot is made by SQL, and an ordinary snapshot is taken after it.

The slot sends what is committed from its consistent point on. The snapshot is later, so it shows some of that already:
these transactions are left out of the stream by their numbers (PostgreSQL documentation, "Transaction ID and Snapshot
Information Functions").

A commit is written to the log before others see it, and with synchronous replication long before. One that lies before
the consistent point is not sent, so the snapshot has to show it. Its transaction has begun before the slot was there:
so the snapshot is taken once all of these have ended.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import psycopg
from msgspec import Struct

from exporters.limits import Note
from exporters.postgres.changes.slot import parse_lsn
from exporters.postgres.query_rows import fetch
from exporters.postgres.sessions.lock_waits import AGAIN_SECONDS, POLL_SECONDS
from exporters.postgres.sessions.snapshot_transaction import begin_statement

_AGAIN_SECONDS = 0.1
_FUNCTION_VERSION = 130_000
"""From this version on ``pg_current_snapshot`` exists; before it has the name of ``txid``."""
_HALF, _WHOLE = 2**31, 2**32
_OPEN = """
SELECT format('session %%s (%%s)', pid, concat_ws(', ', usename, nullif(application_name, ''))) AS who
FROM pg_stat_activity WHERE backend_xid::text::int8 = ANY (%(numbers)s)
UNION ALL SELECT format('prepared transaction %%s', gid) FROM pg_prepared_xacts
WHERE transaction::text::int8 = ANY (%(numbers)s) ORDER BY 1
"""


class BaseSnapshot(Struct, frozen=True):
    """Which transactions a snapshot shows. ``text`` is a ``pg_snapshot``: those below ``first_open`` are ended, those
    from ``next_number`` on not begun, and those in ``still_open`` between them not ended. ``end`` is where the log
    ended after it was taken.
    """

    text: str
    end: int
    first_open: int
    next_number: int
    still_open: frozenset[int]

    @classmethod
    def of(cls, text: str, end: int) -> Self:
        """Read what ``pg_current_snapshot()`` returns."""
        first_open, next_number, still_open = text.split(":")
        numbers = frozenset(map(int, filter(None, still_open.split(","))))
        return cls(text, end, int(first_open), int(next_number), numbers)

    @classmethod
    def recorded(cls, log: Mapping[str, Any]) -> Self | None:
        """Return that of a base; None where its slot exported the snapshot, so that nothing comes twice."""
        return cls.of(log["snapshot"], log["snapshot_end"]) if "snapshot" in log else None

    @property
    def described(self) -> Mapping[str, Any]:
        """What the base keeps of it."""
        return {"snapshot": self.text, "snapshot_end": self.end}

    def shows(self, committed_at: int, transaction: int) -> bool:
        """Tell whether a committed transaction is in the snapshot, by the position of its commit and the lower half of
        its number. The position comes first: numbers come round again.
        """
        if committed_at >= self.end:
            return False
        distance = (transaction - self.next_number + _HALF) % _WHOLE - _HALF
        number = self.next_number + distance
        return number < self.first_open or (number < self.next_number and number not in self.still_open)


def take_snapshot(connection: psycopg.Connection[Any], note: Note) -> BaseSnapshot:
    """Begin a transaction whose snapshot shows all that was committed before the slot's consistent point; the slot has
    to exist. ``note`` is called with what that waits for. Raises the driver's errors.
    """
    next_number = _new_number(connection)
    started, reported = time.monotonic(), POLL_SECONDS - AGAIN_SECONDS
    while True:
        connection.execute(begin_statement("").encode())
        taken = _snapshot_of(connection)
        still_open = [number for number in taken.still_open if number < next_number]
        if not still_open:
            return BaseSnapshot.of(taken.text, _end_of_log(connection))
        connection.execute("ROLLBACK")
        waited = time.monotonic() - started
        if waited - reported >= AGAIN_SECONDS:
            reported = waited
            who = _who(connection, still_open)
            note(
                f"waiting for {waited:.0f} s until these have ended: {who}; pg_terminate_backend ends a session"
            )
        time.sleep(_AGAIN_SECONDS)


def _snapshot_of(connection: psycopg.Connection[Any]) -> BaseSnapshot:
    is_named_so = connection.info.server_version >= _FUNCTION_VERSION
    function = "pg_current_snapshot" if is_named_so else "txid_current_snapshot"
    row = connection.execute(f"SELECT pg_catalog.{function}()::text".encode()).fetchone()
    assert row is not None
    return BaseSnapshot.of(row[0], 0)


def _new_number(connection: psycopg.Connection[Any]) -> int:
    """Return a transaction's number that nobody had before. Snapshots do not name all numbers that are given out."""
    connection.execute("BEGIN")
    row = connection.execute("SELECT pg_catalog.txid_current()").fetchone()
    connection.execute("ROLLBACK")
    assert row is not None
    return int(row[0])


def _end_of_log(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_catalog.pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    return parse_lsn(row[0])


def _who(connection: psycopg.Connection[Any], numbers: Sequence[int]) -> str:
    """Return whose transactions these are, as far as this role may know."""
    rows = fetch(connection, _OPEN, {"numbers": [number % _WHOLE for number in numbers]})
    return ", ".join(row["who"] for row in rows) or f"{len(numbers)} transactions"
