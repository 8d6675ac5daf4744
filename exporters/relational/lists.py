"""Arrays of whole numbers as lists, where they have one dimension that begins with 1; any other is its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

ELEMENTS: Mapping[str, pa.DataType] = {"int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64()}

_REGULAR = r"^\{(?:(?:-?[0-9]+|NULL)(?:,(?:-?[0-9]+|NULL))*)?\}$"
_NULL = "NULL"


def parser(element: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    """Return what makes lists of the server's text; NULL where it is not one list of numbers."""

    def parse(text: pa.Array) -> pa.Array:
        regular = pc.match_substring_regex(text, pattern=_REGULAR)
        inner = pc.utf8_slice_codeunits(pc.if_else(regular, text, pa.scalar(None, text.type)), 1, -1)
        words = pc.list_flatten(pc.split_pattern(inner, pattern=","))
        lengths = pc.if_else(pc.equal(inner, ""), 0, pc.add(pc.count_substring(inner, pattern=","), 1))
        words = words.filter(pc.not_equal(words, ""))
        numbers = pc.if_else(pc.equal(words, _NULL), pa.scalar(None, pa.string()), words).cast(element)
        return _lists(lengths, numbers)

    return parse


def text_of(values: pa.Array) -> pa.Array:
    """Return the server's text; NULL for NULL."""
    words = pc.fill_null(pc.cast(pc.list_flatten(values), pa.string()), _NULL)
    inner = pc.binary_join(_lists(pc.list_value_length(values), words), ",")
    return pc.binary_join_element_wise("{", inner, "}", "")


def _lists(lengths: pa.Array, values: pa.Array) -> pa.Array:
    """Return lists of these lengths, NULL where the length is."""
    ends = pc.cumulative_sum(pc.fill_null(lengths, 0).cast(pa.int32()))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    return pa.ListArray.from_arrays(offsets, values, mask=pc.is_null(lengths))
