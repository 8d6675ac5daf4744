"""One HTTP/1.1 connection to an S3 server, on which only silence is a fault, not slowness."""

from __future__ import annotations

import base64
import fcntl
import io
import select
import socket
import ssl
import struct
import sys
import termios
import time
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from exporters.connections.open_connections import shut_socket
from exporters.lossless_text import text_of
from migrate.storage.inflight_limit import Body
from migrate.storage.outage import answer_seconds
from migrate.storage.s3.http.messages import Response

CONNECT_SECONDS = 10.0
_PIECE_BYTES = 256 * 2**10
"""Bodies that nobody measures leave in pieces: the time of silence begins anew with each."""
_HEAD_BYTES = 64 * 1024
_HEAD_END = b"\r\n\r\n"
_SPACES = " \t"
"""What may stand around a header's value (RFC 9110, section 5.5); spaces of other scripts belong to it."""
_NO_BODY = {204, 304}
_REDIRECTS = 300
_EXPLANATION_BYTES = 2**20
"""We read no more of what comes with an error, or another endpoint: S3's are some hundred bytes."""


class Endpoint(Struct, frozen=True):
    """Where requests go. ``proxy`` stands between, by ``http://``: it is asked for whole URLs, or, where ``tls`` is
    set, for a tunnel.
    """

    address: tuple[str, int]
    tls: ssl.SSLContext | None = None
    proxy: Any = None
    """The proxy's URL, as ``urlsplit`` gives it."""

    def open(self) -> socket.socket:
        """Return a new connection. Raises ``OSError``."""
        address = (self.proxy.hostname, self.proxy.port or 80) if self.proxy else self.address
        try:
            opened = socket.create_connection(address, timeout=CONNECT_SECONDS)
        except OSError as exc:
            where = f"{'the proxy ' if self.proxy else ''}{address[0]} port {address[1]}"
            raise ConnectionError(f"no connection to {where}: {exc}") from exc
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is None:
                # The kernel keeps the time: Python's own timeouts cost a system call for each read.
                opened.settimeout(None)
                limit = answer_seconds()
                seconds = struct.pack("ll", int(limit), int(limit % 1 * 1e6))
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
                return opened
            opened.settimeout(answer_seconds())
            if self.proxy:
                self._tunnel(opened)
            return self.tls.wrap_socket(opened, server_hostname=self.address[0])
        except BaseException:
            opened.close()
            raise

    def proxy_headers(self) -> str:
        """Return the header lines that the proxy is to have; none where there is none, or no password for it."""
        if self.proxy is None or self.proxy.username is None:
            return ""
        account = f"{unquote(self.proxy.username)}:{unquote(self.proxy.password or '')}"
        return f"proxy-authorization: Basic {base64.b64encode(account.encode()).decode()}\r\n"

    def _tunnel(self, opened: socket.socket) -> None:
        host, port = self.address
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        opened.sendall(
            f"CONNECT {name} HTTP/1.1\r\nhost: {name}\r\n{self.proxy_headers()}\r\n".encode("latin-1")
        )
        response = b""
        while b"\r\n\r\n" not in response:
            got = opened.recv(1)  # no byte of what comes through the tunnel
            if not got or len(response) > _HEAD_BYTES:
                raise ConnectionError("the proxy closed the connection")
            response += got
        status, _ = parse_head(response.removesuffix(b"\r\n\r\n"))
        if status != 200:
            raise ConnectionError(f"the proxy {self.proxy.hostname} refuses a tunnel: {status}")


class Connection:
    """At most one request at a time. Faults close it; the next request opens it again. Not for several threads at once.
    Raises ``OSError``.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._socket: socket.socket | None = None
        self._has_no_body = False
        self._most_bytes = sys.maxsize
        self._send_error: OSError | None = None
        self._asked_at: float | None = None
        self._moved_bytes, self._moved_at = 0, 0.0
        self._was_large = False
        """Whether the last body was larger than the buffer: then the next one is, as a rule."""
        self._buffer = bytearray(_HEAD_BYTES)
        self._view = memoryview(self._buffer)

    def is_stale(self) -> bool:
        """Tell whether the server has closed an idle connection, or sent something without a request."""
        if self._socket is None:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def open(self) -> socket.socket:
        """Open the connection, if it is not."""
        if self._socket is None:
            self._socket = self._endpoint.open()
        return self._socket

    def send(
        self,
        head: bytes,
        data: bytes = b"",
        *,
        has_no_body: bool = False,
        most_bytes: int | None = None,
        body: Body | None = None,
    ) -> int:
        """Send a request; return the descriptor on which the response comes. ``most_bytes``: of a successful response
        with a larger body no more is read, or nothing. ``has_no_body``: the response has none (to HEAD). ``body`` notes
        how far it has left. A fault is kept for ``receive``: the server may have answered before it took all.
        """
        self._has_no_body, self._send_error = has_no_body, None
        self._most_bytes = sys.maxsize if most_bytes is None else most_bytes
        opened = self.open()
        self._asked_at = time.monotonic()
        try:
            if len(data) <= _PIECE_BYTES and body is None:
                opened.sendall(head + data if data else head)
            else:
                self._send_pieces(opened, head, data, body)
        except OSError as exc:
            self._send_error = exc
        return opened.fileno()

    def receive(self) -> Response:
        """Return the response to what was sent."""
        opened, error = self._socket, self._send_error
        if opened is None:
            raise ConnectionError("the connection is closed")
        try:
            response, is_kept = self._receive(opened)
        except BlockingIOError as exc:
            self.close()
            raise error or TimeoutError(f"no answer for {answer_seconds():.0f} s") from exc
        except (OSError, ValueError) as exc:
            self.close()
            raise error or (exc if isinstance(exc, OSError) else ConnectionError(str(exc))) from exc
        self._asked_at = None
        if not is_kept or error is not None:
            self.close()
        return response

    def stuck_seconds(self) -> float | None:
        """Return how long a request has waited while no byte came or went, seen now and at earlier calls; None where
        none is under way.
        """
        asked_at, opened, now = self._asked_at, self._socket, time.monotonic()
        if asked_at is None or opened is None:
            return None
        if (moved_bytes := _moved_bytes(opened)) != self._moved_bytes:
            self._moved_bytes, self._moved_at = moved_bytes, now
        return now - max(asked_at, self._moved_at)

    def wake(self) -> None:
        """End the waiting of another thread for a silent server."""
        if self._socket is not None and self._asked_at is not None:
            shut_socket(self._socket.fileno())

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = self._asked_at = None

    def __del__(self) -> None:
        """Close a connection that nobody holds: a client needs no end of its own."""
        self.close()

    def _send_pieces(self, opened: socket.socket, head: bytes, data: bytes, body: Body | None) -> None:
        opened.sendall(head)
        view, sent_bytes = memoryview(data), 0
        if body is not None:
            body.begin()
        while sent_bytes < len(data):
            piece_bytes = _PIECE_BYTES if body is None else body.piece_bytes
            try:
                sent_bytes += opened.send(view[sent_bytes : sent_bytes + piece_bytes])
            except BlockingIOError as exc:
                raise TimeoutError(f"nothing was taken for {answer_seconds():.0f} s") from exc
            if body is not None:
                body.left(sent_bytes - _queued(opened))

    def _receive(self, opened: socket.socket) -> tuple[Response, bool]:
        """Return the response, and whether the connection can be used again."""
        filled = 0
        while True:
            while (end := self._buffer.find(_HEAD_END, 0, filled)) < 0:
                got = self._fill(opened, filled) if filled < _HEAD_BYTES else 0
                if not got:
                    raise ConnectionError("the connection broke before the answer was whole")
                filled += got
            status, headers = parse_head(bytes(self._view[:end]))
            end += 4
            if status >= 200:
                break
            filled -= end  # an interim response (RFC 9110, section 15.2)
            self._buffer[:filled] = self._buffer[end : end + filled]
        is_kept = headers.get("connection", "").lower() != "close"
        body_start = self._view[end:filled]
        if self._has_no_body or status in _NO_BODY:
            return Response(status, headers, b""), is_kept
        most_bytes = self._most_bytes if status < _REDIRECTS else _EXPLANATION_BYTES
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = _Chunks(opened, bytes(body_start)).read(most_bytes)
            return Response(status, headers, body), is_kept and len(body) <= most_bytes
        if "content-length" not in headers:
            return Response(status, headers, _to_end(opened, bytes(body_start), most_bytes)), False
        size_bytes = int(headers["content-length"])
        if size_bytes > most_bytes:
            return Response(status, headers, b""), False
        self._was_large = size_bytes > _HEAD_BYTES
        if len(body_start) >= size_bytes:
            return Response(status, headers, bytes(body_start[:size_bytes])), is_kept
        return Response(status, headers, self._rest(opened, body_start, size_bytes)), is_kept

    def _fill(self, opened: socket.socket, filled: int) -> int:
        """Read more of a head into the buffer; return the number of bytes. Of a body that is probably large nothing is
        taken along, so that it can be read as one.
        """
        view = self._view[filled:]
        if not self._was_large or self._endpoint.tls is not None:
            return opened.recv_into(view)
        seen_bytes = opened.recv_into(view, 0, socket.MSG_PEEK)
        end = self._buffer.find(_HEAD_END, 0, filled + seen_bytes)
        return opened.recv_into(view, seen_bytes if end < 0 else end + len(_HEAD_END) - filled)

    def _rest(self, opened: socket.socket, body_start: memoryview, size_bytes: int) -> bytes:
        """Return a whole body of which this much has come. Where nothing has, its memory need not be cleared first."""
        if not body_start and self._endpoint.tls is None:
            data = opened.recv(size_bytes, socket.MSG_WAITALL)
            if len(data) == size_bytes:
                return data
            body_start = memoryview(data)
        body = io.BytesIO()  # gives its bytes away without another copy
        body.seek(size_bytes - 1)
        body.write(b"\0")
        received = len(body_start)
        flags = 0 if self._endpoint.tls is not None else socket.MSG_WAITALL
        with body.getbuffer() as view:
            view[:received] = body_start
            while received < size_bytes:
                got = opened.recv_into(view[received:], 0, flags)
                if not got:
                    raise ConnectionError(f"the connection broke after {received} of {size_bytes} bytes")
                received += got
        return body.getvalue()


class _Chunks:
    """A body in chunks (RFC 9112, section 7.1)."""

    def __init__(self, opened: socket.socket, body_start: bytes) -> None:
        self._socket = opened
        self._held = bytearray(body_start)

    def read(self, most_bytes: int) -> bytes:
        """Return the whole body; of one of more than ``most_bytes`` the beginning, one byte too much. Raises
        ``OSError`` where it breaks off.
        """
        body = bytearray()
        while len(body) <= most_bytes and (size_bytes := self._size()):
            self._move(body, min(size_bytes, most_bytes + 1 - len(body)))
            if len(body) <= most_bytes:
                self._line()  # the end of the chunk
        while len(body) <= most_bytes and self._line():
            pass
        return bytes(body)

    def _size(self) -> int:
        """Return the size of the chunk that begins now. Raises ``ValueError``."""
        size_bytes = int(self._line().partition(b";")[0], 16)
        if size_bytes < 0:
            raise ValueError(f"a chunk of {size_bytes} bytes")
        return size_bytes

    def _move(self, body: bytearray, size_bytes: int) -> None:
        """Append so many bytes to a body, as they come."""
        while size_bytes:
            self._fill(1)
            piece = self._held[:size_bytes]
            body += piece
            size_bytes -= len(piece)
            del self._held[: len(piece)]

    def _line(self) -> bytes:
        while (end := self._held.find(b"\r\n")) < 0:
            if len(self._held) > _HEAD_BYTES:
                raise ConnectionError("a chunk begins without its size")
            self._fill(len(self._held) + 1)
        line = bytes(self._held[:end])
        del self._held[: end + 2]
        return line

    def _fill(self, size_bytes: int) -> None:
        while len(self._held) < size_bytes:
            got = self._socket.recv(_PIECE_BYTES)
            if not got:
                raise ConnectionError("the connection broke in the middle of the answer")
            self._held += got


def _to_end(opened: socket.socket, body_start: bytes, most_bytes: int) -> bytes:
    body = bytearray(body_start)
    while len(body) <= most_bytes and (got := opened.recv(_PIECE_BYTES)):
        body += got
    return bytes(body)


def _moved_bytes(opened: socket.socket) -> int:
    """Return the bytes that the other side has taken and sent, where reported: Linux does (tcp(7), TCP_INFO)."""
    with suppress(OSError, AttributeError, struct.error):
        info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
        return sum(struct.unpack_from("QQ", info, 120))
    return 0


def _queued(opened: socket.socket) -> int:
    """Return the bytes that lie in this machine's buffers still, where reported: Linux does (tcp(7), SIOCOUTQ)."""
    count_buffer = bytearray(4)
    with suppress(OSError, ValueError, AttributeError):
        fcntl.ioctl(opened.fileno(), termios.TIOCOUTQ, count_buffer)
    return int.from_bytes(count_buffer, sys.byteorder)


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return status and headers (names in lower case, values as in ``lossless_text``) of a response. Raises
    ``ValueError``.
    """
    lines = text_of(head).split("\r\n")
    version, status, *_ = lines[0].split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(f"no HTTP answer: {lines[0]!r}")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(_SPACES)
    if "etag" in headers:  # which proxies make weak: it is the server's all the same
        headers["etag"] = headers["etag"].removeprefix("W/")
    return int(status), headers
