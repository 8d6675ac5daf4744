"""The contract of engines that can say what was written after a snapshot.

A *change log* is the engine's own: PostgreSQL's logical decoding, MySQL's binlog. ``open_base`` prepares it and takes a
snapshot at an exact position of it: what was committed before that position is in the snapshot, what is committed after
it arrives by ``stream``. So nothing falls between, and nothing comes twice.

Messages are the engine's own bytes. Whoever stores them needs to know only where a transaction begins and ends.
Positions are whole numbers that grow with the log; ``show`` writes one as the engine does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from msgspec import Struct, field

from exporters.errors import SourceGoneError
from exporters.limits import Note
from exporters.touched_rows import TouchedRows

FOLLOW = "follow"
"""The key under which the position of a followed source's snapshot has what ``ChangeBase.described`` returns."""

BASE_AGAIN = (
    "take the base again: moveout export --follow to a new location; or let moveout follow --delta compare the tables"
    " from now on"
)
"""The next step where changes after a base can no longer arrive."""


PUT_BACK_STEP = f"the destination may have rows that this server lacks; {BASE_AGAIN}"
"""The next step where a server was put back to an earlier state."""


def put_back_error(source: str, difference: str) -> SourceGoneError:
    """Return the error that a server was put back to an earlier state, as from a snapshot of its disk."""
    return SourceGoneError(
        f"the log is another one than the captured one: {difference}. The server was put back to an earlier"
        " state and has written on since",
        about=source,
        next_step=PUT_BACK_STEP,
    )


class MessageKind(IntEnum):
    """What a message is to those who only store it."""

    BEGIN = 1
    CHANGE = 2
    COMMIT = 3
    SHAPE = 4
    """How the rows of a table look that follow. It holds until the next one for that table, or until the stream is
    opened again.
    """


class Message(NamedTuple):
    """One message of a change log. ``position`` of a ``COMMIT`` is where the log goes on after it; of the others it is
    for people. ``tables`` are the engine's numbers of the tables whose shapes one must know to read it.
    """

    kind: MessageKind
    position: int
    payload: bytes
    tables: tuple[int, ...] = ()


class NotFollowed(Struct, frozen=True):
    """Something whose changes are not in the log. ``remedy`` is the statement that would bring them into it."""

    name: str
    reason: str
    remedy: str = ""

    @property
    def sentence(self) -> str:
        """What is wrong with it, and the statement that ends that."""
        return f"{self.name}: {self.reason} → {self.remedy}"


_NAMED = 5


def reason_words(reason: str, count: int) -> str:
    """Return the reason of ``NotFollowed`` for so many tables: "it has no key" is "each has no key" of several."""
    return re.sub("^it ", "each ", reason) if count > 1 else reason


def note_not_followed(tables: Sequence[NotFollowed], note: Note) -> None:
    """Name the tables that are not followed, by reason."""
    by_reason: dict[str, list[str]] = {}
    for table in tables:
        by_reason.setdefault(table.reason, []).append(table.name)
    for reason, names in by_reason.items():
        note(
            f"the changes of {', '.join(names[:_NAMED])}{', …' if names[_NAMED:] else ''} cannot be followed:"
            f" {reason_words(reason, len(names))}"
            " (moveout doctor prints what mends it; else the cutover reads the rows again)"
        )


class ChangeBase(Struct, frozen=True):
    """Where the changes of one source begin. ``name`` is that under which the log was opened. ``position``: what was
    committed before it is in the base. ``snapshot`` is the name under which sessions of the same server see the base.
    Where servers export no snapshots, it is the lock under which all sessions that begin see it. It holds as long as
    the context of ``open_base``. ``log`` is what the engine needs to read on (names of its own objects at the server):
    plain JSON, no secrets.
    """

    name: str
    position: int
    snapshot: str
    log: Mapping[str, Any]
    not_followed: Sequence[NotFollowed] = field(default=())

    @property
    def described(self) -> Mapping[str, Any]:
        """What a bundle keeps of it: enough to read on."""
        return {"name": self.name, "position": self.position, "log": dict(self.log)}


class LogState(Struct, frozen=True):
    """What a server says of a change log. ``end`` is the position after everything that is committed; ``acknowledged``
    the one from which the server keeps what it sends; ``retained_bytes`` what it keeps on its disk for that.
    ``lost``: why the log can no longer be read without a gap, "" where it can. ``is_reserved``: the server keeps this
    for us alone, and would be free of it without us; else its own settings say for how long.
    """

    end: int
    acknowledged: int
    retained_bytes: int
    is_read: bool
    lost: str = ""
    is_reserved: bool = True


class ChangeStream(Protocol):
    """Reads a change log. Not thread-safe. Methods raise ``SourceError``."""

    @property
    def received(self) -> int:
        """Every transaction that was committed before this position has been returned by ``receive``."""
        ...

    @property
    def is_continuous(self) -> bool:
        """Whether the log is proven to continue what was captured. Until then ``receive`` raises ``SourceGoneError``
        where it does not.
        """
        ...

    @property
    def origin(self) -> str:
        """What identifies the part of the log that is read, apart from positions: one that is written anew has another
        origin. "" where nothing has to be kept of that.
        """
        ...

    @property
    def has_paused(self) -> bool:
        """Whether it reads in turns, and a turn has ended: more comes only later, or after what has come was
        acknowledged. So nobody should wait for it.
        """
        ...

    def receive(self, seconds: float) -> Sequence[Message]:
        """Return what has arrived, in the order of the log; wait for at most so long. Transactions come whole, one
        after the other, in the order of their commits.
        """
        ...

    def acknowledge(self, position: int) -> None:
        """Tell the server that everything before this position is durable elsewhere: it need not be kept."""
        ...


class CapturedChanges(Protocol):
    """What was captured of a log before. By it a stream notices that the server was put back to an earlier state and
    has written on since. Methods raise what their location raises.
    """

    def begins(self, after: int, until: int) -> Iterator[Message]:
        """Yield the first message of each transaction that ends after one position and not after the other."""
        ...

    def origin(self) -> str:
        """Return the last ``ChangeStream.origin`` that was kept, "" where none was."""
        ...


class ChangeLog(Protocol):
    """The change log of one source. Opened by the engine's part ``change_log``: ``(url, secrets, name) -> ChangeLog``.
    ``name`` is that of the case or the bundle; what is made at the server is named after it.
    """

    leaves_objects: bool
    """Whether ``open_base`` makes something at the server that stays until ``drop``."""

    def open_base(self, note: Note = ...) -> AbstractContextManager[ChangeBase]:
        """Make what the server needs to keep changes, instead of what an earlier run made under the same name, and take
        the snapshot; ``note`` is called with what that waits for. Raises ``SourceError``; nothing of it stays at the
        server then, nor where the context ends by an error.
        """
        ...

    def stream(
        self, log: Mapping[str, Any], after: int, captured: CapturedChanges | None = None
    ) -> AbstractContextManager[ChangeStream]:
        """Read the transactions that are committed after the position ``after``, up to which they are ``captured``.
        Raises ``SourceGoneError`` where the server has given up some of them, ``SourceUnreachableError`` also where
        somebody else reads this log.
        """
        ...

    def state(self, log: Mapping[str, Any], after: int = 0) -> LogState:
        """Ask the server. ``after``: up to where the log was read, as far as that is known. Raises ``SourceError``."""
        ...

    def detour(self) -> str:
        """Return how changes are read now and why so, where the usual way is refused; "" where it is not. Raises
        ``SourceError``.
        """
        ...

    def end(self, log: Mapping[str, Any]) -> int:
        """Return the position after everything that is committed, and see to it that a stream comes that far within a
        second, also where nothing is written any more. Raises ``SourceError``.
        """
        ...

    def logged_tables(self, log: Mapping[str, Any]) -> Collection[tuple[str, str]]:
        """Return the tables, by (schema, name), all of whose changes are in the log. Raises ``SourceError``."""
        ...

    def touched_rows(
        self, log: Mapping[str, Any], messages: Iterable[Message]
    ) -> Mapping[tuple[str, str], TouchedRows]:
        """Return the rows that messages change, by the (schema, name) of their table. The last transaction may be
        unfinished. Raises ``SourceDamagedError``.
        """
        ...

    def troubled_tables(self, log: Mapping[str, Any]) -> Sequence[NotFollowed]:
        """Return the tables that refuse changes to the application since they are followed, and those whose changes are
        not in the log any more, each with what ends that. Raises ``SourceError``.
        """
        ...

    def distance_bytes(self, after: int, end: int) -> int:
        """Return how many bytes of the log lie between two positions, as far as ``state`` has them."""
        ...

    def drop(self, log: Mapping[str, Any], *, even_if_read: bool = False) -> bool:
        """Remove what ``open_base`` made, and tell whether there was anything. ``log`` may be empty, where it is not
        known. ``even_if_read``: who reads it is disconnected. Raises ``SourceError``.
        """
        ...

    def show(self, position: int) -> str:
        """Return a position as the engine's own tools write it."""
        ...
