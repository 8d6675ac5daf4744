"""The error tree: every error that is reported to the user, with the exit code that the command ends with.

    MoveoutError                  1   base
    ├── UsageError                2   a wrong URL, option or case file; nothing was touched
    │   └── NotEmptyError         2   the destination holds something already
    ├── IncompleteError           3   finished, but some items are missing
    ├── NotAllowedError           4   authentication failed, or a permission is missing
    ├── UnreachableError          5   no answer; the same command may succeed later
    │   ├── BusyError             5   another run holds the lease
    │   ├── SlowDownError         5   the server asks for fewer requests
    │   └── WrongAnswerError      5   what came is not what such a server answers
    ├── DamageError               6   bytes differ from the manifest
    │   └── DamagedOnTheWayError  6   the server received other bytes than were sent
    ├── NotEqualError             6   both sides of a cutover cannot be made equal
    ├── GoneError                 7   a file, bucket, database or bundle does not exist
    ├── NoSpaceError              8   no space left
    ├── DeadlineError             9   the work will not be finished before the deadline
    ├── AlreadyExistsError        1   a conditional create found the name taken
    ├── ChangedError              1   a conditional replace found another version
    └── SourceError               1   reading a source failed

An error of a source, but for one, has a second base class that says which kind it is, so a caller can ask for either:

    SourceError
    ├── SourceUsageError          2   also a UsageError
    ├── SourceNotAllowedError     4   also a NotAllowedError
    ├── SourceUnreachableError    5   also an UnreachableError
    │   ├── SourceSilentError     5   a database server gave no answer at all, no refusal either
    │   │   └── SourceNoRouteError  5   the network says at once that no way leads there
    │   └── SourceSnapshotLostError  5  the session that held the snapshot has ended: a new one is needed
    ├── SourceGoneError           7   also a GoneError
    │   └── SourceReplacedError   7   another server is where the source was
    ├── SourceStateError          6   without a second one: what an earlier run wrote for itself cannot be read
    └── SourceItemError           3   also an IncompleteError: one row or object cannot be read
        ├── SourceChangedError    3   the item has changed since it was listed
        └── SourceDamagedError    3   the bytes of the item differ from the source's own checksum

``str(error)`` is one sentence that names the thing: ``error.about``, where it begins with that, and then
``error.explanation``. ``error.next_step`` says what to do next.
``migrate.errors`` re-exports this tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from typing import ClassVar

_MOST_CHARACTERS = 500
"""How much of a value is repeated: it may be a stranger's."""


class MoveoutError(Exception):
    """Base of all errors that are reported to the user without a traceback."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    usual_step: ClassVar[str] = ""
    """What to do next where nothing else was given."""

    def __init__(self, explanation: str, *, about: str = "", next_step: str = "") -> None:
        super().__init__(explanation)
        self.about, self.explanation, self.next_step = about, explanation, next_step or self.usual_step
        self.causes: Sequence[tuple[str, MoveoutError]] = ()
        """The errors that it stands for, by what they are of."""

    def __str__(self) -> str:
        return self.sentence(str)

    def sentence(self, explained: Callable[[str], str]) -> str:
        """Return it as a sentence, and its causes a line each. ``explained`` returns how explanations are printed; what
        is to be done about a cause stands there only where that changes nothing.
        """
        lines = [": ".join(filter(None, (self.about, explained(self.explanation))))]
        same_step = len({cause.next_step for _, cause in self.causes}) == 1
        for name, cause in self.causes:
            lines.append(f"  {name}: {cause.sentence(explained)}")
            if not same_step and explained(cause.explanation) == cause.explanation:
                lines.append(f"    → {cause.next_step}")
        return "\n".join(lines)

    @property
    def is_of_url(self) -> bool:
        """Whether it is about a URL: that of a server, a database or a bucket."""
        return "://" in self.about

    @property
    def reason(self) -> str:
        """The error without the URL that it is about, for whoever names that; else the whole sentence."""
        return self.explanation if self.is_of_url else str(self)


class UsageError(MoveoutError):
    """The request makes no sense; nothing was touched."""

    exit_code = 2
    code = "usage"


class NotEmptyError(UsageError):
    """The destination holds something that is not ours to overwrite."""

    code = "not-empty"


class IncompleteError(MoveoutError):
    """The work is finished, but some items are missing; each is named."""

    exit_code = 3
    code = "incomplete"


class NotAllowedError(MoveoutError):
    """Authentication failed, or the credentials do not permit this."""

    exit_code = 4
    code = "not-allowed"


class UnreachableError(MoveoutError):
    """There was no answer, the connection broke, or the server had a passing fault."""

    exit_code = 5
    code = "unreachable"
    retryable = True


class BusyError(UnreachableError):
    """Another run works on this location, or something is written to that has to be still."""

    code = "busy"
    retryable = False


class SlowDownError(UnreachableError):
    """The server asks for fewer requests; ``wait_seconds`` is its Retry-After, if it sent one."""

    code = "slow-down"

    def __init__(
        self, explanation: str, *, about: str = "", next_step: str = "", wait_seconds: float | None = None
    ) -> None:
        super().__init__(explanation, about=about, next_step=next_step)
        self.wait_seconds = wait_seconds


class WrongAnswerError(UnreachableError):
    """What came is not what such a server answers: something on the way, or another server, has answered instead."""

    code = "wrong-answer"
    usual_step = "check the endpoint, and what is on the way to it; then run the same command again"


class DamageError(MoveoutError):
    """Bytes differ from what was recorded; the fields name the file and both values, their first 500 characters."""

    exit_code = 6
    code = "damage"
    usual_step = (
        "moveout verify names all that is damaged in a bundle;"
        " moveout transfer --recheck from a whole copy replaces it"
    )

    def __init__(self, key: str, *, expected: str, found: str, next_step: str = "") -> None:
        self.key = key
        self.expected, self.found = (
            text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
            for text in (expected, found)
        )
        super().__init__(f"expected {self.expected}, found {self.found}", about=key, next_step=next_step)


class DamagedOnTheWayError(DamageError):
    """The server received other bytes than were sent, and refused them."""

    retryable = True
    usual_step = "run the same command again; if it goes on, something on the way changes what is sent"


class NotEqualError(MoveoutError):
    """Both sides of a cutover cannot be made equal, so nothing is switched."""

    exit_code = 6
    code = "damage"


class GoneError(MoveoutError):
    """A file, a bucket, a database or a bundle does not exist."""

    exit_code = 7
    code = "gone"


class NoSpaceError(MoveoutError):
    """No space is left where bytes should be written."""

    exit_code = 8
    code = "no-space"


class DeadlineError(MoveoutError):
    """The work will not be finished before the deadline."""

    exit_code = 9
    code = "deadline"


class AlreadyExistsError(MoveoutError):
    """A conditional create found the name taken."""

    code = "already-exists"


class ChangedError(MoveoutError):
    """A conditional replace or read found another version."""

    code = "changed"


class SourceError(MoveoutError):
    """Reading a source failed. An export goes on with its other sources; an exporter does its own retries."""

    code = "source"


class SourceUsageError(SourceError, UsageError):
    """The URL of the source or an option cannot be used."""

    code = "usage"


class SourceNotAllowedError(SourceError, NotAllowedError):
    """The source refuses these credentials, or they may not read this."""

    code = "not-allowed"


class SourceUnreachableError(SourceError, UnreachableError):
    """The source does not answer, or it broke the connection."""

    code = "unreachable"
    retryable = False


class SourceSilentError(SourceUnreachableError):
    """A server gave no answer in time, no refusal either: it is stopped, or the network loses packets. It has been
    waited for.
    """

    retryable = False


class SourceNoRouteError(SourceSilentError):
    """The network answers at once that no way leads to a server, as while its address moves: nobody waited for it."""


class SourceSnapshotLostError(SourceUnreachableError):
    """The session that held the snapshot has ended. Nothing more can be read under it, however often it is tried."""

    usual_step = (
        "run the same command again: it takes a new snapshot and keeps finished work that still holds"
    )


class SourceGoneError(SourceError, GoneError):
    """The source does not exist."""

    code = "gone"


class SourceReplacedError(SourceGoneError):
    """Another server has the address of the source."""


class SourceStateError(SourceError):
    """What an earlier run wrote to a source's workspace cannot be read."""

    exit_code = 6
    code = "damage"

    usual_step = (
        "remove the directory _work/SOURCE of this source at the location, then run the same command again: it exports"
        " the source from the beginning"
    )


@contextmanager
def reading_state(name: str) -> Iterator[None]:
    """Raise ``SourceStateError`` where what a workspace has under a name makes no sense."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise SourceStateError(f"what an earlier run wrote here cannot be read ({exc})", about=name) from exc


class SourceItemError(SourceError, IncompleteError):
    """One item cannot be read for a reason of its own: the exporter records a gap and goes on."""

    code = "item"


class SourceChangedError(SourceItemError):
    """The item has another version by now than the one that was asked for, or it is gone."""

    code = "changed"


class SourceDamagedError(SourceItemError):
    """The bytes of the item differ from the source's own checksum."""

    code = "damaged"


_AT = r"(?: - at `\$(.*)`)?"
_MISSING = re.compile(rf"Object missing required field `(\w+)`{_AT}")
_OTHER_KIND = re.compile(rf"Expected `([^`]*)`, got `([^`]*)`{_AT}")
"""What msgspec says of a value."""


def _in_our_words(text: str) -> str:
    """Return what msgspec says of a value, shorter and without its marks; other texts as they are."""
    if (match := _MISSING.fullmatch(text)) is not None:
        text, path = f"there is no {match[1]}", match[2]
    elif (match := _OTHER_KIND.fullmatch(text)) is not None:
        text, path = f"a value is {match[2]}, not {match[1]}", match[3]
    else:
        return text
    return f"{text}, at {path.removeprefix('.')}" if path else text


def in_words(error: BaseException) -> str:
    """Return what was wrong with what somebody else wrote, on one line: Python's own words for it say nothing to the
    reader of a message.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not {error.encoding.upper()}"
    if isinstance(error, JSONDecodeError):
        return f"line {error.lineno}, column {error.colno} is no JSON"
    if type(error) is KeyError:
        return f"there is no {text}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if type(error) in {TypeError, AttributeError}:
        return "a value is of another kind than the format says"
    if type(error) is IndexError:
        return "it has fewer values than the format says"
    if text.startswith("invalid literal for int()"):
        return f"{text.partition(': ')[2]} is no number"
    if text.startswith("Exceeds the limit ("):
        return "a number has more than 4300 digits"
    return _in_our_words(text)


@contextmanager
def decoding(key: str, expected: str, *, next_step: str = "") -> Iterator[None]:
    """Raise ``DamageError`` that names the file, and what was ``expected`` of it, where what stands in it makes no
    sense. ``next_step`` takes the place of the usual one.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise DamageError(
            key, expected=expected, found=f"something else ({in_words(exc)})", next_step=next_step
        ) from exc
