"""Compares what a server sends again with what was captured: whether its log is still the same one.

A server that was put back from a copy of its files has the same identifier and timeline. Once it has written on, its
log reaches beyond what was captured, and is another one. Its slot was put back, too: it has acknowledged less than was
captured. So a stream begins at what the slot has acknowledged. The transactions between there and the captured position
must be those that were captured: same position, same microsecond of the commit, same number. A slot that has
acknowledged all that was captured has it in its log: what it acknowledges lies on its disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporters.changes import CapturedChanges, ChangeStream, Message, MessageKind, put_back_error
from exporters.errors import SourceGoneError
from exporters.postgres.changes.slot import lsn_text
from exporters.postgres.changes.transactions import read_begin


class CapturedAgain:
    """A ``ChangeStream`` over one that begins at what a slot has ``acknowledged``. It returns what comes after the
    position ``after``, and acknowledges nothing until the log is proven to be the captured one.
    """

    origin = ""

    def __init__(
        self, stream: ChangeStream, source: str, captured: CapturedChanges, acknowledged: int, after: int
    ) -> None:
        self._stream = stream
        self._source = source
        self._acknowledged = acknowledged
        self._after = after
        self._expected: Iterator[Message] = iter(captured.begins(acknowledged, after))
        self.is_continuous = False

    @property
    def has_paused(self) -> bool:
        """See ``ChangeStream``."""
        return self._stream.has_paused

    @property
    def received(self) -> int:
        """See ``ChangeStream``."""
        return max(self._after, self._stream.received) if self.is_continuous else self._after

    def receive(self, seconds: float) -> Sequence[Message]:
        """See ``ChangeStream``."""
        messages = self._stream.receive(seconds)
        if self.is_continuous:
            return messages
        fresh = [message for message in messages if self._is_fresh(message)]
        if not self.is_continuous and self._stream.received >= self._after:
            self._require_end()
        return fresh

    def acknowledge(self, position: int) -> None:
        """See ``ChangeStream``."""
        if self.is_continuous:
            self._stream.acknowledge(position)

    def _is_fresh(self, message: Message) -> bool:
        """Tell whether a message was not captured before; a shape is needed by what comes later."""
        if message.kind is MessageKind.BEGIN and not self.is_continuous:
            committed_at, _ = read_begin(message.payload)
            if committed_at >= self._after:
                self._require_end()
            else:
                self._require_same(committed_at, message)
        return self.is_continuous or message.kind is MessageKind.SHAPE

    def _require_same(self, committed_at: int, begin: Message) -> None:
        expected = next(self._expected, None)
        if expected is None or expected.payload != begin.payload:
            at = lsn_text(committed_at)
            raise self._put_back(f"it has another transaction at {at} than the captured one")

    def _require_end(self) -> None:
        if (missing := next(self._expected, None)) is not None:
            committed_at, _ = read_begin(missing.payload)
            raise self._put_back(f"it lacks the transaction that was captured at {lsn_text(committed_at)}")
        self.is_continuous = True

    def _put_back(self, difference: str) -> SourceGoneError:
        lacks = f"what was captured between {lsn_text(self._acknowledged)} and {lsn_text(self._after)}"
        return put_back_error(self._source, f"{difference}; it may lack {lacks}")
