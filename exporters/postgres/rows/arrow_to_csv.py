"""From Arrow back to CSV: the very lines that the server printed.

Used by restore (the lines are the input of COPY FROM), by the check at export, and by ``verify --level full``. What a
column is stands in the metadata of its field, so a Parquet file can be rendered without anything else.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from exporters.postgres.rows.text_codec.codecs import codec_of
from exporters.postgres.rows.text_codec.value_tokens import Quotes
from exporters.sql.column_metadata import KIND, PLAIN, columns_in, has, sides_of
from exporters.sql.value_codec import exact_text

_QUOTES = Quotes(b'",\n\r', quote=b'""', backslash=b"\\")
_QUOTES_ALONE = replace(_QUOTES, word=b"\\.")
"""Where the server puts quotes (CopyAttributeOutCSV in src/backend/commands/copyto.c), and if it is the only column."""


def lines_of(batch: pa.RecordBatch, *, generated: bool = True) -> pa.Array:
    """Return one binary value a row: its CSV line with the newline. Without ``generated``, the columns that a server
    computes by itself are left out, as COPY FROM wants it.
    """
    texts = [text for _, text in columns_of(batch, generated=generated)]
    if not texts:
        return pa.array([b"\n"], pa.binary()).take(pa.nulls(batch.num_rows, pa.int8()).fill_null(0))
    line = pc.binary_join_element_wise(*texts, b",", null_handling="replace", null_replacement=b"")
    return pc.binary_join_element_wise(line, b"", b"\n")


def columns_of(batch: pa.RecordBatch, *, generated: bool) -> list[tuple[pa.Field, pa.Array]]:
    """Return the fields of the table's own columns, and their values as they stand in CSV lines."""
    sides = sides_of(batch.schema)
    fields = columns_in(batch.schema, generated=generated)
    quotes = _QUOTES_ALONE if len(fields) == 1 else _QUOTES
    texts = []
    for field in fields:
        side = sides.get(field.name)
        codec = codec_of(field.metadata[KIND].decode())
        text = exact_text(codec, batch.column(field.name), None if side is None else batch.column(side))
        if side is not None or not has(field, PLAIN):
            text = quotes.around(text)
        texts.append((field, text))
    return texts
