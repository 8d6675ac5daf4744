"""The CSV of COPY: lines cut out of blocks, parsed to typed Arrow, and rendered from Arrow again.

A row's text is the line that ``COPY (canonical SELECT) TO STDOUT (FORMAT csv)`` prints for it, without the newline that
ends it. ``parse_block`` types all columns while it parses; where a block holds a value that its type cannot hold,
``parse_block_exactly`` parses every column as text, and compares every value with its text. ``lines_of`` makes the very
lines again that the server printed: for restore (COPY FROM), for the check at export, and for ``verify --level full``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
from msgspec.structs import replace
from pyarrow import csv

from exporters import _rows
from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.codecs import codec_of
from exporters.postgres.rows.text_codec.value_tokens import Quotes
from exporters.row_digest import RowsDigest, digest_of_core, digest_texts
from exporters.sql.column_groups import compute_by_key
from exporters.sql.columns import KIND, PLAIN, Kind, Layout, Typed, columns_in, sides_of, typed_block
from exporters.sql.value_codec import (
    TEXT,
    joined,
    merged_sides,
    parse_exactly,
    parse_leniently,
    rendered,
    split_utf8,
)

_LARGE_BYTES = 64 * 2**20
_FIELD = re.compile(rb',("[^"]*+(?:""[^"]*+)*+"|[^,]*+)')
"""A field after its comma. Inside quotes a quote is doubled."""


def digest_block(block: bytes | bytearray) -> RowsDigest:
    """Return the digest of whole lines, each ended by a newline."""
    digested = None if _rows.core is None else _rows.core.parse(block, b"")
    if digested is None:
        return digest_texts(split_lines(bytes(block)))
    rows, digest, _ = digested
    return digest_of_core(rows, digest)


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


def first_lines(block: bytes | bytearray, count: int) -> list[bytes]:
    """Return the first ``count`` lines of a block of whole lines. The others are not split."""
    lines = bytes(block).split(b"\n", count)[:-1]
    if any(line.count(b'"') % 2 for line in lines):  # a newline inside quotes
        return _split_quoted(bytes(block))[:count]
    return lines


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
        raise ValueError(f"{line[:100]!r} is no line of CSV")
    return fields


def unquoted(field: bytes) -> bytes | None:
    """Return the value of a field, None for NULL."""
    return field[1:-1].replace(b'""', b'"') if field.startswith(b'"') else field or None


_BOM = b"\xef\xbb\xbf"


def parse_block(block: bytes | bytearray, layout: Layout, *, compare: bool = True) -> Typed:
    """Type one block of whole lines. Without ``compare`` no value is compared with its text, and one that its type
    cannot hold may be lost: only for who renders all rows back and compares these. Raises ``pa.ArrowInvalid`` where the
    block is not the CSV of these columns.
    """
    try:
        parsed = _read(block, [column.kind.parsed for column in layout.columns])
        typed = [
            type_text(column.kind, values, compare=compare)
            for column, values in zip(layout.columns, parsed, strict=True)
        ]
    except pa.ArrowInvalid:
        return parse_block_exactly(block, layout)
    return typed_block(typed, layout, len(parsed[0]))


def type_text(kind: Kind, values: pa.Array, *, compare: bool) -> tuple[pa.Array, pa.Array | None]:
    """Type values of the type ``kind.parsed``; return the text of those that their type cannot hold, too. ``compare``:
    see ``parse_block``. Raises ``pa.ArrowInvalid`` where the text is none of the kind, and it is not compared.
    """
    if kind.compared and compare:
        return parse_exactly(kind.codec, values, kind.stored)
    if kind.compared:
        return parse_leniently(kind.codec, values, kind.stored), None
    return values if kind.parsed == kind.stored else kind.codec.parse(values, kind.stored), None


def parse_block_exactly(block: bytes | bytearray, layout: Layout) -> Typed:
    """Type one block the slow way: compare every value of every column with its text."""
    parsed = _read(block, [_text_type(column.kind) for column in layout.columns])
    typed = [parse_text(column.kind, text) for column, text in zip(layout.columns, parsed, strict=True)]
    return typed_block(typed, layout, len(parsed[0]))


def _text_type(kind: Kind) -> pa.DataType:
    """Return what the text of a kind is parsed as, before it is typed."""
    if kind.encoding:
        return pa.binary()
    return kind.parsed if kind.codec is TEXT else pa.string()


def parse_text(kind: Kind, raw: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Type the text of a column, and compare every value with its text; what is not UTF-8 is for the side column."""
    if not pa.types.is_binary(raw.type) or pa.types.is_binary(kind.parsed):
        return parse_exactly(kind.codec, raw, kind.stored)
    text, bad = split_utf8(raw)
    typed, side = parse_exactly(kind.codec, text, kind.stored)
    return typed, merged_sides(side, bad)


def _read(block: bytes | bytearray, types: Sequence[pa.DataType]) -> list[pa.Array]:
    """Parse a block whole. The server writes NULL as nothing and the empty string as two quotes."""
    names = [str(i) for i in range(len(types))]
    if block.startswith(_BOM):  # Arrow drops one at the beginning of its input; here it would be a value's
        block = _BOM + block
    table = csv.read_csv(
        pa.BufferReader(block),
        read_options=csv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types=dict(zip(names, types, strict=True)),
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=not block.isascii(),
        ),
    )
    return [
        column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in table.columns
    ]


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
