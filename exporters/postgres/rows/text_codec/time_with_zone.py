"""Times of day with an offset as ``struct{time, utc_offset}``, the offset in seconds east of UTC (EncodeTimeOnly and
EncodeTimezone in src/backend/utils/adt/datetime.c).
"""

from __future__ import annotations

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.value_tokens import structs_of

STORED = pa.struct([("time", pa.time64("us")), ("utc_offset", pa.int32())])

_PATTERN = (
    r"^(?P<clock>(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?)"
    r"(?P<sign>[+-])(?P<h>[0-9]{2})(?::(?P<m>[0-9]{2})(?::(?P<s>[0-9]{2}))?)?$"
)
_HOUR, _MINUTE = 3600, 60


def parse(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    """Return the times; NULL where the text is none (``24:00:00+00``)."""
    parts = pc.extract_regex(text, pattern=_PATTERN)

    def number(name: str) -> pa.Array:
        digits = pc.struct_field(parts, name)
        return pc.cast(pc.if_else(pc.equal(digits, ""), "0", digits), pa.int32())

    moment = pc.binary_join_element_wise("1970-01-01", pc.struct_field(parts, "clock"), " ")
    clock = pc.cast(pc.cast(moment, pa.timestamp("us")), pa.time64("us"))
    size = pc.add(pc.add(pc.multiply(number("h"), _HOUR), pc.multiply(number("m"), _MINUTE)), number("s"))
    offset = pc.if_else(pc.equal(pc.struct_field(parts, "sign"), "-"), pc.negate(size), size)
    return structs_of(STORED, [clock, pc.cast(offset, pa.int32())], parts)


def text_of(values: pa.Array) -> pa.Array:
    """Return the text; NULL for NULL."""
    clock, offset = values.flatten()
    text = pc.ascii_rtrim(pc.ascii_rtrim(pc.cast(clock, pa.string()), characters="0"), characters=".")
    size = pc.abs(offset)
    minutes, seconds = _rest(size, _HOUR), _rest(size, _MINUTE)
    zone = _two(pc.divide(size, _HOUR))
    fine = _joined(":", _two(seconds))
    zone = _joined(
        zone,
        pc.if_else(pc.equal(minutes, 0), "", _joined(":", _two(pc.divide(minutes, _MINUTE)))),
        pc.if_else(pc.equal(seconds, 0), "", fine),
    )
    return _joined(text, pc.if_else(pc.less(offset, 0), "-", "+"), zone)


def _rest(values: pa.Array, by: int) -> pa.Array:
    return pc.subtract(values, pc.multiply(pc.divide(values, by), by))


def _two(values: pa.Array) -> pa.Array:
    return pc.utf8_lpad(pc.cast(values, pa.string()), 2, "0")


def _joined(*texts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*texts, "")
