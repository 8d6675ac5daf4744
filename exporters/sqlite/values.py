"""SQLite's values, and the canonical text of rows whose digest proves that none was lost.

A value has a storage class of its own, whatever its column says (https://sqlite.org/datatype3.html): NULL, INTEGER
(64 bits, ``int``), REAL (``float``, never NaN), TEXT (``str``), BLOB (``bytes``). Text whose bytes are not valid in the
database's encoding is ``RawText``.

The text of a row: its values' texts, joined by commas. NULL: nothing. INTEGER: its digits. REAL: ``r`` and its 64
bits, read as a signed integer. TEXT: ``t``, the number of its bytes in UTF-8, ``:``, the bytes. BLOB: the same with
``b``, RawText with ``x``. Read from the left it can be taken apart again, so different rows have different texts.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_128

from exporters.relational.digest import values_of
from exporters.tally import MODULUS, Tally, tally_texts

FEW_ROWS = 8
"""So few rows are hashed value by value: they may be huge, and need no copies then."""


class RawText(bytes):
    """Text that is not valid in the database's encoding: its bytes as they are stored."""

    __slots__ = ()


ARROW: dict[type, pa.DataType] = {int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary()}
"""How values of one class lie in Arrow."""
_TAGS: dict[type, bytes] = {str: b"t", bytes: b"b", RawText: b"x"}


@dataclass(frozen=True, slots=True)
class Column:
    """The values of one column. ``array`` where all that are not NULL are of the class ``of``, else ``values``."""

    of: type | None
    array: pa.Array | None
    values: Sequence[Any] | None = None

    @staticmethod
    def of_values(values: Sequence[Any]) -> Column:
        """Sort values by their classes. An Arrow array is made only of values that are all of exactly one class."""
        classes = set(map(type, values))
        classes.discard(type(None))
        if not classes:
            return Column(None, pa.nulls(len(values), pa.int64()))
        if len(classes) == 1:
            (found,) = classes
            if found in ARROW:
                return Column(found, pa.array(values, ARROW[found]))
        return Column(None, None, values)

    def to_list(self) -> Sequence[Any]:
        """Return the values."""
        if self.array is not None:
            return list(self.array.to_pylist())
        assert self.values is not None
        return self.values

    def texts(self) -> pa.Array:
        """Return the canonical texts, as binary."""
        if self.array is None:
            assert self.values is not None
            return pa.array([value_text(value) for value in self.values], pa.binary())
        return pc.fill_null(_array_texts(self.of, self.array), b"")


def _array_texts(of: type | None, array: pa.Array) -> pa.Array:
    if of is str or of is bytes:
        data = array.cast(pa.binary())
        sizes = pc.binary_length(data).cast(pa.string()).cast(pa.binary())
        return pc.binary_join_element_wise(_TAGS[of], sizes, b":", data, b"")
    if of is float:
        bits = array.view(pa.int64()).cast(pa.string()).cast(pa.binary())
        return pc.binary_join_element_wise(b"r", bits, b"")
    return array.cast(pa.string()).cast(pa.binary())


def value_text(value: Any) -> bytes:
    """Return one value's canonical text: the definition, which ``Column.texts`` does for many at once."""
    return b"".join(_pieces(value))


def _pieces(value: Any) -> Sequence[bytes]:
    if value is None:
        return (b"",)
    if type(value) is int:
        return (str(value).encode(),)
    if type(value) is float:
        return (b"r", str(struct.unpack("<q", struct.pack("<d", value))[0]).encode())
    data = value.encode() if type(value) is str else value
    return (_TAGS[type(value)], str(len(data)).encode(), b":", data)


def row_texts(columns: Sequence[Column]) -> list[bytes]:
    """Return the texts of rows, given by columns."""
    texts = [column.texts() for column in columns]
    joined = texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, b",")
    return values_of(joined)


def tally_columns(columns: Sequence[Column], rows: int) -> Tally:
    """Return the tally of rows, given by columns."""
    if rows > FEW_ROWS:
        return tally_texts(row_texts(columns))
    return tally_few(list(zip(*(column.to_list() for column in columns), strict=True)))


def tally_few(rows: Sequence[Sequence[Any]]) -> Tally:
    """Return the tally of rows, given as tuples of values."""
    digest = 0
    for row in rows:
        hasher = xxh3_128()
        for position, value in enumerate(row):
            if position:
                hasher.update(b",")
            for piece in _pieces(value):
                hasher.update(piece)
        digest += hasher.intdigest()
    return Tally(len(rows), digest % MODULUS)
