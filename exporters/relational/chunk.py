"""One chunk of rows: COPY text in, Parquet parts out, digested on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporters.base import Sink
from exporters.errors import SourceError
from exporters.relational.blocks import BLOCK_BYTES, Stream
from exporters.relational.digest import split_lines
from exporters.relational.layout import Layout, Typed
from exporters.relational.parse import parse_block, parse_exactly
from exporters.relational.parts import Part, PartWriter
from exporters.relational.render import joined, lines_of
from exporters.tally import Tally, tally_empty_rows, tally_texts

_PROVED_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Copied:
    """What a chunk came to. ``text_bytes`` of CSV from the server; ``exact`` the columns that needed a side column."""

    rows: int
    text_bytes: int
    digest: int
    parts: tuple[Part, ...]
    exact: tuple[str, ...]


def copy_chunk(stream: Stream, layout: Layout, sink: Sink, stem: str) -> Copied:
    """Export what ``stream`` delivers into ``<stem>.parquet`` (and ``<stem>-1.parquet`` … where a block needs a side
    column that the file has not). Raises ``SourceError`` if the server's count of rows is another.
    """
    with PartWriter(layout, sink, stem) as writer:
        blocks = _Blocks(layout, writer)
        said = stream(blocks.add)
        blocks.flush()
        if not layout.columns:
            writer.add_empty_rows(said)
            blocks.tally = tally_empty_rows(said)
        rows = blocks.tally.rows
        if rows != said:
            raise SourceError(
                f"{stem}: the server sent {said} rows, {rows} arrived",
                next_step="Give the same command again; if it stays so, please report it.",
            )
    return Copied(rows, blocks.text_bytes, blocks.tally.digest, writer.parts(), writer.exact())


class _Blocks:
    """Collects pieces until a block is worth parsing."""

    def __init__(self, layout: Layout, writer: PartWriter) -> None:
        self._layout = layout
        self._writer = writer
        self._pieces: list[bytes] = []
        self._size = 0
        self._checked = False
        self.text_bytes = 0
        self.tally = Tally()

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Parse, check and write what was collected."""
        if not self._size:
            return
        block = b"".join(self._pieces)
        self._pieces.clear()
        self.text_bytes += self._size
        self._size = 0
        layout = self._layout
        if not layout.columns:
            return
        typed = parse_block(block, layout)
        lines = split_lines(block, typed.rows)
        if not self._checked:
            typed = _proved(typed, block, lines, layout)
            self._checked = True
        if typed.rows != len(lines):
            raise SourceError(
                f"{len(lines)} lines were parsed as {typed.rows} rows",
                next_step="Please report the table's definition.",
            )
        self.tally += tally_texts(lines)
        self._writer.add(typed, len(block))


def _proved(typed: Typed, block: bytes, lines: Sequence[bytes], layout: Layout) -> Typed:
    """Return ``typed`` if its first rows render to their lines again, else what the slow way makes of the block.

    Done at the beginning of every chunk, against a mistake about a whole column. All other values rest on the
    argument in ``types`` for the kinds that are not compared value by value; ``verify --level full`` renders
    everything.
    """
    if _renders(typed, lines, layout):
        return typed
    exact = parse_exactly(block, layout)
    if not _renders(exact, lines, layout):
        raise SourceError(
            "rows do not come out of Parquet as they went in",
            next_step="Please report the table's definition; nothing of it was written.",
        )
    return exact


def _renders(typed: Typed, lines: Sequence[bytes], layout: Layout) -> bool:
    batch = layout.batch(typed, frozenset(typed.sides))[:_PROVED_ROWS]
    return split_lines(joined(lines_of(batch))) == lines[:_PROVED_ROWS]
