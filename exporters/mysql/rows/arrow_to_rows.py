"""From Arrow back to the text of rows: the very payloads that the server had sent.

A row's text is its values' texts one after the other, each after its length as the protocol encodes it; NULL is one
byte.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.mysql.rows.row_columns import NULL, WIDE, value_at
from exporters.mysql.rows.text_codec import CODECS
from exporters.sql.columns import EXACT_OF, KIND, sides_of
from exporters.sql.value_codec import is_utf8, rendered, values_of

_DIRECT = b"hex"
_SHORT = pa.array([bytes([size]) for size in range(NULL)], pa.binary())


def texts_of(batch: pa.RecordBatch) -> list[bytes]:
    """Return the texts of rows, side columns regarded."""
    pieces = [piece for _, text in values_by_column(batch) for piece in (_lengths(text), text)]
    joined = pc.binary_join_element_wise(*pieces, b"", null_handling="replace", null_replacement=b"")
    return values_of(joined)


def values_by_column(batch: pa.RecordBatch) -> Iterator[tuple[pa.Field, pa.Array]]:
    """Yield the fields of the table's own columns, and the texts of their values, NULL for NULL."""
    sides = sides_of(batch.schema)
    for field in batch.schema:
        if EXACT_OF in field.metadata:
            continue
        side = sides.get(field.name)
        values = batch.column(field.name)
        direct = field.metadata[KIND] == _DIRECT
        yield (
            field,
            values if direct else field_text(field, values, None if side is None else batch.column(side)),
        )


def field_text(field: pa.Field, values: pa.Array, side: pa.Array | None) -> pa.Array:
    """Return the text of every value of a part's column, as binary, NULL for NULL."""
    return rendered(CODECS[field.metadata[KIND].decode()], values, side)


def _lengths(text: pa.Array) -> pa.Array:
    """Return the encoded lengths of texts."""
    sizes = pc.binary_length(text)
    longest = pc.max(sizes).as_py() or 0
    if longest < NULL:
        encoded = pc.take(_SHORT, sizes)
    else:
        lengths = [None if size is None else encoded_length(size) for size in sizes.to_pylist()]
        encoded = pa.array(lengths, pa.binary())
    return pc.fill_null(encoded, bytes([NULL]))


def encoded_length(size: int) -> bytes:
    """Return a length as the protocol has it."""
    if size < NULL:
        return bytes([size])
    mark, width = next((mark, width) for mark, width in WIDE if size < 256**width)
    return bytes([mark]) + size.to_bytes(width, "little")


def readable_values(text: bytes) -> list[bytes | None]:
    r"""Return a row's values, those that are not UTF-8 as ``\x`` and hexadecimal digits."""
    values: list[bytes | None] = []
    position = 0
    while position < len(text):
        value, position = value_at(text, position)
        values.append(value if value is None or is_utf8(value) else b"\\x" + value.hex().upper().encode())
    return values
