"""A feed by asyncpg: blocks of COPY output, cut at the protocol's messages by the compiled core or by asyncpg.

asyncpg has logged in, and collects a row before it hands it over; so for one COPY the connection is read here
(PostgreSQL documentation, "Message Formats"), and long rows are never whole in memory. The server still makes the whole
line. Nothing imports this module before rows are read: see ``open_feed``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from exporters import _rows
from exporters.connections.open_connections import keep_alive, waking_socket
from exporters.errors import SourceError
from exporters.postgres.chunk_plan import copy_statement
from exporters.postgres.errors import DRIVER_ERRORS, translate
from exporters.postgres.sessions.connection import PostgresAddress, pin_statement, uncancelled
from exporters.sql.large_values.long_values import LONG_BYTES
from exporters.sql.row_blocks import LongRowText, RowBlocks, SentRows

_OWN_ERRORS = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg says itself: the second where it has read that the server ends an idle session, and not yet its end."""
FEED_ERRORS = (*DRIVER_ERRORS, asyncpg.PostgresError, *_OWN_ERRORS)
"""What asyncpg may raise while it talks to a server."""
_DATA, _ERROR, _COMPLETE, _READY = b"dECZ"
_CLOSED = "the server closed the connection"
_HEAD = 5
"""A message's kind, and its length without the kind."""
_LENGTH = 4
_READ_BYTES = 5 * 2**18
"""What is read at once becomes a block of about a MiB. A busy program finds several MB in the socket."""
_SMALL_BYTES = 128 * 2**10
_PAUSE_SECONDS = 0.001
"""After a small read wait for more to arrive: to be woken for every few rows costs more than the rows. Not before so
much has come: a small table has no more. The loop serves one connection, so nothing else waits.
"""


class AsyncpgFeed:
    """Blocks of up to what one read of the socket brings. The loop runs only while more is waited for."""

    def __init__(self, address: PostgresAddress, options: dict[str, Any], timeouts: str) -> None:
        self._where = address.url
        self._loop = asyncio.new_event_loop()
        self._copying: asyncio.Task[str] | None = None
        try:
            self._connection = self._loop.run_until_complete(asyncpg.connect(**options))
            self._pin(timeouts)
        except BaseException:
            self._loop.close()
            raise
        keep_alive(self._file_number())
        waking_socket(self._where, self, AsyncpgFeed._file_number)

    def _pin(self, timeouts: str) -> None:
        run, execute = self._loop.run_until_complete, self._connection.execute
        try:
            uncancelled(lambda: run(execute(f"{pin_statement()}; {timeouts}")))
        except BaseException:
            self._connection.terminate()
            raise

    def _translated(self, error: Exception) -> SourceError:
        return translate(error, self._where, is_passing=isinstance(error, _OWN_ERRORS))

    def _file_number(self) -> int:
        return int(self._connection._transport.get_extra_info("socket").fileno())  # noqa: SLF001  nothing else has it

    def is_at(self, address: str) -> bool:
        """Tell whether it has reached this IP address. True of "", which is a socket of this machine."""
        peer = self._connection._transport.get_extra_info("peername")  # noqa: SLF001  as above
        return not address or bool(peer and peer[0] == address)

    def copy(self, sources: Sequence[str], encoding: str, *, in_pieces: bool) -> RowBlocks:
        """See ``Feed``. asyncpg cuts messages faster than Python does; the compiled core is faster than asyncpg."""
        if _rows.core is None and not in_pieces:
            for source in sources:
                yield from self._copy_by_asyncpg(source, encoding)
            return
        are_text = not in_pieces
        statements = "; ".join(copy_statement(source, encoding, are_text=are_text) for source in sources)
        try:
            yield from copy_stream(self._connection, self._loop, statements, are_text=are_text)
        except FEED_ERRORS as exc:
            raise self._translated(exc) from exc

    def _copy_by_asyncpg(self, query: str, encoding: str) -> RowBlocks:
        """Yield the rows of a query in brackets, a long one whole, and their count."""
        arrived: list[bytes | bytearray] = []

        async def keep(block: bytes | bytearray) -> None:
            arrived.append(block)
            self._loop.stop()

        async def copy() -> str:
            try:
                status: str = await self._connection.copy_from_query(
                    query, output=keep, format="csv", encoding=encoding
                )
            finally:
                self._loop.stop()
            return status

        task = self._copying = self._loop.create_task(copy())
        first = True
        try:
            while arrived or not task.done():
                for block in arrived:
                    yield block
                    if not first and len(block) < _SMALL_BYTES:
                        time.sleep(_PAUSE_SECONDS)
                    first = False
                arrived.clear()
                if not task.done():
                    self._loop.run_forever()
            yield SentRows(int(task.result().rpartition(" ")[2]))
        except FEED_ERRORS as exc:
            raise self._translated(exc) from exc

    def execute(self, statements: str) -> None:
        """See ``Feed``."""
        try:
            self._loop.run_until_complete(self._connection.execute(statements))
        except FEED_ERRORS as exc:
            raise self._translated(exc) from exc

    def close(self) -> None:
        """See ``Feed``."""
        if self._loop.is_closed():
            return
        self._connection.terminate()
        task = self._copying
        while task is not None and not task.done():  # the caller has not read the rest
            self._loop.run_forever()
        with suppress(Exception):
            if task is not None:
                task.result()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


class _Received(asyncio.BufferedProtocol):
    """What has arrived on a connection and was not taken yet. The loop runs only while more is waited for. Rows that
    ``are_text``, in COPY's text format, become lines of CSV by the compiled core.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, are_text: bool) -> None:
        self._loop = loop
        self._are_text = are_text
        self.buffer = bytearray(_HEAD + LONG_BYTES + _READ_BYTES)
        self.size = 0
        self._all_bytes = self._last_bytes = 0
        self._lost: BaseException | None = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend room for what arrives."""
        del sizehint
        return memoryview(self.buffer)[self.size : self.size + _READ_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        """See ``asyncio.BufferedProtocol``."""
        self.size += nbytes
        self._all_bytes += nbytes
        self._last_bytes = nbytes
        self._loop.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._lost = exc or ConnectionResetError(_CLOSED)
        self._loop.stop()

    def wait(self) -> None:
        """Wait for more. Raises ``OSError`` where the connection is lost."""
        if self._lost is not None:
            raise self._lost
        if self._last_bytes < _SMALL_BYTES < self._all_bytes:
            time.sleep(_PAUSE_SECONDS)
        before = self.size
        self._loop.run_forever()
        if self.size == before and self._lost is not None:
            raise self._lost

    def take(self) -> tuple[list[tuple[int, bytes | bytearray]], int]:
        """Take the messages that have arrived up to a long row, by kind and body, and the head of that row. Return
        them, and how many bytes the long row has; 0 where none comes next. Rows without another message between them
        are one body. Raises ``ConnectionError``.
        """
        taken: list[tuple[int, list[bytes | bytearray]]] = []
        start = long_row_bytes = 0
        with memoryview(self.buffer)[: self.size] as view:
            while len(view) - start >= _HEAD:
                kind = view[start]
                size = int.from_bytes(view[start + 1 : start + _HEAD], "big", signed=True) - _LENGTH
                if size < 0:
                    raise ConnectionError("the server sent something that is not a message of its protocol")
                begin, end = start + _HEAD, start + _HEAD + size
                if kind == _DATA and size > LONG_BYTES:
                    start, long_row_bytes = begin, size
                    break
                if end > len(view):
                    break
                if kind == _DATA and _rows.core is not None:
                    body, size = _rows.core.whole_rows(view[start:], LONG_BYTES, self._are_text)
                    end = start + size
                else:
                    body = bytes(view[begin:end])
                if kind == _DATA and taken and taken[-1][0] == _DATA:
                    taken[-1][1].append(body)
                else:
                    taken.append((kind, [body]))
                start = end
        self._drop(start)
        messages = [(kind, parts[0] if len(parts) == 1 else b"".join(parts)) for kind, parts in taken]
        return messages, long_row_bytes

    def pieces(self, left: int) -> Iterator[bytes]:
        """Yield the row of so many bytes that arrives, without the newline at its end. One in the text format is held:
        whoever foresees a long row has it come as CSV.
        """
        if self._are_text:
            yield _as_csv(b"".join(self._pieces(left)))
        else:
            yield from self._pieces(left)

    def _pieces(self, left: int) -> Iterator[bytes]:
        while left:
            if not self.size:
                self.wait()
            piece = bytes(self.buffer[: min(left, self.size)])
            self._drop(len(piece))
            left -= len(piece)
            yield piece if left else piece[:-1]

    def _drop(self, size: int) -> None:
        """Forget what was taken from the beginning."""
        rest = self.buffer[size : self.size]
        self.buffer[: len(rest)] = rest
        self.size = len(rest)


def _as_csv(line: bytes) -> bytes:
    """Return a line of COPY's text format as one of CSV, both without a newline."""
    assert _rows.core is not None
    message = b"d" + (_LENGTH + len(line) + 1).to_bytes(_LENGTH, "big") + line + b"\n"
    return bytes(_rows.core.whole_rows(message, len(message), True)[0][:-1])


def copy_stream(
    connection: Any, loop: asyncio.AbstractEventLoop, statement: str, *, are_text: bool
) -> RowBlocks:
    """Run a COPY to the client on an asyncpg connection, or several, separated by semicolons. Yield the rows of each,
    then the server's count of them. ``are_text``: rows arrive in COPY's text format, and are lines of CSV here. Raises
    ``PostgresError``, ``OSError``.
    """
    transport = connection._transport  # noqa: SLF001  nothing else has it
    # Where its end came with the last answer, who listens from now on does not hear of it.
    if transport.is_closing():
        raise ConnectionResetError(_CLOSED)
    usual = connection._protocol  # noqa: SLF001  asyncpg's minor version is pinned
    received = _Received(loop, are_text=are_text)
    errors: list[BaseException] = []
    transport.set_protocol(received)
    try:
        query = statement.encode() + b"\0"
        transport.write(b"Q" + (len(query) + _LENGTH).to_bytes(_LENGTH, "big") + query)
        while True:
            messages, long_row_bytes = received.take()
            for kind, body in messages:
                if kind in {_DATA, _COMPLETE}:
                    yield body if kind == _DATA else SentRows(int(body[:-1].rpartition(b" ")[2]))
                elif kind == _ERROR:
                    errors.append(_error(bytes(body)))
                elif kind == _READY:
                    if errors:
                        raise errors.pop()  # kept in a variable, it would keep this frame and the buffer, and they it
                    return
            if long_row_bytes:
                pieces = received.pieces(long_row_bytes)
                yield LongRowText(pieces)
                deque(pieces, maxlen=0)  # what was left of them
            elif not messages:
                received.wait()
    finally:
        transport.set_protocol(usual)


def _error(body: bytes) -> BaseException:
    fields = [part.decode(errors="replace") for part in body.split(b"\0") if part]
    error: BaseException = asyncpg.PostgresError.new({field[0]: field[1:] for field in fields})
    return error
