"""The codecs of PostgreSQL's kinds, by the names that stand in Parquet; composed ones: ``list(text)``,
``struct(int,list(date))``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec import composed_values as composed
from exporters.postgres.rows.text_codec import times
from exporters.postgres.rows.text_codec.float_text import float_text, single_text
from exporters.sql.value_codec import (
    DATE,
    DECIMAL,
    INT,
    JSON,
    TEXT,
    ValueCodec,
    as_time,
    bytes_text,
    cast_text,
    parse_bytes,
    parse_leniently,
    parse_uuid,
    plain_text,
    rendered,
    uuid_text,
)

_EARLIER = {f"{name}list": "list(int)" for name in ("int2", "int4", "int8")}
"""What arrays of whole numbers are called."""


def _parse_bool(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    true, false = pc.equal(text, "t"), pc.equal(text, "f")
    if true.true_count + false.true_count + text.null_count < len(text):
        raise pa.ArrowInvalid("not a boolean")
    return true


def _timestamp_text(values: pa.Array) -> pa.Array:
    """``12:00:00.500000`` becomes ``12:00:00.5``, ``12:00:00.000000`` becomes ``12:00:00``."""
    return pc.ascii_rtrim(pc.ascii_rtrim(plain_text(values), characters="0"), characters=".")


def _timestamptz_text(values: pa.Array) -> pa.Array:
    text = _timestamp_text(pc.cast(values, pa.timestamp("us")))
    return pc.binary_join_element_wise(text, "", "+00")


_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"

_SIMPLE: Mapping[str, ValueCodec] = {
    codec.name: codec
    for codec in (
        TEXT,
        ValueCodec("bool", _parse_bool, lambda values: pc.if_else(values, "t", "f"), r"^[tf]$"),
        INT,
        DECIMAL,
        JSON,
        DATE,
        ValueCodec(
            "time", as_time, _timestamp_text, r"^([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$"
        ),
        ValueCodec("timestamp", cast_text, _timestamp_text, rf"^{_DAY} {_CLOCK}$"),
        ValueCodec("timestamptz", cast_text, _timestamptz_text, rf"^{_DAY} {_CLOCK}\+00$"),
        ValueCodec("bytes", parse_bytes, bytes_text),
        ValueCodec("uuid", parse_uuid, uuid_text),
        ValueCodec("float8", cast_text, float_text),
        ValueCodec("float4", cast_text, lambda values: float_text(pc.cast(values, pa.float64()))),
        ValueCodec("single", cast_text, single_text),
        ValueCodec("interval", times.parse_interval, times.interval_text),
        ValueCodec("timetz", times.parse_timetz, times.timetz_text),
        ValueCodec("map", composed.parse_map, composed.map_text),
    )
}


@lru_cache(4096)
def codec_of(name: str) -> ValueCodec:
    """Return the codec of a kind. Raises ``KeyError`` for a name that is none."""
    if name in _SIMPLE:
        return _SIMPLE[name]
    shape, inner = apart(name)
    return _NESTED[shape](name, [codec_of(part) for part in inner])


def named(shape: str, *inner: str) -> str:
    """Return the name of a composed kind."""
    return f"{shape}({','.join(inner)})"


def apart(kind: str) -> tuple[str, tuple[str, ...]]:
    """Return the shape and the inner kinds; a kind that is made of nothing is its own shape."""
    shape, bracket, inner = _EARLIER.get(kind, kind).partition("(")
    if not bracket:
        return shape, ()
    names, depth = [""], 0
    for character in inner[:-1]:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            names.append("")
        else:
            names[-1] += character
    return shape, tuple(names)


def _list(name: str, inner: Sequence[ValueCodec]) -> ValueCodec:
    (element,) = inner

    def parse(text: pa.Array, stored: pa.DataType) -> pa.Array:
        return composed.parse_list(text, partial(_parse_within, element, stored.value_type))

    return ValueCodec(name, parse, lambda values: composed.list_text(values, partial(rendered, element)))


def _range(name: str, inner: Sequence[ValueCodec]) -> ValueCodec:
    (bound,) = inner

    def parse(text: pa.Array, stored: pa.DataType) -> pa.Array:
        return composed.parse_range(text, stored, partial(_parse_within, bound, stored[0].type))

    return ValueCodec(name, parse, lambda values: composed.range_text(values, partial(rendered, bound)))


def _multirange(name: str, inner: Sequence[ValueCodec]) -> ValueCodec:
    (bound,) = inner

    def parse(text: pa.Array, stored: pa.DataType) -> pa.Array:
        return composed.parse_multirange(
            text, stored, partial(_parse_within, bound, stored.value_type[0].type)
        )

    return ValueCodec(name, parse, lambda values: composed.multirange_text(values, partial(rendered, bound)))


def _struct(name: str, inner: Sequence[ValueCodec]) -> ValueCodec:
    def parse(text: pa.Array, stored: pa.DataType) -> pa.Array:
        elements = [
            partial(_parse_within, codec, stored_field.type)
            for codec, stored_field in zip(inner, stored, strict=True)
        ]
        return composed.parse_composite(text, stored, elements)

    elements = [partial(rendered, codec) for codec in inner]
    return ValueCodec(name, parse, lambda values: composed.composite_text(values, elements))


def _parse_within(codec: ValueCodec, stored: pa.DataType, text: pa.Array) -> pa.Array:
    """Parse elements, bounds or fields. One that its type cannot hold becomes NULL; the whole value is then compared
    with its text.
    """
    return parse_leniently(codec, text, stored)


_NESTED: Mapping[str, Callable[[str, Sequence[ValueCodec]], ValueCodec]] = {
    "list": _list,
    "range": _range,
    "multirange": _multirange,
    "struct": _struct,
}
