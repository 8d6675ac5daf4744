"""Blocks of CSV lines, typed and digested: by the compiled core, and by Arrow where there is no core.

The core types the kinds that have a letter, and takes only text that the server prints for such a value. Of all other
columns it hands over the text. So a value is typed as ``parse_block_exactly`` does it, or by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from exporters import _rows
from exporters import arrow_functions as pc
from exporters.postgres.rows.csv_rows import parse_block, parse_text, split_lines, type_text
from exporters.row_digest import digest_of_core, digest_texts
from exporters.sql.columns import Kind, Layout, ParsedBlock, array_of, typed_block

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
"""The same of kinds that are parsed as text first."""
_TEXT, _BYTES, _LIST = "t", "r", "L"
_ANY_DIGITS = 255
"""Of a second, in place of the scale."""
_ITEM_LETTERS: Mapping[pa.DataType, str] = {**_LETTERS, pa.float64(): "f", pa.string(): _TEXT}
"""The letters of what lists are made of."""


class BlockParser:
    """Types and digests the blocks of one table."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.core_kinds = b"".join(_core_kind(column.kind) for column in layout.columns)
        """The columns as the core takes them."""

    def parse(self, block: bytes | bytearray, *, compare: bool = True) -> ParsedBlock:
        """Return a block of whole lines, parsed. ``compare`` and errors: see ``parse_block``."""
        parsed = None if _rows.core is None else _rows.core.parse(block, self.core_kinds)
        if parsed is None:
            typed = parse_block(block, self._layout, compare=compare)
            return ParsedBlock(typed, digest_texts(split_lines(bytes(block), typed.rows)), len(block))
        rows, digest, buffers = parsed
        columns = [
            _typed(column.kind, rows, arrow_buffers, nulls, is_raw=is_raw, compare=compare)
            for column, (is_raw, *arrow_buffers, nulls) in zip(self._layout.columns, buffers, strict=True)
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
    if kind.name in _LETTERS_BY_NAME:
        return array(kind.stored), None
    return type_text(kind, array(kind.parsed), compare=compare)


def _lists(stored: pa.DataType, rows: int, buffers: list[Any], nulls: int) -> pa.Array:
    """Return lists whose items the core has made, as a column."""
    validity, offsets, (_, *item_buffers, item_nulls) = buffers
    items = array_of(stored.value_type, memoryview(offsets).cast("i")[rows], item_buffers, item_nulls)
    return array_of(stored, rows, [validity, offsets], nulls, children=[items])
