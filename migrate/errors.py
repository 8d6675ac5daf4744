"""The error tree (see ``exporters.errors``), and the exit codes that no error stands for."""

from __future__ import annotations

from exporters.errors import (
    AlreadyExistsError,
    BusyError,
    ChangedError,
    DamagedOnTheWayError,
    DamageError,
    DeadlineError,
    GoneError,
    IncompleteError,
    MoveoutError,
    NoSpaceError,
    NotAllowedError,
    NotEmptyError,
    NotEqualError,
    SlowDownError,
    SourceChangedError,
    SourceDamagedError,
    SourceError,
    SourceGoneError,
    SourceItemError,
    SourceNotAllowedError,
    SourceReplacedError,
    SourceUnreachableError,
    SourceUsageError,
    UnreachableError,
    UsageError,
)

OK = 0
INTERRUPTED = 130

__all__ = [
    "INTERRUPTED",
    "OK",
    "AlreadyExistsError",
    "BusyError",
    "ChangedError",
    "DamageError",
    "DamagedOnTheWayError",
    "DeadlineError",
    "GoneError",
    "IncompleteError",
    "MoveoutError",
    "NoSpaceError",
    "NotAllowedError",
    "NotEmptyError",
    "NotEqualError",
    "SlowDownError",
    "SourceChangedError",
    "SourceDamagedError",
    "SourceError",
    "SourceGoneError",
    "SourceItemError",
    "SourceNotAllowedError",
    "SourceReplacedError",
    "SourceUnreachableError",
    "SourceUsageError",
    "UnreachableError",
    "UsageError",
]
