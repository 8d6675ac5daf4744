"""Open connections to servers, so that those who wait for a silent one can be woken.

A driver waits for an answer without end, and no other thread can tell it to stop. But it ends by an error when its
socket is shut.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

Owner = TypeVar("Owner")
FileNumber = Callable[[Any], int]
_lock = threading.Lock()
_open: WeakKeyDictionary[Any, tuple[str, Callable[[Any], object]]] = WeakKeyDictionary()
_numbers: WeakKeyDictionary[Any, FileNumber] = WeakKeyDictionary()
"""What returns the number of the file, for those that are sockets."""
_unheard: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
"""Since when the server has answered others, but nothing has come on these connections."""

_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 60, "TCP_KEEPCNT": 120}
"""Seconds until the first sign and between two of them, and how many without an answer end a connection."""
_RTO_MAX_MS = 44
"""``TCP_RTO_MAX_MS`` (Linux, include/uapi/linux/tcp.h), from 6.15 on."""
_RESEND_MS = 10_000
"""What is not acknowledged is sent again at least so often: the system waits for up to two minutes else."""
_UNHEARD_SECONDS, _LOST_SECONDS, _LATER = 20.0, 20.0, 1.25
"""After this time without an answer to a sign it is asked whether the server answers others; that long afterwards
the connection is lost. It is not while its next sign is due later than that: after an outage only that wakes it.
"""
_TCP_INFO = struct.Struct("@BBBBBBBB13I")
"""The first fields of ``struct tcp_info`` (Linux, include/uapi/linux/tcp.h)."""
_RETRANSMITS, _PROBES, _RTO, _LAST_DATA, _LAST_ANSWER = 2, 3, 8, 19, 20


def waking(url: str, owner: Owner, wake: Callable[[Owner], object]) -> Owner:
    """Return what waits for the database of a URL, remembered as long as it lives: ``wake`` ends its waiting."""
    with _lock:
        _open[owner] = url, wake
    return owner


def waking_socket(url: str, owner: Owner, file_number: Callable[[Owner], int]) -> Owner:
    """Return the same of what waits for a socket; ``file_number`` returns the number of its file. A connection that the
    network has dropped can be recognized then: see ``hang_up_lost``.
    """
    with _lock:
        _numbers[owner] = file_number
    return waking(url, owner, lambda each: shut_socket(file_number(each)))


def shut_socket(number: int) -> None:
    """Shut a socket by the number of its file: whoever waits for it gets the end of what was sent."""
    with _duplicate(number) as other:
        other.shutdown(socket.SHUT_RDWR)


def _duplicate(number: int) -> socket.socket:
    """Return the socket of a file's number once more. The connection may be closed by now, and its number be that of
    another file: raises ``OSError`` where that is no socket, before it is opened once more. To close it then would drop
    the locks that SQLite has on it.
    """
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    duplicate = os.dup(number)
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise


def keep_alive(number: int) -> None:
    """Have the system send something on an idle connection, by the number of its file, which the other system answers
    however busy the server is. Whoever forwards its packets forgets it otherwise, within minutes: a snapshot would be
    lost, or an answer be waited for for ever. A network that is away for hours ends none.
    """
    with _duplicate(number) as other, suppress(OSError):  # a local socket has none of that
        other.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE.items():
            if (known := getattr(socket, option, None)) is not None:
                other.setsockopt(socket.IPPROTO_TCP, known, value)
        with suppress(AttributeError):
            other.setsockopt(socket.IPPROTO_TCP, _RTO_MAX_MS, _RESEND_MS)
            # Sent again that often, it would be given up after two minutes; TCP_USER_TIMEOUT sets how long it goes on.
            hours_ms = 1000 * _KEEP_ALIVE["TCP_KEEPINTVL"] * _KEEP_ALIVE["TCP_KEEPCNT"]
            if not other.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT):
                other.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, hours_ms)


def hang_up(is_meant: Callable[[str], bool]) -> None:
    """Wake all who wait for the databases whose URLs are meant. Their connections are of no use from then on."""
    with _lock:
        meant = [(owner, wake) for owner, (url, wake) in _open.items() if is_meant(url)]
    for owner, wake in meant:
        with suppress(Exception):  # it is closed by now, say
            wake(owner)


def is_any_unheard(is_meant: Callable[[str], bool]) -> bool:
    """Tell whether the other side of a connection has answered no sign for a while, of the databases whose URLs are
    meant: the network, the server, or this connection alone may be away.
    """
    return any(_unheard_seconds(number)[0] >= _UNHEARD_SECONDS for _, number in _meant_sockets(is_meant))


def hang_up_lost(is_meant: Callable[[str], bool]) -> None:
    """Wake those who wait for connections that the network has dropped. To be called whenever the server of these
    databases has answered a new login: some time after the first answer, whoever still has none is lost.
    """
    now = time.monotonic()
    for owner, number in _meant_sockets(is_meant):
        seconds, next_sign_seconds = _unheard_seconds(number)
        if seconds < _UNHEARD_SECONDS:
            _unheard.pop(owner, None)
            continue
        since = _unheard.setdefault(owner, now)
        if now - since >= max(_LOST_SECONDS, next_sign_seconds * _LATER):
            with suppress(OSError):
                shut_socket(number)
        else:
            _send_sign(number)


def _meant_sockets(is_meant: Callable[[str], bool]) -> list[tuple[Any, int]]:
    with _lock:
        meant = [(owner, _numbers.get(owner)) for owner, (url, _) in _open.items() if is_meant(url)]
    sockets = []
    for owner, file_number in meant:
        with suppress(Exception):  # it is closed by now, say
            sockets += [(owner, file_number(owner))] if file_number else []
    return sockets


def _send_sign(number: int) -> None:
    """Have the system send something on an idle connection at once, as it does where the time for it is set anew."""
    with suppress(OSError, AttributeError), _duplicate(number) as other:
        seconds = other.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)


def _unheard_seconds(number: int) -> tuple[float, float]:
    """Return for how long nothing has come on a socket although a sign is unanswered, and after how many seconds
    without an answer what was sent is sent again; zeros where no sign is, or the system does not say so.
    """
    try:
        with _duplicate(number) as other:
            info = _TCP_INFO.unpack(other.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    except (OSError, AttributeError, struct.error):
        return 0.0, 0.0
    if not (info[_PROBES] or info[_RETRANSMITS]):
        return 0.0, 0.0
    return min(info[_LAST_DATA], info[_LAST_ANSWER]) / 1e3, info[_RTO] / 1e6
