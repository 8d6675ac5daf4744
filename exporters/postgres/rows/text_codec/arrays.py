"""Arrays as lists, where they have one dimension that begins with 1; any other is its text (array_out in
src/backend/utils/adt/arrayfuncs.c).
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.value_tokens import ITEM, SPACE, Quotes, cut, lists_of

_NULL = b"NULL"
_QUOTES = Quotes(b'"\\{},' + SPACE, quote=b'\\"', word=_NULL)


def parse(text: pa.Array, element: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return lists of what ``element`` makes of the words; NULL where the text is not one list."""
    is_simple = pc.and_(pc.starts_with(text, "{"), pc.ends_with(text, "}"))
    is_simple = pc.fill_null(pc.and_not(is_simple, pc.starts_with(text, "{{")), fill_value=False)
    words = cut(pc.if_else(is_simple, text, "{}"), _separated, opening=b"{", closing=b"}")
    lengths = pc.if_else(is_simple, words.lengths, pa.scalar(None, words.lengths.type))
    return lists_of(lengths, element(words.bare(_NULL)))


def _separated(outside: bytes) -> bytes:
    return outside.replace(b",", ITEM)


def text_of(values: pa.Array, element: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return the server's text; NULL for NULL."""
    words = pc.fill_null(_QUOTES.around(element(elements(values))), _NULL)
    inner = pc.binary_join(lists_of(pc.list_value_length(values), words), b",")
    return pc.binary_join_element_wise(b"{", inner, b"}", b"")


def elements(values: pa.Array) -> pa.Array:
    """Return what stands in the lists, one after the other. Arrow cannot do it where all are NULL, and the elements are
    made of extension types.
    """
    return (
        pa.nulls(0, values.type.value_type) if values.null_count == len(values) else pc.list_flatten(values)
    )
