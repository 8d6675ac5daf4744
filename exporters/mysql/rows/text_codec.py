"""The codecs of MySQL's kinds, by the names that stand in Parquet; see ``exporters.mysql.rows.column_types``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pyarrow as pa

from exporters import arrow_functions as pc
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
    storage_of,
)

_DAY = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_CLOCK = r"([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}"
_BINARY_MARK = "\\x"
"""How the text of a value begins that is bytes in hexadecimal."""


def double_text(value: float) -> str:
    """Return a number as MySQL writes a DOUBLE (my_gcvt in strings/dtoa.c): the shortest digits. There is an exponent
    where that is shorter, or where the point is more than 15 digits away, unless digits stand behind it.
    """
    if value == 0:
        return "-0" if str(value).startswith("-") else "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    integer, _, fraction = mantissa.partition(".")
    digits = (integer + fraction).lstrip("0")
    leading = len(integer) if integer.strip("0") else -(len(fraction) - len(fraction.lstrip("0")))
    point = leading + int(exponent or 0)  # the decimal point stands after so many digits
    digits = digits.rstrip("0")
    sign = "-" if value < 0 else ""
    if point >= -14 and (point <= 15 or len(digits) > point):
        return sign + _fixed(digits, point)
    tail = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1}"


def _fixed(digits: str, point: int) -> str:
    if point <= 0:
        return "0." + "0" * -point + digits
    if len(digits) <= point:
        return digits + "0" * (point - len(digits))
    return digits[:point] + "." + digits[point:]


_PLAIN_FROM, _PLAIN_BELOW = 1e-4, 1e10
"""Between these Arrow writes numbers as MySQL does, but for whole ones: "1.0"."""


def _doubles(values: pa.Array) -> pa.Array:
    text = pc.cast(values, pa.string())
    size = pc.abs(values)
    odd = pc.invert(pc.and_(pc.greater_equal(size, _PLAIN_FROM), pc.less(size, _PLAIN_BELOW)))
    odd = pc.fill_null(odd, fill_value=False)
    text = pc.replace_substring_regex(text, pattern=r"\.0$", replacement="")
    if not odd.true_count:
        return text
    return pc.replace_with_mask(
        text, odd, pa.array(map(double_text, values.filter(odd).to_pylist()), pa.string())
    )


def _digits(values: pa.Array, digits: int, integer_digits: int) -> pa.Array:
    """Return ISO text of times in microseconds, cut to ``digits`` of a second; ``whole`` is the length without them."""
    text = pc.cast(values, pa.string())
    return pc.utf8_slice_codeunits(text, 0, integer_digits + 1 + digits if digits else integer_digits)


def _moments(values: pa.Array, digits: int) -> pa.Array:
    return _digits(pc.cast(values, pa.timestamp("us")), digits, 19)


def _clocks(values: pa.Array, digits: int) -> pa.Array:
    return _digits(values, digits, 8)


def _years(values: pa.Array) -> pa.Array:
    return pc.utf8_lpad(pc.cast(values, pa.string()), 4, "0")


def _upper_hex(values: pa.Array) -> pa.Array:
    return bytes_text(values, upper=True)


def _parse_utc(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    return pc.cast(pc.cast(text, pa.timestamp("us")), pa.timestamp("us", "UTC"))


def _parse_single(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    return pc.cast(pc.cast(text, pa.float64()), pa.float32())


def _parse_characters(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    """Return what is characters; bytes become NULL."""
    return pc.if_else(pc.starts_with(text, _BINARY_MARK), pa.scalar(None, pa.string()), text)


_MOMENT, _TIME = rf"^{_DAY} {_CLOCK}(\.[0-9]{{1,6}})?$", rf"^{_CLOCK}(\.[0-9]{{1,6}})?$"
_PRECISIONS = range(7)

CODECS: Mapping[str, ValueCodec] = {
    codec.name: codec
    for codec in (
        TEXT,
        INT,
        DECIMAL,
        JSON,
        DATE,
        ValueCodec("mysqldouble", cast_text, _doubles),
        ValueCodec("mysqlfloat", _parse_single, lambda values: _doubles(values.cast(pa.float64()))),
        ValueCodec("year", cast_text, _years),
        ValueCodec("hex", parse_bytes, _upper_hex),
        ValueCodec("charset", _parse_characters, storage_of),
        *(ValueCodec(f"datetime.{n}", cast_text, partial(_moments, digits=n), _MOMENT) for n in _PRECISIONS),
        *(ValueCodec(f"utc.{n}", _parse_utc, partial(_moments, digits=n), _MOMENT) for n in _PRECISIONS),
        *(ValueCodec(f"clock.{n}", as_time, partial(_clocks, digits=n), _TIME) for n in _PRECISIONS),
    )
}
