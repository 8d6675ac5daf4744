"""Rows of text from one session within the shared snapshot, read from the wire in blocks.

PyMySQL logs in and speaks for control; its rows cost five microseconds each. Here the server makes one line of text a
row, and the packets of a text resultset (MySQL internals manual, "Text Resultset") are cut from large reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from pymysql.constants import COMMAND, CR
from pymysql.err import raise_mysql_exception

from exporters.errors import SourceUnreachableError
from exporters.mysql.connect import Connection
from exporters.mysql.errors import DRIVER_ERRORS, number_of, translate
from exporters.relational.blocks import OnBlock

_READ_BYTES = 2**18
_FULL = 0xFFFFFF
"""A packet of this length goes on in the next one."""
_NULL = 0xFB
_OK, _ERROR, _EOF = 0x00, 0xFF, 0xFE
_EOF_BYTES = 9
"""An EOF packet is shorter than this; a longer one that begins with the same byte is a row."""

Encode = Callable[[bytes], bytes]


class LineTooLongError(Exception):
    """The server gave NULL for a line, because it would be longer than max_allowed_packet."""


class Wire:
    """Packets of one session. ``raw`` is PyMySQL's connection, whose socket and buffered reader are used."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def query(self, statement: str) -> Iterator[list[bytes]]:
        """Run a query and yield payloads of its rows, many at once."""
        self._raw._execute_command(COMMAND.COM_QUERY, statement)  # noqa: SLF001  the one way to send without reading
        packets = self._packets()
        pending: list[bytes] = []
        for batch in packets:
            pending += batch
            break
        yield from self._rows(pending, packets)

    def _rows(self, pending: list[bytes], packets: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
        _check(pending[0])
        columns = pending[0][0]
        if columns == 0xFC:  # 251 or more
            columns = int.from_bytes(pending[0][1:3], "little")
        head = columns + 2  # the count, the definitions, an EOF
        while len(pending) < head:
            pending += next(packets)
        rows = pending[head:]
        while True:
            if rows and _ends(rows[-1]):
                last = rows.pop()
                if rows:
                    yield rows
                _check(last)
                return
            if rows:
                yield rows
            rows = next(packets)

    def _packets(self) -> Iterator[list[bytes]]:
        """Yield payloads as they arrive, until the consumer stops. Raises ``EOFError`` at a broken line."""
        read = self._raw._rfile.read1  # noqa: SLF001
        buffer = b""
        long: list[bytes] = []
        while True:
            piece = read(_READ_BYTES)
            if not piece:
                raise EOFError("the server closed the connection in the middle of the rows")
            buffer = buffer + piece if buffer else piece
            position, size, found = 0, len(buffer), []
            while position + 4 <= size:
                length = buffer[position] | buffer[position + 1] << 8 | buffer[position + 2] << 16
                end = position + 4 + length
                if end > size:
                    if length > _READ_BYTES:
                        buffer = buffer[position:] + _exactly(self._raw, end - size)
                        position, size = 0, len(buffer)
                        continue
                    break
                payload = buffer[position + 4 : end]
                position = end
                if length == _FULL:
                    long.append(payload)
                    continue
                if long:
                    payload, long = b"".join([*long, payload]), []
                found.append(payload)
            buffer = buffer[position:]
            if found:
                yield found


def _exactly(raw: Any, size: int) -> bytes:
    data: bytes = raw._rfile.read(size)  # noqa: SLF001
    if len(data) < size:
        raise EOFError("the server closed the connection in the middle of a row")
    return data


def _ends(payload: bytes) -> bool:
    return payload[:1] == b"\xff" or (payload[:1] == b"\xfe" and len(payload) < _EOF_BYTES)


def _check(payload: bytes) -> None:
    if payload[0] == _ERROR:
        raise_mysql_exception(payload)


def value_at(payload: bytes, position: int) -> tuple[bytes | None, int]:
    """Return the length-encoded string at ``position`` (None for NULL) and where the next one begins."""
    first = payload[position]
    if first < _NULL:
        end = position + 1 + first
        return payload[position + 1 : end], end
    if first == _NULL:
        return None, position + 1
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    start = position + 1 + width
    end = start + int.from_bytes(payload[position + 1 : start], "little")
    return payload[start:end], end


def _line(payload: bytes) -> bytes:
    """Return the one value of a row."""
    first = payload[0]
    if first < _NULL:
        return payload[1:]
    if first == _NULL:
        raise LineTooLongError
    return payload[{0xFC: 3, 0xFD: 4, 0xFE: 9}[first] :]


class Feed:
    """A session within the snapshot. One thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._wire = Wire(connection.raw)

    def copy(self, query: str, on_block: OnBlock) -> int:
        """Run a query whose one column is the row's line; hand over whole lines, each ended by a newline, and return
        how many. Raises ``LineTooLongError``, ``SourceError``.
        """

        def take(rows: list[bytes]) -> None:
            lines = [row[1:] if row[0] < _NULL else _line(row) for row in rows]
            lines.append(b"")
            on_block(b"\n".join(lines))

        return self._each(query, take)

    def copy_wide(self, query: str, encoders: Sequence[Encode], on_block: OnBlock) -> int:
        """The same for a query with a column a value: the lines are made here, value by value."""

        def take(rows: list[bytes]) -> None:
            for row in rows:
                position, values = 0, []
                for encode in encoders:
                    value, position = value_at(row, position)
                    values.append(b"" if value is None else encode(value))
                values[-1] += b"\n"
                on_block(b",".join(values))

        return self._each(query, take)

    def value(self, query: str) -> bytes:
        """Return the one value of a query, which is not NULL."""
        found: list[bytes] = []
        self._each(query, lambda rows: found.extend(map(_line, rows)))
        return found[0]

    def _each(self, query: str, take: Callable[[list[bytes]], None]) -> int:
        """Pass on all rows. If ``take`` fails the rest is read all the same, so that the session stays usable."""
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
