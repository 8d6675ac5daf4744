"""The error tree and the exit codes.

    MoveoutError
    ├── UsageError            2   a wrong word on the command line or in the case file
    │   └── NotEmptyError     2   the target holds something already
    ├── IncompleteError       3   finished, with gaps
    ├── NotAllowedError       4   refused by the other side: credentials, permissions
    ├── UnreachableError      5   no answer; the same command may succeed later
    │   └── BusyError         5   another run holds the lease
    ├── DamageError           6   bytes are not what the manifest says
    │   └── DamagedOnTheWayError  6   what was sent has arrived as something else, again and again
    ├── GoneError             7   what should be there is not
    ├── NoSpaceError          8
    ├── DeadlineError         9   will not be finished in time
    ├── AlreadyExistsError    1   a conditional create found the name taken
    └── ChangedError          1   a conditional replace found another version

An error says what is wrong (``str(error)``, one sentence that names the thing) and what to do next
(``error.next_step``). Errors of exporters have the same two attributes; see ``exporters.errors``.
"""

from __future__ import annotations

from typing import ClassVar

OK = 0
INTERRUPTED = 130


class MoveoutError(Exception):
    """Base of all errors that a user is told about without a traceback."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.next_step = next_step


class UsageError(MoveoutError):
    """What was asked for makes no sense; nothing was touched."""

    exit_code = 2
    code = "usage"


class NotEmptyError(UsageError):
    """The target holds something that is not ours to overwrite."""

    code = "not-empty"


class IncompleteError(MoveoutError):
    """Finished, but some items could not be had; each is named in the bundle."""

    exit_code = 3
    code = "incomplete"


class NotAllowedError(MoveoutError):
    """The other side knows us not, or does not permit this."""

    exit_code = 4
    code = "not-allowed"


class UnreachableError(MoveoutError):
    """No answer, a broken connection or a passing fault of the other side."""

    exit_code = 5
    code = "unreachable"
    retryable = True


class BusyError(UnreachableError):
    """Another run works on this place."""

    code = "busy"
    retryable = False


class SlowDownError(UnreachableError):
    """The other side asks for fewer requests; ``wait_seconds`` is its Retry-After, if it gave one."""

    code = "slow-down"

    def __init__(self, message: str, *, next_step: str = "", wait_seconds: float | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.wait_seconds = wait_seconds


class DamageError(MoveoutError):
    """Bytes differ from what was promised; fields name the file and both values."""

    exit_code = 6
    code = "damage"

    def __init__(self, key: str, *, expected: str, found: str, next_step: str = "") -> None:
        super().__init__(f"{key}: expected {expected}, found {found}", next_step=next_step)
        self.key = key
        self.expected = expected
        self.found = found


class DamagedOnTheWayError(DamageError):
    """The other side has received other bytes than were sent, and has refused them."""

    retryable = True


class GoneError(MoveoutError):
    """What should be there is not: a file, a bucket, a bundle."""

    exit_code = 7
    code = "gone"


class NoSpaceError(MoveoutError):
    """No room left where bytes should go."""

    exit_code = 8
    code = "no-space"


class DeadlineError(MoveoutError):
    """The work will not be finished before the deadline."""

    exit_code = 9
    code = "deadline"


class AlreadyExistsError(MoveoutError):
    """A conditional create lost: the name is taken."""

    code = "already-exists"


class ChangedError(MoveoutError):
    """A conditional replace or read lost: the file is another version now."""

    code = "changed"
