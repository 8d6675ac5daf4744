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
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
from msgspec import Struct
from xxhash import xxh3_128

from exporters import arrow_functions as pc
from exporters.row_digest import MODULUS, RowsDigest, digest_texts
from exporters.sql.value_codec import values_of

FEW_ROWS = 8
"""Up to this many rows are hashed value by value: they may be huge, and need no copies then."""


class RawText(bytes):
    """Text that is not valid in the database's encoding: its bytes as they are stored."""

    __slots__ = ()


def to_text(data: bytes) -> str | RawText:
    """Return what SQLite has as text: a connection's ``text_factory``."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return RawText(data)


ARROW: dict[type, pa.DataType] = {int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary()}
"""How values of one class lie in Arrow."""
TAGS: dict[type, bytes] = {str: b"t", bytes: b"b", RawText: b"x"}
"""How the text of a value of one class begins, before its length."""


class SqliteColumn(Struct, frozen=True):
    """The values of one column. ``array`` where all that are not NULL are of the class ``of``, else ``values``, or
    ``texts``, their canonical texts as binary, NULL for NULL.
    """

    of: type | None
    array: pa.Array | None
    values: Sequence[Any] | None = None
    texts: pa.Array | None = None

    @staticmethod
    def of_values(values: Sequence[Any]) -> SqliteColumn:
        """Sort values by their classes. An Arrow array is made only of values that are all of exactly one class."""
        classes = set(map(type, values))
        classes.discard(type(None))
        if not classes:
            return SqliteColumn(None, pa.nulls(len(values), pa.int64()))
        if len(classes) == 1:
            (value_class,) = classes
            if value_class in ARROW:
                return SqliteColumn(value_class, pa.array(values, ARROW[value_class]))
        return SqliteColumn(None, None, values)

    @staticmethod
    def of_array(of: type, array: pa.Array) -> SqliteColumn:
        """Take values that are all of one class, NULLs apart."""
        if array.null_count == len(array):
            return SqliteColumn(None, pa.nulls(len(array), pa.int64()))
        return SqliteColumn(of, array)

    def head(self, rows: int) -> SqliteColumn:
        """Return the first values."""
        if self.array is not None:
            return SqliteColumn(self.of, self.array[:rows])
        if self.texts is not None:
            return SqliteColumn(None, None, texts=self.texts[:rows])
        return SqliteColumn(None, None, (self.values or ())[:rows])

    def to_list(self) -> Sequence[Any]:
        """Return the values."""
        if self.array is not None:
            return list(self.array.to_pylist())
        if self.texts is not None:
            return [None if text is None else values_of_text(text)[0] for text in self.texts.to_pylist()]
        assert self.values is not None
        return self.values

    @property
    def rows(self) -> int:
        """How many values there are."""
        held = self.texts if self.array is None else self.array
        return len(self.values or ()) if held is None else len(held)

    @property
    def octets(self) -> int:
        """The bytes of texts and blobs."""
        if self.array is not None:
            return _sum(pc.binary_length(self.array)) if self.of in {str, bytes} else 0
        if self.texts is not None:
            colons = pc.find_substring(self.texts, ":")
            sizes = pc.subtract(pc.subtract(pc.binary_length(self.texts), colons), 1)
            return _sum(sizes.filter(pc.greater_equal(colons, 0)))
        values = (value for value in self.values or () if isinstance(value, (str, bytes)))
        return sum(len(value.encode() if isinstance(value, str) else value) for value in values)

    def pieces(self) -> list[pa.Array | pa.Scalar]:
        """Return what the canonical texts are put together of, as binary, NULL for nothing."""
        if self.texts is not None:
            return [self.texts]
        if self.array is None:
            assert self.values is not None
            return [pa.array([value_text(value) for value in self.values], pa.binary())]
        if self.of is str or self.of is bytes:
            data = pc.cast(self.array, pa.binary())
            return [_heads(self.of, pc.binary_length(data)), data]
        if self.of is float:
            bits = _digits(self.array.view(pa.int64()))
            return [pc.binary_join_element_wise(b"r", bits, b"")] if self.array.null_count else [_REAL, bits]
        return [_digits(self.array)]


_REAL, _COMMA = pa.scalar(b"r", pa.binary()), pa.scalar(b",", pa.binary())
_SHORT = 1024


def _heads(of: type, sizes: pa.Array) -> pa.Array:
    """Return how the texts of values of these lengths begin."""
    if (pc.max(sizes).as_py() or 0) < _SHORT:
        return pc.take(_short_heads(of), sizes)
    return pc.binary_join_element_wise(TAGS[of], _digits(sizes), b":", b"")


@lru_cache
def _short_heads(of: type) -> pa.Array:
    return pa.array([b"%s%d:" % (TAGS[of], size) for size in range(_SHORT)], pa.binary())


def _digits(numbers: pa.Array) -> pa.Array:
    return pc.cast(pc.cast(numbers, pa.string()), pa.binary())


def _sum(numbers: pa.Array) -> int:
    return pc.sum(numbers).as_py() or 0


def are_numbers(texts: pa.Array) -> bool:
    """Tell whether texts of values, as binary, have neither texts nor blobs among them."""
    return not pc.any(pc.match_substring(texts, ":")).as_py()


def value_text(value: Any) -> bytes:
    """Return one value's canonical text: the definition, which ``row_texts`` does for many at once."""
    return b"".join(value_pieces(value))


def value_pieces(value: Any) -> Sequence[bytes]:
    """Return one value's canonical text in pieces."""
    if value is None:
        return (b"",)
    if type(value) is int:
        return (str(value).encode(),)
    if type(value) is float:
        return (b"r", str(struct.unpack("<q", struct.pack("<d", value))[0]).encode())
    data = value.encode() if type(value) is str else value
    return (TAGS[type(value)], str(len(data)).encode(), b":", data)


def row_texts(columns: Sequence[SqliteColumn]) -> list[bytes]:
    """Return the texts of rows, given by columns."""
    pieces: list[pa.Array | pa.Scalar] = []
    for column in columns:
        pieces += [_COMMA, *column.pieces()] if pieces else column.pieces()
    return values_of(pc.binary_join_element_wise(*pieces, b"", null_handling="replace", null_replacement=b""))


def values_of_text(text: bytes) -> list[Any]:
    """Return the values of a row, taken from its text."""
    values: list[Any] = []
    position = 0
    while True:
        tag = text[position : position + 1]
        if tag and tag in b"tbx":
            colon = text.index(b":", position)
            end = colon + 1 + int(text[position + 1 : colon])
            values.append(_MADE[tag](text[colon + 1 : end]))
        else:
            end = text.find(b",", position)
            end = len(text) if end < 0 else end
            values.append(_number(text[position:end]))
        if end >= len(text):
            return values
        position = end + 1


_MADE: dict[bytes, Callable[[bytes], Any]] = {b"t": bytes.decode, b"b": bytes, b"x": RawText}


def _number(text: bytes) -> int | float | None:
    if not text.startswith(b"r"):
        return int(text) if text else None
    (value,) = struct.unpack("<d", struct.pack("<q", int(text[1:])))
    return float(value)


def digest_columns(columns: Sequence[SqliteColumn], rows: int) -> RowsDigest:
    """Return the digest of rows, given by columns."""
    if rows > FEW_ROWS:
        return digest_texts(row_texts(columns))
    return digest_few(list(zip(*(column.to_list() for column in columns), strict=True)))


def digest_few(rows: Sequence[Sequence[Any]]) -> RowsDigest:
    """Return the digest of rows, given as tuples of values."""
    digest = 0
    for row in rows:
        hasher = xxh3_128()
        for position, value in enumerate(row):
            if position:
                hasher.update(b",")
            for piece in value_pieces(value):
                hasher.update(piece)
        digest += hasher.intdigest()
    return RowsDigest(len(rows), digest % MODULUS)
