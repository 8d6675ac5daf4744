"""Rows with long values, a piece at a time: payloads taken apart as they come, and made again."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from xxhash import xxh3_128

from exporters.mysql.rows.arrow_to_rows import encoded_length, values_by_column
from exporters.mysql.rows.row_columns import NULL, WIDE
from exporters.sql.arrow_to_text import sides_of
from exporters.sql.column_layout import Column, Layout
from exporters.sql.csv_to_arrow import parse_columns
from exporters.sql.large_values.long_values import (
    SHORT_BYTES,
    LongRow,
    Spool,
    Spooled,
    TypedRow,
    Writer,
    typed_row,
)

_WIDTHS = dict(WIDE)
_MARK = b"\\x"
_IN_SIDE = "charset"
"""The kind whose bytes stand in the side column after a mark."""


class PayloadReader:
    """Takes the payload of one row. Its long values go to ``spool``."""

    def __init__(self, layout: Layout, spool: Spool) -> None:
        self._layout, self._spool = layout, spool
        self._hash, self._size = xxh3_128(), 0
        self._head = b""
        self._values: list[_Value] = []
        self._left = 0

    def write(self, piece: bytes) -> None:
        """Take more of it."""
        self._hash.update(piece)
        self._size += len(piece)
        at = 0
        while at < len(piece):
            if self._left:
                part = piece[at : at + self._left]
                self._values[-1].write(part)
                self._left -= len(part)
                at += len(part)
            else:
                self._head += piece[at : at + 1]
                at += 1
                self._begin()

    def _begin(self) -> None:
        """Begin a value, once its length is there."""
        first = self._head[0]
        width = _WIDTHS.get(first, 0)
        if len(self._head) <= width:
            return
        size = int.from_bytes(self._head[1:], "little") if width else first
        column = self._layout.columns[len(self._values)]
        null = first == NULL
        self._values.append(_Value(column, None if null else size, self._spool))
        self._left = 0 if null else size
        self._head = b""

    def close(self) -> TypedRow:
        """Return what it was."""
        columns = [pa.array([one.kept], _type_of(one.column)) for one in self._values]
        typed = parse_columns(columns, self._layout)
        values = ((one.spooled, one.is_side) for one in self._values)
        return typed_row(typed, self._layout, values, self._hash.intdigest(), self._size)


def _type_of(column: Column) -> pa.DataType:
    return pa.string() if column.kind.plain and not column.kind.direct else pa.binary()


@dataclass(slots=True)
class _Value:
    """One value as it comes; ``size`` is None for NULL."""

    column: Column
    size: int | None
    spool: Spool
    is_side: bool = False
    _pieces: list[bytes] = field(default_factory=list)
    _writer: Writer | None = None
    _decoder: codecs.IncrementalDecoder | None = None

    def write(self, piece: bytes) -> None:
        if (self.size or 0) <= SHORT_BYTES:
            self._pieces.append(piece)
            return
        if self._writer is None:
            self._writer = Writer(self.spool)
            if self.column.kind.characters:
                self._decoder = codecs.getincrementaldecoder("utf-8")()
                self.is_side = self.column.kind.name == _IN_SIDE and piece.startswith(_MARK)
        self._writer.write(piece)
        if self._decoder is not None and not self.is_side:
            try:
                self._decoder.decode(piece, final=self._writer.size_bytes == self.size)
            except UnicodeDecodeError:
                self.is_side = True

    @property
    def spooled(self) -> Spooled | None:
        """The value, if it is long."""
        return None if self._writer is None else self._writer.close()

    @property
    def kept(self) -> bytes | None:
        """It as it is if it is short, else an empty one; nothing where that is for the side column."""
        return None if self.size is None or self.is_side else b"".join(self._pieces)


def payload_pieces(row: LongRow) -> Iterator[bytes]:
    """Yield the text of a row; see ``render``."""
    sides = sides_of(row.batch.schema)
    for one, text in values_by_column(row.batch):
        value = row.long.get(sides.get(one.name, "")) or row.long.get(one.name)
        if value is not None:
            yield encoded_length(value.size_bytes)
            yield from value.pieces()
        elif text[0].is_valid:
            yield encoded_length(len(text[0].as_py())) + text[0].as_py()
        else:
            yield bytes([NULL])
