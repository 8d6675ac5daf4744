"""The CSV of COPY: lines cut out of blocks, and rendered from Arrow.

A row's text is the line that ``COPY (canonical SELECT) TO STDOUT (FORMAT csv)`` prints for it, without the newline that
ends it. ``lines_of`` makes the very lines again that the server printed: for restore (COPY FROM), for the check at
export, and for ``verify --level full``. ``block_parser`` goes the other way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
from msgspec.structs import replace

from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.codecs import codec_of
from exporters.postgres.rows.text_codec.value_tokens import Quotes
from exporters.sql.column_groups import compute_by_key
from exporters.sql.columns import KIND, PLAIN, columns_in, sides_of
from exporters.sql.value_codec import joined, rendered

_LARGE_BYTES = 64 * 2**20
_FIELD = re.compile(rb',("[^"]*+(?:""[^"]*+)*+"|[^,]*+)')
"""A field after its comma. Inside quotes a quote is doubled."""


def split_lines(block: bytes, rows: int | None = None) -> list[bytes]:
    """Split whole lines at the newlines that are not inside quotes. ``rows``, where it is known, saves the look."""
    quoted = False
    if rows is None and b'"' in block:
        # Every second piece between quotes is inside. A large block may have too many pieces to look.
        quoted = len(block) > _LARGE_BYTES or b"\n" in b"".join(block.split(b'"')[1::2])
    if quoted:
        return _split_quoted(block)
    lines = block.split(b"\n")
    lines.pop()
    return lines if rows is None or len(lines) == rows else _split_quoted(block)


def _split_quoted(block: bytes) -> list[bytes]:
    """Inside a value a quote is written twice, so a line is whole exactly when it has an even number of quotes."""
    if len(block) > _LARGE_BYTES:
        return _split_sparingly(block)
    lines: list[bytes] = []
    pending: list[bytes] = []
    for piece in block.split(b"\n"):
        odd = piece.count(b'"') % 2 == 1
        if not pending and not odd:
            lines.append(piece)
            continue
        pending.append(piece)
        if odd and len(pending) > 1:
            lines.append(b"\n".join(pending))
            pending = []
    lines.pop()
    return lines


def _split_sparingly(block: bytes) -> list[bytes]:
    """The same, slower: nothing is copied but the lines. A large value may have millions of newlines."""
    lines: list[bytes] = []
    begin = position = odd = 0
    while (end := block.find(b"\n", position)) >= 0:
        odd ^= block.count(b'"', position, end) & 1
        position = end + 1
        if not odd:
            lines.append(block[begin:end])
            begin = position
    return lines


def csv_values(line: bytes) -> list[bytes | None]:
    """Return the values of one CSV line: nothing is NULL, two quotes are the empty text."""
    return [unquoted(field) for field in csv_fields(line)]


def csv_fields(line: bytes) -> list[bytes]:
    """Return the fields of one CSV line as they stand in it, quotes included. Raises ``ValueError`` if it is no CSV."""
    fields = _FIELD.findall(b"," + line)
    if sum(map(len, fields)) + len(fields) != len(line) + 1:
        raise ValueError(f"{line[:100]!r} is not a line of CSV")
    return fields


def unquoted(field: bytes) -> bytes | None:
    """Return the value of a field, None for NULL."""
    return field[1:-1].replace(b'""', b'"') if field.startswith(b'"') else field or None


QUOTES = Quotes(b'",\n\r', quote=b'""', backslash=b"\\")
"""Where the server puts quotes (CopyAttributeOutCSV in src/backend/commands/copyto.c)."""
QUOTES_ALONE = replace(QUOTES, word=b"\\.")
"""The same for the only column of a table."""


def block_of(batch: pa.RecordBatch, *, generated: bool = True) -> bytes:
    """Return the CSV lines of rows, each ended by a newline. Without ``generated``, the columns that a server computes
    by itself are left out, as COPY FROM wants it.
    """
    texts = [text for _, text in columns_of(batch, generated=generated)]
    if not texts:
        return b"\n" * int(batch.num_rows)
    return _block(texts)


def blocks_together(batches: Sequence[pa.RecordBatch]) -> list[bytes]:
    """Return what ``block_of`` does, for several small batches that have columns, and no side columns."""
    keys = [
        (field.metadata[KIND].decode(), PLAIN in field.metadata, batch.num_columns == 1)
        for batch in batches
        for field in batch.schema
    ]
    values = [column for batch in batches for column in batch.columns]
    texts = iter(compute_by_key(list(zip(keys, values, strict=True)), _text_together))
    return [_block([next(texts)[0] for _ in batch.columns]) for batch in batches]


def _text_together(key: tuple[str, bool, bool], values: pa.Array) -> list[pa.Array]:
    """Return the values as they stand in CSV lines. ``key``: their kind, whether it is plain, and whether each is the
    only column of its table.
    """
    name, plain, alone = key
    text = rendered(codec_of(name), values)
    return [text if plain else (QUOTES_ALONE if alone else QUOTES).around(text)]


def _block(texts: Sequence[pa.Array]) -> bytes:
    """Return the lines of columns whose values are as they stand there."""
    line = pc.binary_join_element_wise(*texts, b",", null_handling="replace", null_replacement=b"")
    return joined(pc.binary_join_element_wise(line, b"", b"\n"))


def lines_of(batch: pa.RecordBatch) -> list[bytes]:
    """Return the CSV lines of rows, without their newlines."""
    return split_lines(block_of(batch), batch.num_rows)


def columns_of(batch: pa.RecordBatch, *, generated: bool) -> list[tuple[pa.Field, pa.Array]]:
    """Return the fields of the table's own columns, and their values as they stand in CSV lines."""
    sides = sides_of(batch.schema)
    fields = columns_in(batch.schema, generated=generated)
    quotes = QUOTES_ALONE if len(fields) == 1 else QUOTES
    texts = []
    for name, field in fields.items():
        side = batch.column(sides[name]) if name in sides else None
        text = rendered(codec_of(field.metadata[KIND].decode()), batch.column(name), side)
        if side is not None or PLAIN not in field.metadata:
            text = quotes.around(text)
        texts.append((field, text))
    return texts
