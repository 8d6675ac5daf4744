"""Rows of a chunk in which some text does not come through UTF-8: read in the database's encoding, converted here.

They wait, compressed, in an unnamed temporary file until the server has sent them all: what it makes of a code is asked
on the same connection.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from exporters.postgres.charset.encodings import Codec
from exporters.postgres.rows.long_lines import LineCutter
from exporters.sql.columns import OWN
from exporters.sql.large_values.long_values import Spool, Spooled, Writer
from exporters.sql.row_blocks import LongRowText, RowBlocks, SentRows

_QUOTE = b'"'


def converted(source: RowBlocks, codec: Codec) -> RowBlocks:
    """Yield the rows of a source in the codec's encoding as rows' texts."""
    with Spool() as spool:
        waiting: list[tuple[Spooled, bool]] = []
        sent = SentRows(0)
        for block in source:
            if isinstance(block, SentRows):
                sent = block
            elif isinstance(block, LongRowText):
                waiting.append((spool.keep(block.pieces), True))
            else:
                waiting.append((spool.keep([bytes(block)]), False))
        for text, is_long in waiting:
            if is_long:
                yield LongRowText(_line(text, codec))
            else:
                yield codec.lines(b"".join(text.pieces()))
        yield sent


class _RawValue(Struct):
    """A value of a long row, without its quotes."""

    quoted: bool
    writer: Writer

    def write(self, piece: bytes, /) -> None:
        self.writer.write(piece)


def _line(row: Spooled, codec: Codec) -> Iterator[bytes]:
    """Yield the text of a long row."""
    with Spool() as spool:
        cutter = LineCutter(lambda _, quoted: _RawValue(quoted, Writer(spool)))
        for piece in row.pieces():
            cutter.write(piece)
        for number, value in enumerate(cutter.close()):
            if number:
                yield b","
            yield from _text(value.quoted, value.writer.close(), codec)


def _text(quoted: bool, value: Spooled, codec: Codec) -> Iterator[bytes]:
    faithful = all(codec.is_faithful(piece) for piece in codec.whole(value.pieces()))
    quote = _QUOTE if quoted else b""
    yield quote if faithful else quote + OWN
    for piece in codec.whole(value.pieces()) if faithful else value.pieces():
        text = codec.converted(piece) if faithful else piece
        yield text.replace(_QUOTE, b'""') if quoted else text
    yield quote
