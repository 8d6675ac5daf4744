"""From Arrow back to the text of rows: the very payloads that the server had sent.

A row's text is its values' texts one after the other, each after its length as the protocol encodes it; NULL is one
byte.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from exporters.mysql.columns import NULL, WIDE, value_at
from exporters.relational.digest import values_of
from exporters.relational.parquet import batches_of, open_part
from exporters.relational.parse import is_utf8
from exporters.relational.render import EXACT_OF, KIND, exact_text
from exporters.tally import Tally, tally_texts

_DIRECT = b"hex"
_SHORT = pa.array([bytes([size]) for size in range(NULL)], pa.binary())


def texts_of(batch: pa.RecordBatch) -> list[bytes]:
    """Return the texts of rows, side columns regarded."""
    sides = {
        field.metadata[EXACT_OF]: i for i, field in enumerate(batch.schema) if EXACT_OF in field.metadata
    }
    pieces = []
    for i, field in enumerate(batch.schema):
        if EXACT_OF in field.metadata:
            continue
        side = sides.get(field.name.encode())
        values = batch.column(i)
        direct = field.metadata[KIND] == _DIRECT
        text = values if direct else exact_text(field, values, None if side is None else batch.column(side))
        pieces += [_lengths(text), text]
    joined = pc.binary_join_element_wise(*pieces, b"", null_handling="replace", null_replacement=b"")
    return values_of(joined)


def _lengths(text: pa.Array) -> pa.Array:
    """Return the encoded lengths of texts."""
    sizes = pc.binary_length(text)
    longest = pc.max(sizes).as_py() or 0
    if longest < NULL:
        found = _SHORT.take(sizes)
    else:
        found = pa.array(
            [None if size is None else _encoded(size) for size in sizes.to_pylist()], pa.binary()
        )
    return pc.fill_null(found, bytes([NULL]))


def _encoded(size: int) -> bytes:
    if size < NULL:
        return bytes([size])
    mark, width = next((mark, width) for mark, width in WIDE if size < 256**width)
    return bytes([mark]) + size.to_bytes(width, "little")


def tally_part(file: Any) -> Tally:
    """Return rows and digest of one part, from its values. Raises what ``relational.parquet.READ_ERRORS`` lists."""
    found = Tally()
    for batch in batches_of(open_part(file)):
        found += tally_texts(texts_of(batch))
    return found


def readable_values(text: bytes) -> list[bytes | None]:
    r"""Return a row's values, those that are not UTF-8 as ``\x`` and hexadecimal digits."""
    found: list[bytes | None] = []
    position = 0
    while position < len(text):
        value, position = value_at(text, position)
        found.append(value if value is None or is_utf8(value) else b"\\x" + value.hex().upper().encode())
    return found
