"""Apply: segments become rows at the destination, transaction after transaction.

The place up to which all is applied is written in the same transaction as the rows. So a kill at any moment repeats
nothing and loses nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from exporters.changes import Message, MessageKind
from exporters.errors import SourceDamagedError
from migrate.changes.segments import START, Place, SegmentFolder, SegmentReader, WithdrawnError
from migrate.errors import GoneError, IncompleteError
from migrate.runtime.cancellation import CancellationToken

BATCH_CHANGES = 5_000
"""How many changes, of whole transactions, are one transaction at the destination."""
_POLL_SECONDS = 0.2
UNREADABLE = (
    SourceDamagedError,
    struct.error,
    zlib.error,
    LookupError,
    ValueError,
    OverflowError,
    AssertionError,
)
"""What is raised where messages are none of a log: whoever can write to the location may have changed them."""


class Mark(Struct, frozen=True):
    """How far a destination is: the last message that it has, and the position after it in the source's log. ``base``
    is the position of the snapshot that it was restored from. ``skipped``: the tables which that restore left out, so
    that their changes are left out, too; ``schema.name``, or only a name where there are no schemas.
    """

    base: int
    place: Place = START
    position: int = 0
    skipped: tuple[str, ...] = ()

    @property
    def applied(self) -> int:
        """The position before which all that was committed is at the destination."""
        return max(self.position, self.base)


class ChangeConflictError(IncompleteError):
    """A change does not fit what the destination has. The message names the change: position, table, key, both rows."""


class ChangeWriter(Protocol):
    """Writes the changes of one source to its destination. Opened by the engine's part ``change_writer``:
    ``(url, secrets, source, log) -> ChangeWriter``; ``log``: that of the base. Not thread-safe. Methods raise errors of
    ``exporters.errors``.
    """

    written: dict[tuple[str, str], int]
    """The tables, by (schema, name), to which changes were written since it was opened, and to how many rows. What was
    rolled back counts, too, as it does for the server (see ``WriteState.rows``).
    """

    def mark(self) -> Mark | None:
        """Return how far the destination is; None where this source was not restored to it yet."""
        ...

    def forget(self) -> None:
        """Remove the mark: no changes are applied here any more."""
        ...

    def take(self, message: Message) -> None:
        """Apply one message in the open transaction; it may be applied later, with others, by ``commit`` at the latest.
        Changes of the tables that the mark names as skipped are left out.
        Raises ``ChangeConflictError``.
        """
        ...

    def written_of_server(self) -> int:
        """Return the further writes that the server counts since it was opened: see ``WriteState.of_server``."""
        ...

    def commits_before(self, message: Message) -> bool:
        """Tell whether what was taken before must be committed before this message is taken: it is done by a statement
        that the server commits by itself.
        """
        ...

    def commit(self, mark: Mark) -> None:
        """Commit what was taken, and the mark with it. Raises ``ChangeConflictError``."""
        ...

    def rollback(self) -> None:
        """Forget what was taken since the last commit."""
        ...

    def close(self) -> None:
        """Release the connection; what was not committed is gone."""
        ...


@runtime_checkable
class RereadingWriter(Protocol):
    """A ``ChangeWriter`` whose tables can be read again while nothing is applied. Tables are ``schema.name``."""

    def begin_again(self, tables: Sequence[str]) -> None:
        """Write down that tables are read again. Until that has ended their changes are left out."""
        ...

    def end_again(self, tables: Sequence[str], position: int) -> None:
        """Write down, of all at once, that tables have all that was committed before a position of the log; only what
        comes later is applied to them.
        """
        ...


class Applying:
    """Brings one destination up to what lies at the location. ``report`` is called after every commit."""

    def __init__(
        self,
        folder: SegmentFolder,
        writer: ChangeWriter,
        report: Callable[[Mark, int], None] = lambda _mark, _count: None,
    ) -> None:
        mark = writer.mark()
        if mark is None:
            raise GoneError(
                "the destination was not restored from this bundle yet",
                next_step="run moveout restore, then the same command again",
            )
        self._folder = folder
        self._writer = writer
        self._report = report
        self._mark = mark
        self._reader = SegmentReader(folder, mark.place)
        self._taken: tuple[Place, int] | None = None  # the end of the last transaction that is not committed
        self._is_inside = False
        self._changes = 0
        self._batch = BATCH_CHANGES

    def run(self, cancellation: CancellationToken, until: Callable[[Mark], bool] = lambda _: False) -> Mark:
        """Apply until the run is cancelled, or ``until`` is true of what is applied; return that. It is asked whenever
        all that lay there was read; not where transactions that were read are taken again, one by one, say.
        """
        while not cancellation.is_cancelled:
            if self._advance(cancellation) and until(self._mark):
                break
            cancellation.wait(_POLL_SECONDS)
        self._writer.rollback()
        return self._mark

    @property
    def is_settled(self) -> bool:
        """Whether all that was read is committed."""
        return not self._is_inside and self.is_committed

    @property
    def is_committed(self) -> bool:
        """Whether all transactions that were read to their end are committed."""
        return self._taken is None

    def _advance(self, cancellation: CancellationToken) -> bool:
        """Apply what lies there; tell whether all of it was read. After a conflict each transaction is applied by
        itself, so that what comes before the one with the conflict is kept.
        """
        try:
            return self._take_all(cancellation)
        except WithdrawnError:
            self._start_over()
        except ChangeConflictError:
            if self._batch == 1:
                raise
            self._batch = 1
            self._start_over()
        return False

    def _take_all(self, cancellation: CancellationToken) -> bool:
        writer = self._writer
        for segment, messages in self._reader.read_segments():
            try:
                for number, message in messages:
                    kind = message.kind
                    if self._taken is not None and writer.commits_before(message):
                        self._commit()
                    writer.take(message)
                    if kind is MessageKind.CHANGE:
                        self._changes += 1
                    elif kind is MessageKind.BEGIN:
                        self._is_inside = True
                    elif kind is MessageKind.COMMIT:
                        self._is_inside = False
                        place = Place(segment, number)
                        self._taken = place, message.position
                        if self._changes >= self._batch or place >= self._reader.boundary:
                            self._commit()
                            if cancellation.is_cancelled:
                                return False
            except UNREADABLE as exc:
                raise self._folder.unreadable(segment, exc) from exc
        return True

    def _start_over(self) -> None:
        """Go back to the mark."""
        self._writer.rollback()
        self._reader = SegmentReader(self._folder, self._mark.place)
        self._taken, self._is_inside, self._changes = None, False, 0

    def _commit(self) -> None:
        assert self._taken is not None
        place, position = self._taken
        mark = replace(self._mark, place=place, position=position)
        self._writer.commit(mark)
        self._mark, self._taken = mark, None
        self._report(self._mark, self._changes)
        self._changes = 0
