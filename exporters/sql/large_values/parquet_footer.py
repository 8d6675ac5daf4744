"""The column chunks in a Parquet file's footer, and chunks merged from others.

A column chunk is its pages, one behind the other, so the pages of several chunks are those of one
(https://parquet.apache.org/docs/file-format/). Only a dictionary stands in the way: a chunk has one.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_NUMBERS = frozenset({_I16, _I32, _I64})
_LISTS = frozenset({_LIST, _SET})
_LONG_LIST = 15
_DOUBLE_BYTES = 8
_MOST_SHIFT = 63


class Value(Struct):
    """One value: of ``kind`` on the wire; integers as ``int``, lists as Python lists of bare values, structures as
    ``ThriftStruct``.
    """

    kind: int
    data: Any
    element: int = 0
    """The kind of the elements of a list."""


ThriftStruct = dict[int, Value]


def number(data: int) -> Value:
    """Return an i64."""
    return Value(_I64, data)


def structures(data: list[ThriftStruct]) -> Value:
    """Return a list of structures."""
    return Value(_LIST, data, _STRUCT)


class Reader:
    """Reads values from ``data``, from ``position`` on. Raises ``ValueError`` or ``IndexError`` for what is none."""

    def __init__(self, data: bytes | memoryview, position: int = 0) -> None:
        self._data = data
        self.position = position

    def struct(self) -> ThriftStruct:
        """Return the structure at the position, and go behind it."""
        fields: ThriftStruct = {}
        last = 0
        while head := self._byte():
            kind, delta = head & 15, head >> 4
            last = last + delta if delta else self._zigzag()
            fields[last] = self._value(kind)
        return fields

    def _value(self, kind: int) -> Value:
        if kind in _LISTS:
            return self._list(kind)
        if kind in {_TRUE, _FALSE}:
            return Value(kind, None)
        return Value(kind, self._bare(kind))

    def _bare(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self._zigzag()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.struct()
        if kind in {_BYTE, _TRUE, _FALSE}:
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(_DOUBLE_BYTES)
        raise ValueError(f"Parquet has no values of Thrift's kind {kind}")

    def _list(self, kind: int) -> Value:
        head = self._byte()
        element, size = head & 15, head >> 4
        if size == _LONG_LIST:
            size = self._varint()
        return Value(kind, [self._bare(element) for _ in range(size)], element)

    def _byte(self) -> int:
        self.position += 1
        return self._data[self.position - 1]

    def _bytes(self, size: int) -> bytes:
        begin, self.position = self.position, self.position + size
        data = bytes(self._data[begin : self.position])
        if len(data) < size:
            raise ValueError("it ends in the middle of a value")
        return data

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > _MOST_SHIFT:
                raise ValueError("a number has more than 64 bits")

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)


def dump(struct: ThriftStruct) -> bytes:
    """Return a structure as it is written."""
    out = bytearray()
    _struct(out, struct)
    return bytes(out)


def _struct(out: bytearray, struct: ThriftStruct) -> None:
    last = 0
    for field in sorted(struct):
        value, delta = struct[field], field - last
        if delta < 16:
            out.append(delta << 4 | value.kind)
        else:
            out.append(value.kind)
            _varint(out, _zigzag(field))
        last = field
        if value.kind in _LISTS:
            _list(out, value)
        elif value.kind not in {_TRUE, _FALSE}:
            _bare(out, value.kind, value.data)
    out.append(0)


def _bare(out: bytearray, kind: int, data: Any) -> None:
    if kind in _NUMBERS:
        _varint(out, _zigzag(data))
    elif kind == _BINARY:
        _varint(out, len(data))
        out += data
    elif kind == _STRUCT:
        _struct(out, data)
    elif kind == _DOUBLE:
        out += data
    else:
        out.append(data)


def _list(out: bytearray, value: Value) -> None:
    size = len(value.data)
    out.append(min(size, _LONG_LIST) << 4 | value.element)
    if size >= _LONG_LIST:
        _varint(out, size)
    for item in value.data:
        _bare(out, value.element, item)


def _varint(out: bytearray, number_: int) -> None:
    while number_ > 127:
        out.append(number_ & 127 | 128)
        number_ >>= 7
    out.append(number_)


def _zigzag(number_: int) -> int:
    return number_ << 1 if number_ >= 0 else (-number_ << 1) - 1


MAGIC = b"PAR1"
LENGTH = struct.Struct("<I")

ROWS, GROUPS = 3, 4
"""Fields of FileMetaData (https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift)."""
COLUMNS, GROUP_UNCOMPRESSED, GROUP_ROWS, GROUP_OFFSET, GROUP_COMPRESSED, ORDINAL = 1, 2, 3, 5, 6, 7
CHUNK_OFFSET, META = 2, 3
ENCODINGS, VALUES, UNCOMPRESSED, COMPRESSED = 2, 5, 6, 7
DATA_PAGE, DICTIONARY_PAGE, STATISTICS, ENCODING_STATS, SIZE_STATISTICS = 9, 11, 12, 13, 16
_MAXIMA, _MINIMA, _NULLS, _EXACT = (1, 5), (2, 6), 3, (7, 8)
_COUNT = 3

Order = Callable[[bytes], Any]
"""Makes of a value, as statistics have it, what sorts as Parquet says that its column does."""


class Chunk(Struct):
    """A column chunk: its part of the footer, whose offsets count from anywhere, and its bytes."""

    about: ThriftStruct
    pages: list[memoryview]

    @property
    def meta(self) -> ThriftStruct:
        """Its ColumnMetaData."""
        meta: ThriftStruct = self.about[META].data
        return meta

    @property
    def start(self) -> int:
        """Where it begins, as its offsets count."""
        meta = self.meta
        offset: int = meta[DICTIONARY_PAGE if DICTIONARY_PAGE in meta else DATA_PAGE].data
        return offset


def footer_of(file: pa.Buffer) -> ThriftStruct:
    """Return the FileMetaData of a whole file."""
    data = memoryview(file).cast("B")
    size = LENGTH.unpack(data[-8:-4])[0]
    return Reader(data, len(data) - 8 - size).struct()


def groups_of(file: pa.Buffer) -> Iterator[tuple[ThriftStruct, list[Chunk]]]:
    """Yield the row groups of a whole file with their chunks."""
    data = memoryview(file).cast("B")
    for group in footer_of(file)[GROUPS].data:
        chunks = [Chunk(about, []) for about in group[COLUMNS].data]
        for chunk in chunks:
            chunk.pages.append(data[chunk.start : chunk.start + chunk.meta[COMPRESSED].data])
        yield group, chunks


def merged(chunks: Sequence[Chunk], order: Order | None) -> Chunk:
    """Return one chunk of the pages of several of a column, none of which has a dictionary. ``order`` is the column's;
    without one there are no minima and maxima.
    """
    first, metas = chunks[0], [chunk.meta for chunk in chunks]
    meta = dict(first.meta)
    for field in (VALUES, UNCOMPRESSED, COMPRESSED):
        meta[field] = number(sum(column_meta[field].data for column_meta in metas))
    encodings = meta[ENCODINGS]
    known = dict.fromkeys(chain.from_iterable(column_meta[ENCODINGS].data for column_meta in metas))
    meta[ENCODINGS] = Value(encodings.kind, list(known), encodings.element)
    optional_fields = (
        (ENCODING_STATS, _encoding_stats(metas)),
        (STATISTICS, _statistics(metas, order)),
        (SIZE_STATISTICS, _sizes(metas)),
    )
    for field, value in optional_fields:
        meta.pop(field, None)
        if value is not None:
            meta[field] = value
    about = first.about | {META: Value(first.about[META].kind, meta)}
    return Chunk(about, [page for chunk in chunks for page in chunk.pages])


def _all_of(metas: Sequence[ThriftStruct], field: int) -> list[Any]:
    """Return what each has in a field, or nothing where one has not."""
    values = [meta[field].data for meta in metas if field in meta]
    return values if len(values) == len(metas) else []


def _encoding_stats(metas: Sequence[ThriftStruct]) -> Value | None:
    counts: Counter[tuple[tuple[int, int], ...]] = Counter()
    stats_by_key: dict[tuple[tuple[int, int], ...], ThriftStruct] = {}
    for stat in chain.from_iterable(_all_of(metas, ENCODING_STATS)):
        key = tuple((field, value.data) for field, value in stat.items() if field != _COUNT)
        stats_by_key.setdefault(key, stat)
        counts[key] += stat[_COUNT].data
    if not stats_by_key:
        return None
    like = metas[0][ENCODING_STATS]
    stats = [stat | {_COUNT: Value(stat[_COUNT].kind, counts[key])} for key, stat in stats_by_key.items()]
    return Value(like.kind, stats, like.element)


def _sizes(metas: Sequence[ThriftStruct]) -> Value | None:
    """Return SizeStatistics: bytes of values, and how often each level occurs."""
    sizes = _all_of(metas, SIZE_STATISTICS)
    if not sizes or any(size.keys() != sizes[0].keys() for size in sizes):
        return None
    sums: ThriftStruct = {}
    for field, like in sizes[0].items():
        values = [size[field].data for size in sizes]
        total = [sum(some) for some in zip(*values, strict=True)] if like.element else sum(values)
        sums[field] = Value(like.kind, total, like.element)
    return Value(metas[0][SIZE_STATISTICS].kind, sums)


def _statistics(metas: Sequence[ThriftStruct], order: Order | None) -> Value | None:
    statistics = _all_of(metas, STATISTICS)
    if not statistics:
        return None
    merged_statistics: ThriftStruct = {}
    if all(_NULLS in statistic for statistic in statistics):
        merged_statistics[_NULLS] = number(sum(statistic[_NULLS].data for statistic in statistics))
    with_values = [
        statistic
        for statistic, meta in zip(statistics, metas, strict=True)
        if _NULLS not in statistic or statistic[_NULLS].data != meta[VALUES].data
    ]
    if order is not None and with_values:
        for fields, choose in ((_MAXIMA, max), (_MINIMA, min)):
            for field in fields:
                if all(field in statistic for statistic in with_values):
                    merged_statistics[field] = choose(
                        (statistic[field] for statistic in with_values), key=lambda value: order(value.data)
                    )
        for field in _EXACT:
            kinds = {statistic[field].kind if field in statistic else 0 for statistic in with_values}
            if len(kinds) == 1 and 0 not in kinds:
                merged_statistics[field] = with_values[0][field]
    return Value(metas[0][STATISTICS].kind, merged_statistics)


def order_of(column: pq.ColumnSchema) -> Order | None:
    """Return how the values of a column are ordered ("Sort order" in the README of parquet-format), or None where that
    is not specified there.
    """
    decimal, unsigned = column.converted_type == "DECIMAL", column.converted_type.startswith("UINT")
    if column.physical_type in {"INT32", "INT64"}:
        return _unsigned if unsigned else _signed
    if column.physical_type in {"BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"}:
        if decimal:
            return _big_endian
        return _as_bytes if column.physical_type == "BYTE_ARRAY" else None
    return {"BOOLEAN": _as_bytes, "FLOAT": _float, "DOUBLE": _double}.get(column.physical_type)


def _signed(value: bytes) -> int:
    return int.from_bytes(value, "little", signed=True)


def _unsigned(value: bytes) -> int:
    return int.from_bytes(value, "little")


def _big_endian(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


def _as_bytes(value: bytes) -> bytes:
    return value


def _float(value: bytes) -> float:
    unpacked: float = struct.unpack("<f", value)[0]
    return unpacked


def _double(value: bytes) -> float:
    unpacked: float = struct.unpack("<d", value)[0]
    return unpacked
