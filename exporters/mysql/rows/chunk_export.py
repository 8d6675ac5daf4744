"""One chunk of rows: packets from a session, Parquet parts out; and digests only, of what lives in a server.

The text of a row is the payload of its packet, as it came: see ``arrow_to_rows``.
"""

from __future__ import annotations

from exporters.api import Sink
from exporters.mysql.catalog import MysqlTable
from exporters.mysql.chunk_plan import Range, row_select
from exporters.mysql.rows.block_parser import BlockParser, digest_block
from exporters.mysql.rows.long_rows import payload_pieces, read_payload
from exporters.mysql.rows.row_feed import Feed
from exporters.row_digest import Advance, RowsDigest
from exporters.sql.chunk_export import ChunkExport, ExportedChunk
from exporters.sql.columns import Layout
from exporters.sql.row_blocks import LongRowText, digest_long


def export_rows(
    feed: Feed, table: MysqlTable, keys: Range, *, layout: Layout, sink: Sink, stem: str
) -> ExportedChunk:
    """Export the rows of an interval into Parquet files; see ``ChunkExport``. Raises ``SourceError``."""
    parser = BlockParser(layout, table.label)
    parse = parser.parse_proved  # of the first block: see PROVED_ROWS
    with ChunkExport(layout, sink, stem) as chunk:
        for block in feed.blocks(row_select(table, keys)):
            if isinstance(block, LongRowText):
                chunk.add_long(block, read_payload, payload_pieces)
            else:
                chunk.add(parse(block))
                parse = parser.parse
        return chunk.finish()


def digest_rows(feed: Feed, table: MysqlTable, keys: Range, advance: Advance | None = None) -> RowsDigest:
    """Return rows and digest of an interval. Raises ``SourceError``."""
    return digest_query(feed, row_select(table, keys), advance)


def digest_query(feed: Feed, query: str, advance: Advance | None = None) -> RowsDigest:
    """Return rows and digest of what a query selects. Raises ``SourceError``."""
    digest = RowsDigest()
    for block in feed.blocks(query):
        size_bytes, part = digest_long(block) if isinstance(block, LongRowText) else digest_block(block)
        digest += part
        if advance is not None:
            advance(part.rows, size_bytes)
    return digest
