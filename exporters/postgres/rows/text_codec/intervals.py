"""Intervals as ``struct{months, days, micros}``, and their text in PostgreSQL's ISO 8601 style (EncodeInterval in
src/backend/utils/adt/datetime.c): every part with a sign of its own.
"""

from __future__ import annotations

import pyarrow as pa

from exporters import arrow_functions as pc

STORED = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("micros", pa.int64())])

_PATTERN = (
    r"^P(?:(?P<y>-?[0-9]+)Y)?(?:(?P<mo>-?[0-9]+)M)?(?:(?P<d>-?[0-9]+)D)?"
    r"(?:T(?:(?P<h>-?[0-9]+)H)?(?:(?P<mi>-?[0-9]+)M)?(?:(?P<sign>-?)(?P<s>[0-9]+)(?:\.(?P<f>[0-9]{1,6}))?S)?)?$"
)
_HOUR, _MINUTE, _SECOND = 3_600_000_000, 60_000_000, 1_000_000


def parse(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    """Return the intervals; NULL where the text is none of that style (``infinity``)."""
    parts = pc.extract_regex(text, pattern=_PATTERN)

    def number(name: str) -> pa.Array:
        digits = pc.struct_field(parts, name)
        return pc.if_else(pc.equal(digits, ""), "0", digits).cast(pa.int64())

    months = pc.add_checked(pc.multiply_checked(number("y"), 12), number("mo"))
    fraction = pc.utf8_rpad(pc.struct_field(parts, "f"), 6, "0").cast(pa.int64())
    seconds = pc.add_checked(pc.multiply_checked(number("s"), _SECOND), fraction)
    seconds = pc.if_else(pc.equal(pc.struct_field(parts, "sign"), "-"), pc.negate(seconds), seconds)
    clock = pc.add_checked(
        pc.multiply_checked(number("h"), _HOUR), pc.multiply_checked(number("mi"), _MINUTE)
    )
    micros = pc.add_checked(clock, seconds)
    fields = [months.cast(pa.int32()), number("d").cast(pa.int32()), micros]
    return pa.StructArray.from_arrays(fields, fields=list(STORED), mask=pc.is_null(parts))


def text_of(values: pa.Array) -> pa.Array:
    """Return the text; NULL for NULL."""
    months, days, micros = (pc.struct_field(values, name).cast(pa.int64()) for name in STORED.names)
    years, rest = _divided(months, 12)
    hours, below = _divided(micros, _HOUR)
    minutes, below = _divided(below, _MINUTE)
    clock = _joined(_part(hours, "H"), _part(minutes, "M"), _seconds(below))
    clock = pc.if_else(pc.equal(clock, ""), "", _joined("T", clock))
    text = _joined("P", _part(years, "Y"), _part(rest, "M"), _part(days, "D"), clock)
    return pc.if_else(pc.equal(text, "P"), "PT0S", text)


def _divided(values: pa.Array, by: int) -> tuple[pa.Array, pa.Array]:
    """Return quotient (towards zero) and remainder of the same sign."""
    quotient = pc.divide(values, by)
    return quotient, pc.subtract(values, pc.multiply(quotient, by))


def _part(values: pa.Array, letter: str) -> pa.Array:
    return pc.if_else(pc.equal(values, 0), "", _joined(pc.cast(values, pa.string()), letter))


def _seconds(micros: pa.Array) -> pa.Array:
    seconds, fraction = _divided(pc.abs(micros), _SECOND)
    digits = pc.ascii_rtrim(pc.utf8_lpad(pc.cast(fraction, pa.string()), 6, "0"), characters="0")
    point = pc.if_else(pc.equal(digits, ""), "", ".")
    sign = pc.if_else(pc.less(micros, 0), "-", "")
    return pc.if_else(
        pc.equal(micros, 0), "", _joined(sign, pc.cast(seconds, pa.string()), point, digits, "S")
    )


def _joined(*texts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*texts, "")
