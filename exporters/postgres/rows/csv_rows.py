"""The CSV of COPY: lines cut out of blocks, rendered from Arrow, and parsed to it.

A row's text is the line that ``COPY (canonical SELECT) TO STDOUT (FORMAT csv)`` prints for it, without the newline that
ends it. ``lines_of`` makes the very lines again that the server printed: for restore (COPY FROM), for the check at
export, and for ``verify --level full``.

``BlockParser`` goes the other way: it types and digests blocks.

- With the compiled core, the core cuts lines into columns. It types the kinds that have a letter, and takes only text
  that the server prints for such a value. Of every other column it returns the text, which ``parse_text`` types.
- Without it, ``parse_block`` has Arrow cut and type all columns at once. Where a value does not fit its type,
  ``parse_block_exactly`` parses every column as text, and compares every value with its text.

Both make the same values of the same block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from msgspec.structs import replace
from pyarrow import csv

from exporters import _rows
from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.codecs import codec_of
from exporters.postgres.rows.text_codec.value_tokens import Quotes
from exporters.row_digest import RowsDigest, digest_of_core, digest_texts
from exporters.sql.columns import (
    KIND,
    PLAIN,
    Kind,
    Layout,
    ParsedBlock,
    Typed,
    array_of,
    columns_in,
    compute_by_key,
    sides_of,
    small_type,
    typed_block,
)
from exporters.sql.value_codec import (
    PROVED_ROWS,
    TEXT,
    joined,
    merged_sides,
    parse_exactly,
    parse_leniently,
    rendered,
    rows_changed,
    split_utf8,
)

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
    """Split at newlines outside of quotes. Inside a value a quote is written twice, so a line is whole exactly when it
    has an even number of quotes.
    """
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
    """Do what ``_split_quoted`` does, slower, but without copies of pieces: a large value may have millions of
    newlines.
    """
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
"""Where the server puts quotes in the only column of a table."""


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


_LETTERS: Mapping[pa.DataType, str] = {
    pa.bool_(): "b",
    pa.int16(): "h",
    pa.int32(): "i",
    pa.int64(): "l",
    pa.uint32(): "o",
    pa.date32(): "D",
    pa.time64("us"): "T",
    pa.timestamp("us"): "S",
    pa.timestamp("us", "UTC"): "Z",
}
"""The core's letters of types that a column is parsed as (``columns.h``)."""
_LETTERS_BY_NAME = {"uuid": "U", "bytes": "X", "float8": "f"}
"""The core's letters of kinds whose values come as text, by the name of their codec."""
_TEXT, _BYTES, _LIST = "t", "r", "L"
_ANY_DIGITS = 255
"""Any number of digits of a second, in place of the scale."""
_ITEM_LETTERS: Mapping[pa.DataType, str] = {**_LETTERS, pa.float64(): "f", pa.string(): _TEXT}
"""The letters of what lists are made of."""


class BlockParser:
    """Types and digests the blocks of one table."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.core_kinds = b"".join(_core_kind(column.kind) for column in layout.columns)
        """The columns as the core takes them."""
        self._direct = [_direct_type(column.kind) for column in layout.columns]
        """What it makes of them at once; None where its buffers are not yet the column."""

    def parse_proved(self, block: bytes | bytearray) -> ParsedBlock:
        """Return the first block of a chunk, parsed such that its first rows render to their text again: see
        ``PROVED_ROWS``. Raises ``SourceError`` where it does not help to compare every value; else see ``parse``.
        """
        # Where all rows are rendered, there is no need to compare their values before.
        parsed = self.parse(block, compare=block.count(b"\n") > PROVED_ROWS)
        if not self._begins(block, parsed.typed):
            parsed = replace(parsed, typed=parse_block_exactly(block, self._layout))
            if not self._begins(block, parsed.typed):
                raise rows_changed()
        return parsed

    def _begins(self, block: bytes | bytearray, typed: Typed) -> bool:
        """Tell whether a block begins with the text of its first rows as they were typed."""
        return block.startswith(block_of(self._layout.batch(typed)[:PROVED_ROWS]))

    def parse(self, block: bytes | bytearray, *, compare: bool = True) -> ParsedBlock:
        """Return a block of whole lines, parsed. ``compare`` and errors: see ``parse_block``."""
        parsed = None if _rows.core is None else _rows.core.parse(block, self.core_kinds)
        if parsed is None:
            typed = parse_block(block, self._layout, compare=compare)
            return ParsedBlock(typed, digest_texts(split_lines(bytes(block), typed.rows)), len(block))
        rows, digest, buffers = parsed
        columns = [
            (array_of(direct, rows, arrow_buffers, nulls), None)
            if direct is not None and not is_raw
            else _typed(column.kind, rows, arrow_buffers, nulls, is_raw=is_raw, compare=compare)
            for column, direct, (is_raw, *arrow_buffers, nulls) in zip(
                self._layout.columns, self._direct, buffers, strict=True
            )
        ]
        typed = typed_block(columns, self._layout, rows)
        return ParsedBlock(typed, digest_of_core(rows, digest), len(block))


def _core_kind(kind: Kind) -> bytes:
    """Return the three bytes that stand for a kind in the core: letter, precision, scale; of lists the letter of their
    items as precision.
    """
    if pa.types.is_decimal(kind.parsed):
        return bytes([ord("d"), kind.parsed.precision, kind.parsed.scale])
    if pa.types.is_list(kind.stored) and not kind.encoding and kind.stored.value_type in _ITEM_LETTERS:
        return bytes([ord(_LIST), ord(_ITEM_LETTERS[kind.stored.value_type]), _ANY_DIGITS])
    letter = _LETTERS.get(kind.parsed) or _LETTERS_BY_NAME.get(kind.name)
    return bytes([ord(letter or (_BYTES if pa.types.is_binary(kind.parsed) else _TEXT)), 0, _ANY_DIGITS])


def _direct_type(kind: Kind) -> pa.DataType | None:
    """Return the type of a column whose values are what the core has made, or None."""
    if kind.name in _LETTERS_BY_NAME:
        return None if kind.name == "uuid" else kind.stored
    return small_type(kind.stored) if kind.parsed == kind.stored and not kind.compared else None


def _typed(
    kind: Kind, rows: int, buffers: list[Any], nulls: int, *, is_raw: bool, compare: bool
) -> tuple[pa.Array, pa.Array | None]:
    """Return the values of a column and, if some are not of its type, their text. ``buffers``: see ``_core.pyi``."""
    array = partial(array_of, rows=rows, buffers=buffers, nulls=nulls)
    if is_raw:
        text = array(pa.binary())
        return parse_text(
            kind, text if kind.encoding or pa.types.is_binary(kind.parsed) else pc.cast(text, pa.string())
        )
    if isinstance(buffers[-1], tuple):
        return _lists(kind.stored, rows, buffers, nulls), None
    if kind.name == "uuid":
        return pa.uuid().wrap_array(array(pa.binary(16))), None
    return type_parsed(kind, array(kind.parsed), compare=compare)


def _lists(stored: pa.DataType, rows: int, buffers: list[Any], nulls: int) -> pa.Array:
    """Return lists whose items the core has made, as a column."""
    validity, offsets, (_, *item_buffers, item_nulls) = buffers
    items = array_of(stored.value_type, memoryview(offsets).cast("i")[rows], item_buffers, item_nulls)
    return array_of(stored, rows, [validity, offsets], nulls, children=[items])


_BOM = b"\xef\xbb\xbf"


def parse_block(block: bytes | bytearray, layout: Layout, *, compare: bool = True) -> Typed:
    """Type one block of whole lines. Without ``compare`` no value is compared with its text, and one that its type
    cannot hold may be lost: only for who renders all rows back and compares these. Raises ``pa.ArrowInvalid`` where the
    block is not the CSV of these columns.
    """
    try:
        parsed = _read(block, [column.kind.parsed for column in layout.columns])
        typed = [
            type_parsed(column.kind, values, compare=compare)
            for column, values in zip(layout.columns, parsed, strict=True)
        ]
    except pa.ArrowInvalid:
        return parse_block_exactly(block, layout)
    return typed_block(typed, layout, len(parsed[0]))


def type_parsed(kind: Kind, values: pa.Array, *, compare: bool) -> tuple[pa.Array, pa.Array | None]:
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


def digest_block(block: bytes | bytearray) -> RowsDigest:
    """Return the digest of whole lines, each ended by a newline."""
    digested = None if _rows.core is None else _rows.core.parse(block, b"")
    if digested is None:
        return digest_texts(split_lines(bytes(block)))
    rows, digest, _ = digested
    return digest_of_core(rows, digest)
