"""The SSH protocol's encoding of texts and numbers (RFC 4251, section 5)."""

from __future__ import annotations

import struct

_LENGTH = struct.Struct(">I")


def number(value: int) -> bytes:
    """Return a ``uint32``."""
    return _LENGTH.pack(value)


def string(data: bytes) -> bytes:
    """Return a ``string``: its length, then its bytes."""
    return _LENGTH.pack(len(data)) + data


def take_number(data: bytes) -> tuple[int, bytes]:
    """Return a ``uint32`` from the front, and the rest. Raises ``ValueError``."""
    if len(data) < 4:
        raise ValueError("cut short")
    return int(_LENGTH.unpack_from(data)[0]), data[4:]


def take_string(data: bytes) -> tuple[bytes, bytes]:
    """Return a ``string`` from the front, and the rest. Raises ``ValueError``."""
    size, rest = take_number(data)
    if len(rest) < size:
        raise ValueError("cut short")
    return rest[:size], rest[size:]
