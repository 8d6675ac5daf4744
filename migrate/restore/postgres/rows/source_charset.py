"""Values that stand in the source's own encoding (``OWN``) into a destination. They go as they are where it has the
same encoding, else in the characters that they are, as far as a server supports any.

The destination's server converts, both ways. The text of rows comes in pieces that may end anywhere.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pyarrow as pa

from exporters.postgres.charset.encodings import Codec
from exporters.postgres.charset.server_conversion import asking, database_encoding
from exporters.postgres.identifiers import quote_literal
from exporters.postgres.part_reader import blocks_of
from exporters.postgres.rows.copy_feed import copy_encoding
from exporters.sql.columns import ENCODING, OWN
from exporters.sql.parquet_read import ParquetPart

_QUOTE = b'"'
_CLOSING = re.compile(rb'(?<!")(?:"")*"(?!")')
_END = re.compile(rb"[,\n]")
_CONTINUES = bytes(range(0x80, 0xC0))


def encoding_of(schema: pa.Schema) -> str:
    """Return the encoding in which values of a part may stand, "" where none do."""
    encodings = [field.metadata[ENCODING] for field in schema if ENCODING in (field.metadata or {})]
    return encodings[0].decode() if encodings else ""


class EncodingSplitter:
    """Tells text in UTF-8 from values in another encoding, in CSV lines that come in pieces."""

    def __init__(self) -> None:
        self._carry = b""
        self._last = b""
        self._own = self._quoted = False

    def take(self, piece: bytes) -> list[tuple[bytes, bool]]:
        """Return what is whole by now, in order: text, or bytes of a value, and whether it is that. Of text that ends
        beyond ASCII the last character waits: it may go on, or belong to the next one.
        """
        piece, self._carry = self._carry + piece, b""
        pieces: list[tuple[bytes, bool]] = []
        at = 0
        while at < len(piece):
            at = self._in_value(piece, at, pieces) if self._own else self._in_text(piece, at, pieces)
        return pieces

    def _in_text(self, piece: bytes, at: int, pieces: list[tuple[bytes, bool]]) -> int:
        mark = piece.find(OWN, at)
        end = mark if mark >= 0 else _last_character(piece, at)
        if end > at:
            pieces.append((piece[at:end], False))
            self._last = piece[end - 1 : end]
        if mark < 0:
            self._carry = piece[end:]
            return len(piece)
        self._own, self._quoted = True, self._last == _QUOTE
        return mark + 1

    def _in_value(self, piece: bytes, at: int, pieces: list[tuple[bytes, bool]]) -> int:
        end = self._end_of_value(piece, at)
        if end is None:
            end = len(piece.rstrip(_QUOTE)) if self._quoted else len(piece)
            end = max(end, at)
            self._carry = piece[end:]
        else:
            self._own = False
        pieces.append((piece[at:end], True))
        return end if not self._own else len(piece)

    def _end_of_value(self, piece: bytes, at: int) -> int | None:
        """Return where its end is, if that is certain: another quote may follow the last one."""
        if not self._quoted:
            bare = _END.search(piece, at)
            return bare.start() if bare else None
        closing = _CLOSING.search(memoryview(piece)[at:])
        return None if closing is None or at + closing.end() == len(piece) else at + closing.end() - 1


def _last_character(text: bytes, at: int) -> int:
    """Return where the last character begins, if it is beyond ASCII, else the end."""
    if text[-1] < 0x80:
        return len(text)
    return max(at, len(text.rstrip(_CONTINUES)) - 1)


class OwnEncoding:
    """Makes what COPY takes of rows in which values stand in ``encoding``. ``connection`` is free meanwhile."""

    def __init__(self, connection: psycopg.Connection[Any], encoding: str) -> None:
        self._connection = connection
        self._encoding = encoding
        self._destination = database_encoding(connection)
        self._codec = Codec(encoding, asking(connection, encoding))
        self._value = b""
        self._replacement = "\ufffd".encode() if self._destination == "UTF8" else b"?"

    @property
    def kept(self) -> bool:
        """Whether the destination holds such values as they are: what is no UTF-8 no server of that takes."""
        return self._destination == ("SQL_ASCII" if self._encoding == "UTF8" else self._encoding)

    @property
    def copied_as(self) -> str:
        """The encoding for COPY."""
        return self._destination if self.kept else copy_encoding(self._destination)

    def is_held(self, text: bytes) -> bool:
        """Tell whether the destination holds a text of that encoding as it is."""
        return self.kept or self._codec.is_faithful(text)

    def in_utf8(self, text: bytes) -> bytes:
        """Return a text of that encoding for a destination of another one."""
        return self._codec.replaced(text, self._replacement)

    def blocks_of(self, file: ParquetPart, *, generated: bool = False) -> Iterator[tuple[bytes, int]]:
        """Yield what COPY takes, and the number of rows in it."""
        if self._encoding == "UTF8":
            yield from (
                blocks_of(file, generated=generated) if self.kept else self._valid(file, generated=generated)
            )
            return
        splitter = EncodingSplitter()
        self._value = b""
        make = self._as_bytes if self.kept else self._as_text
        for block, rows in blocks_of(file, generated=generated):
            yield b"".join(make(splitter.take(block))), rows

    def _valid(self, file: ParquetPart, *, generated: bool) -> Iterator[tuple[bytes, int]]:
        """Yield rows with a replacement for bytes that are no UTF-8."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for block, rows in blocks_of(file, generated=generated):
            yield decoder.decode(block).replace("\ufffd", self._replacement.decode()).encode(), rows

    def _as_bytes(self, pieces: Sequence[tuple[bytes, bool]]) -> list[bytes]:
        """Return text in the destination's encoding, and values as they are."""
        texts = [text for text, own in pieces if not own and not text.isascii()]
        encoded = iter(self._encoded(texts)) if texts else iter(())
        return [text if own or text.isascii() else next(encoded) for text, own in pieces]

    def _encoded(self, texts: Sequence[bytes]) -> list[bytes]:
        query = (
            f"SELECT pg_catalog.convert(t, 'UTF8', {quote_literal(self._encoding)})"
            " FROM pg_catalog.unnest(%s::pg_catalog.bytea[]) WITH ORDINALITY AS u(t, n) ORDER BY n"
        )
        return [bytes(row[0]) for row in self._connection.execute(query.encode(), (list(texts),))]

    def _as_text(self, pieces: Sequence[tuple[bytes, bool]]) -> Iterator[bytes]:
        """Yield everything in UTF-8; a value may go on in the next pieces."""
        for text, own in pieces:
            self._value += text if own else b""
            whole = self._codec.cut(self._value) if own else len(self._value)
            yield self.in_utf8(self._value[:whole])
            self._value = self._value[whole:]
            if not own:
                yield text
