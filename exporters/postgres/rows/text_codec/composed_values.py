"""Arrays, composites, hstore and ranges as Arrow's lists, structs and maps.

- An array becomes a list where it has one dimension that begins with 1; any other is its text (array_out in
  src/backend/utils/adt/arrayfuncs.c).
- A composite becomes a struct (record_out in src/backend/utils/adt/rowtypes.c).
- hstore becomes a map (hstore_out in contrib/hstore/hstore_io.c): keys and values have quotes, NULL has none.
- A range becomes ``struct{lower, upper, lower_inc, upper_inc, empty}``, a multirange a list of them (range_out and
  multirange_out in src/backend/utils/adt). A bound that is NULL is infinite.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.value_tokens import (
    ITEM,
    SPACE,
    Quotes,
    cut,
    fields_of,
    lists_of,
    offsets_of,
    structs_of,
)

Element = Callable[[pa.Array], pa.Array]
"""Makes values of the texts of elements, fields or bounds, or texts of the values."""

_NULL = b"NULL"
_LIST_QUOTES = Quotes(b'"\\{},' + SPACE, quote=b'\\"', word=_NULL)


def parse_list(text: pa.Array, element: Element) -> pa.Array:
    """Return lists of what ``element`` makes of the words; NULL where the text is not one list."""
    is_simple = pc.and_(pc.starts_with(text, "{"), pc.ends_with(text, "}"))
    is_simple = pc.fill_null(pc.and_not(is_simple, pc.starts_with(text, "{{")), fill_value=False)
    words = cut(pc.if_else(is_simple, text, "{}"), _list_separated, opening=b"{", closing=b"}")
    lengths = pc.if_else(is_simple, words.lengths, pa.scalar(None, words.lengths.type))
    return lists_of(lengths, element(words.bare(_NULL)))


def _list_separated(outside: bytes) -> bytes:
    return outside.replace(b",", ITEM)


def list_text(values: pa.Array, element: Element) -> pa.Array:
    """Return the server's text; NULL for NULL."""
    words = pc.fill_null(_LIST_QUOTES.around(element(list_elements(values))), _NULL)
    inner = pc.binary_join(lists_of(pc.list_value_length(values), words), b",")
    return pc.binary_join_element_wise(b"{", inner, b"}", b"")


def list_elements(values: pa.Array) -> pa.Array:
    """Return what stands in the lists, one after the other. Arrow cannot do it where all are NULL, and the elements are
    made of extension types.
    """
    return (
        pa.nulls(0, values.type.value_type) if values.null_count == len(values) else pc.list_flatten(values)
    )


_COMPOSITE_QUOTES = Quotes(b'"\\(),' + SPACE, quote=b'""')


def parse_composite(text: pa.Array, stored_type: pa.DataType, elements: Sequence[Element]) -> pa.Array:
    """Return structs of ``stored_type``, of the server's text. Raises ``pa.ArrowInvalid``."""
    fields = fields_of(text, len(elements))
    values = [element(field) for element, field in zip(elements, fields, strict=True)]
    return structs_of(stored_type, values, text)


def composite_text(values: pa.Array, elements: Sequence[Element]) -> pa.Array:
    """Return the server's text; NULL for NULL."""
    words = [
        _COMPOSITE_QUOTES.around(element(field))
        for element, field in zip(elements, values.flatten(), strict=True)
    ]
    inner = pc.binary_join_element_wise(*words, b",", null_handling="replace", null_replacement=b"")
    text = pc.binary_join_element_wise(b"(", inner, b")", b"")
    return pc.if_else(pc.is_valid(values), text, pa.scalar(None, text.type))


MAP = pa.map_(pa.string(), pa.string())

_MAP_QUOTES = Quotes(b"", quote=b'\\"')
_PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))


def parse_map(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    """Return the maps, in the order of the text."""
    valid = pc.is_valid(text)
    words = cut(pc.fill_null(text, ""), _map_separated)
    pairs = pa.FixedSizeListArray.from_arrays(words.bare(_NULL), 2)
    keys, values = pc.list_element(pairs, 0), pc.list_element(pairs, 1)
    lengths = pc.divide(words.lengths, pa.scalar(2, words.lengths.type))
    lengths = pc.if_else(valid, lengths, pa.scalar(None, lengths.type))
    return pa.MapArray.from_arrays(offsets_of(lengths), keys, values, MAP, mask=pc.invert(valid))


def _map_separated(outside: bytes) -> bytes:
    return outside.replace(b"=>", ITEM).replace(b", ", ITEM)


def map_text(values: pa.Array) -> pa.Array:
    """Return the server's text; NULL for NULL."""
    pairs = pc.cast(values, _PAIRS)
    keys, items = pc.list_flatten(pairs).flatten()
    key = _MAP_QUOTES.around_all(pc.cast(keys, pa.binary()))
    item = pc.fill_null(_MAP_QUOTES.around_all(pc.cast(items, pa.binary())), _NULL)
    entries = pc.binary_join_element_wise(key, item, b"=>")
    return pc.binary_join(lists_of(pc.list_value_length(pairs), entries), b", ")


_RANGE_QUOTES = Quotes(b'"\\()[],' + SPACE, quote=b'""')
_BETWEEN = re.compile(rb"(?<=[\])]),(?=[\[(])")
_EMPTY_RANGE, _WITHOUT_BOUNDS = "empty", "(,)"


def range_type(element: pa.DataType) -> pa.DataType:
    """Return the type of ranges over a type."""
    flags = [(name, pa.bool_()) for name in ("lower_inc", "upper_inc", "empty")]
    return pa.struct([("lower", element), ("upper", element), *flags])


def parse_range(text: pa.Array, stored_type: pa.DataType, element: Element) -> pa.Array:
    """Return ranges of ``stored_type``, of the server's text. Raises ``pa.ArrowInvalid``."""
    empty = pc.fill_null(pc.equal(text, _EMPTY_RANGE), fill_value=False)
    bounds = fields_of(pc.if_else(empty, _WITHOUT_BOUNDS, text) if empty.true_count else text, 2)
    closed = (
        pc.fill_null(touches(text, bracket), fill_value=False)
        for touches, bracket in ((pc.starts_with, "["), (pc.ends_with, "]"))
    )
    lower, upper = map(element, bounds)
    return structs_of(stored_type, [lower, upper, *closed, empty], text)


def range_text(values: pa.Array, element: Element) -> pa.Array:
    """Return the server's text; NULL for NULL."""
    lower, upper, lower_inc, upper_inc, empty = values.flatten()
    low, high = (pc.fill_null(_RANGE_QUOTES.around(element(bound)), b"") for bound in (lower, upper))
    opens, closes = pc.if_else(lower_inc, b"[", b"("), pc.if_else(upper_inc, b"]", b")")
    text = pc.binary_join_element_wise(opens, low, b",", high, closes, b"")
    return pc.if_else(empty, _EMPTY_RANGE.encode(), text)


def parse_multirange(text: pa.Array, stored_type: pa.DataType, element: Element) -> pa.Array:
    """Return lists of ranges."""
    valid = pc.is_valid(text)
    tokens = cut(pc.fill_null(text, "{}"), _range_separated, opening=b"{", closing=b"}", whole=True)
    texts = tokens.bare()
    lengths = pc.if_else(valid, tokens.lengths, pa.scalar(None, tokens.lengths.type))
    return lists_of(lengths, parse_range(texts, stored_type.value_type, element))


def _range_separated(outside: bytes) -> bytes:
    return _BETWEEN.sub(ITEM, outside)


def multirange_text(values: pa.Array, element: Element) -> pa.Array:
    """Return the server's text of multiranges; NULL for NULL."""
    words = range_text(list_elements(values), element)
    inner = pc.binary_join(lists_of(pc.list_value_length(values), words), b",")
    return pc.binary_join_element_wise(b"{", inner, b"}", b"")
