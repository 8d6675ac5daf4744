"""Events of the binary log, as far as they have to be read to be kept and applied.

Layouts: MySQL source documentation, "Binlog Event" and ``libbinlogevents``; MariaDB Knowledge Base, "Replication
Protocol". An event is kept as it came, without its checksum. The rows in it are for the destination's server to read.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum

from msgspec import Struct

from exporters.errors import SourceDamagedError

HEADER = struct.Struct("<IBIIIH")
"""Time, type, number of the server, size, position after the event, flags."""
HEADER_BYTES = HEADER.size
CHECKSUM_BYTES = 4
_ALGORITHM_AT = -5
"""Where a format description says which checksum the events have."""
_CRC32 = 1
_LARGEST_BYTES = 2**31
_TABLE_BYTES = 6
NO_TABLE = 2**24 - 1
"""The number of no table, in events that only end a statement."""
_STATUS_AT = 13


class EventType(IntEnum):
    """The types of events that matter here."""

    QUERY = 2
    ROTATE = 4
    FORMAT = 15
    XID = 16
    LOAD_DATA = 18
    TABLE_MAP = 19
    INCIDENT = 26
    HEARTBEAT = 27
    GTID = 33
    ANONYMOUS_GTID = 34
    XA_PREPARE = 38
    TRANSACTION_PAYLOAD = 40
    HEARTBEAT_LONG = 41
    GTID_TAGGED = 42
    MARIADB_GTID = 162
    QUERY_COMPRESSED = 165


INSERTS = frozenset({23, 30, 166, 169})
UPDATES = frozenset({24, 31, 39, 167, 170})
DELETES = frozenset({25, 32, 168, 171})
ROWS = INSERTS | UPDATES | DELETES
COMPRESSED_ROWS = frozenset(range(166, 172))
"""MariaDB's, where log_bin_compress is on."""
PARTIAL_ROWS = 39
"""MySQL's updates of JSON that hold only what has changed."""
WITH_EXTRA = frozenset({30, 31, 32, 39, 169, 170, 171})
"""Rows of the second version, which may have more in their header."""

STATEMENTS = frozenset({EventType.QUERY, EventType.QUERY_COMPRESSED, EventType.LOAD_DATA})
WITHOUT_ROWS = frozenset({3, 5, 9, 11, 13, 14, 17, 28, 29, 35, 36, 37, 160, 161, 163, 164})
"""Types of events that change nothing by themselves: the end of a file, values and files of the statement that
follows, texts of statements, lists of transactions, marks of the server's own.
"""
_IGNORABLE = 0x80

MARIADB_STANDALONE = 1
"""In the flags of a MariaDB transaction: one statement that nothing ends."""
_GROUP_COMMIT, _PREPARED = 2, 64 | 128
MARIADB_FLAGS_AT = HEADER_BYTES + 12
_GROUP_BYTES, _FORMAT_BYTES = 8, 4
_ALTER_BEGUN, _ALTER_UNDONE = 2, 8
"""In further flags of it."""


def is_alter_without_effect(gtid: bytes) -> bool:
    """Tell whether the ALTER TABLE behind a MariaDB number has only begun, or has failed, where the log has such
    (binlog_alter_two_phase).
    """
    flags, position = gtid[MARIADB_FLAGS_AT], MARIADB_FLAGS_AT + 1
    if flags & _GROUP_COMMIT:
        position += _GROUP_BYTES
    if flags & _PREPARED:
        position += _FORMAT_BYTES
        position += 2 + sum(gtid[position : position + 2])
    return any(extra & (_ALTER_BEGUN | _ALTER_UNDONE) for extra in gtid[position : position + 1])


def event_type(event: bytes) -> int:
    """Return the type of an event."""
    return event[4]


def is_ignorable(event: bytes) -> bool:
    """Tell whether the server says that who does not know an event of this type can do without it."""
    return bool(HEADER.unpack_from(event)[5] & _IGNORABLE)


def time_of(event: bytes) -> int:
    """Return when an event was made, in seconds since 1970."""
    return int.from_bytes(event[:4], "little")


def start_of_event(event: bytes) -> int:
    """Return the offset of an event in its file, modulo 2**32."""
    _, _, _, size, end, _ = HEADER.unpack_from(event)
    return max(int(end) - int(size), 0)


def end_of_event(event: bytes) -> int:
    """Return the offset after an event in its file, modulo 2**32; 0 for one that is in no file."""
    _, _, _, _, end, _ = HEADER.unpack_from(event)
    return int(end)


def with_length(event: bytes, extra_bytes: int = 0) -> bytes:
    """Return an event whose header has its length, and that of what will follow it."""
    time, kind, server, _, end, flags = HEADER.unpack_from(event)
    return HEADER.pack(time, kind, server, len(event) + extra_bytes, end, flags) + event[HEADER_BYTES:]


def has_checksums(format_event: bytes) -> bool:
    """Tell whether the events after a format description end with a checksum."""
    return format_event[_ALGORITHM_AT] == _CRC32


def server_of(format_event: bytes) -> str:
    """Return the version of the server that wrote the log."""
    return format_event[HEADER_BYTES + 2 : HEADER_BYTES + 52].rstrip(b"\0").decode("latin-1")


def names_columns(format_event: bytes) -> bool:
    """Tell whether the server that wrote the log can write the names of columns into it (binlog_row_metadata)."""
    version = server_of(format_event)
    release = tuple(map(int, re.findall(r"\d+", version)[:2]))
    return release >= ((10, 5) if "mariadb" in version.lower() else (8, 0))


def table_number(event: bytes) -> int:
    """Return the number of the table of a map or of rows."""
    return int.from_bytes(event[HEADER_BYTES : HEADER_BYTES + _TABLE_BYTES], "little")


def packed_integer(data: bytes, position: int) -> tuple[int, int]:
    """Return a number of variable length, and where the next thing begins."""
    first = data[position]
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
    if width is None:
        return first, position + 1
    return int.from_bytes(data[position + 1 : position + 1 + width], "little"), position + 1 + width


def _packed_string(data: bytes, position: int) -> tuple[bytes, int]:
    """Return a string after its length, and where the next thing begins."""
    size, position = packed_integer(data, position)
    return data[position : position + size], position + size


class Query(Struct, frozen=True):
    """A statement in the log. ``database`` and ``sql_mode`` were the session's."""

    database: str
    text: str
    sql_mode: int = 0


_DATABASE_AT = 8
_STATUS_BYTES_AT = 11
_LOAD_BYTES = 13
"""In an event of LOAD DATA: numbers of its file, before what is as in other statements."""
_STATUS_WIDTHS = {0: 4, 1: 8, 3: 4, 4: 6}
_SQL_MODE, _CHARSETS, _CATALOG = 1, 4, 6
_LATIN1 = frozenset({5, 8, 15, 31, 47, 48, 49, 94})
_UTF8 = frozenset({33, 45, 46, 76, 83, *range(192, 248), *range(255, 328), 576, 577, 578, 608, 609, 610})
_NO_PAD, _NEWER = 1024, 2048
"""In the numbers of MariaDB's collations: one that pads nothing; the first one of those that only UTF-8 and wide
charsets have, of which no client has a wide one.
"""


def read_query(event: bytes) -> Query:
    """Read a statement, which may be compressed. What is not known to be UTF-8 or latin1 has its ASCII characters."""
    body = event[HEADER_BYTES:]
    database_bytes, status_bytes = (
        body[_DATABASE_AT],
        int.from_bytes(body[_STATUS_BYTES_AT:_STATUS_AT], "little"),
    )
    status_at = _STATUS_AT + (_LOAD_BYTES if event_type(event) == EventType.LOAD_DATA else 0)
    start = status_at + status_bytes
    status = dict(_status(body[status_at:start]))
    database = body[start : start + database_bytes].decode(errors="replace")
    text = body[start + database_bytes + 1 :]
    if event_type(event) == EventType.QUERY_COMPRESSED:
        text = decompressed(text)
    mode = int.from_bytes(status.get(_SQL_MODE, b""), "little")
    return Query(database, text.decode(_codec_of(status.get(_CHARSETS)), errors="replace"), mode)


def _status(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what an event of a statement says of its session, as far as it is read here."""
    position = 0
    while position < len(data):
        kind, position = data[position], position + 1
        width = data[position] + 1 if kind == _CATALOG else _STATUS_WIDTHS.get(kind)
        if width is None:
            return
        yield kind, data[position : position + width]
        position += width


def _codec_of(charsets: bytes | None) -> str:
    """Return how the text of a statement is read."""
    if charsets is None:
        return "utf-8"
    number = int.from_bytes(charsets[:2], "little")
    if number & ~_NO_PAD in _LATIN1:
        return "cp1252"
    return "utf-8" if number >= _NEWER or number & ~_NO_PAD in _UTF8 else "ascii"


def decompressed(data: bytes) -> bytes:
    """Return what MariaDB has compressed: a byte that says how long the length is, the length, a stream of zlib. Raises
    ``SourceDamagedError`` where it has not that length, which is a part of an event's; nothing larger is unpacked.
    """
    start = 1 + (data[0] & 7)
    size_bytes = int.from_bytes(data[1:start], "big")
    unpacked = zlib.decompressobj().decompress(data[start:], min(size_bytes, _LARGEST_BYTES) + 1)
    if len(unpacked) != size_bytes:
        raise SourceDamagedError(f"{size_bytes} compressed bytes that are not as many")
    return unpacked


class TableMap(Struct, frozen=True):
    """How the rows of a table are written. ``metadata`` by column: what its type does not say. ``nulls``: which columns
    may be NULL, as bits. ``details``: as far as the server writes them (binlog_row_metadata), by the number of their
    kind.
    """

    number: int
    database: str
    name: str
    types: bytes
    metadata: tuple[bytes, ...]
    nulls: bytes
    details: dict[int, bytes]

    @property
    def columns(self) -> list[str]:
        """The names of the columns, none where the server does not write them."""
        return [name.decode(errors="replace") for name in _strings(self.details.get(_COLUMN_NAMES, b""))]

    @property
    def labels(self) -> list[list[bytes]]:
        """The labels of the columns of type ENUM, then of those of type SET."""
        return [
            labels
            for kind in (_ENUM_LABELS, _SET_LABELS)
            for labels in _label_lists(self.details.get(kind, b""))
        ]

    @property
    def key(self) -> tuple[int, ...]:
        """The indexes of the columns of the primary key, none where the server does not write them."""
        plain = list(_integers(self.details.get(_KEY, b"")))
        return tuple(plain or list(_integers(self.details.get(_KEY_WITH_PREFIXES, b"")))[::2])

    def may_be_null(self, index: int) -> bool:
        """Tell whether a column may be NULL."""
        return bool(self.nulls[index // 8] >> index % 8 & 1)

    @property
    def unsigned(self) -> dict[int, bool]:
        """Whether the numbers of a column have no sign, by its index; only of columns of numbers."""
        numbers = [index for index, kind in enumerate(self.types) if kind in _NUMBERS]
        bits = self.details.get(_SIGNEDNESS, b"")
        return {
            index: bool(bits[place // 8] & 0x80 >> place % 8)
            for place, index in enumerate(numbers)
            if place < 8 * len(bits) and self.types[index] != _YEAR
        }

    def collations(self, *, is_mariadb: bool) -> dict[int, int]:
        """Return the number of the collation of each column of characters or bytes, by its index."""
        texts = [
            index
            for index, kind in enumerate(self.types)
            if (kind in _CHARACTERS or (kind == _GEOMETRY and is_mariadb))
            and not (kind == _STRING and self.metadata[index][0] in _LABELLED)
        ]
        listed = list(_integers(self.details.get(_COLLATIONS, b"")))
        if listed:
            return dict(zip(texts, listed, strict=False))
        numbers = list(_integers(self.details.get(_DEFAULT_COLLATION, b"")))
        others = dict(zip(numbers[1::2], numbers[2::2], strict=False))
        return {index: others.get(place, numbers[0]) for place, index in enumerate(texts) if numbers}


_SIGNEDNESS, _DEFAULT_COLLATION, _COLLATIONS = 1, 2, 3
_COLUMN_NAMES, _SET_LABELS, _ENUM_LABELS, _KEY, _KEY_WITH_PREFIXES = 4, 5, 6, 8, 9
_NUMBERS = frozenset({1, 2, 3, 4, 5, 8, 9, 13, 246})
_YEAR, _GEOMETRY = 13, 255
_STRING = 254
_LABELLED = frozenset({247, 248})
_CHARACTERS = frozenset({15, 140, 141, 242, 249, 250, 251, 252, 253, _STRING})
_TWO_BYTES = frozenset({15, 16, 246, 247, 248, 253, 254, 141})
_ONE_BYTE = frozenset({4, 5, 17, 18, 19, 140, 242, 245, 249, 250, 251, 252, 255})
_FLAGS_END = _TABLE_BYTES + 2


def read_table_map(event: bytes) -> TableMap:
    """Read a map."""
    body = event[HEADER_BYTES:]
    database, position = _name(body, _FLAGS_END)
    name, position = _name(body, position)
    count, position = packed_integer(body, position)
    types = body[position : position + count]
    _, position = packed_integer(body, position + count)
    metadata = []
    for column in types:
        width = 2 if column in _TWO_BYTES else 1 if column in _ONE_BYTE else 0
        metadata.append(body[position : position + width])
        position += width
    nulls = body[position : position + (count + 7) // 8]
    position += len(nulls)
    details = {}
    while position < len(body):
        kind = body[position]
        details[kind], position = _packed_string(body, position + 1)
    return TableMap(table_number(event), database, name, types, tuple(metadata), nulls, details)


def _name(body: bytes, position: int) -> tuple[str, int]:
    end = position + 1 + body[position]
    return body[position + 1 : end].decode(errors="surrogateescape"), end + 1


def _strings(data: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        string, position = _packed_string(data, position)
        yield string


def _integers(data: bytes) -> Iterator[int]:
    position = 0
    while position < len(data):
        number, position = packed_integer(data, position)
        yield number


def _label_lists(data: bytes) -> Iterator[list[bytes]]:
    position = 0
    while position < len(data):
        count, position = packed_integer(data, position)
        labels = []
        for _ in range(count):
            label, position = _packed_string(data, position)
            labels.append(label)
        yield labels


def in_database(map_event: bytes, database: str) -> bytes:
    """Return a map for the table of the same name in another database."""
    start = HEADER_BYTES + _FLAGS_END
    end = start + 1 + map_event[start]
    name = database.encode(errors="surrogateescape")
    return map_event[:start] + bytes([len(name)]) + name + map_event[end:]


_PAYLOAD_SIZE, _PAYLOAD_END = 3, 0


def unpacked_transaction(event: bytes) -> Iterator[bytes]:
    """Yield the events of a transaction that MySQL has compressed (binlog_transaction_compression)."""
    import pyarrow as pa  # noqa: PLC0415  a third of a second of a start, and few logs are compressed

    body, position, size = event[HEADER_BYTES:], 0, 0
    while True:
        kind, position = packed_integer(body, position)
        if kind == _PAYLOAD_END:
            break
        length, position = packed_integer(body, position)
        if kind == _PAYLOAD_SIZE:
            size, _ = packed_integer(body, position)
        position += length
    data: bytes = pa.Codec("zstd").decompress(body[position:], size, asbytes=True)
    start = 0
    while start < len(data):
        _, _, _, length, _, _ = HEADER.unpack_from(data, start)
        yield data[start : start + length]
        start += length
