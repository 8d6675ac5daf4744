"""The text of floating-point numbers, as PostgreSQL writes them with extra_float_digits >= 1.

Digits are the shortest that give the same number back. An exponent of at least two digits is written where it is below
-4 or at least 15 (src/common/d2s.c), for single precision at least 6 (f2s.c).
"""

from __future__ import annotations

import math

import pyarrow as pa

from exporters import arrow_functions as pc

_DOUBLE_DIGITS, _SINGLE_DIGITS = 15, 6
_FIXED_FROM = 1e-4
_FIXED_BELOW = 1e10


def float_text(values: pa.Array) -> pa.Array:
    """Return the text of float64 values. The few ranges in which Arrow writes otherwise are done one by one."""
    return _text(values, _FIXED_BELOW, _DOUBLE_DIGITS)


def single_text(values: pa.Array) -> pa.Array:
    """Return the text of float32 values, as the server writes ``real`` itself."""
    return _text(values, 10.0**_SINGLE_DIGITS, _SINGLE_DIGITS)


def _text(values: pa.Array, below: float, digits: int) -> pa.Array:
    text = pc.cast(values, pa.string())
    size = pc.cast(pc.abs(values), pa.float64())
    odd = pc.or_(
        pc.invert(pc.and_(pc.greater_equal(size, _FIXED_FROM), pc.less(size, below))),
        pc.is_nan(values),
    )
    odd = pc.fill_null(pc.and_(odd, pc.not_equal(size, 0.0)), fill_value=False)
    if not odd.true_count:
        return text
    fixed = [_server_text(value, digits) for value in pc.filter(text, odd).to_pylist()]
    return pc.replace_with_mask(text, odd, pa.array(fixed, pa.string()))


def _server_text(shortest: str, fixed_digits: int) -> str:
    """Return a number as the server writes it; ``shortest`` has the shortest digits, in any form."""
    value = float(shortest)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    sign, digits, exponent = _taken_apart(shortest)
    if -4 <= exponent < fixed_digits:
        return sign + _fixed(digits, exponent)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{exponent:+03d}"


def _taken_apart(shortest: str) -> tuple[str, str, int]:
    """Return sign, significant digits and the exponent of the first digit."""
    mantissa, _, exponent = shortest.partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    integer, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (integer + fraction).lstrip("0")
    leading = len(integer) if integer.strip("0") else -(len(fraction) - len(fraction.lstrip("0")))
    return sign, digits.rstrip("0") or "0", leading - 1 + int(exponent or 0)


def _fixed(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    if len(digits) <= exponent + 1:
        return digits + "0" * (exponent + 1 - len(digits))
    return digits[: exponent + 1] + "." + digits[exponent + 1 :]
