"""New connections to a server that has answered before: they are waited for, as open ones are.

On an open connection a driver waits for ever. A new one fails after some seconds, which is right only where the address
may be wrong.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import TypeVar
from urllib.parse import urlsplit

from exporters.errors import SourceNoRouteError, SourceSilentError, SourceUnreachableError

Connection = TypeVar("Connection")
Wait = Callable[[float], bool]
"""Waits so many seconds; True, at once, where the command was cancelled."""

FIRST_ANSWER_SECONDS = 30
"""How long a server may send nothing at all that has never answered this process: its address may be wrong."""
_AGAIN_SECONDS = 1.0
_answered: dict[tuple[str, ...], str] = {}
"""A URL of each server that has answered this process."""
_silent: dict[tuple[str, ...], tuple[float, SourceSilentError]] = {}
"""When each server had no answer that has never given one, by the monotonic clock, and its error. Its other databases
are not asked for a while: each would be waited for as long.
"""
_waits: list[Wait] = []
_left_out: list[Callable[[str], bool]] = []
"""Each tells whether a URL is on a server that a command goes on without."""
_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}


def silence_of(error: object) -> type[SourceSilentError] | None:
    """Return what an error of a new connection means where nothing has come back, no refusal either; else None."""
    if isinstance(error, OSError) and error.errno in _NO_ROUTE:
        return SourceNoRouteError
    return SourceSilentError if isinstance(error, TimeoutError) else None


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


def has_answered(is_meant: Callable[[str], bool]) -> bool:
    """Tell whether a server has answered this process one of whose URLs is meant."""
    return any(map(is_meant, list(_answered.values())))


@contextmanager
def left_out(is_meant: Callable[[str], bool]) -> Iterator[None]:
    """As long as the context lasts, connect no more to a server that is silent: whoever tries gets an error at once."""
    _left_out.append(is_meant)
    try:
        yield
    finally:
        _left_out.remove(is_meant)


def silence(url: str) -> SourceSilentError | None:
    """Return the error of a database whose server a command goes on without; None where there is an answer."""
    if any(is_meant(url) for is_meant in _left_out):
        return SourceSilentError(
            f"the server has not answered for {FIRST_ANSWER_SECONDS} s",
            about=url,
            next_step="look at the server and the network, then run the same command again",
        )
    if not _silent:  # each request to a bucket asks this
        return None
    at, error = _silent.get(_server(url), (-inf, None))
    if error is None or time.monotonic() >= at + FIRST_ANSWER_SECONDS:
        return None
    return SourceSilentError(error.explanation, about=url, next_step=error.next_step)


def connected(url: str, connect: Callable[[], Connection]) -> Connection:
    """Return a new connection to the database of a URL. Raises ``SourceSilentError`` where its server has never
    answered, nobody waits, the server is ``left_out``, or the command is cancelled. Its other databases are not asked
    for a while, unless nobody has waited for it.
    """
    server = _server(url)
    while True:
        if (error := silence(url)) is not None:
            raise error
        try:
            connection = connect()
        except SourceSilentError as exc:
            if server not in _answered:
                if not isinstance(exc, SourceNoRouteError):
                    _silent[server] = time.monotonic(), exc
                raise
            if not _waits or _waits[-1](_AGAIN_SECONDS):
                raise
        except SourceUnreachableError as exc:
            if (error := silence(url)) is None:
                raise
            raise error from exc  # the login was ended from outside
        else:
            _answered[server] = url
            _silent.pop(server, None)
            return connection


def _server(url: str) -> tuple[str, ...]:
    """Return what all URLs of one server have in common, as engines show them."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2], parts.query
