"""Columns of values as the types' receive functions read them (src/backend/utils/adt): by Arrow, whole columns at a
time.

There are two kinds of functions. Some return ``Pieces``: lengths and values, as they stand in a row. Others return the
values alone, as binary; ``with_lengths`` makes pieces of these.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_pton

import pyarrow as pa

from exporters import arrow_functions as pc
from exporters.postgres.rows.text_codec.composed_values import list_elements
from exporters.postgres.rows.text_codec.times import INTERVAL
from exporters.postgres.rows.text_codec.value_tokens import lists_of, validity_of
from exporters.sql.columns import Pieces
from exporters.sql.value_codec import joined, storage_of

EPOCH_DAYS = 10957
EPOCH_MICROS = EPOCH_DAYS * 86_400_000_000
"""Dates and times count from 2000-01-01."""
NULL = b"\xff\xff\xff\xff"
_CODES = {1: "B", 2: "h", 4: "i", 8: "q"}
_MANY = 2**14

Make = Callable[[pa.Array], pa.Array]
"""Makes the bytes of values, NULL for NULL."""


def together(pieces: Pieces) -> pa.Array | pa.Scalar:
    """Return what the pieces make; a piece that is NULL is nothing."""
    return pc.binary_join_element_wise(*pieces, b"", null_handling="replace", null_replacement=b"")


def _row_wise(*pieces: pa.Array | pa.Scalar) -> pa.Array:
    """Return what the pieces make, NULL where one is NULL."""
    return pc.binary_join_element_wise(*pieces, b"")


def _bytes_of(layout: str, *numbers: int) -> pa.Scalar:
    return pa.scalar(struct.pack(layout, *numbers), pa.binary())


def _before(head: bytes, values: pa.Array) -> pa.Array | pa.Scalar:
    """Return what stands before a value: ``head``, or that it is NULL."""
    if not values.null_count:
        return pa.scalar(head, pa.binary())
    return pc.if_else(pc.is_valid(values), pa.scalar(head, pa.binary()), pa.scalar(NULL, pa.binary()))


def swapped(values: pa.Array, per_value: int = 1) -> pa.Array:
    """Return numbers as bytes, the most significant first; so many numbers, which are not NULL then, make a value."""
    width = values.type.bit_width // 8
    numbers = array(_CODES[width])
    start = values.offset * width
    numbers.frombytes(memoryview(values.buffers()[1])[start : start + len(values) * width])
    numbers.byteswap()
    return _cut(pa.py_buffer(numbers), width * per_value, len(values) // per_value, validity_of(values))


def _cut(data: pa.Buffer, width: int, count: int, valid: pa.Buffer | None = None) -> pa.Array:
    """Return so many values of the same width."""
    offsets = _offsets(width, max(_MANY, count)).buffers()[1]
    return pa.Array.from_buffers(pa.binary(), count, [valid, offsets, data])


@lru_cache(maxsize=8)
def _offsets(width: int, rows: int) -> pa.Array:
    return pa.array(range(0, (rows + 1) * width, width), pa.int32())


def number(values: pa.Array) -> Pieces:
    """Integers and floats."""
    return [_before(struct.pack(">i", values.type.bit_width // 8), values), swapped(values)]


def date(values: pa.Array) -> Pieces:
    """Days."""
    return number(pc.subtract(pc.cast(values, pa.int32()), pa.scalar(EPOCH_DAYS, pa.int32())))


def moment(values: pa.Array) -> Pieces:
    """Microseconds."""
    return number(pc.subtract(pc.cast(values, pa.int64()), EPOCH_MICROS))


def boolean(values: pa.Array) -> Pieces:
    """One byte each."""
    return [_before(struct.pack(">i", 1), values), pc.cast(pc.if_else(values, b"\1", b"\0"), pa.binary())]


def uuid(values: pa.Array) -> Pieces:
    """Sixteen bytes each."""
    return [_before(struct.pack(">i", 16), values), pc.cast(storage_of(values), pa.binary())]


def with_lengths(values: pa.Array) -> Pieces:
    """Text and bytes as they are."""
    data = pc.cast(storage_of(values), pa.binary())
    return [swapped(pc.fill_null(pc.binary_length(data), -1)), data]


def interval(values: pa.Array) -> pa.Array:
    """Structs of intervals (``interval_recv``, timestamp.c)."""
    months, days, micros = (pc.struct_field(values, name) for name in INTERVAL.names)
    return _row_wise(swapped(micros), swapped(days), swapped(months))


def time_with_zone(values: pa.Array) -> pa.Array:
    """Structs of times and offsets; the server counts these to the west (``timetz_recv``, date.c)."""
    time, offset = values.flatten()
    return _row_wise(swapped(time), swapped(pc.subtract(pa.scalar(0, pa.int32()), offset)))


def decimal(values: pa.Array) -> Pieces:
    """Decimals of up to 15 digits: digits of 10,000, as many for all, since the server drops zeros in front and behind
    (``make_result``, numeric.c).
    """
    scale = values.type.scale
    whole = pa.decimal128(38, 0)  # the same digits without the point
    buffers = values.buffers()
    unscaled = pa.Array.from_buffers(whole, len(values), buffers, values.null_count, values.offset).cast(
        pa.int64()
    )
    ends: Mapping[str, int | None] = pc.min_max(unscaled).as_py()
    negative = (ends["min"] or 0) < 0
    fill = 10 ** (-scale % 4)
    size = pc.multiply(pc.abs(unscaled) if negative else unscaled, fill)
    largest = max(abs(end or 0) for end in ends.values()) * fill
    if largest < 10**4:
        digits, words = 1, [pc.cast(size, pa.int16())]
    elif largest < 10**8:
        digits, words = 2, [pc.cast(_two(size), pa.int32())]
    elif largest < 10**16:
        digits, words = 4, [_four(size)]
    else:
        top = pc.divide(size, 10**16)
        digits, words = 8, [top, _four(pc.subtract(size, pc.multiply(top, 10**16)))]
    head = struct.pack(">ihh", 8 + 2 * digits, digits, digits - -(-scale // 4) - 1)
    signs = [struct.pack(">Hh", sign, scale) for sign in (_PLUS, _MINUS)]
    if not negative:
        return [_before(head + signs[0], values), *map(swapped, words)]
    which = pc.cast(pc.less(unscaled, 0), pa.int8())
    return [_before(head, values), pc.take(pa.array(signs, pa.binary()), which), *map(swapped, words)]


def _two(size: pa.Array) -> pa.Array:
    """Two digits in one number: the first one in the upper 16 bits."""
    return pc.add(size, pc.multiply(pc.divide(size, 10**4), 2**16 - 10**4))


def _four(size: pa.Array) -> pa.Array:
    upper = pc.divide(size, 10**8)
    lower = pc.subtract(size, pc.multiply(upper, 10**8))
    return pc.bit_wise_or(pc.shift_left(_two(upper), 32), _two(lower))


_PLUS, _MINUS = 0, 0x4000
_NO_NUMBERS = {"NaN": 0xC000, "Infinity": 0xD000, "-Infinity": 0xF000}
"""Signs (numeric.c)."""
_SHORT_NUMBER = r"^-?[0-9]{1,16}(\.[0-9]{1,16})?$"
_SIDE_DIGITS = 16


def numeric(text: pa.Array) -> pa.Array:
    """Numbers of any length, as text: four digits of 10,000 on each side of the point, where these are enough."""
    short = pc.fill_null(pc.match_substring_regex(text, pattern=_SHORT_NUMBER), fill_value=True)
    odd = pc.invert(short)
    made = _short_numbers(pc.if_else(short, text, "0") if odd.true_count else text)
    if not odd.true_count:
        return made
    others = pa.array(map(_any_number, pc.filter(text, odd).to_pylist()), pa.binary())
    return pc.replace_with_mask(made, odd, others)


def _short_numbers(text: pa.Array) -> pa.Array:
    parts = pc.split_pattern(_text_join(pc.ascii_ltrim(text, "-"), "."), ".")
    whole, fraction = (pc.list_element(parts, side) for side in (0, 1))
    signs = pa.array([struct.pack(">H", sign) for sign in (_PLUS, _MINUS)], pa.binary())
    digits = pc.utf8_rpad(fraction, _SIDE_DIGITS, "0")
    return _row_wise(
        _bytes_of(">hh", 2 * _SIDE_DIGITS // 4, _SIDE_DIGITS // 4 - 1),
        pc.take(signs, pc.cast(pc.starts_with(text, "-"), pa.int8())),
        swapped(pc.cast(pc.binary_length(fraction), pa.int16())),
        *(swapped(_four(pc.cast(side, pa.int64()))) for side in (whole, digits)),
    )


def _any_number(text: str) -> bytes:
    if text in _NO_NUMBERS:
        return struct.pack(">hhHh", 0, 0, _NO_NUMBERS[text], 0)
    whole, _, fraction = text.lstrip("-").partition(".")
    whole = whole.zfill(len(whole) + -len(whole) % 4)
    digits = whole + fraction + "0" * (-len(fraction) % 4)
    words = [int(digits[at : at + 4]) for at in range(0, len(digits), 4)]
    sign = _MINUS if text.startswith("-") else _PLUS
    return struct.pack(f">hhHh{len(words)}h", len(words), len(whole) // 4 - 1, sign, len(fraction), *words)


def _text_join(*texts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*texts, "")


def _one_by_one(text: pa.Array, make: Callable[[str], bytes]) -> pa.Array:
    """Return what ``make`` does with each distinct value."""
    coded = pc.dictionary_encode(text)
    return pc.take(pa.array(map(make, coded.dictionary.to_pylist()), pa.binary()), coded.indices)


def bits(text: pa.Array) -> pa.Array:
    """Bit strings (``varbit_recv``, varbit.c)."""
    return _one_by_one(text, _bits)


def _bits(text: str) -> bytes:
    size = -(-len(text) // 8)
    return struct.pack(">i", len(text)) + int(text.ljust(8 * size, "0") or "0", 2).to_bytes(size)


_FAMILIES = {AF_INET: 2, AF_INET6: 3}
"""PostgreSQL's own numbers (src/include/utils/inet.h)."""


def address(text: pa.Array) -> pa.Array:
    """Addresses of hosts and networks (``network_recv``, network.c)."""
    raw = joined(pc.cast(text, pa.binary()))
    parts = pc.list_flatten(pc.split_pattern(pc.fill_null(text, "1.1.1.1"), "."))
    if b":" in raw or b"/" in raw or len(parts) != 4 * len(text):
        return _one_by_one(text, _address)
    made = _row_wise(
        _bytes_of("4B", 2, 32, 0, 4), _cut(pc.cast(parts, pa.uint8()).buffers()[1], 4, len(text))
    )
    return _with_nulls_of(text, made)


def _address(text: str) -> bytes:
    host, _, mask = text.partition("/")
    family = AF_INET6 if ":" in host else AF_INET
    packed = inet_pton(family, host)
    return struct.pack("4B", _FAMILIES[family], int(mask or 8 * len(packed)), 0, len(packed)) + packed


def hardware_address(text: pa.Array) -> pa.Array:
    """Addresses of six and of eight bytes (``macaddr_recv``, mac.c)."""
    return _one_by_one(text, lambda value: bytes.fromhex(value.replace(":", "")))


def _with_nulls_of(values: pa.Array, made: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_valid(values), made, pa.scalar(None, made.type)) if values.null_count else made


def floats(count: int, text: pa.Array) -> pa.Array:
    """Shapes of so many numbers (``point_recv`` and others, geo_ops.c)."""
    numbers = pc.fill_null(text, ",".join("0" * count))
    raw = joined(pc.cast(numbers, pa.binary()))
    for bracket in "()[]{}<>":
        if bracket.encode() in raw:
            numbers = pc.replace_substring(numbers, bracket, "")
    flat = pc.cast(pc.list_flatten(pc.split_pattern(numbers, ",")), pa.float64())
    if len(flat) != count * len(text):
        raise pa.ArrowInvalid("a shape has not so many numbers")
    return _with_nulls_of(text, swapped(flat, count))


def list_of(oid: int, element: Callable[[pa.Array], Pieces], values: pa.Array) -> pa.Array:
    """Arrays of one dimension that begins with 1, and empty ones, which have none (``array_recv``, arrayfuncs.c)."""
    lengths = pc.list_value_length(values)
    coded = pc.dictionary_encode(lengths)
    heads = [
        struct.pack(">iiiii", 1, 0, oid, length, 1) if length else struct.pack(">iii", 0, 0, oid)
        for length in coded.dictionary.to_pylist()
    ]
    words = lists_of(lengths, together(element(list_elements(values))))
    return _row_wise(pc.take(pa.array(heads, pa.binary()), coded.indices), pc.binary_join(words, b""))


def range_of(bound: Callable[[pa.Array], Pieces], values: pa.Array) -> pa.Array:
    """Ranges: what bounds they have, and these (``range_recv``, rangetypes.c)."""
    lower, upper, lower_inc, upper_inc, empty = values.flatten()
    no_lower, no_upper = pc.is_null(lower), pc.is_null(upper)
    flags = pa.scalar(0, pa.int8())
    for number, flag in enumerate((empty, lower_inc, upper_inc, no_lower, no_upper)):
        flags = pc.add(flags, pc.if_else(flag, pa.scalar(1 << number, pa.int8()), pa.scalar(0, pa.int8())))
    bounds = (
        pc.if_else(missing, b"", together(bound(side))) if missing.true_count else together(bound(side))
        for side, missing in ((lower, no_lower), (upper, no_upper))
    )
    return _row_wise(swapped(flags), *bounds)


def struct_of(fields: Sequence[tuple[int, Callable[[pa.Array], Pieces]]], values: pa.Array) -> pa.Array:
    """Composites: each field behind the number of its type (``record_recv``, rowtypes.c)."""
    pieces: list[pa.Array | pa.Scalar] = [_bytes_of(">i", len(fields))]
    for (oid, encode), field in zip(fields, values.flatten(), strict=True):
        pieces += [_bytes_of(">i", oid), *encode(field)]
    return _with_nulls_of(values, together(pieces))


_LEXEME = re.compile(r"'((?:[^'\\]|''|\\\\)*)'((?::[0-9,A-D]+)?)")
_WEIGHTS = {"A": 3 << 14, "B": 2 << 14, "C": 1 << 14}


def text_search(text: pa.Array) -> pa.Array:
    """Lexemes with their positions (``tsvectorrecv``, tsvector.c)."""
    raw = joined(pc.cast(text, pa.binary()))
    words = None if b"''" in raw or b"\\" in raw else _plain_words(text, raw.count(b"'") // 2)
    if words is None:
        return _one_by_one(text, _text_search)
    parts = pc.split_pattern(pc.list_flatten(words), "'")
    positions = _one_by_one(pc.list_element(parts, 1), _positions)
    lengths = pc.list_value_length(words)
    lexemes = lists_of(lengths, _row_wise(pc.cast(pc.list_element(parts, 0), pa.binary()), positions))
    return _with_nulls_of(text, _row_wise(swapped(lengths), pc.binary_join(lexemes, b"")))


def _plain_words(text: pa.Array, count: int) -> pa.Array | None:
    """Return the words ``lexeme':1,2`` of each row; None where these are not so many: a lexeme ends with a blank."""
    words = pc.split_pattern(pc.ascii_ltrim(text, "'"), " '")
    empty = pc.equal(text, "")
    if empty.true_count:
        words = pc.if_else(empty, pa.scalar([], words.type), words)
    return words if len(pc.list_flatten(words)) == count else None


@lru_cache(2**14)
def _positions(text: str) -> bytes:
    """Return the end of a lexeme, and its positions with their weights."""
    numbers = [int(item.rstrip("ABCD")) + _WEIGHTS.get(item[-1:], 0) for item in text[1:].split(",") if item]
    return struct.pack(f">xH{len(numbers)}H", len(numbers), *numbers)


def _text_search(text: str) -> bytes:
    lexemes = [
        lexeme.replace("''", "'").replace("\\\\", "\\").encode() + _positions(positions)
        for lexeme, positions in _LEXEME.findall(text)
    ]
    return struct.pack(">i", len(lexemes)) + b"".join(lexemes)
