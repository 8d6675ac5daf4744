r"""Ranges as ``struct{lower, upper, lower_inc, upper_inc, empty}``, and lists of them (range_out and multirange_out in
src/backend/utils/adt). A bound that is NULL is infinite.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.arrays import elements
from exporters.postgres.rows.text_codec.value_tokens import (
    ITEM,
    SPACE,
    Quotes,
    cut,
    fields_of,
    lists_of,
    structs_of,
)

_QUOTES = Quotes(b'"\\()[],' + SPACE, quote=b'""')
_BETWEEN = re.compile(rb"(?<=[\])]),(?=[\[(])")
_EMPTY, _WITHOUT_BOUNDS = "empty", "(,)"

Element = Callable[[pa.Array], pa.Array]
"""Makes values of the texts of bounds, or texts of the values."""


def stored(element: pa.DataType) -> pa.DataType:
    """Return the type of ranges over a type."""
    flags = [(name, pa.bool_()) for name in ("lower_inc", "upper_inc", "empty")]
    return pa.struct([("lower", element), ("upper", element), *flags])


def parse(text: pa.Array, stored_type: pa.DataType, element: Element) -> pa.Array:
    """Return ranges of ``stored_type``, of the server's text. Raises ``pa.ArrowInvalid``."""
    empty = pc.fill_null(pc.equal(text, _EMPTY), fill_value=False)
    bounds = fields_of(pc.if_else(empty, _WITHOUT_BOUNDS, text) if empty.true_count else text, 2)
    closed = (
        pc.fill_null(touches(text, bracket), fill_value=False)
        for touches, bracket in ((pc.starts_with, "["), (pc.ends_with, "]"))
    )
    lower, upper = map(element, bounds)
    return structs_of(stored_type, [lower, upper, *closed, empty], text)


def text_of(values: pa.Array, element: Element) -> pa.Array:
    """Return the server's text; NULL for NULL."""
    lower, upper, lower_inc, upper_inc, empty = values.flatten()
    low, high = (pc.fill_null(_QUOTES.around(element(bound)), b"") for bound in (lower, upper))
    opens, closes = pc.if_else(lower_inc, b"[", b"("), pc.if_else(upper_inc, b"]", b")")
    text = pc.binary_join_element_wise(opens, low, b",", high, closes, b"")
    return pc.if_else(empty, _EMPTY.encode(), text)


def parse_several(text: pa.Array, stored_type: pa.DataType, element: Element) -> pa.Array:
    """Return lists of ranges."""
    valid = pc.is_valid(text)
    tokens = cut(pc.fill_null(text, "{}"), _separated, opening=b"{", closing=b"}", whole=True)
    texts = tokens.bare()
    lengths = pc.if_else(valid, tokens.lengths, pa.scalar(None, tokens.lengths.type))
    return lists_of(lengths, parse(texts, stored_type.value_type, element))


def _separated(outside: bytes) -> bytes:
    return _BETWEEN.sub(ITEM, outside)


def text_of_several(values: pa.Array, element: Element) -> pa.Array:
    """Return the server's text of multiranges; NULL for NULL."""
    words = text_of(elements(values), element)
    inner = pc.binary_join(lists_of(pc.list_value_length(values), words), b",")
    return pc.binary_join_element_wise(b"{", inner, b"}", b"")
