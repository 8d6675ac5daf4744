"""Rows with long values, a piece at a time: payloads taken apart as they come, and made again."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import pyarrow as pa
from msgspec import Struct, field
from xxhash import xxh3_128

from exporters.mysql.rows.arrow_to_rows import encoded_length, values_by_column
from exporters.mysql.rows.row_columns import NULL, WIDE, parse_columns
from exporters.sql.columns import Column, Kind, Layout, sides_of
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


def read_payload(pieces: Iterator[bytes], layout: Layout, spool: Spool) -> TypedRow:
    """Read the payload of one row. Its long values go to ``spool``."""
    hasher, size_bytes = xxh3_128(), 0
    values: list[_Value] = []
    head, left = b"", 0
    for piece in pieces:
        hasher.update(piece)
        size_bytes += len(piece)
        position = 0
        while position < len(piece):
            if left:
                part = piece[position : position + left]
                values[-1].write(part)
                left -= len(part)
                position += len(part)
                continue
            head += piece[position : position + 1]
            position += 1
            width = _WIDTHS.get(head[0], 0)
            if len(head) > width:  # the value's length is there
                size = int.from_bytes(head[1:], "little") if width else head[0]
                null = head[0] == NULL
                values.append(_Value(layout.columns[len(values)], None if null else size, spool))
                head, left = b"", 0 if null else size
    columns = [pa.array([value.kept], text_type(value.column.kind)) for value in values]
    long = ((value.spooled, value.is_side) for value in values)
    return typed_row(parse_columns(columns, layout), layout, long, hasher.intdigest(), size_bytes)


def text_type(kind: Kind) -> pa.DataType:
    """Return as what the text of a column comes."""
    return pa.string() if kind.plain and not kind.direct else pa.binary()


class _Value(Struct):
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
    """Yield the text of a row, as ``arrow_to_rows`` says."""
    sides = sides_of(row.batch.schema)
    for arrow_field, text in values_by_column(row.batch):
        value = row.long.get(sides.get(arrow_field.name, "")) or row.long.get(arrow_field.name)
        if value is not None:
            yield encoded_length(value.size_bytes)
            yield from value.pieces()
        elif text[0].is_valid:
            yield encoded_length(len(text[0].as_py())) + text[0].as_py()
        else:
            yield bytes([NULL])
