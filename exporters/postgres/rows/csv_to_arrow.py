"""From the server's CSV text to typed Arrow.

The fast way types all columns while it parses. Where a block holds a value that its type cannot hold, the slow way
parses every column as text, and compares every value with its text (``exporters.sql.value_codec``).
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pyarrow import csv

from exporters.sql.column_layout import Layout, Typed
from exporters.sql.column_types import Kind
from exporters.sql.value_codec import (
    TEXT,
    merged_sides,
    parse_exactly,
    parse_leniently,
    split_utf8,
)

_BOM = b"\xef\xbb\xbf"


def parse_block(block: bytes, layout: Layout, *, compare: bool = True) -> Typed:
    """Type one block of whole lines. Without ``compare`` no value is compared with its text, and one that its type
    cannot hold may be lost: only for who renders all rows back and compares these. Raises ``pa.ArrowInvalid`` where the
    block is not the CSV of these columns.
    """
    try:
        parsed = _read(block, [column.kind.parsed for column in layout.columns])
    except pa.ArrowInvalid:
        return parse_block_exactly(block, layout)
    columns: list[pa.Array] = []
    sides: dict[int, pa.Array] = {}
    for i, (column, values) in enumerate(zip(layout.columns, parsed, strict=True)):
        kind = column.kind
        if kind.compared and compare:
            typed, side = parse_exactly(kind.codec, values, kind.stored)
            if side is not None:
                sides[i] = side.cast(layout.sides[i].type)
        elif kind.compared:
            typed = parse_leniently(kind.codec, values, kind.stored)
        else:
            typed = values if kind.parsed == kind.stored else kind.codec.parse(values, kind.stored)
        columns.append(typed)
    return Typed(tuple(columns), sides, len(parsed[0]))


def parse_block_exactly(block: bytes, layout: Layout) -> Typed:
    """Type one block the slow way: compare every value of every column with its text."""
    columns: list[pa.Array] = []
    sides: dict[int, pa.Array] = {}
    parsed = _read(block, [_text_type(column.kind) for column in layout.columns])
    for i, (column, text) in enumerate(zip(layout.columns, parsed, strict=True)):
        typed, side = _parse_text(column.kind, text)
        columns.append(typed)
        if side is not None:
            sides[i] = side.cast(layout.sides[i].type)
    return Typed(tuple(columns), sides, len(parsed[0]))


def _text_type(kind: Kind) -> pa.DataType:
    """Return what the text of a kind is parsed as, before it is typed."""
    if kind.encoding:
        return pa.binary()
    return kind.parsed if kind.codec is TEXT else pa.string()


def _parse_text(kind: Kind, raw: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Type the text of a column; what is not UTF-8 is for the side column."""
    if not pa.types.is_binary(raw.type) or pa.types.is_binary(kind.parsed):
        return parse_exactly(kind.codec, raw, kind.stored)
    text, bad = split_utf8(raw)
    typed, side = parse_exactly(kind.codec, text, kind.stored)
    return typed, merged_sides(side, bad)


def _read(block: bytes, types: Sequence[pa.DataType]) -> list[pa.Array]:
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
