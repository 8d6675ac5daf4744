"""New connections to a database server that has answered before: they are waited for, as open ones are.

On an open connection a driver waits for ever. A new one fails after some seconds, which is right only where the address
may be wrong.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from exporters.errors import SourceSilentError

Connection = TypeVar("Connection")
Wait = Callable[[float], bool]
"""Waits so many seconds; True, at once, where the command was cancelled."""

_AGAIN_SECONDS = 1.0
_answered: set[str] = set()
"""The URLs of databases that have answered this process."""
_waits: list[Wait] = []
_NO_ANSWER = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}


def is_silence(error: object) -> bool:
    """Tell whether an error of a new connection means that nothing has come back, no refusal either."""
    return isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno in _NO_ANSWER)


@contextmanager
def waiting_for_silent(wait: Wait) -> Iterator[None]:
    """As long as the context lasts, wait for servers that have answered before. Somebody else says that they are
    silent: see ``ServerContact``.
    """
    _waits.append(wait)
    try:
        yield
    finally:
        _waits.remove(wait)


def connected(url: str, connect: Callable[[], Connection]) -> Connection:
    """Return a new connection to the database of a URL. Raises ``SourceSilentError`` where it has never answered,
    nobody waits, or the command is cancelled.
    """
    while True:
        try:
            connection = connect()
        except SourceSilentError:
            if url not in _answered or not _waits or _waits[-1](_AGAIN_SECONDS):
                raise
        else:
            _answered.add(url)
            return connection
