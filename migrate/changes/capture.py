"""Capture: what a change log sends becomes segments at the location; only then is it acknowledged.

So the server keeps little, and what was captured is safe when the old host goes dark. A kill at any moment loses
nothing: what has no commit record was not acknowledged, and the server sends it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from exporters.changes import ChangeStream, Message, MessageKind
from migrate.changes.segments import START, Place, SegmentFolder, SegmentRecord
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.crash_points import durable

SEGMENT_BYTES = 8 * 2**20
"""About so many bytes of messages are one segment at most."""
SEGMENT_SECONDS = 1.0
"""How long a message waits at most until its segment is written."""
IDLE_SECONDS = 10.0
"""How often a source that writes nothing of ours is acknowledged: the log of its server goes on all the same."""
_POLL_SECONDS = 0.05


def resume_position(folder: SegmentFolder, base: int) -> int:
    """Return the position after which a stream has to begin so that it continues the segments."""
    last = folder.last()
    return max(base, last.position if last else 0, folder.idle_position())


class Capture:
    """Carries one change log to its folder. ``on_acknowledged`` is called after each step."""

    def __init__(self, folder: SegmentFolder, on_acknowledged: Callable[[], None] = lambda: None) -> None:
        self._folder = folder
        self._on_acknowledged = on_acknowledged
        self._last: SegmentRecord | None = folder.last()
        self._after: Place = self._last.boundary if self._last else START
        self._messages: list[Message] = []
        self._size = 0
        self._since = 0.0
        self._is_inside = False
        self._position = self._acknowledged = resume_position(folder, 0)
        self._origin = folder.origin()
        self._settled_at = time.monotonic()
        self._shapes: dict[int, Message] = {}
        self._shaped: set[int] = set()

    def run(
        self,
        stream: ChangeStream,
        cancellation: CancellationToken,
        until: Callable[[int], bool] = lambda _: False,
        end: int | None = None,
    ) -> None:
        """Capture until the run is cancelled, or ``until`` is true of a position up to which all is durable, or up to
        the position ``end``. What has arrived by then is written at once, and a next run may go on with the same
        stream. Raises what the stream and the location raise; a new ``Capture`` with a new stream goes on.
        """
        while not cancellation.is_cancelled:
            messages = stream.receive(_POLL_SECONDS)
            self._keep_origin(stream)
            for message in messages:
                if self._take_durably(message, stream) and until(self._position):
                    return  # what else has arrived is not acknowledged, and comes again
            if not self._is_inside:
                self._rest(stream)
                if not self._messages and until(self._position):
                    break
            if end is not None and self._position >= end:
                break
        else:
            if self._is_inside:
                return  # the server sends the open transaction again
        if self._messages:
            self._write(stream)
        if not self._is_inside:
            self._settle_idle(stream)

    def _keep_origin(self, stream: ChangeStream) -> None:
        """Write down what the log is known by, before anything of it is durable."""
        if stream.origin != self._origin:
            self._origin = stream.origin
            self._folder.write_idle_position(self._acknowledged, self._origin)

    def _take_durably(self, message: Message, stream: ChangeStream) -> bool:
        """Take a message; write a segment where it is time to. Tell whether all that was taken is durable."""
        self._take(message)
        if self._size < SEGMENT_BYTES and not (message.kind is MessageKind.COMMIT and self._is_due):
            return False
        self._write(stream)
        return not self._is_inside

    def _rest(self, stream: ChangeStream) -> None:
        """Write what has waited for long enough; acknowledge now and then where nothing has arrived."""
        self._position = max(self._position, stream.received)
        if self._messages:
            if self._is_due or stream.has_paused:
                self._write(stream)
        elif time.monotonic() - self._settled_at >= IDLE_SECONDS:
            self._settle_idle(stream)

    @property
    def _is_due(self) -> bool:
        """Whether the first message of the next segment has waited for long enough. A segment ends between two
        transactions, unless one is too large for it: so what arrived can be applied.
        """
        return time.monotonic() - self._since >= SEGMENT_SECONDS

    def _take(self, message: Message) -> None:
        if message.kind is MessageKind.SHAPE:
            for table in message.tables:
                self._shapes[table] = message
                self._shaped.discard(table)
            return
        for table in message.tables:
            if table not in self._shaped and table in self._shapes:
                self._shaped.add(table)
                self._add(self._shapes[table])
        self._add(message)
        if message.kind is MessageKind.BEGIN:
            self._is_inside = True
        elif message.kind is MessageKind.COMMIT:
            self._is_inside = False
            self._position = message.position

    def _add(self, message: Message) -> None:
        if not self._messages:
            self._since = time.monotonic()
        self._messages.append(message)
        self._size += len(message.payload)

    def _write(self, stream: ChangeStream) -> None:
        self._last = self._folder.write(self._messages, self._last, self._after, self._position)
        self._after = Place(self._last.number, self._last.messages)
        self._messages, self._size, self._shaped = [], 0, set()
        self._settle(stream)

    def _settle_idle(self, stream: ChangeStream) -> None:
        """Acknowledge a position up to which there was nothing to write down, once it is itself durable: who goes on
        has to begin there.
        """
        if self._position > self._acknowledged:
            self._folder.write_idle_position(self._position, self._origin, is_all=True)
        self._settle(stream)

    def _settle(self, stream: ChangeStream) -> None:
        """Acknowledge what is durable."""
        self._settled_at = time.monotonic()
        self._acknowledged = self._position
        with durable("capture.acknowledge"):
            stream.acknowledge(self._position)
        self._on_acknowledged()
