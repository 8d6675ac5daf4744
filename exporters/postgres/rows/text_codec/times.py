"""Intervals, and times of day with an offset.

An interval is ``struct{months, days, micros}``; its text is in PostgreSQL's ISO 8601 style, every part with a sign of
its own. A time with an offset is ``struct{time, utc_offset}``, the offset in seconds east of UTC. See EncodeInterval,
EncodeTimeOnly and EncodeTimezone in src/backend/utils/adt/datetime.c.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.value_tokens import structs_of
from exporters.sql.value_codec import joined

INTERVAL = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("micros", pa.int64())])

_DATE_PARTS = {"y": "Y", "mo": "M", "d": "D"}
_CLOCK_PARTS = {"h": "H", "mi": "M"}
_SECONDS = r"(?:(?P<sign>-?)(?P<s>[0-9]+)(?:\.(?P<f>[0-9]{1,6}))?S)?"
_HOUR, _MINUTE, _SECOND = 3_600_000_000, 60_000_000, 1_000_000


def parse_interval(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    """Return the intervals; NULL where the text is none of that style (``infinity``)."""
    raw = joined(pc.cast(text, pa.binary()))
    pattern = _interval_pattern("".join(letter for letter in "YMDTHS" if letter.encode() in raw))
    parts = pc.extract_regex(text, pattern=pattern)
    zeros = pa.repeat(pa.scalar(0, pa.int64()), len(text))

    def number(name: str) -> pa.Array:
        if f"<{name}>" not in pattern:
            return zeros
        digits = pc.struct_field(parts, name)
        return pc.cast(pc.if_else(pc.equal(digits, ""), "0", digits), pa.int64())

    months = pc.add_checked(pc.multiply_checked(number("y"), 12), number("mo"))
    seconds = zeros
    if "<s>" in pattern:
        fraction = pc.cast(pc.utf8_rpad(pc.struct_field(parts, "f"), 6, "0"), pa.int64())
        seconds = pc.add_checked(pc.multiply_checked(number("s"), _SECOND), fraction)
        is_negative = pc.equal(pc.struct_field(parts, "sign"), "-")
        seconds = pc.if_else(is_negative, pc.negate(seconds), seconds)
    clock = pc.add_checked(
        pc.multiply_checked(number("h"), _HOUR), pc.multiply_checked(number("mi"), _MINUTE)
    )
    micros = pc.add_checked(clock, seconds)
    fields = [pc.cast(months, pa.int32()), pc.cast(number("d"), pa.int32()), micros]
    return structs_of(INTERVAL, fields, parts)


@lru_cache(64)
def _interval_pattern(letters: str) -> str:
    """Return the pattern of texts in which only these letters occur: a group that never matches takes as long as one
    that does.
    """
    date, clock = (
        "".join(f"(?:(?P<{name}>-?[0-9]+){letter})?" for name, letter in parts.items() if letter in letters)
        for parts in (_DATE_PARTS, _CLOCK_PARTS)
    )
    seconds = _SECONDS if "S" in letters or not date + clock else ""
    return f"^P{date}(?:T{clock}{seconds})?$"


def interval_text(values: pa.Array) -> pa.Array:
    """Return the text; NULL for NULL."""
    months, days, micros = (pc.cast(pc.struct_field(values, name), pa.int64()) for name in INTERVAL.names)
    years, rest = _divided(months, 12)
    hours, below = _divided(micros, _HOUR)
    minutes, below = _divided(below, _MINUTE)
    text = _joined(
        pc.if_else(pc.is_valid(values), "P", pa.scalar(None, pa.string())),
        *(_part(years, "Y"), _part(rest, "M"), _part(days, "D")),
        *(_unless_zero(micros, lambda: "T"), _part(hours, "H"), _part(minutes, "M")),
        _unless_zero(below, lambda: _seconds(below)),
    )
    return pc.if_else(pc.equal(text, "P"), "PT0S", text)


def _divided(values: pa.Array, by: int) -> tuple[pa.Array, pa.Array]:
    """Return quotient (towards zero) and remainder of the same sign."""
    quotient = pc.divide(values, by)
    return quotient, pc.subtract(values, pc.multiply(quotient, by))


def _part(values: pa.Array, letter: str) -> pa.Array | str:
    return _unless_zero(values, lambda: _joined(pc.cast(values, pa.string()), letter))


def _unless_zero(values: pa.Array, make: Callable[[], pa.Array | str]) -> pa.Array | str:
    """Return what is made of numbers, and nothing for 0."""
    zero = pc.equal(values, 0)
    if zero.true_count + zero.null_count == len(values):
        return ""
    text = make()
    return pc.if_else(zero, "", text) if zero.true_count else text


def _seconds(micros: pa.Array) -> pa.Array:
    seconds, fraction = _divided(pc.abs(micros), _SECOND)
    digits = pc.ascii_rtrim(pc.utf8_lpad(pc.cast(fraction, pa.string()), 6, "0"), characters="0")
    point = pc.if_else(pc.equal(digits, ""), "", ".")
    sign = pc.if_else(pc.less(micros, 0), "-", "")
    return _joined(sign, pc.cast(seconds, pa.string()), point, digits, "S")


def _joined(*texts: pa.Array | str) -> pa.Array:
    """Return the texts one after the other; an empty one is left out, since Arrow takes its time for each."""
    return pc.binary_join_element_wise(*(text for text in texts if not isinstance(text, str) or text), "")


TIMETZ = pa.struct([("time", pa.time64("us")), ("utc_offset", pa.int32())])

_TIMETZ_PATTERN = (
    r"^(?P<clock>(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?)"
    r"(?P<sign>[+-])(?P<h>[0-9]{2})(?::(?P<m>[0-9]{2})(?::(?P<s>[0-9]{2}))?)?$"
)
_HOUR_S, _MINUTE_S = 3600, 60


def parse_timetz(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    """Return the times; NULL where the text is none (``24:00:00+00``)."""
    parts = pc.extract_regex(text, pattern=_TIMETZ_PATTERN)

    def number(name: str) -> pa.Array:
        digits = pc.struct_field(parts, name)
        return pc.cast(pc.if_else(pc.equal(digits, ""), "0", digits), pa.int32())

    moment = pc.binary_join_element_wise("1970-01-01", pc.struct_field(parts, "clock"), " ")
    clock = pc.cast(pc.cast(moment, pa.timestamp("us")), pa.time64("us"))
    size = pc.add(
        pc.add(pc.multiply(number("h"), _HOUR_S), pc.multiply(number("m"), _MINUTE_S)),
        number("s"),
    )
    offset = pc.if_else(pc.equal(pc.struct_field(parts, "sign"), "-"), pc.negate(size), size)
    return structs_of(TIMETZ, [clock, pc.cast(offset, pa.int32())], parts)


def timetz_text(values: pa.Array) -> pa.Array:
    """Return the text; NULL for NULL."""
    clock, offset = values.flatten()
    text = pc.ascii_rtrim(pc.ascii_rtrim(pc.cast(clock, pa.string()), characters="0"), characters=".")
    size = pc.abs(offset)
    minutes, seconds = _rest(size, _HOUR_S), _rest(size, _MINUTE_S)
    zone = _two(pc.divide(size, _HOUR_S))
    fine = _joined(":", _two(seconds))
    zone = _joined(
        zone,
        pc.if_else(pc.equal(minutes, 0), "", _joined(":", _two(pc.divide(minutes, _MINUTE_S)))),
        pc.if_else(pc.equal(seconds, 0), "", fine),
    )
    return _joined(text, pc.if_else(pc.less(offset, 0), "-", "+"), zone)


def _rest(values: pa.Array, by: int) -> pa.Array:
    return pc.subtract(values, pc.multiply(pc.divide(values, by), by))


def _two(values: pa.Array) -> pa.Array:
    return pc.utf8_lpad(pc.cast(values, pa.string()), 2, "0")
