"""COPY with rows that are never whole in memory: the protocol's messages are read as they come.

asyncpg has logged in, and collects a row before it hands it over; so for one COPY the connection is read here
(PostgreSQL documentation, "Message Formats"). The server still makes the whole line.
"""

from __future__ import annotations

import asyncio
from typing import Any

from asyncpg.exceptions import PostgresError

from exporters.sql.blocks import LongText, OnBlock, OnLong
from exporters.sql.large_values.long_values import LONG_BYTES

_DATA, _ERROR, _COMPLETE, _READY = b"dECZ"
_HEAD = 5
"""A message's kind, and its length without the kind."""
_LENGTH = 4
_READ_BYTES = 2**20


class CopyStream(asyncio.BufferedProtocol):
    """Reads what one COPY sends; ``done`` is set once the server is ready for the next query, or the line broke."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_block: OnBlock, on_long: OnLong) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self.rows = 0
        self._on_block, self._on_long = on_block, on_long
        self._buffer = bytearray(_HEAD + LONG_BYTES + _READ_BYTES)
        self._filled = 0
        self._row: LongText | None = None
        self._left = 0
        self._error: BaseException | None = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend room for what arrives."""
        del sizehint
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has arrived."""
        if self.done.done():
            return
        self._filled += nbytes
        try:
            self._take()
        except BaseException as exc:
            self.done.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.BaseProtocol``."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def _take(self) -> None:
        lines: list[bytes] = []
        at = 0
        with memoryview(self._buffer) as view:
            while True:
                if self._row is not None:
                    if at == self._filled:
                        break
                    at += self._go_on(self._row, view[at : self._filled])
                    continue
                if self._filled - at < _HEAD:
                    break
                kind, size = view[at], int.from_bytes(view[at + 1 : at + _HEAD], "big") - _LENGTH
                if kind == _DATA and size > LONG_BYTES:
                    self._hand_over(lines)
                    at += _HEAD
                    self._row, self._left = self._on_long(), size
                    continue
                if self._filled - at < _HEAD + size:
                    break
                body = bytes(view[at + _HEAD : at + _HEAD + size])
                at += _HEAD + size
                if kind == _DATA:
                    lines.append(body)
                else:
                    self._message(kind, body)
        self._hand_over(lines)
        if at:
            rest = self._buffer[at : self._filled]
            self._buffer[: len(rest)] = rest
            self._filled = len(rest)

    def _go_on(self, row: LongText, view: memoryview) -> int:
        """Hand over more of a long row; return how much."""
        piece = view[: self._left]
        self._left -= len(piece)
        if self._left:
            row.write(bytes(piece))
        else:
            row.write(bytes(piece[:-1]))  # without the newline
            row.close()
            self._row = None
        return len(piece)

    def _hand_over(self, lines: list[bytes]) -> None:
        if lines:
            self._on_block(b"".join(lines))
            lines.clear()

    def _message(self, kind: int, body: bytes) -> None:
        if kind == _COMPLETE:
            self.rows = int(body[:-1].rpartition(b" ")[2])
        elif kind == _ERROR:
            fields = [part.decode(errors="replace") for part in body.split(b"\0") if part]
            self._error = PostgresError.new({one[0]: one[1:] for one in fields})
        elif kind == _READY and self._error is not None:
            self.done.set_exception(self._error)
        elif kind == _READY:
            self.done.set_result(None)


async def copy_stream(connection: Any, statement: str, on_block: OnBlock, on_long: OnLong) -> int:
    """Run a COPY to the client on an asyncpg connection; return how many rows the server says they are."""
    transport, usual = connection._transport, connection._protocol  # noqa: SLF001  asyncpg's minor version is pinned
    stream = CopyStream(asyncio.get_running_loop(), on_block, on_long)
    transport.set_protocol(stream)
    try:
        query = statement.encode() + b"\0"
        transport.write(b"Q" + (len(query) + _LENGTH).to_bytes(_LENGTH, "big") + query)
        await stream.done
    finally:
        transport.set_protocol(usual)
    return stream.rows
