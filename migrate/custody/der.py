"""Just enough of DER (X.690) to ask a timestamp authority and to read its answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

INTEGER, BOOLEAN, OCTETS, OID, SEQUENCE, SET, TIME = 0x02, 0x01, 0x04, 0x06, 0x30, 0x31, 0x18


@dataclass(frozen=True, slots=True)
class Node:
    """A value: its tag, the bytes inside, and all of its bytes."""

    tag: int
    body: bytes
    whole: bytes

    @property
    def parts(self) -> list[Node]:
        """What is inside of a constructed value. Raises ``ValueError``."""
        return list(_nodes(self.body))

    @property
    def number(self) -> int:
        """The value of an INTEGER."""
        return int.from_bytes(self.body, "big", signed=True)

    def expect(self, tag: int) -> Node:
        """Return it. Raises ``ValueError`` where it has another tag."""
        if self.tag != tag:
            raise ValueError(f"tag {self.tag:#x} where {tag:#x} should be")
        return self


def read(data: bytes) -> Node:
    """Read exactly one value. Raises ``ValueError``."""
    found = list(_nodes(data))
    if len(found) != 1:
        raise ValueError("not one value")
    return found[0]


def _nodes(data: bytes) -> Iterator[Node]:
    at = 0
    while at < len(data):
        if len(data) < at + 2:
            raise ValueError("cut short")
        tag, length, start = data[at], data[at + 1], at + 2
        if length >= 0x80:
            count = length & 0x7F
            length = int.from_bytes(data[start : start + count], "big")
            start += count
            if not 1 <= count <= 4 or length < 0x80:
                raise ValueError("a length that is not DER")
        if start + length > len(data):
            raise ValueError("cut short")
        yield Node(tag, data[start : start + length], data[at : start + length])
        at = start + length


def write(tag: int, *parts: bytes) -> bytes:
    """Return a value with these parts inside."""
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def integer(value: int) -> bytes:
    """Return a non-negative INTEGER."""
    return write(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER."""
    first, second, *rest = map(int, dotted.split("."))
    body = bytearray([first * 40 + second])
    for number in rest:
        low = [number & 0x7F]
        while number := number >> 7:
            low.append(0x80 | number & 0x7F)
        body += bytes(reversed(low))
    return write(OID, bytes(body))
