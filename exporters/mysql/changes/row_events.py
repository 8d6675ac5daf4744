"""Single rows of events of the binary log: how many there are, their bytes, and values.

Whoever applies changes hands events to the server as they came; nothing here decides what a row becomes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from msgspec import Struct

from exporters.errors import SourceDamagedError
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
_LOOKED_UP = frozenset({10, 17, 18, _DECIMAL})
"""DATE, TIMESTAMP and DATETIME in their newer forms, and DECIMAL."""
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


class LoggedRow(Struct, frozen=True):
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
    event = uncompressed(event)
    kind = event_type(event)
    _, start = _present_columns(event)
    for begin, end, images in row_images(event, table):
        old = None if kind in INSERTS else images[0]
        new = None if kind in DELETES else images[-1]
        yield LoggedRow(with_length(event[:start] + event[begin:end]), old, new)


def row_images(event: bytes, table: TableMap) -> Iterator[tuple[int, int, list[Image]]]:
    """Yield where each row of an event that is not compressed begins and ends, and its images: the one before, the one
    after the change, as far as there are such. Raises ``ValueError`` as ``single_rows`` does.
    """
    if event_type(event) == PARTIAL_ROWS:
        raise ValueError("updates of parts of JSON")
    present, begin = _present_columns(event)
    while begin < len(event):
        images, end = [], begin
        for columns in present:
            image, end = _image(event, end, table, columns)
            images.append(image)
        _check_end(event, begin, end)
        yield begin, end, images
        begin = end


def count_rows(event: bytes, table: TableMap) -> int:
    """Return how many rows an event has that is not compressed. Raises ``ValueError`` as ``single_rows`` does."""
    if event_type(event) == PARTIAL_ROWS:
        raise ValueError("updates of parts of JSON")
    present, position = _present_columns(event)
    walks = [_Walk.over(table, columns) for columns in present]
    count = 0
    while position < len(event):
        begin = position
        for walk in walks:
            position = walk.skip(event, position)
        _check_end(event, begin, position)
        count += 1
    return count


def _check_end(event: bytes, begin: int, end: int) -> None:
    """Raise ``SourceDamagedError`` unless a row has bytes, and ends with the event or before."""
    if not begin < end <= len(event):
        raise SourceDamagedError(f"a row from byte {begin} to {end} of an event of {len(event)} bytes")


class _Walk(Struct, frozen=True):
    """How one passes over the image of a row. ``columns``: type and what else is known of each. ``steps``, for rows
    without NULL: bytes to pass over, then the width of the length of a value, 0 for none.
    """

    null_bytes: int
    columns: Sequence[tuple[int, bytes]]
    steps: Sequence[tuple[int, int]]

    @classmethod
    def over(cls, table: TableMap, present: bytes) -> _Walk:
        columns = [(table.types[number], table.metadata[number]) for number in _numbers(table, present)]
        steps, fixed = [], 0
        for kind, metadata in columns:
            width = _length_width(kind, metadata)
            if width:
                steps.append((fixed, width))
                fixed = 0
            else:
                fixed += _span(b"", 0, kind, metadata)[1]
        return cls((len(columns) + 7) // 8, columns, [*steps, (fixed, 0)])

    def skip(self, rows: bytes, position: int) -> int:
        """Return where an image ends."""
        nulls = int.from_bytes(rows[position : position + self.null_bytes], "little")
        position += self.null_bytes
        if nulls & ((1 << len(self.columns)) - 1):
            for index, (kind, metadata) in enumerate(self.columns):
                if not nulls >> index & 1:
                    _, position = _span(rows, position, kind, metadata)
            return position
        for fixed, width in self.steps:
            position += fixed
            position += width + int.from_bytes(rows[position : position + width], "little")
        return position


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
    columns = _numbers(table, present)
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


def _numbers(table: TableMap, present: bytes) -> list[int]:
    """Return the numbers of the columns that an image has."""
    return [number for number in range(len(table.types)) if present[number // 8] >> number % 8 & 1]


def _span(rows: bytes, position: int, kind: int, metadata: bytes) -> tuple[int, int]:
    """Return where a value begins and ends (``log_event_print_value`` in the server's log_event.cc)."""
    if (size := _FIXED.get(kind)) is not None:
        return position, position + size
    if kind in _FRACTIONS:
        return position, position + _FRACTIONS[kind] + (metadata[0] + 1) // 2
    if width := _length_width(kind, metadata):
        begin = position + width
        return begin, begin + int.from_bytes(rows[position:begin], "little")
    if kind == _BIT:
        return position, position + metadata[1] + (metadata[0] > 0)
    if kind == _DECIMAL:
        return position, position + _decimal_bytes(*metadata)
    if kind in {_ENUM, _SET}:
        return position, position + metadata[1]
    if kind == _STRING:
        return position, position + metadata[1]  # ENUM or SET
    raise ValueError(f"a column of type {kind}")


def _length_width(kind: int, metadata: bytes) -> int:
    """Return in how many bytes the length of a value stands before it, 0 where it has none."""
    if kind in _BLOBS:
        return metadata[0]
    if kind in _VARIABLE:
        return 2 if int.from_bytes(metadata, "little") > 0xFF else 1
    if kind == _STRING and metadata[0] not in {_ENUM, _SET}:
        real, length = metadata
        longest = length if real & 0x30 == 0x30 else length | ((real & 0x30) ^ 0x30) << 4
        return 2 if longest > 0xFF else 1
    return 0


def is_looked_up_by(kind: int, metadata: bytes) -> bool:
    """Tell whether a row can be looked up by a value of this type as the log has it. That is not so for labels, bits,
    floating-point numbers, times of the day and the older forms of moments.
    """
    is_label = kind == _STRING and metadata[0] in {_ENUM, _SET}
    return kind in _INTEGERS | _TEXTS | _LOOKED_UP and not is_label


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
