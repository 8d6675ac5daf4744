"""Rows of text from one session, read from the wire in blocks.

PyMySQL logs in and speaks for control; its rows cost five microseconds each. Here the packets of a text resultset
(MySQL internals manual, "Text Resultset") are cut from large reads, and only their lengths are looked at.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from pymysql.constants import COMMAND
from pymysql.err import raise_mysql_exception

from exporters.sql.large_values.long_values import LONG_BYTES
from exporters.sql.row_blocks import LongRowText

BLOCK_BYTES = 2**20
"""So much is handed over at once, where no row is longer than that."""
BUFFER_BYTES = 2**18
SMALL_BYTES = 64 * 2**10
PAUSE_SECONDS = 0.001
"""After a small read wait for more to arrive: to be woken for every few rows costs more than the rows."""
_HEADER = 4
"""Of its four bytes three are a length; the other counts packets."""
_FULL = 0xFFFFFF
"""A packet of this length goes on in the next one."""
_ERROR, _EOF = 0xFF, 0xFE
_EOF_BYTES = 9
"""An EOF packet is shorter than this; a longer one that begins with the same byte is a row."""
_TWO_BYTES = 0xFC
_USUAL_BYTES = 2**12


class _Cuts(dict[int, Callable[[bytes, int], tuple[Any, ...]]]):
    """By a payload's length: what cuts it out together with the length in the header behind it, low and high part. One
    call for both is a third quicker than two.
    """

    def __missing__(self, length: int) -> Callable[[bytes, int], tuple[Any, ...]]:
        cut = struct.Struct(f"<{length}sHBx").unpack_from
        if length < _USUAL_BYTES:
            self[length] = cut
        return cut


_CUTS: Final = _Cuts()


class Wire:
    """Queries of one session. ``raw`` is PyMySQL's connection, whose buffered reader is used."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def query(self, statement: str) -> Iterator[list[bytes] | LongRowText]:
        """Run a query and yield payloads of its rows, many at once; those of long rows in pieces. Raises PyMySQL's
        errors, and ``EOFError`` at a broken line.
        """
        self._raw._execute_command(COMMAND.COM_QUERY, statement)  # noqa: SLF001  the one way to send without reading
        packets = _Packets(self._raw._rfile.readinto1)  # noqa: SLF001
        head = packets.next_payload()
        _raise_if_error(head)
        columns = int.from_bytes(head[1:3], "little") if head[0] == _TWO_BYTES else head[0]
        for _ in range(columns + 1):  # their definitions, and an EOF
            packets.next_payload()
        yield from packets.rows()


def send(raw: Any, pieces: Iterable[bytes]) -> None:
    """Run a statement that is never whole in memory, and read its answer. Raises PyMySQL's errors."""
    raw._next_seq_id = 0  # noqa: SLF001
    packet = bytearray([COMMAND.COM_QUERY])
    for piece in pieces:
        packet += piece
        while len(packet) >= _FULL:
            raw.write_packet(bytes(packet[:_FULL]))
            del packet[:_FULL]
    raw.write_packet(bytes(packet))
    raw._affected_rows = raw._read_query_result()  # noqa: SLF001


class _Packets:
    """``read`` fills a view and returns how many bytes it got."""

    def __init__(self, read: Callable[[memoryview], int | None]) -> None:
        self._read = read
        self._buffer = bytearray(BUFFER_BYTES)
        self._filled = self._position = 0
        self._rows: list[bytes] = []

    def next_payload(self) -> bytes:
        """Return the payload of the next packet, all of it."""
        pieces = []
        while True:
            while (needed := self._needed()) > self._filled - self._position:
                self._fill(needed)
            begin, self._position = self._position + _HEADER, self._position + needed
            pieces.append(bytes(memoryview(self._buffer)[begin : self._position]))
            if needed < _HEADER + _FULL:
                return b"".join(pieces)

    def rows(self) -> Iterator[list[bytes] | LongRowText]:
        """Yield rows up to the EOF. Raises PyMySQL's error where the server ends with one."""
        size = 0
        while True:
            size += self._walk()
            rows = self._rows
            if self._position == self._filled and rows and _is_end(rows[-1]):
                last = rows.pop()
                if rows:
                    yield rows
                _raise_if_error(last)
                return
            needed = self._needed()
            if needed > _HEADER + LONG_BYTES:
                pieces = self._pieces()
                yield LongRowText(pieces)
                for _ in pieces:  # those that the caller has not read
                    pass
            elif size < BLOCK_BYTES and self._fill(needed) < SMALL_BYTES:
                time.sleep(PAUSE_SECONDS)
            if size >= BLOCK_BYTES:
                yield rows
                self._rows, size = [], 0

    def _pieces(self) -> Iterator[bytes]:
        """Yield the payload of a row."""
        size = _FULL
        while size == _FULL:
            while self._filled - self._position < _HEADER:
                self._fill(_HEADER)
            size = left = self._needed() - _HEADER
            self._position += _HEADER
            while left:
                if self._position == self._filled:
                    self._fill(1)
                piece = bytes(memoryview(self._buffer)[self._position : self._filled][:left])
                self._position += len(piece)
                left -= len(piece)
                yield piece

    def _walk(self) -> int:
        """Take all whole packets up to a long one; return how many bytes they are."""
        piece = bytes(memoryview(self._buffer)[self._position : self._filled])
        if len(piece) < _HEADER:
            return 0
        keep, cuts = self._rows.append, _CUTS
        length, begin = int.from_bytes(piece[: _HEADER - 1], "little"), _HEADER
        try:
            while length <= LONG_BYTES:
                row, low, high = cuts[length](piece, begin)
                keep(row)
                begin += length + _HEADER
                length = low + (high << 16) if high else low
        except struct.error:  # no room for another header
            if begin + length <= len(piece):
                keep(piece[begin : begin + length])
                begin += length + _HEADER
        walked = begin - _HEADER
        self._position += walked
        return walked

    def _needed(self) -> int:
        """Return the size of the packet at the position, as far as it is known."""
        if self._filled - self._position < _HEADER:
            return _HEADER
        return _HEADER + int.from_bytes(self._buffer[self._position : self._position + 3], "little")

    def _fill(self, needed: int) -> int:
        """Read more into the buffer, behind what is left of it. Return how much it was."""
        buffer = self._buffer
        if self._position:
            rest = buffer[self._position : self._filled]
            buffer[: len(rest)] = rest
            self._position, self._filled = 0, len(rest)
        if needed > len(buffer):
            buffer.extend(bytes(needed - len(buffer)))
        arrived = self._read(memoryview(buffer)[self._filled :])
        if not arrived:
            raise EOFError("the server closed the connection in the middle of the rows")
        self._filled += arrived
        return arrived


def _is_end(payload: bytes) -> bool:
    """Tell whether what came last is the end."""
    return payload[0] == _ERROR or (payload[0] == _EOF and len(payload) < _EOF_BYTES)


def _raise_if_error(payload: bytes) -> None:
    if payload[0] == _ERROR:
        raise_mysql_exception(payload)
