"""One chunk of rows: packets from a session, Parquet parts out; and digests only, of what lives in a server.

The text of a row is the payload of its packet, as it came: see ``arrow_to_rows``. Blocks are typed and digested by the
compiled core, and by Arrow where there is no core. The core types the kinds that have a letter, and takes only text
that the server prints for such a value. Of all other columns it hands over the text. So a value is typed as
``parse_columns`` does it, or by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
from msgspec.structs import replace

from exporters import _rows
from exporters import arrow_functions as pc
from exporters.api import Json, Outcome, Sink
from exporters.errors import SourceError
from exporters.mysql.catalog import MysqlTable
from exporters.mysql.chunk_plan import Range, row_select
from exporters.mysql.rows.arrow_to_rows import texts_of
from exporters.mysql.rows.column_types import TOO_LONG
from exporters.mysql.rows.long_rows import payload_pieces, read_payload, text_type
from exporters.mysql.rows.protocol_rows import PacketBlock, RowBlock, first_payloads, payloads_of
from exporters.mysql.rows.row_columns import columns_of, parse_columns, parse_text
from exporters.mysql.rows.row_feed import Feed
from exporters.row_digest import Advance, RowsDigest, digest_of_core, digest_texts
from exporters.sql.chunk_export import ChunkExport
from exporters.sql.columns import Kind, Layout, ParsedBlock, Typed, array_of, small_type, typed_block
from exporters.sql.row_blocks import LongRowText, digest_long
from exporters.sql.value_codec import PROVED_ROWS, rows_changed

if TYPE_CHECKING:
    from typing_extensions import Buffer


def export_rows(
    feed: Feed, table: MysqlTable, keys: Range, *, layout: Layout, sink: Sink, spec: Json
) -> Outcome:
    """Export the rows of an interval into Parquet files; see ``ChunkExport``. Raises ``SourceError``."""
    parser = BlockParser(layout, table.label)
    parse = parser.parse_proved  # of the first block: see PROVED_ROWS
    with ChunkExport(layout, sink, spec) as chunk:
        for block in feed.blocks(row_select(table, keys)):
            if isinstance(block, LongRowText):
                chunk.add_long(block, read_payload, payload_pieces)
            else:
                chunk.add(parse(block))
                parse = parser.parse
        return chunk.finish({})


def digest_rows(feed: Feed, table: MysqlTable, keys: Range, advance: Advance | None = None) -> RowsDigest:
    """Return rows and digest of an interval. Raises ``SourceError``."""
    return digest_query(feed, row_select(table, keys), advance)


def digest_query(feed: Feed, query: str | bytes, advance: Advance | None = None) -> RowsDigest:
    """Return rows and digest of what a query selects. Raises ``SourceError``."""
    digest = RowsDigest()
    for block in feed.blocks(query):
        size_bytes, part = digest_long(block) if isinstance(block, LongRowText) else digest_block(block)
        digest += part
        if advance is not None:
            advance(part.rows, size_bytes)
    return digest


_INTEGER_LETTERS: Mapping[pa.DataType, str] = {
    pa.int8(): "c",
    pa.uint8(): "B",
    pa.int16(): "h",
    pa.uint16(): "H",
    pa.int32(): "i",
    pa.uint32(): "o",
    pa.int64(): "l",
}
_LETTERS = {"date": "D", "mysqldouble": "f"}
_LETTERS_WITH_DIGITS = {"datetime": "S", "utc": "S", "clock": "T"}
_TEXT, _BYTES = "t", "r"
"""The core's letters (``columns.h``)."""


class BlockParser:
    """Types and digests the blocks of one table. ``label``: its name, for people."""

    def __init__(self, layout: Layout, label: str) -> None:
        self._layout = layout
        self._label = label
        self._types = [text_type(column.kind) for column in layout.columns]
        self.core_kinds = b"".join(_core_kind(column.kind) for column in layout.columns)
        """The columns as the core takes them."""

    def parse_proved(self, block: RowBlock) -> ParsedBlock:
        """Return the first block of a chunk, parsed such that its first rows render to their text again: see
        ``PROVED_ROWS``. Raises ``SourceError`` where it does not help to compare every value; else see ``parse``.
        """
        parsed = self.parse(block)
        if not self._begins(block, parsed.typed):
            parsed = replace(parsed, typed=self.parse_exactly(block))
            if not self._begins(block, parsed.typed):
                raise rows_changed()
        return parsed

    def _begins(self, block: RowBlock, typed: Typed) -> bool:
        """Tell whether a block begins with the text of its first rows as they were typed."""
        rows = self._layout.batch(typed)[:PROVED_ROWS]
        return list(texts_of(rows)) == first_payloads(block, rows.num_rows)

    def parse(self, block: RowBlock) -> ParsedBlock:
        """Return the rows of a block. Raises ``SourceError`` where they have other columns, or a value did not come."""
        if isinstance(block, PacketBlock) and _rows.core is not None:
            parsed = _rows.core.parse(block.packets, self.core_kinds, True)
            if parsed is not None:
                rows, digest, buffers = parsed
                columns = [
                    self._typed(number, rows, arrow_buffers, nulls, is_raw=is_raw)
                    for number, (is_raw, *arrow_buffers, nulls) in enumerate(buffers)
                ]
                typed = typed_block(columns, self._layout, rows)
                return ParsedBlock(typed, digest_of_core(rows, digest), block.text_bytes(rows))
        payloads = payloads_of(block)
        return ParsedBlock(
            parse_columns(self._columns(payloads), self._layout),
            digest_texts(payloads),
            sum(map(len, payloads)),
        )

    def parse_exactly(self, block: RowBlock) -> Typed:
        """Type a block the slow way: compare every value of every column with its text."""
        return parse_columns(self._columns(payloads_of(block)), self._layout, exactly=True)

    def _columns(self, payloads: Sequence[bytes]) -> list[pa.Array]:
        columns = columns_of(payloads, self._types)
        for number, texts in enumerate(columns):
            self._check_lengths(number, texts)
        return columns

    def _typed(
        self, number: int, rows: int, buffers: Sequence[Buffer | None], nulls: int, *, is_raw: bool
    ) -> tuple[pa.Array, pa.Array | None]:
        """Return the values of a column and, if some are not of its type, their text."""
        kind = self._layout.columns[number].kind
        letter = chr(self.core_kinds[3 * number])
        if letter not in {_TEXT, _BYTES} and not is_raw:
            return array_of(small_type(kind.stored), rows, buffers, nulls), None
        text_as = self._types[number] if is_raw else pa.binary() if letter == _BYTES else pa.string()
        text = array_of(text_as, rows, buffers, nulls)
        self._check_lengths(number, text)
        return parse_text(kind, text, exactly=False)

    def _check_lengths(self, number: int, texts: pa.Array) -> None:
        """Raise ``SourceError`` where a value did not come because the server's packets are too short for it."""
        column = self._layout.columns[number]
        if column.kind.name != "charset":
            return
        if pc.any(pc.equal(texts.cast(pa.binary()), TOO_LONG.encode()), min_count=0).as_py():
            value = f"{self._label}: a value of {column.name}"
            raise SourceError(
                f"{value} is longer than the server's max_allowed_packet in UTF-8",
                next_step="raise max_allowed_packet on the server, then run the same command again",
            )


def _core_kind(kind: Kind) -> bytes:
    """Return the three bytes that stand for a kind in the core: letter, precision, scale."""
    name, _, digits = kind.name.partition(".")
    if name == "decimal":
        return bytes([ord("d"), kind.stored.precision, kind.stored.scale])
    if name in _LETTERS_WITH_DIGITS:
        return bytes([ord(_LETTERS_WITH_DIGITS[name]), 0, int(digits)])
    letter = _LETTERS.get(name) or (_INTEGER_LETTERS.get(kind.stored) if name in {"int", "year"} else None)
    return bytes([ord(letter or (_BYTES if kind.direct else _TEXT)), 0, 0])


def digest_block(block: RowBlock) -> tuple[int, RowsDigest]:
    """Return the bytes of the rows' payloads, and their digest."""
    if isinstance(block, PacketBlock) and _rows.core is not None:
        digested = _rows.core.parse(block.packets, b"", True)
        if digested is not None:
            rows, digest, _ = digested
            return block.text_bytes(rows), digest_of_core(rows, digest)
    payloads = payloads_of(block)
    return sum(map(len, payloads)), digest_texts(payloads)
