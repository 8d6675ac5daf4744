r"""Values of hstore as maps (hstore_out in contrib/hstore/hstore_io.c): keys and values have quotes, NULL has none."""

from __future__ import annotations

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.value_tokens import ITEM, Quotes, cut, lists_of, offsets_of

STORED = pa.map_(pa.string(), pa.string())

_NULL = b"NULL"
_QUOTES = Quotes(b"", quote=b'\\"')
_PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))


def parse(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    """Return the maps, in the order of the text."""
    valid = pc.is_valid(text)
    words = cut(pc.fill_null(text, ""), _separated)
    pairs = pa.FixedSizeListArray.from_arrays(words.bare(_NULL), 2)
    keys, values = pc.list_element(pairs, 0), pc.list_element(pairs, 1)
    lengths = pc.divide(words.lengths, pa.scalar(2, words.lengths.type))
    lengths = pc.if_else(valid, lengths, pa.scalar(None, lengths.type))
    return pa.MapArray.from_arrays(offsets_of(lengths), keys, values, STORED, mask=pc.invert(valid))


def _separated(outside: bytes) -> bytes:
    return outside.replace(b"=>", ITEM).replace(b", ", ITEM)


def text_of(values: pa.Array) -> pa.Array:
    """Return the server's text; NULL for NULL."""
    pairs = pc.cast(values, _PAIRS)
    keys, items = pc.list_flatten(pairs).flatten()
    key = _QUOTES.around_all(pc.cast(keys, pa.binary()))
    item = pc.fill_null(_QUOTES.around_all(pc.cast(items, pa.binary())), _NULL)
    entries = pc.binary_join_element_wise(key, item, b"=>")
    return pc.binary_join(lists_of(pc.list_value_length(pairs), entries), b", ")
