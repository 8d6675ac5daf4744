"""Rows of a chunk in which some text does not come through UTF-8: read in the database's encoding, converted here.

They wait, compressed, in an unnamed temporary file until the server has sent them all: what it makes of a code is asked
on the same connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from exporters.postgres.charset.encodings import Codec
from exporters.sql.arrow_to_text import OWN
from exporters.sql.blocks import LongText, OnBlock, OnLong, Stream, in_blocks
from exporters.sql.large_values.long_lines import LineCutter
from exporters.sql.large_values.long_values import Spool, Spooled, Writer

_QUOTE = b'"'


@dataclass(slots=True)
class _Waiting:
    """Blocks, and long rows, in their order."""

    spool: Spool
    blocks: list[tuple[Spooled, bool]] = field(default_factory=list)

    def add(self, block: bytes) -> None:
        self.blocks.append((self.spool.keep([block]), False))

    def long(self) -> LongText:
        return _LongRow(self, Writer(self.spool))


@dataclass(frozen=True, slots=True)
class _LongRow:
    waiting: _Waiting
    writer: Writer

    def write(self, piece: bytes, /) -> None:
        self.writer.write(piece)

    def close(self) -> None:
        self.waiting.blocks.append((self.writer.close(), True))


def convert(stream: Stream, codec: Codec, on_block: OnBlock, on_long: OnLong) -> int:
    """Hand the rows of a stream in the codec's encoding over as rows' texts; return how many it says they are."""
    with Spool() as spool:
        waiting = _Waiting(spool)
        said = in_blocks(stream, waiting.add, waiting.long)
        for one, long in waiting.blocks:
            if long:
                text = on_long()
                for piece in _line(one, codec):
                    text.write(piece)
                text.close()
            else:
                on_block(codec.lines(b"".join(one.pieces())))
    return said


@dataclass(slots=True)
class _Value:
    """A value of a long row, without its quotes."""

    quoted: bool
    writer: Writer

    def write(self, piece: bytes, /) -> None:
        self.writer.write(piece)


def _line(row: Spooled, codec: Codec) -> Iterator[bytes]:
    """Yield the text of a long row."""
    with Spool() as spool:
        cutter = LineCutter(lambda _, quoted: _Value(quoted, Writer(spool)))
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
