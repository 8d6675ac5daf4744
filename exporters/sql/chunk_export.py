"""One chunk of rows: each block is proved, digested, measured and written into Parquet parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from exporters.errors import SourceError
from exporters.row_digest import RowsDigest, digest_empty_rows, digest_pieces, digest_texts
from exporters.sql.byte_counts import Octets
from exporters.sql.columns import Layout, Typed
from exporters.sql.large_values.long_values import LongRow, Spool, TypedRow
from exporters.sql.parquet_write import PartWriter, WrittenPart
from exporters.sql.row_blocks import LongRowText

PROVED_ROWS = 2000
"""So many of the first rows are rendered back to their texts."""


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How an engine writes rows as texts. ``render``: many rows; ``render_long``: one row, in pieces; ``read_long``
    makes a row of such pieces.
    """

    render: Callable[[pa.RecordBatch], Sequence[bytes]]
    render_long: Callable[[LongRow], Iterator[bytes]]
    read_long: Callable[[Iterator[bytes], Layout, Spool], TypedRow]


@dataclass(frozen=True, slots=True)
class ExportedChunk:
    """What a chunk came to. ``text_bytes`` from the server; ``exact``: the columns that needed a side column;
    ``octets``: the bytes of the columns that are kept as text or bytes.
    """

    rows: int
    text_bytes: int
    digest: int
    parts: tuple[WrittenPart, ...]
    exact: tuple[str, ...]
    octets: Mapping[str, int]


class ChunkExport:
    """Takes the rows of one chunk."""

    def __init__(self, layout: Layout, parts: PartWriter, row_format: RowFormat) -> None:
        self._layout = layout
        self._parts = parts
        self._format = row_format
        self._proved = False
        self._text_bytes = 0
        self._digest = RowsDigest()
        self._octets = Octets(layout)

    def will_prove(self, rows: int) -> bool:
        """Tell whether ``proved`` will render every row of the next block, of so many rows: then there is no need to
        compare its values one column after the other before.
        """
        return not self._proved and rows <= PROVED_ROWS

    def proved(self, table: Typed, texts: Sequence[bytes], parse_exactly: Callable[[], Typed]) -> Typed:
        """Return ``table`` if its first rows render to their texts again, else what the slow way makes of them.

        Done at the beginning of every chunk, against a mistake about a whole column. All other values rest on the
        argument in ``column_types`` for the kinds that are not compared value by value; ``verify --level full``
        renders everything. Raises ``SourceError`` where the slow way does not help.
        """
        if table.rows != len(texts):
            raise SourceError(
                f"{len(texts)} lines were parsed as {table.rows} rows",
                next_step="Please report the table's definition.",
            )
        if not self._proved and not self._renders(table, texts):
            table = parse_exactly()
            if not self._renders(table, texts):
                raise _changed()
        self._proved = True
        return table

    def _renders(self, table: Typed, texts: Sequence[bytes]) -> bool:
        batch = self._layout.batch(table, frozenset(table.sides))[:PROVED_ROWS]
        return list(self._format.render(batch)) == texts[:PROVED_ROWS]

    def add(self, table: Typed, texts: Sequence[bytes], text_bytes: int) -> None:
        """Take a block of rows, and their texts."""
        self._text_bytes += text_bytes
        self._digest += digest_texts(texts)
        self._octets.add(table)
        self._parts.add(table, text_bytes)

    def add_long(self, text: LongRowText) -> None:
        """Take a row with long values. Raises ``SourceError`` unless it renders to its text again."""
        with Spool() as spool:
            row = self._format.read_long(text.pieces, self._layout, spool)
            batch = self._layout.batch(row.typed, frozenset(row.typed.sides))
            digest = digest_pieces(self._format.render_long(LongRow(batch, row.long)))
            if digest.digest != row.digest:
                raise _changed()
            self._text_bytes += row.text_bytes
            self._digest += digest
            self._octets.add(row.typed, row.long)
            self._parts.add_long(row.typed, row.long)

    def check_count(self, sent_rows: int) -> None:
        """Raise ``SourceError`` unless as many rows came as the server says it sent. Rows without columns are only
        counted here.
        """
        if not self._layout.columns:
            self._parts.add_empty_rows(sent_rows)
            self._digest = digest_empty_rows(sent_rows)
        if self._digest.rows != sent_rows:
            raise SourceError(
                f"{self._parts.stem}: the server sent {sent_rows} rows, {self._digest.rows} arrived",
                next_step="Give the same command again; if it stays so, please report it.",
            )

    def result(self) -> ExportedChunk:
        """Return what it came to, once all parts are written."""
        digest, parts = self._digest, self._parts
        octets = self._octets.by_name()
        return ExportedChunk(
            digest.rows, self._text_bytes, digest.digest, parts.parts(), parts.exact(), octets
        )


def _changed() -> SourceError:
    return SourceError(
        "rows do not come out of Parquet as they went in",
        next_step="Please report the table's definition; nothing of it was written.",
    )
