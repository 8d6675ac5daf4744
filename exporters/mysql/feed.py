"""The sessions of one snapshot, and rows from them by columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from pymysql.constants import CR

from exporters.errors import SourceUnreachableError
from exporters.mysql.columns import value_at
from exporters.mysql.connect import Connection
from exporters.mysql.errors import DRIVER_ERRORS, number_of, translate
from exporters.mysql.wire import Wire


class Feed:
    """A session within the snapshot. One thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._wire = Wire(connection.raw)

    def rows(self, query: str, take: Callable[[list[bytes]], None]) -> int:
        """Run a query; hand over payloads of its rows, some thousands at a time, and return how many they were. Raises
        the driver's errors, and what ``take`` raises, after the rest was read: the session stays usable.
        """
        total = 0
        failed: Exception | None = None
        for rows in self._wire.query(query):
            total += len(rows)
            if failed is None:
                try:
                    take(rows)
                except Exception as exc:
                    failed = exc
        if failed is not None:
            raise failed
        return total

    def value(self, query: str) -> bytes:
        """Return the one value of a query, which is not NULL."""
        found = [row for rows in self._wire.query(query) for row in rows]
        value, _ = value_at(found[0], 0)
        assert value is not None
        return value

    def close(self) -> None:
        """End the session."""
        self.connection.close()


_Result = TypeVar("_Result")


class Feeds:
    """The sessions of one snapshot. A session that fails is gone: no new one can join an old snapshot."""

    def __init__(self, where: str, connections: Sequence[Connection]) -> None:
        self._where = where
        self._alive = len(connections)
        self._idle: SimpleQueue[Feed] = SimpleQueue()
        for connection in connections:
            self._idle.put(Feed(connection))

    def use(self, work: Callable[[Feed], _Result]) -> _Result:
        """Do ``work`` with an idle session, after waiting for one. Raises ``SourceError``."""
        feed = self._take()
        try:
            result = work(feed)
        except DRIVER_ERRORS as exc:
            self._settle(feed, alive=0 < number_of(exc) < CR.CR_ERROR_FIRST)
            raise translate(exc, self._where) from exc
        except Exception:
            self._settle(feed, alive=True)
            raise
        except BaseException:
            self._settle(feed, alive=False)
            raise
        self._settle(feed, alive=True)
        return result

    def _settle(self, feed: Feed, *, alive: bool) -> None:
        if alive:
            self._idle.put(feed)
            return
        self._alive -= 1
        feed.close()

    def _take(self) -> Feed:
        while self._alive:
            try:
                return self._idle.get(timeout=1)
            except Empty:
                continue
        raise SourceUnreachableError(
            f"{self._where}: all sessions of the snapshot are gone",
            next_step="Give the same command again: it takes a new snapshot and keeps finished work that still holds.",
        )

    def close(self) -> None:
        """Close the idle sessions."""
        self._alive = 0
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return
