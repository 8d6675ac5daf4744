"""Thrift's compact protocol, as far as Parquet's footers and page headers use it.

A structure is a dictionary of its fields by number; values keep their wire type, so that what is not understood is
written as it was read (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_NUMBERS = frozenset({_I16, _I32, _I64})
_LISTS = frozenset({_LIST, _SET})
_LONG_LIST = 15
_DOUBLE_BYTES = 8


class Value(Struct):
    """One value: of ``kind`` on the wire; integers as ``int``, lists as Python lists of bare values, structures as
    ``ThriftStruct``.
    """

    kind: int
    data: Any
    element: int = 0
    """Of a list: the kind of its elements."""


ThriftStruct = dict[int, Value]


def number(data: int) -> Value:
    """Return an i64."""
    return Value(_I64, data)


def structures(data: list[ThriftStruct]) -> Value:
    """Return a list of structures."""
    return Value(_LIST, data, _STRUCT)


class Reader:
    """Reads values from ``data``, from ``position`` on. Raises ``ValueError`` or ``IndexError`` for what is none."""

    def __init__(self, data: bytes | memoryview, position: int = 0) -> None:
        self._data = data
        self.position = position

    def struct(self) -> ThriftStruct:
        """Return the structure at the position, and go behind it."""
        fields: ThriftStruct = {}
        last = 0
        while head := self._byte():
            kind, delta = head & 15, head >> 4
            last = last + delta if delta else self._zigzag()
            fields[last] = self._value(kind)
        return fields

    def _value(self, kind: int) -> Value:
        if kind in _LISTS:
            return self._list(kind)
        if kind in {_TRUE, _FALSE}:
            return Value(kind, None)
        return Value(kind, self._bare(kind))

    def _bare(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self._zigzag()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.struct()
        if kind in {_BYTE, _TRUE, _FALSE}:
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(_DOUBLE_BYTES)
        raise ValueError(f"Parquet has no values of Thrift's kind {kind}")

    def _list(self, kind: int) -> Value:
        head = self._byte()
        element, size = head & 15, head >> 4
        if size == _LONG_LIST:
            size = self._varint()
        return Value(kind, [self._bare(element) for _ in range(size)], element)

    def _byte(self) -> int:
        self.position += 1
        return self._data[self.position - 1]

    def _bytes(self, size: int) -> bytes:
        begin, self.position = self.position, self.position + size
        data = bytes(self._data[begin : self.position])
        if len(data) < size:
            raise ValueError("it ends in the middle of a value")
        return data

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)


def dump(struct: ThriftStruct) -> bytes:
    """Return a structure as it is written."""
    out = bytearray()
    _struct(out, struct)
    return bytes(out)


def _struct(out: bytearray, struct: ThriftStruct) -> None:
    last = 0
    for field in sorted(struct):
        value, delta = struct[field], field - last
        if delta < 16:
            out.append(delta << 4 | value.kind)
        else:
            out.append(value.kind)
            _varint(out, _zigzag(field))
        last = field
        if value.kind in _LISTS:
            _list(out, value)
        elif value.kind not in {_TRUE, _FALSE}:
            _bare(out, value.kind, value.data)
    out.append(0)


def _bare(out: bytearray, kind: int, data: Any) -> None:
    if kind in _NUMBERS:
        _varint(out, _zigzag(data))
    elif kind == _BINARY:
        _varint(out, len(data))
        out += data
    elif kind == _STRUCT:
        _struct(out, data)
    elif kind == _DOUBLE:
        out += data
    else:
        out.append(data)


def _list(out: bytearray, value: Value) -> None:
    size = len(value.data)
    out.append(min(size, _LONG_LIST) << 4 | value.element)
    if size >= _LONG_LIST:
        _varint(out, size)
    for item in value.data:
        _bare(out, value.element, item)


def _varint(out: bytearray, number_: int) -> None:
    while number_ > 127:
        out.append(number_ & 127 | 128)
        number_ >>= 7
    out.append(number_)


def _zigzag(number_: int) -> int:
    return number_ << 1 if number_ >= 0 else (-number_ << 1) - 1
