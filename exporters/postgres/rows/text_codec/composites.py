r"""Composites as structs (record_out in src/backend/utils/adt/rowtypes.c)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.value_tokens import SPACE, Quotes, fields_of, structs_of

_QUOTES = Quotes(b'"\\(),' + SPACE, quote=b'""')

Elements = Sequence[Callable[[pa.Array], pa.Array]]
"""For each field: makes values of texts, or texts of values."""


def parse(text: pa.Array, stored_type: pa.DataType, elements: Elements) -> pa.Array:
    """Return structs of ``stored_type``, of the server's text. Raises ``pa.ArrowInvalid``."""
    fields = fields_of(text, len(elements))
    values = [element(field) for element, field in zip(elements, fields, strict=True)]
    return structs_of(stored_type, values, text)


def text_of(values: pa.Array, elements: Elements) -> pa.Array:
    """Return the server's text; NULL for NULL."""
    words = [
        _QUOTES.around(element(field)) for element, field in zip(elements, values.flatten(), strict=True)
    ]
    inner = pc.binary_join_element_wise(*words, b",", null_handling="replace", null_replacement=b"")
    text = pc.binary_join_element_wise(b"(", inner, b")", b"")
    return pc.if_else(pc.is_valid(values), text, pa.scalar(None, text.type))
