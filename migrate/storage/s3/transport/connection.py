"""Connections on which only silence is a fault, not slowness.

urllib3 lets the time for making a connection bound the sending of its first body as well, and Python's ``sendall``
takes a timeout for that of all bytes together: a part of 16 MiB had ten seconds, or sixty, whatever the link carries.
Here bodies leave in pieces, and the time begins anew with each.
"""

from __future__ import annotations

import fcntl
import sys
import termios
from contextlib import suppress
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)

from migrate.storage.inflight_limit import Body, leaving

SILENT_SECONDS = 60.0
"""So long nothing may leave, and nothing come."""
_PIECE_BYTES = 256 * 2**10


class _InPieces:
    """For a connection of botocore's."""

    sock: Any
    _left = 0

    def connect(self) -> None:
        """Connect; from here on the time is that of silence."""
        super().connect()  # type: ignore[misc]
        self.sock.settimeout(SILENT_SECONDS)

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request."""
        self._left = 0
        if (body := leaving()) is not None:
            body.begin()
        return super().request(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Send bytes, those of a body in pieces."""
        body = leaving()
        if not isinstance(data, bytes) or len(data) <= _PIECE_BYTES or self.sock is None:
            super().send(data)  # type: ignore[misc]
            self._tell(body, len(data) if isinstance(data, bytes) else 0)
            return
        view, done = memoryview(data), 0
        while done < len(data):
            sent = self.sock.send(view[done : done + _PIECE_BYTES])
            done += sent
            self._tell(body, sent)

    def _tell(self, body: Body | None, sent: int) -> None:
        if body is not None:
            self._left += sent
            body.left(self._left - _queued(self.sock))


def _queued(connection: Any) -> int:
    """Return the bytes that lie in this machine's buffers still, as far as it tells: Linux does (tcp(7), SIOCOUTQ)."""
    found = bytearray(4)
    with suppress(OSError, ValueError, AttributeError):
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, found)
    return int.from_bytes(found, sys.byteorder)


class _Connection(_InPieces, AWSHTTPConnection):  # type: ignore[misc]
    """Without TLS."""


class _SecureConnection(_InPieces, AWSHTTPSConnection):  # type: ignore[misc]
    """With TLS."""


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


class _SecurePool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _SecureConnection


def be_patient(client: Any) -> None:
    """Have a boto3 client make such connections."""
    session = client._endpoint.http_session  # noqa: SLF001 - botocore has no public way
    # The pool managers of a session, those of proxies too, share this one.
    session._pool_classes_by_scheme.update(http=_Pool, https=_SecurePool)  # noqa: SLF001
