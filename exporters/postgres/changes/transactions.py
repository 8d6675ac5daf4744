"""Turns messages of pgoutput into those of the contract, however they come: by the replication protocol, or by SQL."""

from __future__ import annotations

import struct
from collections.abc import Callable

from exporters.changes import Message, MessageKind
from exporters.postgres.changes.pgoutput import relations_of

_KINDS = dict.fromkeys(b"IUDT", MessageKind.CHANGE) | {ord("R"): MessageKind.SHAPE}
_BEGIN, _COMMIT = ord("B"), ord("C")
_POSITION = struct.Struct(">Q")
_BEGINNING = struct.Struct(">QqI")
"""What a begin message has behind its kind: the position of the commit, the time, the transaction."""
_END_AT = 10
"""Where a commit message has the position after it: behind its kind, flags and the position of the commit."""

Skip = Callable[[int, int], bool]
"""Tells of a transaction, by the position of its commit record and its 32-bit number, whether it is left out."""


def read_begin(payload: bytes) -> tuple[int, int]:
    """Return the position of the commit record, and the 32-bit number, of a begin message."""
    committed_at, _, transaction = _BEGINNING.unpack_from(payload, 1)
    return committed_at, transaction


class Transactions:
    """Takes the messages in their order. ``received``: every transaction that was committed before it was taken.
    Transactions without a change are left out, and those that ``skip`` names; shapes never are, since later
    transactions rely on them.
    """

    def __init__(self, received: int, skip: Skip | None) -> None:
        self.received = received
        self._skip = skip
        self._begin: Message | None = None
        self._begun = self._skipped = False

    @property
    def is_inside(self) -> bool:
        """Whether a transaction has begun, and its end is not taken."""
        return self._begin is not None

    def take(self, position: int, payload: bytes, messages: list[Message]) -> None:
        """Append what one message becomes."""
        word = payload[0]
        kind = _KINDS.get(word)
        if kind is not None:
            if kind is MessageKind.CHANGE:
                if self._skipped:
                    return
                if not self._begun and self._begin is not None:
                    messages.append(self._begin)
                    self._begun = True
            messages.append(Message(kind, position, payload, relations_of(payload)))
        elif word == _BEGIN:
            self._begin, self._begun = Message(MessageKind.BEGIN, position, payload), False
            if self._skip is not None:
                self._skipped = self._skip(*read_begin(payload))
        elif word == _COMMIT:
            (end,) = _POSITION.unpack_from(payload, _END_AT)
            if self._begun:
                messages.append(Message(MessageKind.COMMIT, end, payload))
            self._begin, self._skipped = None, False
            self.received = max(self.received, end)
