"""The sessions of one snapshot, and rows from them by columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from pymysql.constants import CR

from exporters.mysql.connection import Connection
from exporters.mysql.errors import DRIVER_ERRORS, last_session_error, number_of, translate
from exporters.mysql.rows.protocol_rows import RowBlock, Wire, payloads_of
from exporters.mysql.rows.row_columns import value_at
from exporters.sql.row_blocks import LongRowText
from exporters.sql.snapshots import snapshot_lost

_Result = TypeVar("_Result")


class Feed:
    """A session within the snapshot. One thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._wire = Wire(connection.raw)
        self._unread: Iterator[RowBlock | LongRowText] = iter(())

    def blocks(self, query: str | bytes) -> Iterator[RowBlock | LongRowText]:
        """Run a query and yield its rows, some thousands at a time, long ones in pieces. Raises the driver's errors."""
        self._unread = self._wire.query(query)
        return self._unread

    def rows(self, query: str) -> Iterator[list[bytes] | LongRowText]:
        """Do the same, and yield the payloads of rows."""
        for block in self.blocks(query):
            yield block if isinstance(block, LongRowText) else payloads_of(block)

    def read_rest(self) -> None:
        """Read what is left of the rows of the last query, so that the session can be used for another one."""
        for _ in self._unread:
            pass

    def value(self, query: str) -> bytes:
        """Return the one value of a query, which is not NULL."""
        (row,) = [
            b"".join(block.pieces) if isinstance(block, LongRowText) else block[0]
            for block in self.rows(query)
        ]
        value, _ = value_at(row, 0)
        assert value is not None
        return value

    def close(self) -> None:
        """End the session."""
        self.connection.close()


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
            raise (
                translate(exc, self._where) if self._alive else last_session_error(exc, self._where)
            ) from exc
        except Exception:
            self._settle(feed, alive=True)
            raise
        except BaseException:
            self._settle(feed, alive=False)
            raise
        self._settle(feed, alive=True)
        return result

    def _settle(self, feed: Feed, *, alive: bool) -> None:
        if alive and self._is_read(feed):
            self._idle.put(feed)
            return
        self._alive -= 1
        feed.close()

    def _is_read(self, feed: Feed) -> bool:
        """Read what the work has left of its rows; return whether the session can be used again."""
        try:
            feed.read_rest()
        except DRIVER_ERRORS:
            return False
        return True

    def _take(self) -> Feed:
        while self._alive:
            try:
                return self._idle.get(timeout=1)
            except Empty:
                continue
        raise snapshot_lost(self._where, "no other session has it")

    def close(self) -> None:
        """Close the idle sessions."""
        self._alive = 0
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return
