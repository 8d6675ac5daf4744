"""Rows of text from one session, read from the wire in blocks.

PyMySQL logs in and speaks for control; its rows cost five microseconds each. Here the packets of a text resultset
(MySQL internals manual, "Text Resultset") are cut from large reads, and only their lengths are looked at. With the
compiled core they stay together, and it cuts them as it types them.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from msgspec import Struct
from pymysql.constants import COMMAND
from pymysql.err import raise_mysql_exception

from exporters import _rows
from exporters.mysql.sessions.driver_connection import FULL
from exporters.sql.large_values.long_values import LONG_BYTES
from exporters.sql.row_blocks import LongRowText

BLOCK_BYTES = 2**20
"""How much is handed over at once, where no row is longer than that."""
BUFFER_BYTES = 2**18
SMALL_BYTES = 64 * 2**10
PAUSE_SECONDS = 0.001
"""After a small read wait for more to arrive: to be woken for every few rows costs more than the rows."""
_HEADER = 4
"""Three of its four bytes are a length; the other counts packets."""
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


class PacketBlock(Struct, frozen=True):
    """Rows as whole packets, as the compiled core takes them."""

    packets: bytes

    def text_bytes(self, rows: int) -> int:
        """Return the bytes of the payloads of so many rows."""
        return len(self.packets) - _HEADER * rows


RowBlock: TypeAlias = list[bytes] | PacketBlock
"""Rows as their payloads, or as packets."""


def payloads_of(block: RowBlock) -> list[bytes]:
    """Return the payloads of the rows of a block."""
    if isinstance(block, list):
        return block
    payloads: list[bytes] = []
    _cut(block.packets, payloads)
    return payloads


def first_payloads(block: RowBlock, count: int) -> list[bytes]:
    """Return the payloads of the first ``count`` rows of a block."""
    if isinstance(block, list):
        return block[:count]
    packets, payloads, begin = block.packets, list[bytes](), 0
    while len(payloads) < count and begin < len(packets):
        end = begin + _HEADER + int.from_bytes(packets[begin : begin + _HEADER - 1], "little")
        payloads.append(packets[begin + _HEADER : end])
        begin = end
    return payloads


def _cut(packets: bytes, payloads: list[bytes]) -> int:
    """Add the payloads of all whole packets up to a long one; return how many bytes the packets are."""
    if len(packets) < _HEADER:
        return 0
    keep, cuts = payloads.append, _CUTS
    length, begin = int.from_bytes(packets[: _HEADER - 1], "little"), _HEADER
    try:
        while length <= LONG_BYTES:
            row, low, high = cuts[length](packets, begin)
            keep(row)
            begin += length + _HEADER
            length = low + (high << 16) if high else low
    except struct.error:  # no room for another header
        if begin + length <= len(packets):
            keep(packets[begin : begin + length])
            begin += length + _HEADER
    return begin - _HEADER


class Wire:
    """Queries of one session. ``raw`` is PyMySQL's connection. Rows are read below its buffered reader, which is empty
    once an answer was read: its ``readinto1`` (CPython) waits for more while it holds the end of the rows.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def query(self, statement: str | bytes) -> Iterator[RowBlock | LongRowText]:
        """Run a query and yield blocks of its rows; long rows in pieces. Raises PyMySQL's errors, and ``EOFError`` at a
        broken line.
        """
        self._raw._execute_command(COMMAND.COM_QUERY, statement)  # noqa: SLF001  the one way to send without reading
        packets = _Packets(self._raw._rfile.raw.readinto)  # noqa: SLF001
        head = packets.next_payload()
        _raise_if_error(head)
        columns = int.from_bytes(head[1:3], "little") if head[0] == _TWO_BYTES else head[0]
        for _ in range(columns + 1):  # their definitions, and an EOF
            packets.next_payload()
        yield from packets.blocks()


class _Packets:
    """``read`` fills a view and returns how many bytes it got."""

    def __init__(self, read: Callable[[memoryview], int | None]) -> None:
        self._read = read
        self._buffer = bytearray(BUFFER_BYTES)
        self._filled = self._position = 0
        self._taken: list[bytes] = []
        """Payloads; with the compiled core, whole packets."""

    def next_payload(self) -> bytes:
        """Return the payload of the next packet, all of it."""
        pieces = []
        while True:
            while (needed := self._needed()) > self._filled - self._position:
                self._fill(needed)
            begin, self._position = self._position + _HEADER, self._position + needed
            pieces.append(bytes(memoryview(self._buffer)[begin : self._position]))
            if needed < _HEADER + FULL:
                return b"".join(pieces)

    def blocks(self) -> Iterator[RowBlock | LongRowText]:
        """Yield rows up to the EOF. Raises PyMySQL's error where the server ends with one."""
        size = 0
        while True:
            size += self._take()
            last = self._end()
            if last is not None:
                if self._taken:
                    yield self._block()
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
                yield self._block()
                size = 0

    def _block(self) -> RowBlock:
        taken, self._taken = self._taken, []
        return taken if _rows.core is None else PacketBlock(b"".join(taken))

    def _take(self) -> int:
        """Take all whole rows up to a long one; return their bytes. Without the core the end is taken, too."""
        with memoryview(self._buffer)[self._position : self._filled] as arrived:
            if _rows.core is None:
                size = _cut(bytes(arrived), self._taken)
            else:
                size = _rows.core.whole_packets(arrived, LONG_BYTES)
                if size:
                    self._taken.append(bytes(arrived[:size]))
        self._position += size
        return size

    def _end(self) -> bytes | None:
        """Return the payload that ends the rows, if it has arrived."""
        if _rows.core is None:
            is_end = self._position == self._filled and self._taken and _is_end(self._taken[-1])
            return self._taken.pop() if is_end else None
        needed = self._needed()
        is_whole = _HEADER < needed <= min(self._filled - self._position, _HEADER + LONG_BYTES)
        return self.next_payload() if is_whole else None

    def _pieces(self) -> Iterator[bytes]:
        """Yield the payload of a row."""
        size = FULL
        while size == FULL:
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
