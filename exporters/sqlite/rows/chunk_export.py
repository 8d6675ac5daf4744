"""One chunk of rows: batches from the file in, Parquet parts out; each batch is proved, digested and measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exporters.api import Sink
from exporters.row_digest import RowsDigest
from exporters.sql.chunk_export import ExportedChunk
from exporters.sql.large_values.long_values import LongRow, Spool
from exporters.sql.parquet_write import PartWriter
from exporters.sql.value_codec import rows_changed
from exporters.sqlite.rows.byte_counts import Octets
from exporters.sqlite.rows.long_rows import LongCells, from_parquet, to_parquet
from exporters.sqlite.rows.parquet_parts import Layout
from exporters.sqlite.rows.row_batches import Batch
from exporters.sqlite.rows.typed_columns import from_typed, to_typed
from exporters.sqlite.rows.value_text import digest_columns, digest_few

_PROVED_ROWS = 500
_PROVED_BYTES = 64 * 2**20
"""Proving holds the values several times: huge ones are left to ``verify --level full``."""


def export_rows(
    batches: Iterable[Batch | LongCells], *, layout: Layout, sink: Sink, stem: str
) -> ExportedChunk:
    """Export rows into ``<stem>.parquet`` (and ``<stem>-1.parquet`` …). Raises ``SourceError``."""
    digest, text_bytes, octets = RowsDigest(), 0, Octets(len(layout.fields))
    with PartWriter(layout, sink, stem) as parts:
        for batch in batches:
            octets.add(batch)
            text_bytes += batch.size_bytes
            if isinstance(batch, LongCells):
                digest += _write_long(batch, layout, parts)
                continue
            if not digest.rows and batch.size_bytes <= _PROVED_BYTES:
                _prove(batch, layout.kinds, stem)
            parts.add(layout.typed(batch), batch.size_bytes)
            digest += batch.digest()
        written = parts.finish()
    sizes = octets.by_name([field.name for field in layout.fields])
    return ExportedChunk(digest.rows, text_bytes, digest.digest, written, parts.exact, sizes)


def _prove(batch: Batch, kinds: Sequence[str], stem: str) -> None:
    """Raise ``SourceError`` unless the first rows of a chunk come out of typing as they went in, digested value by
    value, the plainest way there is.
    """
    rows = min(batch.rows, _PROVED_ROWS)
    columns = [column.head(rows) for column in batch.columns]
    before = [column.to_list() for column in columns]
    after = [
        from_typed(*to_typed(column, kind), kind).to_list()
        for column, kind in zip(columns, kinds, strict=True)
    ]
    expected = digest_few(list(zip(*before, strict=True)))
    digested = batch.digest() if rows == batch.rows else digest_columns(columns, rows)
    if {digest_few(list(zip(*after, strict=True))), digested} != {expected}:
        raise rows_changed(stem)


def _write_long(row: LongCells, layout: Layout, writer: PartWriter) -> RowsDigest:
    """Write a row with long values; return its digest. Raises ``SourceError`` unless it comes out of Parquet again."""
    digest = row.digest()
    with Spool() as spool:
        typed, long = to_parquet(row, layout.kinds, layout.names, spool)
        batch = layout.batch(typed)
        if from_parquet(LongRow(batch, long), layout.columns_of(typed)).digest() != digest:
            raise rows_changed(writer.stem)
        writer.add_long(typed, long)
    return digest
