"""One chunk of rows: CSV lines of COPY in, Parquet parts out; and digests only, of what lives in a server."""

from __future__ import annotations

from contextlib import closing

from exporters.api import Sink
from exporters.postgres.rows.block_parser import BlockParser, digest_block
from exporters.postgres.rows.long_lines import line_pieces, read_line
from exporters.row_digest import Advance, RowsDigest, digest_empty_rows
from exporters.sql.chunk_export import ChunkExport, ExportedChunk
from exporters.sql.columns import Layout, ParsedBlock
from exporters.sql.row_blocks import LongRowText, RowBlocks, SentRows, digest_long


def export_rows(source: RowBlocks, layout: Layout, sink: Sink, stem: str) -> ExportedChunk:
    """Export rows into Parquet files; see ``ChunkExport``. Raises ``SourceError`` if the server's count of rows is
    another.
    """
    sent_rows, parser = 0, BlockParser(layout)
    parse = parser.parse_proved  # of the first block: see PROVED_ROWS
    with closing(source), ChunkExport(layout, sink, stem) as chunk:
        for block in source:
            if isinstance(block, SentRows):
                sent_rows = block.count
            elif isinstance(block, LongRowText):
                chunk.add_long(block, read_line, line_pieces)
            elif layout.columns:
                chunk.add(parse(block))
                parse = parser.parse
        return chunk.finish(sent_rows)


def export_small(chunk: ParsedBlock, layout: Layout, sink: Sink, stem: str) -> ExportedChunk:
    """Do the same for the rows of a small chunk (``small_chunks``)."""
    with ChunkExport(layout, sink, stem) as export:
        if chunk.typed.rows:
            export.add(chunk)
        return export.finish()


def digest_rows(source: RowBlocks, advance: Advance | None, *, has_columns: bool) -> RowsDigest:
    """Return rows and digest. Rows without columns are those that the server counts."""
    digest = RowsDigest()
    sent_rows = 0
    with closing(source):
        for block in source:
            if isinstance(block, SentRows):
                sent_rows = block.count
                continue
            if isinstance(block, LongRowText):
                size_bytes, part = digest_long(block)
            else:
                size_bytes, part = len(block), digest_block(block)
            digest += part
            if advance is not None:
                advance(part.rows, size_bytes)
    return digest if has_columns else digest_empty_rows(sent_rows)
