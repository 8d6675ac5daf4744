"""The column chunks in a Parquet file's footer, and chunks merged from others.

A column chunk is its pages, one behind the other, so the pages of several chunks are those of one
(https://parquet.apache.org/docs/file-format/). Only a dictionary stands in the way: a chunk has one.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from exporters.sql.large_values.thrift import Reader, ThriftStruct, Value, number

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
