"""CSV lines with long values, a piece at a time: taken apart as they come, and made again."""

from __future__ import annotations

import re
from binascii import hexlify, unhexlify
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

import pyarrow as pa
from msgspec import Struct, field
from xxhash import xxh3_128

from exporters.postgres.rows.csv_rows import columns_of, parse_block
from exporters.sql.columns import KIND, OWN, Kind, Layout, sides_of
from exporters.sql.large_values.long_values import (
    LONG_BYTES,
    SHORT_BYTES,
    LongRow,
    LongValue,
    Spool,
    Spooled,
    TypedRow,
    Writer,
    typed_row,
)

_QUOTE, _COMMA, _HEX = b'"', b",", b"\\x"
_CLOSING = re.compile(rb'(?<!")(?:"")*"(?!")')
"""An odd number of quotes: the last one ends the value, the others are its own, doubled."""
_SPECIAL = re.compile(rb'[",\r\n]')
_BYTES = "bytes"
_KEPT = frozenset({"text", "json", _BYTES})
"""Kinds whose values are stored as they come; a long value of another kind is exact text."""


class Takes(Protocol):
    """Takes a value in pieces."""

    def write(self, piece: bytes, /) -> None:
        """Take more of it."""
        ...


Taker = TypeVar("Taker", bound=Takes)


class LineCutter(Generic[Taker]):
    """Cuts the text of one row, without the newline at its end, into values. ``begin`` makes what takes one, without
    its quotes; of its number, and whether it has quotes.
    """

    def __init__(self, begin: Callable[[int, bool], Taker]) -> None:
        self._make = begin
        self._values: list[Taker] = []
        self._carry = b""
        self._begun = self._inside = False

    def write(self, piece: bytes) -> None:
        """Take more of it."""
        piece, self._carry = self._carry + piece, b""
        position = 0
        while position < len(piece):
            if not self._begun:
                position = self._begin(piece, position)
            elif self._inside:
                position = self._quoted(piece, position)
            else:
                position = self._bare(piece, position)

    def _begin(self, piece: bytes, position: int) -> int:
        self._inside = piece.startswith(_QUOTE, position)
        self._open(quoted=self._inside)
        return position + self._inside

    def _open(self, *, quoted: bool) -> None:
        self._values.append(self._make(len(self._values), quoted))
        self._begun = True

    def _bare(self, piece: bytes, position: int) -> int:
        end = piece.find(_COMMA, position)
        if end >= 0:
            self._begun = False
        self._values[-1].write(piece[position:end] if end >= 0 else piece[position:])
        return end + 1 if end >= 0 else len(piece)

    def _quoted(self, piece: bytes, position: int) -> int:
        match = _CLOSING.search(memoryview(piece)[position:])
        end = position + match.end() - 1 if match else len(piece)
        self._values[-1].write(piece[position:end].replace(b'""', _QUOTE))
        if end == len(piece) - 1:  # the next piece shows whether it is the last one
            self._carry = _QUOTE
        else:
            self._inside = not match
        return end + 1

    def close(self) -> list[Taker]:
        """Return the values."""
        if not self._begun:
            self._open(quoted=False)  # NULL
        return self._values


def read_line(pieces: Iterator[bytes], layout: Layout, spool: Spool) -> TypedRow:
    """Read the text of one row, without the newline at its end. Its long values go to ``spool``. Raises
    ``pa.ArrowInvalid`` where it is not a line of these columns.
    """
    hasher, size_bytes = xxh3_128(), 0
    cutter = LineCutter(lambda number, quoted: _Value(layout.columns[number].kind, spool, quoted=quoted))
    for piece in pieces:
        hasher.update(piece)
        size_bytes += len(piece)
        cutter.write(piece)
    values = cutter.close()
    if len(values) != len(layout.columns):
        raise pa.ArrowInvalid("a line has too few values")
    typed = parse_block(_COMMA.join(value.csv() for value in values) + b"\n", layout)
    long = ((value.spooled, value.is_exact) for value in values)
    return typed_row(typed, layout, long, hasher.intdigest(), size_bytes + 1)


class _Value(Struct):
    """One value as it comes, without its quotes."""

    kind: Kind
    _spool: Spool
    quoted: bool
    own: bool = False
    _start: bytearray = field(default_factory=bytearray)
    _odd: bytes = b""
    _writer: Writer | None = None

    def write(self, piece: bytes) -> None:
        if self._writer is None:
            self._start += piece
            if len(self._start) <= (SHORT_BYTES if self.kind.name in _KEPT else LONG_BYTES):
                return
            self._writer = Writer(self._spool)
            piece, self._start = bytes(self._start), bytearray()
            self.own = bool(self.kind.encoding) and piece.startswith(OWN)
            if self.kind.name == _BYTES:
                piece = piece[len(_HEX) :]
        if self.kind.name == _BYTES:
            digits = self._odd + piece
            even = len(digits) & ~1
            self._odd, piece = digits[even:], unhexlify(digits[:even])
        self._writer.write(piece)

    @property
    def spooled(self) -> Spooled | None:
        """The value, if it is long."""
        return None if self._writer is None else self._writer.close()

    @property
    def is_exact(self) -> bool:
        """Whether it is for the side column, if it is long."""
        return self.own or self.kind.name not in _KEPT

    def csv(self) -> bytes:
        """Return it as it was if it is short, else an empty one; NULL where that is for the side column."""
        if self._writer is None:
            text = bytes(self._start)
            return b'"' + text.replace(_QUOTE, b'""') + b'"' if self.quoted else text
        if self.kind.name == _BYTES:
            return _HEX
        return b"" if self.is_exact else b'""'


def line_pieces(row: LongRow, *, generated: bool = True) -> Iterator[bytes]:
    """Yield the text of a row, without the newline at its end; see ``csv_rows.block_of``."""
    sides = sides_of(row.batch.schema)
    for number, (arrow_field, text) in enumerate(columns_of(row.batch, generated=generated)):
        if number:
            yield _COMMA
        side = row.long.get(sides.get(arrow_field.name, ""))
        value = side or row.long.get(arrow_field.name)
        if value is None:
            yield text[0].as_py() or b""
        elif side is None and arrow_field.metadata[KIND] == _BYTES.encode():
            yield _HEX
            yield from map(hexlify, value.pieces())
        else:
            yield from _in_quotes(value)


def _in_quotes(value: LongValue) -> Iterator[bytes]:
    """Yield a text in quotes, if it needs some."""
    if not any(_SPECIAL.search(piece) for piece in value.pieces()):
        yield from value.pieces()
        return
    yield _QUOTE
    for piece in value.pieces():
        yield piece.replace(_QUOTE, b'""')
    yield _QUOTE
