"""Open connections to servers, so that those who wait for a silent one can be woken.

A driver waits for an answer without end, and no other thread can tell it to stop. But it ends by an error when its
socket is shut.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

Owner = TypeVar("Owner")
_lock = threading.Lock()
_open: WeakKeyDictionary[Any, tuple[str, Callable[[Any], object]]] = WeakKeyDictionary()

_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 60, "TCP_KEEPCNT": 120}
"""Seconds until the first sign and between two of them, and how many without an answer end a connection."""


def waking(url: str, owner: Owner, wake: Callable[[Owner], object]) -> Owner:
    """Return what waits for the database of a URL, remembered as long as it lives: ``wake`` ends its waiting."""
    with _lock:
        _open[owner] = url, wake
    return owner


def shut_socket(number: int) -> None:
    """Shut a socket by the number of its file: whoever waits for it gets the end of what was sent."""
    with socket.socket(fileno=os.dup(number)) as other:
        other.shutdown(socket.SHUT_RDWR)


def keep_alive(number: int) -> None:
    """Have the system send something on an idle connection each minute, by the number of its file. Whoever forwards its
    packets forgets it otherwise, within minutes: a snapshot would be lost, or an answer be waited for for ever. A
    network that is away for hours ends none.
    """
    with socket.socket(fileno=os.dup(number)) as other, suppress(OSError):  # a local socket has none of that
        other.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE.items():
            if (known := getattr(socket, option, None)) is not None:
                other.setsockopt(socket.IPPROTO_TCP, known, value)


def hang_up(is_meant: Callable[[str], bool]) -> None:
    """Wake all who wait for the databases whose URLs are meant. Their connections are of no use from then on."""
    with _lock:
        meant = [(owner, wake) for owner, (url, wake) in _open.items() if is_meant(url)]
    for owner, wake in meant:
        with suppress(Exception):  # it is closed by now, say
            wake(owner)
