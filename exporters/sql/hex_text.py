r"""Bytes and UUIDs as hexadecimal text, whole columns at a time.

``binascii`` works at memory speed on the one buffer in which Arrow keeps a column's values. So no value becomes a
Python object, and there are few copies of a very large one.
"""

from __future__ import annotations

from binascii import hexlify, unhexlify

import pyarrow as pa

from exporters import arrow_functions as pc

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
