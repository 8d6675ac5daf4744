"""The sessions of one snapshot, and rows from them by columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeVar

from pymysql.constants import CR

from exporters.errors import SourceUnreachableError
from exporters.mysql.connection import Connection
from exporters.mysql.errors import DRIVER_ERRORS, number_of, translate
from exporters.mysql.rows.protocol_rows import Wire
from exporters.mysql.rows.row_columns import value_at
from exporters.sql.blocks import OnLong, WholeText


class Feed:
    """A session within the snapshot. One thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._wire = Wire(connection.raw)

    def rows(self, query: str, take: Callable[[list[bytes]], None], on_long: OnLong) -> int:
        """Run a query; hand over payloads of its rows, some thousands at a time, those of long rows in pieces, and
        return how many they were. Raises the driver's errors, and what ``take`` or ``on_long`` raises, after the rest
        was read: the session stays usable.
        """
        guard = _Guard()
        for rows in self._wire.query(query, lambda: _Guarded(guard, on_long)):
            guard.rows += len(rows)
            guard.run(lambda rows=rows: take(rows))  # type: ignore[misc]
        if guard.failed is not None:
            raise guard.failed
        return guard.rows

    def value(self, query: str) -> bytes:
        """Return the one value of a query, which is not NULL."""
        found: list[bytes] = []
        self.rows(query, found.extend, lambda: WholeText(found.append))
        value, _ = value_at(found[0], 0)
        assert value is not None
        return value

    def close(self) -> None:
        """End the session."""
        self.connection.close()


_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Guard:
    """Does things until one of them fails."""

    rows: int = 0
    failed: Exception | None = None

    def run(self, work: Callable[[], _Result]) -> _Result | None:
        if self.failed is not None:
            return None
        try:
            return work()
        except Exception as exc:
            self.failed = exc
            return None


class _Guarded:
    """Takes a long row under guard."""

    def __init__(self, guard: _Guard, on_long: OnLong) -> None:
        guard.rows += 1
        self._guard = guard
        self._text = guard.run(on_long)

    def write(self, piece: bytes, /) -> None:
        if (text := self._text) is not None:
            self._guard.run(lambda: text.write(piece))

    def close(self) -> None:
        if self._text is not None:
            self._guard.run(self._text.close)


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
