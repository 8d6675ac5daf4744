"""One chunk of rows: packets from a session, Parquet parts out; and digests only, of what lives in a server.

The text of a row is the payload of its packet, as it came: see ``arrow_to_rows``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from exporters.api import Sink
from exporters.errors import SourceError
from exporters.mysql.catalog import MysqlTable
from exporters.mysql.chunk_plan import Range, row_select
from exporters.mysql.rows.arrow_to_rows import texts_of
from exporters.mysql.rows.column_types import TOO_LONG
from exporters.mysql.rows.long_rows import payload_pieces, read_payload, text_type
from exporters.mysql.rows.row_columns import columns_of, parse_columns
from exporters.mysql.rows.row_feed import Feed
from exporters.row_digest import Advance, RowsDigest, digest_texts
from exporters.sql.chunk_export import ChunkExport, ExportedChunk, RowFormat
from exporters.sql.columns import Layout
from exporters.sql.parquet_write import PartWriter
from exporters.sql.row_blocks import LongRowText, digest_long


def export_rows(
    feed: Feed, table: MysqlTable, keys: Range, *, layout: Layout, sink: Sink, stem: str
) -> ExportedChunk:
    """Export the rows of an interval into ``<stem>.parquet`` (and ``<stem>-1.parquet`` …). Raises ``SourceError``."""
    types = [text_type(column.kind) for column in table.columns]
    with PartWriter(layout, sink, stem) as parts:
        chunk = ChunkExport(layout, parts, _PAYLOADS)
        for rows in feed.rows(row_select(table, keys)):
            if isinstance(rows, LongRowText):
                chunk.add_long(rows)
                continue
            columns = columns_of(rows, types)
            _check_lengths(table, columns)
            parsed = parse_columns(columns, layout)
            chunk.add(
                parsed,
                digest_texts(rows),
                sum(map(len, rows)),
                first_texts=rows[: chunk.rows_to_prove],
                parse_exactly=partial(parse_columns, columns, layout, exactly=True),
            )
        return chunk.finish()


def digest_rows(feed: Feed, table: MysqlTable, keys: Range, advance: Advance | None = None) -> RowsDigest:
    """Return rows and digest of an interval. Raises ``SourceError``."""
    digest = RowsDigest()
    for rows in feed.rows(row_select(table, keys)):
        if isinstance(rows, LongRowText):
            size_bytes, part = digest_long(rows)
        else:
            size_bytes, part = sum(map(len, rows)), digest_texts(rows)
        digest += part
        if advance is not None:
            advance(part.rows, size_bytes)
    return digest


def _check_lengths(table: MysqlTable, columns: Sequence[pa.Array]) -> None:
    """Raise ``SourceError`` where a value did not come because the server's packets are too short for it."""
    for column, texts in zip(table.columns, columns, strict=True):
        if column.kind.name == "charset" and pc.any(pc.equal(texts, TOO_LONG.encode()), min_count=0).as_py():
            raise SourceError(
                f"{table.label}: a value of {column.name} is longer than the server's max_allowed_packet in UTF-8",
                next_step="Raise max_allowed_packet on the server, then give the command again.",
            )


_PAYLOADS = RowFormat(texts_of, payload_pieces, read_payload)
