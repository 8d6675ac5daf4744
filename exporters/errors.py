"""Errors that a source can raise. Each carries the exit code that the command ends with.

SourceError
├── SourceUsageError        2   a wrong URL, an option that makes no sense
├── SourceNotAllowedError   4   credentials or permissions
├── SourceUnreachableError  5   no answer; may succeed later
├── SourceGoneError         7   the database or bucket does not exist (any more)
└── SourceItemError         3   one row or object cannot be read; the others may be fine
    ├── SourceChangedError  3   it is not any more what was listed
    └── SourceDamagedError  3   its bytes are not those of which the source keeps a checksum
"""

from __future__ import annotations

from typing import ClassVar


class SourceError(Exception):
    """Base: ``str(error)`` names the thing, ``next_step`` says what to do."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "source"

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.next_step = next_step


class SourceUsageError(SourceError):
    """The URL or an option cannot be used."""

    exit_code = 2
    code = "usage"


class SourceNotAllowedError(SourceError):
    """The source refuses these credentials, or they may not read this."""

    exit_code = 4
    code = "not-allowed"


class SourceUnreachableError(SourceError):
    """The source does not answer, or broke the connection."""

    exit_code = 5
    code = "unreachable"


class SourceGoneError(SourceError):
    """The source is not there."""

    exit_code = 7
    code = "gone"


class SourceItemError(SourceError):
    """One item cannot be read, for a reason that is its own: the exporter makes a gap of it and goes on."""

    exit_code = 3
    code = "item"


class SourceChangedError(SourceItemError):
    """One item is another version by now than the one that was asked for, or is gone."""

    code = "changed"


class SourceDamagedError(SourceItemError):
    """The bytes of one item contradict what the source says of them."""

    code = "damaged"
