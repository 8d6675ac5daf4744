"""Decodes messages of logical decoding's plugin pgoutput, protocol version 1.

PostgreSQL documentation, "Logical Replication Message Formats". Values are the texts of the server, as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, NamedTuple, cast

from exporters._rows import core
from exporters.errors import SourceDamagedError


class Unsent(Enum):
    """What stands for a value that the server did not send: it lies in TOAST, and the update did not change it."""

    UNCHANGED = 0


UNCHANGED: Final = Unsent.UNCHANGED

Value = bytes | None | Unsent
"""The text of a value, None for NULL."""
Row = tuple[Value, ...]


class Column(NamedTuple):
    """A column of a relation. ``is_key``: it belongs to the replica identity."""

    name: str
    type_oid: int
    modifier: int
    is_key: bool


class Relation(NamedTuple):
    """The shape of a table. ``identity`` is ``pg_class.relreplident``: "d", "i", "f" or "n"."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


class Begin(NamedTuple):
    """The begin of a transaction. ``final_position``: the position of its commit."""

    final_position: int
    committed_at: int
    transaction: int


class Commit(NamedTuple):
    """The end of a transaction. ``end_position``: where the log goes on after it. ``committed_at``: microseconds since
    2000-01-01 UTC.
    """

    position: int
    end_position: int
    committed_at: int


class Insert(NamedTuple):
    """A new row."""

    relation: int
    new: Row


class Update(NamedTuple):
    """A changed row. ``old``: None where the replica identity is as it was; else the old values of the identity, and
    NULL in all other columns, or the whole old row where ``is_whole``.
    """

    relation: int
    old: Row | None
    is_whole: bool
    new: Row


class Delete(NamedTuple):
    """A row that is gone. ``old``: as with ``Update``."""

    relation: int
    old: Row
    is_whole: bool


class Truncate(NamedTuple):
    """Tables that were emptied together; those that CASCADE reached are among them."""

    relations: tuple[int, ...]
    cascade: bool
    restart_identity: bool


Change = Insert | Update | Delete | Truncate
Decoded = Begin | Commit | Relation | Change

_BEGIN = struct.Struct(">QqI")
_COMMIT = struct.Struct(">BQQq")
_TRUNCATE = struct.Struct(">IB")
_COLUMN = struct.Struct(">Ii")
_OID = struct.Struct(">I")
_COUNT = struct.Struct(">H")
_HEAD_BYTES = 6
"""The kind of a change, the relation, and what kind of row follows."""
_OLD_KINDS = b"KO"
_TRUNCATE_KIND = ord("T")


def decode(payload: bytes) -> Decoded:
    """Return what a message says. Raises ``SourceDamagedError`` for one that is cut off, or of an unknown kind."""
    reader = _READERS.get(payload[:1])
    if reader is None:
        raise SourceDamagedError(
            f"a message of pgoutput begins with {payload[:1]!r}, which protocol 1 does not know",
            next_step="a newer server may send such messages: a newer moveout may read them",
        )
    try:
        return reader(payload)
    except (struct.error, IndexError, ValueError) as exc:
        raise SourceDamagedError(
            f"a message of pgoutput ({payload[:1].decode()}, {len(payload)} bytes) is cut off or damaged: {exc}"
        ) from exc


def relations_of(payload: bytes) -> tuple[int, ...]:
    """Return the numbers of the tables that a change or a shape is about, without decoding its rows."""
    return _truncate(payload).relations if payload[0] == _TRUNCATE_KIND else _OID.unpack_from(payload, 1)


def _begin(payload: bytes) -> Begin:
    return Begin(*_BEGIN.unpack_from(payload, 1))


def _commit(payload: bytes) -> Commit:
    _, position, end_position, committed_at = _COMMIT.unpack_from(payload, 1)
    return Commit(position, end_position, committed_at)


def _relation(payload: bytes) -> Relation:
    (oid,) = _OID.unpack_from(payload, 1)
    schema, at = _text(payload, 5)
    name, at = _text(payload, at)
    identity = chr(payload[at])
    (count,) = _COUNT.unpack_from(payload, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        flags = payload[at]
        column, at = _text(payload, at + 1)
        type_oid, modifier = _COLUMN.unpack_from(payload, at)
        columns.append(Column(column, type_oid, modifier, bool(flags & 1)))
        at += _COLUMN.size
    _check_end(payload, at)
    # The server says no schema for those of pg_catalog.
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns))


def _insert(payload: bytes) -> Insert:
    _check_kind(payload, 5, b"N")
    row, at = _row(payload, _HEAD_BYTES)
    _check_end(payload, at)
    return Insert(_OID.unpack_from(payload, 1)[0], row)


def _update(payload: bytes) -> Update:
    kind, old, at = payload[5], None, _HEAD_BYTES
    if kind in _OLD_KINDS:
        old, at = _row(payload, at)
        at += 1
    _check_kind(payload, at - 1, b"N")
    new, at = _row(payload, at)
    _check_end(payload, at)
    return Update(_OID.unpack_from(payload, 1)[0], old, kind == _OLD_KINDS[1], new)


def _delete(payload: bytes) -> Delete:
    _check_kind(payload, 5, _OLD_KINDS)
    row, at = _row(payload, _HEAD_BYTES)
    _check_end(payload, at)
    return Delete(_OID.unpack_from(payload, 1)[0], row, payload[5] == _OLD_KINDS[1])


def _truncate(payload: bytes) -> Truncate:
    count, options = _TRUNCATE.unpack_from(payload, 1)
    relations = struct.unpack_from(f">{count}I", payload, 1 + _TRUNCATE.size)
    return Truncate(relations, bool(options & 1), bool(options & 2))


def _row(payload: bytes, at: int) -> tuple[Row, int]:
    """Return the row that begins at ``at``, and where it ends. A row that is cut off ends after the message."""
    if core is not None and (row := core.pgoutput_row(payload, at, UNCHANGED)) is not None:
        return cast("tuple[Row, int]", row)
    values: list[Value] = []
    append = values.append
    count = payload[at] << 8 | payload[at + 1]
    at += 2
    for _ in range(count):
        kind = payload[at]
        at += 1
        if kind == 0x74:  # t: text
            start = at + 4
            at = start + int.from_bytes(payload[at:start], "big")
            append(payload[start:at])
        elif kind == 0x6E:  # n: NULL
            append(None)
        elif kind == 0x75:  # u: unchanged
            append(UNCHANGED)
        else:
            raise ValueError(f"a value of the kind {chr(kind)!r}")
    return tuple(values), at


def _text(payload: bytes, at: int) -> tuple[str, int]:
    """Return the text that begins at ``at`` and ends with a zero, and what comes after it."""
    end = payload.index(0, at)
    return payload[at:end].decode(), end + 1


def _check_kind(payload: bytes, at: int, kinds: bytes) -> None:
    if payload[at] not in kinds:
        raise ValueError(f"a row of the kind {chr(payload[at])!r}")


def _check_end(payload: bytes, end: int) -> None:
    if end != len(payload):
        raise ValueError(f"its rows end at byte {end}")


_READERS: Mapping[bytes, Callable[[bytes], Decoded]] = {
    b"B": _begin,
    b"C": _commit,
    b"R": _relation,
    b"I": _insert,
    b"U": _update,
    b"D": _delete,
    b"T": _truncate,
}
