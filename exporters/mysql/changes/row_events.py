"""Single rows of events of the binary log, for a change that has to be named: their bytes, and their values as text.

Whoever applies changes hands events to the server as they came; nothing here decides what a row becomes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from exporters.mysql.changes.binlog_events import (
    COMPRESSED_ROWS,
    DELETES,
    HEADER_BYTES,
    INSERTS,
    PARTIAL_ROWS,
    UPDATES,
    WITH_EXTRA,
    TableMap,
    decompressed,
    event_type,
    packed_integer,
    with_length,
)

Value = bytes | None
Image = dict[int, Value]
"""Values of a row by the number of their column, as the log has them; None for NULL."""

_FLAGS_AT = HEADER_BYTES + 6
STATEMENT_END = 1
"""In the flags of rows: the last ones of a statement."""
_NO_FOREIGN_KEYS = 2
"""In the flags of rows: no foreign key checks them or acts on them."""
_KEYS_OF_SERVER = 0x10
"""In the flags of rows of MySQL from 9.6 on (``USE_SQL_FOREIGN_KEY_F``): the server itself acted for the foreign keys,
not InnoDB. So the rows that they changed are in the log, too (manual, "Replication and Foreign Keys").
"""
_UNCOMPRESSED = {166: 23, 167: 24, 168: 25, 169: 30, 170: 31, 171: 32}
_FIXED = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 0, 7: 4, 8: 8, 9: 3, 10: 3, 11: 3, 12: 8, 13: 1, 14: 3}
_FRACTIONS = {17: 4, 18: 5, 19: 3}
_BLOBS = frozenset({140, 242, 245, 249, 250, 251, 252, 255})
_VARIABLE = frozenset({15, 141, 253})
_BIT, _DECIMAL, _ENUM, _SET, _STRING = 16, 246, 247, 248, 254
_DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
_INTEGERS = frozenset({1, 2, 3, 8, 9})
_FLOATS = {4: "<f", 5: "<d"}
_TEXTS = _VARIABLE | {_STRING} | _BLOBS


def flags_of(event: bytes) -> int:
    """Return the flags of rows."""
    return int.from_bytes(event[_FLAGS_AT : _FLAGS_AT + 2], "little")


def with_flags(event: bytes, flags: int) -> bytes:
    """Return rows with other flags."""
    return event[:_FLAGS_AT] + flags.to_bytes(2, "little") + event[_FLAGS_AT + 2 :]


def with_logged_keys(event: bytes) -> bytes:
    """Return rows of MySQL on which no foreign key acts, where the log has what the foreign keys did. They would act
    otherwise than at the source: a REPLACE that keeps the key is logged as a DELETE and an INSERT, but leaves the rows
    that refer to it alone.
    """
    flags = flags_of(event)
    return with_flags(event, flags | _NO_FOREIGN_KEYS) if flags & _KEYS_OF_SERVER else event


@dataclass(frozen=True, slots=True)
class LoggedRow:
    """One row of an event. ``event`` has only it. ``old`` and ``new``: as far as they were logged."""

    event: bytes
    old: Image | None
    new: Image | None

    @property
    def verb(self) -> str:
        """What happened to it."""
        kind = event_type(self.event)
        return "INSERT" if kind in INSERTS else "DELETE" if kind in DELETES else "UPDATE"


def single_rows(event: bytes, table: TableMap) -> Iterator[LoggedRow]:
    """Yield the rows of an event, each with an event of its own. Raises ``ValueError`` where they cannot be told apart:
    updates of parts of JSON.
    """
    if event_type(event) == PARTIAL_ROWS:
        raise ValueError("updates of parts of JSON")
    event = uncompressed(event)
    kind = event_type(event)
    present, start = _present_columns(event)
    head, rows = event[:start], event[start:]
    begin = 0
    while begin < len(rows):
        images, end = [], begin
        for columns in present:
            image, end = _image(rows, end, table, columns)
            images.append(image)
        old = None if kind in INSERTS else images[0]
        new = None if kind in DELETES else images[-1]
        yield LoggedRow(with_length(head + rows[begin:end]), old, new)
        begin = end


def uncompressed(event: bytes) -> bytes:
    """Return rows as they would be without MariaDB's compression."""
    kind = event_type(event)
    if kind not in COMPRESSED_ROWS:
        return event
    _, start = _present_columns(event)
    head = event[:4] + bytes([_UNCOMPRESSED[kind]]) + event[5:start]
    return with_length(head + decompressed(event[start:]))


def _present_columns(event: bytes) -> tuple[list[bytes], int]:
    """Return which columns the images of a row have, as bits, and where the rows begin."""
    kind, start = event_type(event), _FLAGS_AT + 2
    if kind in WITH_EXTRA:
        start += int.from_bytes(event[start : start + 2], "little")
    count, position = packed_integer(event, start)
    width = (count + 7) // 8
    present = []
    for _ in range(2 if kind in UPDATES else 1):
        present.append(event[position : position + width])
        position += width
    return present, position


def _image(rows: bytes, position: int, table: TableMap, present: bytes) -> tuple[Image, int]:
    """Return a row, and where the next one begins."""
    columns = [number for number in range(len(table.types)) if present[number // 8] >> number % 8 & 1]
    nulls = rows[position : position + (len(columns) + 7) // 8]
    position += len(nulls)
    image: Image = {}
    for index, number in enumerate(columns):
        if nulls[index // 8] >> index % 8 & 1:
            image[number] = None
            continue
        begin, position = _span(rows, position, table.types[number], table.metadata[number])
        image[number] = rows[begin:position]
    return image, position


def _span(rows: bytes, position: int, kind: int, metadata: bytes) -> tuple[int, int]:
    """Return where a value begins and ends (``log_event_print_value`` in the server's log_event.cc)."""
    if (size := _FIXED.get(kind)) is not None:
        return position, position + size
    if kind in _FRACTIONS:
        return position, position + _FRACTIONS[kind] + (metadata[0] + 1) // 2
    if kind in _BLOBS:
        return _prefixed(rows, position, metadata[0])
    if kind in _VARIABLE:
        return _prefixed(rows, position, 2 if int.from_bytes(metadata, "little") > 0xFF else 1)
    if kind == _BIT:
        return position, position + metadata[1] + (metadata[0] > 0)
    if kind == _DECIMAL:
        return position, position + _decimal_bytes(*metadata)
    if kind in {_ENUM, _SET}:
        return position, position + metadata[1]
    if kind == _STRING:
        real, length = metadata
        if real in {_ENUM, _SET}:
            return position, position + length
        longest = length if real & 0x30 == 0x30 else length | ((real & 0x30) ^ 0x30) << 4
        return _prefixed(rows, position, 2 if longest > 0xFF else 1)
    raise ValueError(f"a column of type {kind}")


def _prefixed(rows: bytes, position: int, width: int) -> tuple[int, int]:
    begin = position + width
    return begin, begin + int.from_bytes(rows[position:begin], "little")


def _decimal_bytes(precision: int, scale: int) -> int:
    whole, part = divmod(precision - scale, 9), divmod(scale, 9)
    return whole[0] * 4 + _DIGIT_BYTES[whole[1]] + part[0] * 4 + _DIGIT_BYTES[part[1]]


def value_text(value: Value, kind: int, *, unsigned: bool) -> str:
    """Return a value for people: numbers and characters as such, others as the bytes that the log has."""
    if value is None:
        return "NULL"
    if kind in _INTEGERS:
        return str(int.from_bytes(value, "little", signed=not unsigned))
    if kind in _FLOATS:
        return repr(struct.unpack(_FLOATS[kind], value)[0])
    if kind in _TEXTS:
        try:
            return "'" + value.decode() + "'"
        except UnicodeDecodeError:
            pass
    return f"X'{value.hex().upper()}'"
