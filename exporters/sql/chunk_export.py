"""One chunk of rows: COPY text in, Parquet parts out, digested on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from exporters.api import Sink
from exporters.errors import SourceError
from exporters.row_digest import Tally, tally_empty_rows, tally_pieces, tally_texts
from exporters.sql.arrow_to_text import lines_of
from exporters.sql.blocks import ColumnStream, LongText, Stream, in_blocks
from exporters.sql.byte_counts import Octets
from exporters.sql.column_layout import Layout, Typed
from exporters.sql.csv_to_arrow import parse_block, parse_columns, parse_exactly
from exporters.sql.large_values.long_lines import LineReader, line_pieces
from exporters.sql.large_values.long_values import LongRow, Spool, TypedRow
from exporters.sql.parquet_write import Part, PartWriter
from exporters.sql.row_text import split_lines
from exporters.sql.text_codec.value_tokens import joined

Render = Callable[[pa.RecordBatch], Sequence[bytes]]
"""Makes the texts of rows again."""


class LongReader(Protocol):
    """Takes the text of one row in pieces."""

    def write(self, piece: bytes, /) -> None:
        """Take more of it."""
        ...

    def close(self) -> TypedRow:
        """Return what it was."""
        ...


@dataclass(frozen=True, slots=True)
class Rendering:
    """How an engine writes rows as texts: many; one in pieces; and how such pieces become a row."""

    texts: Render
    pieces: Callable[[LongRow], Iterator[bytes]]
    reader: Callable[[Layout, Spool], LongReader]


_PROVED_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Copied:
    """What a chunk came to. ``text_bytes`` of CSV from the server; ``exact`` the columns that needed a side column;
    ``octets`` the bytes of the columns that are kept as text or bytes.
    """

    rows: int
    text_bytes: int
    digest: int
    parts: tuple[Part, ...]
    exact: tuple[str, ...]
    octets: Mapping[str, int]


def copy_chunk(stream: Stream, layout: Layout, sink: Sink, stem: str) -> Copied:
    """Export what ``stream`` delivers into ``<stem>.parquet`` (and ``<stem>-1.parquet`` … where a block needs a side
    column that the file has not). Raises ``SourceError`` if the server's count of rows is another.
    """
    with PartWriter(layout, sink, stem) as writer:
        rows = _Rows(layout, writer, Rendering(_lines, line_pieces, LineReader))
        rows.check(in_blocks(stream, rows.add_block, rows.long))
    return rows.copied()


class _Long:
    """Takes the text of one row in pieces; see ``blocks.LongText``."""

    def __init__(self, rows: _Rows, reader: Callable[[Layout, Spool], LongReader]) -> None:
        self._rows = rows
        self._spool = Spool()
        self._reader = reader(rows.layout, self._spool)

    def write(self, piece: bytes) -> None:
        self._reader.write(piece)

    def close(self) -> None:
        with self._spool:
            self._rows.add_long(self._reader.close())


def copy_columns(stream: ColumnStream, layout: Layout, sink: Sink, stem: str, how: Rendering) -> Copied:
    """The same for rows that come by columns."""
    with PartWriter(layout, sink, stem) as writer:
        rows = _Rows(layout, writer, how)

        def take(columns: Sequence[pa.Array], texts: Sequence[bytes]) -> None:
            typed = parse_columns(columns, layout)
            size = sum(map(len, texts))
            rows.add(typed, texts, size, lambda: parse_columns(columns, layout, exactly=True))

        rows.check(stream(take, rows.long))
    return rows.copied()


def _lines(batch: pa.RecordBatch) -> Sequence[bytes]:
    return split_lines(joined(lines_of(batch)))


class _Rows:
    """Proves, tallies and writes typed rows whose texts are known."""

    def __init__(self, layout: Layout, writer: PartWriter, how: Rendering) -> None:
        self.layout = layout
        self._how = how
        self._writer = writer
        self._checked = False
        self._text_bytes = 0
        self._tally = Tally()
        self._octets = Octets(layout)

    def add_block(self, block: bytes) -> None:
        """Take whole lines; rows without columns are only counted, by ``check``."""
        if self.layout.columns:
            typed = parse_block(block, self.layout, compare=not self._is_proved_whole(block.count(b"\n")))
            lines = split_lines(block, typed.rows)
            self.add(typed, lines, len(block), lambda: parse_exactly(block, self.layout))

    def add(self, typed: Typed, texts: Sequence[bytes], text_bytes: int, slow: Callable[[], Typed]) -> None:
        """Take rows; ``slow`` types them again with more care."""
        if typed.rows != len(texts):
            raise SourceError(
                f"{len(texts)} lines were parsed as {typed.rows} rows",
                next_step="Please report the table's definition.",
            )
        if not self._checked:
            typed = self._proved(typed, slow, texts)
            self._checked = True
        self._text_bytes += text_bytes
        self._tally += tally_texts(texts)
        self._octets.add(typed)
        self._writer.add(typed, text_bytes)

    def long(self) -> LongText:
        """Begin a row with long values."""
        return _Long(self, self._how.reader)

    def add_long(self, row: TypedRow) -> None:
        """Take a row with long values. Raises ``SourceError`` unless it renders to its text again."""
        batch = self.layout.batch(row.typed, frozenset(row.typed.sides))
        tally = tally_pieces(self._how.pieces(LongRow(batch, row.long)))
        if tally.digest != row.digest:
            raise _changed()
        self._text_bytes += row.text_bytes
        self._tally += tally
        self._octets.add(row.typed, row.long)
        self._writer.add_long(row.typed, row.long)

    def _proved(self, typed: Typed, slow: Callable[[], Typed], texts: Sequence[bytes]) -> Typed:
        """Return ``typed`` if its first rows render to their texts again, else what the slow way makes of them.

        Done at the beginning of every chunk, against a mistake about a whole column. All other values rest on the
        argument in ``types`` for the kinds that are not compared value by value; ``verify --level full`` renders
        everything.
        """
        if self._renders(typed, texts):
            return typed
        exact = slow()
        if not self._renders(exact, texts):
            raise _changed()
        return exact

    def _is_proved_whole(self, rows: int) -> bool:
        """Tell whether a block of so many rows is the first one, and all of it will be rendered back: then there is no
        need to compare its values one column after the other before.
        """
        return not self._checked and rows <= _PROVED_ROWS

    def _renders(self, typed: Typed, texts: Sequence[bytes]) -> bool:
        batch = self.layout.batch(typed, frozenset(typed.sides))[:_PROVED_ROWS]
        return list(self._how.texts(batch)) == texts[:_PROVED_ROWS]

    def check(self, said: int) -> None:
        """Raise ``SourceError`` unless as many rows came as the server says it sent."""
        if not self.layout.columns:
            self._writer.add_empty_rows(said)
            self._tally = tally_empty_rows(said)
        if self._tally.rows != said:
            raise SourceError(
                f"{self._writer.stem}: the server sent {said} rows, {self._tally.rows} arrived",
                next_step="Give the same command again; if it stays so, please report it.",
            )

    def copied(self) -> Copied:
        """Return what it came to, once all is written."""
        tally, writer = self._tally, self._writer
        octets = self._octets.by_name()
        return Copied(tally.rows, self._text_bytes, tally.digest, writer.parts(), writer.exact(), octets)


def _changed() -> SourceError:
    return SourceError(
        "rows do not come out of Parquet as they went in",
        next_step="Please report the table's definition; nothing of it was written.",
    )
