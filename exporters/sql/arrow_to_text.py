"""From Arrow back to text: the very lines that the server printed.

Used by restore (the lines are the input of COPY FROM), by the check at export, and by ``verify --level full``. What a
column is stands in the metadata of its field, so a Parquet file can be rendered without anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import pyarrow as pa
import pyarrow.compute as pc

from exporters.sql import fixed_digit_kinds
from exporters.sql.text_codec import (
    arrays,
    composites,
    hex_text,
    hstore,
    intervals,
    ranges,
    time_with_zone,
)
from exporters.sql.text_codec.float_text import float_text, single_text
from exporters.sql.text_codec.nested_kinds import apart
from exporters.sql.text_codec.value_tokens import Quotes

TYPE = b"moveout.type"
KIND = b"moveout.kind"
GENERATED = b"moveout.generated"
EXACT_OF = b"moveout.exact_of"
PLAIN = b"moveout.plain"
CHARACTERS = b"moveout.characters"
ENCODING = b"moveout.encoding"

OWN = b"\xff"
"""How the text of a value begins that stands in the database's own encoding: no UTF-8 has this byte."""

QUOTES = Quotes(b'",\n\r', quote=b'""', backslash=b"\\")
_QUOTES_ALONE = replace(QUOTES, word=b"\\.")
"""Where the server puts quotes (CopyAttributeOutCSV in src/backend/commands/copyto.c), and if it is the only column."""


def lines_of(batch: pa.RecordBatch, *, generated: bool = True) -> pa.Array:
    """Return one binary value a row: its CSV line with the newline. Without ``generated``, the columns that a server
    computes by itself are left out, as COPY FROM wants it.
    """
    texts = [text for _, text in columns_of(batch, generated=generated)]
    if not texts:
        return pa.array([b"\n"], pa.binary()).take(pa.nulls(batch.num_rows, pa.int8()).fill_null(0))
    line = pc.binary_join_element_wise(*texts, b",", null_handling="replace", null_replacement=b"")
    return pc.binary_join_element_wise(line, b"", b"\n")


def columns_of(batch: pa.RecordBatch, *, generated: bool) -> list[tuple[pa.Field, pa.Array]]:
    """Return the fields of the table's own columns, and their values as they stand in CSV lines."""
    schema = batch.schema
    sides = sides_of(schema)
    fields = [one for one in schema if not _is_side(one) and (generated or not _has(one, GENERATED))]
    quotes = _QUOTES_ALONE if len(fields) == 1 else QUOTES
    found = []
    for one in fields:
        side = sides.get(one.name)
        text = exact_text(one, batch.column(one.name), None if side is None else batch.column(side))
        if side is not None or not _has(one, PLAIN):
            text = quotes.around(text)
        found.append((one, text))
    return found


def sides_of(schema: pa.Schema) -> dict[str, str]:
    """Return the names of the side columns by those of their columns."""
    return {one.metadata[EXACT_OF].decode(): one.name for one in schema if _is_side(one)}


def exact_text(field: pa.Field, values: pa.Array, side: pa.Array | None) -> pa.Array:
    """Return the server's text of every value, as binary, NULL for NULL."""
    text = text_of(field.metadata[KIND].decode(), values)
    return text if side is None else pc.coalesce(side.cast(pa.binary()), text)


def text_of(kind: str, values: pa.Array) -> pa.Array:
    """Return the text of typed values, as binary; what a side column says is not known here."""
    whole = _TEXT.get(kind)
    if whole is not None:
        text = whole(values)
        return text.view(pa.binary()) if pa.types.is_string(text.type) else text.cast(pa.binary())
    shape, inner = apart(kind)
    return _NESTED[shape](values, [partial(text_of, one) for one in inner])


def _is_side(field: pa.Field) -> bool:
    return _has(field, EXACT_OF)


def _has(field: pa.Field, key: bytes) -> bool:
    return field.metadata is not None and key in field.metadata


def _bool(values: pa.Array) -> pa.Array:
    return pc.if_else(values, "t", "f")


def _plain(values: pa.Array) -> pa.Array:
    return pc.cast(values, pa.string())


def _decimal(values: pa.Array) -> pa.Array:
    """Arrow writes an exponent where the first digit is more than six places after the point; the server does
    not.
    """
    text = pc.cast(values, pa.string())
    if values.type.scale <= 6:
        return text
    odd = pc.fill_null(pc.match_substring(text, "E"), fill_value=False)
    if not odd.true_count:
        return text
    fixed = pa.array([f"{value.as_py():f}" for value in values.filter(odd)], pa.string())
    return pc.replace_with_mask(text, odd, fixed)


_SPAN_DAYS = 2**14
_MANY_DAYS = 256


def _date(values: pa.Array) -> pa.Array:
    """Many days of a few decades are looked up."""
    if len(values) < _MANY_DAYS:
        return _plain(values)
    days = values.cast(pa.int32())
    ends = pc.min_max(days).as_py()
    if ends["min"] is None:
        return _plain(values)
    first = ends["min"] // (_SPAN_DAYS // 2) * (_SPAN_DAYS // 2)
    if ends["max"] >= first + _SPAN_DAYS:
        return _plain(values)
    return _days(first).take(pc.subtract(days, first))


@lru_cache(maxsize=8)
def _days(first: int) -> pa.Array:
    return pa.array(range(first, first + _SPAN_DAYS), pa.int32()).cast(pa.date32()).cast(pa.string())


def _trim_fraction(text: pa.Array) -> pa.Array:
    """``12:00:00.500000`` to ``12:00:00.5``, ``12:00:00.000000`` to ``12:00:00``."""
    return pc.ascii_rtrim(pc.ascii_rtrim(text, characters="0"), characters=".")


def _timestamp(values: pa.Array) -> pa.Array:
    return _trim_fraction(pc.cast(values, pa.string()))


def _timestamptz(values: pa.Array) -> pa.Array:
    text = _timestamp(values.cast(pa.timestamp("us")))
    return pc.binary_join_element_wise(text, "", "+00")


def _storage(values: pa.Array) -> pa.Array:
    return values.storage if isinstance(values, pa.ExtensionArray) else values


_TEXT: Mapping[str, Callable[[pa.Array], pa.Array]] = {
    "bool": _bool,
    "int": _plain,
    "decimal": _decimal,
    "text": lambda values: values,
    "json": _storage,
    "date": _date,
    "time": _timestamp,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "bytes": hex_text.bytes_text,
    "uuid": lambda values: hex_text.uuid_text(_storage(values)),
    "float8": float_text,
    "float4": lambda values: float_text(values.cast(pa.float64())),
    "single": single_text,
    "interval": intervals.text_of,
    "timetz": time_with_zone.text_of,
    "map": hstore.text_of,
    **fixed_digit_kinds.TEXT,
}

_NESTED: Mapping[str, Callable[[pa.Array, composites.Elements], pa.Array]] = {
    "list": lambda values, inner: arrays.text_of(values, *inner),
    "range": lambda values, inner: ranges.text_of(values, *inner),
    "multirange": lambda values, inner: ranges.text_of_several(values, *inner),
    "struct": composites.text_of,
}


def names_of(schema: pa.Schema, *, generated: bool) -> Sequence[str]:
    """Return the names of the table's own columns in the order in which ``lines_of`` writes them."""
    return [
        field.name for field in schema if not _is_side(field) and (generated or not _has(field, GENERATED))
    ]
