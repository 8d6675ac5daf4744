"""Kinds of columns whose text is fixed by a number of digits or by another server's habits: MySQL's.

Text of a kind to Arrow (``CONVERT``), and Arrow to text (``TEXT``); see ``exporters.mysql.rows.column_types``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from exporters.sql.text_codec import hex_text

Convert = Callable[[pa.Array], pa.Array]

_DAY = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_CLOCK = r"([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}"
_BINARY_MARK = "\\x"
"""How the text of a value begins that is bytes in hexadecimal."""


def double_text(value: float) -> str:
    """Return a number as MySQL writes a DOUBLE (my_gcvt in strings/dtoa.c): the shortest digits, with an exponent where
    that is shorter or the point is more than 15 digits away, unless digits stand behind it.
    """
    if value == 0:
        return "-0" if str(value).startswith("-") else "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    leading = len(whole) if whole.strip("0") else -(len(fraction) - len(fraction.lstrip("0")))
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


def _digits(values: pa.Array, digits: int, whole: int) -> pa.Array:
    """Return ISO text of times in microseconds, cut to ``digits`` of a second; ``whole`` is the length without them."""
    text = pc.cast(values, pa.string())
    return pc.utf8_slice_codeunits(text, 0, whole + 1 + digits if digits else whole)


def _moments(values: pa.Array, digits: int) -> pa.Array:
    return _digits(values.cast(pa.timestamp("us")), digits, 19)


def _clocks(values: pa.Array, digits: int) -> pa.Array:
    return _digits(values, digits, 8)


def _years(values: pa.Array) -> pa.Array:
    return pc.utf8_lpad(pc.cast(values, pa.string()), 4, "0")


def _upper_hex(values: pa.Array) -> pa.Array:
    return hex_text.bytes_text(values, upper=True)


def _to_moment(text: pa.Array) -> pa.Array:
    return text.cast(pa.timestamp("us"))


def _to_utc(text: pa.Array) -> pa.Array:
    return text.cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))


def _to_clock(text: pa.Array) -> pa.Array:
    """Arrow casts text to a timestamp, not to a time of day."""
    if pa.types.is_time(text.type):
        return text
    return pc.binary_join_element_wise("1970-01-01", text, " ").cast(pa.timestamp("us")).cast(pa.time64("us"))


def _characters(text: pa.Array) -> pa.Array:
    """Return what is characters; bytes become NULL."""
    return pc.if_else(pc.starts_with(text, _BINARY_MARK), pa.scalar(None, pa.string()), text)


_PRECISIONS = range(7)

TEXT: Mapping[str, Convert] = {
    "mysqldouble": _doubles,
    "mysqlfloat": lambda values: _doubles(values.cast(pa.float64())),
    "year": _years,
    "hex": _upper_hex,
    "charset": lambda values: values,
    **{f"datetime.{n}": partial(_moments, digits=n) for n in _PRECISIONS},
    **{f"utc.{n}": partial(_moments, digits=n) for n in _PRECISIONS},
    **{f"clock.{n}": partial(_clocks, digits=n) for n in _PRECISIONS},
}

CONVERT: Mapping[str, Convert] = {
    "hex": hex_text.parse_bytes,
    "charset": _characters,
    "mysqlfloat": lambda text: text.cast(pa.float64()).cast(pa.float32()),
    **{f"datetime.{n}": _to_moment for n in _PRECISIONS},
    **{f"utc.{n}": _to_utc for n in _PRECISIONS},
    **{f"clock.{n}": _to_clock for n in _PRECISIONS},
}

REGULAR: Mapping[str, str] = {
    **{f"datetime.{n}": rf"^{_DAY} {_CLOCK}(\.[0-9]{{1,6}})?$" for n in _PRECISIONS},
    **{f"utc.{n}": rf"^{_DAY} {_CLOCK}(\.[0-9]{{1,6}})?$" for n in _PRECISIONS},
    **{f"clock.{n}": rf"^{_CLOCK}(\.[0-9]{{1,6}})?$" for n in _PRECISIONS},
}
