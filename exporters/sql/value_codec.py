"""Between the text of values and typed Arrow values, and no value lost on the way.

Engines bring the codecs of their kinds. Where a column has a value that its type cannot hold, its text is kept in a
side column. Those are exactly the values that do not survive being typed and rendered again.
"""

from __future__ import annotations

from binascii import hexlify, unhexlify
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import pyarrow as pa
from msgspec import Struct

from exporters import arrow_functions as pc
from exporters.errors import SourceError

PROVED_ROWS = 2000
"""The first rows of each chunk that are rendered back to their texts: that finds a mistake about a whole column. The
other values of kinds that are not compared value by value are right by the argument in ``column_types``. ``verify
--level full`` renders all rows.
"""


class ValueCodec(Struct, frozen=True):
    """How an engine's values of one kind are parsed and rendered. ``name`` stands in the metadata of the field.

    ``parse`` makes values of a type of their text; it raises ``pa.ArrowInvalid`` if one is not of the type. ``render``
    makes their text again. ``regular`` is what the text of a value looks like that the type can hold; for kinds that
    can print others.
    """

    name: str
    parse: Callable[[pa.Array, pa.DataType], pa.Array]
    render: Callable[[pa.Array], pa.Array]
    regular: str = ""


def cast_text(text: pa.Array, stored: pa.DataType) -> pa.Array:
    """Parse text as Arrow does."""
    return pc.cast(text, stored)


def plain_text(values: pa.Array) -> pa.Array:
    """Render values as Arrow does."""
    return pc.cast(values, pa.string())


def storage_of(values: pa.Array) -> pa.Array:
    """Return values without their extension type: those of text and JSON are their text."""
    return values.storage if isinstance(values, pa.ExtensionArray) else values


def _as_json(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    """Parse text as Arrow's JSON, which keeps it as it is."""
    return pa.json_(pa.string()).wrap_array(text)


def as_time(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    """Parse a time of day. Arrow casts text to a timestamp only."""
    if pa.types.is_time(text.type):
        return text
    moment = pc.binary_join_element_wise("1970-01-01", text, " ")
    return pc.cast(pc.cast(moment, pa.timestamp("us")), pa.time64("us"))


def _decimal_text(values: pa.Array) -> pa.Array:
    """Render decimals as servers do. Arrow writes an exponent where the first digit is more than six places after the
    point.
    """
    text = plain_text(values)
    if values.type.scale <= 6:
        return text
    odd = pc.fill_null(pc.match_substring(text, "E"), fill_value=False)
    if not odd.true_count:
        return text
    fixed = pa.array([f"{value.as_py():f}" for value in pc.filter(values, odd)], pa.string())
    return pc.replace_with_mask(text, odd, fixed)


_SPAN_DAYS = 2**14
_MANY_DAYS = 256


def _date_text(values: pa.Array) -> pa.Array:
    """Render dates. Many dates within a few decades are looked up in a table of days."""
    if len(values) < _MANY_DAYS:
        return plain_text(values)
    days = pc.cast(values, pa.int32())
    ends = pc.min_max(days).as_py()
    if ends["min"] is None:
        return plain_text(values)
    first = ends["min"] // (_SPAN_DAYS // 2) * (_SPAN_DAYS // 2)
    if ends["max"] >= first + _SPAN_DAYS:
        return plain_text(values)
    return pc.take(_days(first), pc.subtract(days, first))


@lru_cache(maxsize=8)
def _days(first: int) -> pa.Array:
    return pc.cast(pc.cast(pa.array(range(first, first + _SPAN_DAYS), pa.int32()), pa.date32()), pa.string())


TEXT = ValueCodec("text", cast_text, storage_of)
"""Text that is kept as it is. No value of it is ever compared with its text."""
INT = ValueCodec("int", cast_text, plain_text)
DECIMAL = ValueCodec("decimal", cast_text, _decimal_text, r"^-?[0-9]+(\.[0-9]+)?$")
DATE = ValueCodec("date", cast_text, _date_text, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")
JSON = ValueCodec("json", _as_json, storage_of)


def rendered(codec: ValueCodec, values: pa.Array, side: pa.Array | None = None) -> pa.Array:
    """Return the server's text of every value, as binary, NULL for NULL: what the side column has, if there is one,
    else the typed value.
    """
    text = codec.render(values)
    text = text.view(pa.binary()) if pa.types.is_string(text.type) else pc.cast(text, pa.binary())
    return text if side is None else pc.coalesce(pc.cast(side, pa.binary()), text)


def parse_exactly(codec: ValueCodec, text: pa.Array, stored: pa.DataType) -> tuple[pa.Array, pa.Array | None]:
    """Return typed values and, if some do not render to their text again, that text (NULL for all others).

    A value whose text is in the side column is NULL in the typed one, except for floats: there the typed value is
    right even where its text differs.
    """
    if codec is TEXT:
        return text, None
    typed = parse_leniently(codec, text, stored)
    expected = pc.cast(text, pa.binary())
    differs = pc.invert(pc.fill_null(pc.equal(rendered(codec, typed), expected), fill_value=False))
    differs = pc.and_(differs, pc.is_valid(text))
    if not differs.true_count:
        return typed, None
    side = pc.if_else(differs, text, pa.scalar(None, text.type))
    if pa.types.is_floating(stored):
        return typed, side
    if pa.types.is_nested(stored) or isinstance(typed, pa.ExtensionArray):  # if_else takes not all of these
        return parse_leniently(codec, pc.if_else(differs, pa.scalar(None, text.type), text), stored), side
    return pc.if_else(differs, pa.scalar(None, stored), typed), side


def parse_leniently(codec: ValueCodec, text: pa.Array, stored: pa.DataType) -> pa.Array:
    """Parse what can be parsed; the rest becomes NULL."""
    try:
        return codec.parse(text, stored)
    except pa.ArrowInvalid:
        pass
    if codec.regular:
        regular = pc.match_substring_regex(text, pattern=codec.regular)
        regular_text = pc.if_else(regular, text, pa.scalar(None, text.type))
        try:
            return codec.parse(regular_text, stored)
        except pa.ArrowInvalid:
            text = regular_text
    return _parse_by_halves(codec, text, stored)


def _parse_by_halves(codec: ValueCodec, text: pa.Array, stored: pa.DataType) -> pa.Array:
    """Parse by halves, so that a bad value costs itself only."""
    try:
        return codec.parse(text, stored)
    except pa.ArrowInvalid:
        if len(text) == 1:
            return codec.parse(pa.nulls(1, text.type), stored)
    half = len(text) // 2
    parts = [_parse_by_halves(codec, part, stored) for part in (text[:half], text[half:])]
    return pa.concat_arrays(parts)


def split_utf8(data: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Return the values that are valid UTF-8 as text, and the others (servers accept lone surrogates) as bytes; None
    where there are no others.
    """
    if _is_ascii(data):
        return data.view(pa.string()), None
    try:
        return pc.cast(data, pa.string()), None
    except pa.ArrowInvalid:
        pass
    bad = pa.array([value is not None and not is_utf8(value) for value in data.to_pylist()])
    nothing = pa.scalar(None, pa.binary())
    return pc.cast(pc.if_else(bad, nothing, data), pa.string()), pc.if_else(bad, data, nothing)


def _is_ascii(data: pa.Array) -> bool:
    """Tell whether all values are ASCII, by one look at their buffer: much quicker than value by value."""
    buffer = data.buffers()[2]
    return buffer is None or buffer.to_pybytes().isascii()


def merged_sides(side: pa.Array | None, bad: pa.Array | None) -> pa.Array | None:
    """Return one side column: of the texts that were not typed, and of the bytes that are no text."""
    if side is None or bad is None:
        return side if bad is None else bad
    return pc.coalesce(pc.cast(side, bad.type), bad)


def is_utf8(value: bytes) -> bool:
    """Tell whether bytes are text."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def values_of(array: pa.Array) -> list[bytes]:
    """Return the values of a binary array that has no NULLs; quicker than its ``to_pylist``."""
    _, starts, data = array.buffers()
    if data is None or not len(array):
        return [b""] * len(array)
    ends = memoryview(starts).cast("i")[array.offset : array.offset + len(array) + 1].tolist()
    raw = data.to_pybytes()
    return [raw[begin:end] for begin, end in pairwise(ends)]


def joined(lines: pa.Array) -> bytes:
    """Return binary values one after the other."""
    _, starts, data = pa.concat_arrays([lines, pa.array([], lines.type)]).buffers()
    if not len(lines) or data is None:
        return b""
    offsets = memoryview(starts).cast("i")
    return bytes(memoryview(data)[offsets[0] : offsets[len(lines)]])


def rows_changed(stem: str = "") -> SourceError:
    """Return the error for rows that do not render to their texts again; ``stem`` names their files."""
    return SourceError(
        "rows do not come out of Parquet as they went in",
        about=stem,
        next_step="please report the table's definition; nothing of it was written",
    )


# ``binascii`` works at memory speed on the one buffer in which Arrow keeps a column's values. So no value becomes a
# Python object, and there are few copies of a very large one.
_UUID_DIGITS = 32


def parse_bytes(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    r"""Return the binary values of ``\x…`` text. Raises ``pa.ArrowInvalid`` for anything else."""
    if not pc.all(pc.starts_with(text, "\\x"), min_count=0).as_py():
        raise pa.ArrowInvalid("not the hex format of bytea")
    # not binary_slice: it miscounts its buffer where values are shorter than the slice (Arrow 26)
    digits = pc.replace_substring(text, pattern="\\x", replacement="", max_replacements=1)
    return _pairs(pc.cast(digits, pa.binary()))


def bytes_text(values: pa.Array, *, upper: bool = False) -> pa.Array:
    r"""Return ``\x…`` for every value."""
    digits = _digits(values)
    if upper:
        digits = pc.cast(pc.ascii_upper(pc.cast(digits, pa.string())), pa.binary())
    return pc.binary_join_element_wise(pa.scalar(b"\\x", pa.binary()), digits, b"")


def parse_uuid(text: pa.Array, _stored: pa.DataType) -> pa.Array:
    """Return the 16 bytes of every UUID, as Arrow's uuid type. Raises ``pa.ArrowInvalid``."""
    digits = pc.replace_substring(text, pattern="-", replacement="")
    padded = pc.fill_null(digits, "0" * _UUID_DIGITS)
    if not pc.all(pc.equal(pc.binary_length(padded), _UUID_DIGITS), min_count=0).as_py():
        raise pa.ArrowInvalid("not a UUID")
    raw = pc.cast(_pairs(pc.cast(padded, pa.binary())), pa.binary(16))
    return pa.uuid().wrap_array(pc.if_else(pc.is_valid(text), raw, pa.scalar(None, pa.binary(16))))


def uuid_text(values: pa.Array) -> pa.Array:
    """Return ``8-4-4-4-12`` digits for 16-byte values."""
    raw = values.storage if isinstance(values, pa.ExtensionArray) else values
    digits = pc.cast(_digits(pc.cast(raw, pa.binary())), pa.string())
    cuts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)]
    return pc.binary_join_element_wise(*(pc.utf8_slice_codeunits(digits, *cut) for cut in cuts), "-")


def _pairs(digits: pa.Array) -> pa.Array:
    """Return binary values of half the length."""
    validity, starts, data = _own(digits).buffers()
    try:
        raw = unhexlify(data) if data else b""
    except ValueError as exc:
        raise pa.ArrowInvalid(f"not hexadecimal: {exc}") from None
    return _rebuilt(validity, _scaled(starts, len(digits), 1, 2), raw, len(digits))


def _digits(values: pa.Array) -> pa.Array:
    """Return binary values of twice the length, in hexadecimal."""
    validity, starts, data = _own(values).buffers()
    raw = hexlify(data) if data else b""
    return _rebuilt(validity, _scaled(starts, len(values), 2, 1), raw, len(values))


def _own(values: pa.Array) -> pa.Array:
    """Return the values with buffers that begin at their first value and end at their last."""
    return pa.concat_arrays([values, pa.array([], values.type)])


def _scaled(starts: pa.Buffer, count: int, times: int, by: int) -> pa.Buffer:
    offsets = pa.Array.from_buffers(pa.int32(), count + 1, [None, starts])
    int32 = pa.int32()  # a bare number would widen the offsets
    scaled = pc.divide(pc.multiply_checked(offsets, pa.scalar(times, int32)), pa.scalar(by, int32))
    return scaled.buffers()[1]


def _rebuilt(validity: pa.Buffer | None, starts: pa.Buffer, raw: bytes, count: int) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(), count, [validity, starts, pa.py_buffer(raw)])
