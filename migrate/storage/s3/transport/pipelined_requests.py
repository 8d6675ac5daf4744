"""Many small objects by few threads: a handful of connections that one thread keeps busy.

A request goes out on each connection before the first answer is read; answers are then read as they come,
and each connection gets its next request at once. While one answer is read, the others arrive in the kernel's
buffers: the server works on all of them, and the client needs neither threads nor callbacks. That costs a
third of the processor time that the C client takes for a small GET.

Small writes go the same way. What is not a plain success is asked again through the careful client, which knows
errors and patience.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

from botocore.utils import get_environ_proxies

from exporters.header_bytes import text_of
from migrate.errors import GoneError, MoveoutError
from migrate.storage.inflight_limit import Body
from migrate.storage.s3.client import S3Location, retry_after, session
from migrate.storage.s3.transport.crt_client import (
    CONNECT_MILLISECONDS,
    QUIET_SECONDS,
    Headers,
    Pending,
    Request,
    Response,
    encoded_query,
)
from migrate.storage.s3.transport.request_window import Answer, Job, Stream
from migrate.storage.s3.transport.signing import Signer, is_plain

Item = TypeVar("Item")
Also = Callable[[Item, Headers], Request | None]

LANES = 32
"""Connections of one stream of reads, where the server keeps up."""
_OK, _NOT_FOUND = 200, 404
_STRUGGLES = {429, 500, 502, 503, 504}
IDLE_SECONDS = 4.0
"""So long an unused connection is kept for the next stream: less than servers keep it."""
_HEAD_BYTES = 64 * 1024
_SPACES = " \t"
"""What may stand around a header's value (RFC 9110, section 5.5); spaces of other scripts belong to it."""
_TAGS_AHEAD = 32
_HELD_BYTES = 8 * 2**20
"""Of answers that came before their turn."""


class Lanes:
    """Reads, and writes, through connections of its own. Thread-safe: no two runs share one at a time."""

    def __init__(self, client: Any, s3_location: S3Location, stream: Stream, made: Any = None) -> None:
        url = urlsplit(client.generate_presigned_url("head_bucket", Params={"Bucket": s3_location.bucket}))
        made = made or session(s3_location)
        self._stream = stream
        self._signer = Signer(made.get_credentials(), client.meta.region_name or "us-east-1", url.netloc)
        self._root = url.path.rstrip("/") + "/"
        self._address = (url.hostname or "", url.port or (443 if url.scheme == "https" else 80))
        self._tls = _tls_context(made) if url.scheme == "https" else None
        self._idle: deque[tuple[float, _Lane]] = deque()
        weakref.finalize(self, _close_all, self._idle)
        self.usable = not get_environ_proxies(client.meta.endpoint_url)
        """Proxies are left to the careful client."""

    def run(self, jobs: Iterable[Job[Item]], *, also: Also[Item]) -> Iterator[Answer[Item]]:
        """Yield answers in the order of ``jobs``, like ``Stream.run``. Those that come early are held, a few MiB of
        them: so one that is late, as where packets are lost, keeps no other connection waiting.
        """
        way = _Way(iter(jobs), self._stream)
        ready: deque[tuple[Job[Item], Response | None, Pending | None]] = deque()
        try:
            self._send_all(way)
            while way.sent:
                one = way.sent[0]
                if one.lane is not None:
                    way.receive()
                    self._send_all(way)
                    continue
                way.sent.popleft()
                way.held_bytes -= one.held_bytes
                self._send_all(way)
                found = one.response is not None and one.response.status == _OK
                second = also(one.job.item, one.response.headers) if one.response and found else None
                ready.append((one.job, one.response, None if second is None else self._stream.send(second)))
                while ready and (ready[0][2] is None or len(ready) > _TAGS_AHEAD):
                    yield self._answer(*ready.popleft(), also)
            while ready:
                yield self._answer(*ready.popleft(), also)
        finally:
            way.abandon()  # with answers on the way, perhaps
            self._idle.extend((time.monotonic(), lane) for lane in way.free)

    def _lane(self) -> _Lane:
        """Return a connection that another run left a moment ago, else a new one."""
        with suppress(IndexError):
            left, lane = self._idle.popleft()
            if time.monotonic() - left > IDLE_SECONDS:
                lane.close()
            return lane
        return _Lane(self._address, self._tls)

    def _send_all(self, way: _Way[Item]) -> None:
        """Send on as many connections as may be busy now; a free one that was used last is used first."""
        most = self._stream.pace.of(LANES)
        # A server that struggles gets nothing while an answer of its has not had its turn.
        ahead = most if self._stream.pace.share < 1.0 else 2 * most
        while way.busy < most and len(way.sent) < ahead and way.held_bytes < _HELD_BYTES:
            job = way.take()
            if job is None:
                return
            has_room, body = self._stream.room_for(job, alone=not way.busy)
            if not has_room:
                way.put_back(job)
                return
            lane = way.free.pop() if way.free else self._lane()
            lane.send(self._message(job.request), has_body=job.request.method != "HEAD")
            way.begin(job, lane, body)

    def _message(self, request: Request) -> bytes:
        """Return the bytes of a request; none where only the careful client can send it."""
        path = self._root + quote(request.key, safe="/")
        if request.method in {"GET", "HEAD"}:
            query = encoded_query(request.query) if request.query else ""
            return self._signer.get(path, request.headers, query, request.method)
        if request.query or not is_plain(request.headers):
            return b""
        return self._signer.put(path, request.headers, len(request.body)) + request.body

    def _answer(
        self, job: Job[Item], response: Response | None, second: Pending | None, also: Also[Item]
    ) -> Answer[Item]:
        if response is not None and response.status == _NOT_FOUND:
            next_step = "check the name of the bucket and the prefix"
            return Answer(job.item, None, error=GoneError(f"{job.request.key}: 404", next_step=next_step))
        if response is not None:
            if second is None:
                return Answer(job.item, response)
            with suppress(MoveoutError):
                return Answer(job.item, response, second.wait())
        return self._stream.one(job, also)


@dataclass(slots=True)
class _Sent(Generic[Item]):
    """A job that went out. ``lane`` is where its answer comes; None once it is here."""

    job: Job[Item]
    lane: _Lane | None
    body: Body | None
    response: Response | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of the answer that are in memory."""
        return 0 if self.response is None else len(self.response.body)


class _Way(Generic[Item]):
    """The jobs of one run: what is to come, what is on its way, what came before its turn."""

    def __init__(self, jobs: Iterator[Job[Item]], stream: Stream) -> None:
        self.sent: deque[_Sent[Item]] = deque()
        self.free: list[_Lane] = []
        self.held_bytes = 0
        self._jobs = jobs
        self._waits: Job[Item] | None = None
        self._stream = stream
        self._poll = select.poll()
        self._by_number: dict[int, _Sent[Item]] = {}
        self._silent: deque[_Sent[Item]] = deque()
        """What could not be sent: nothing will come."""

    @property
    def busy(self) -> int:
        """How many connections wait for an answer."""
        return len(self._by_number) + len(self._silent)

    def take(self) -> Job[Item] | None:
        """Return the next job, None where there is none."""
        job, self._waits = self._waits or next(self._jobs, None), None
        return job

    def put_back(self, job: Job[Item]) -> None:
        """Have it be the next one again."""
        self._waits = job

    def begin(self, job: Job[Item], lane: _Lane, body: Body | None) -> None:
        """Note a job that went out."""
        one = _Sent(job, lane, body)
        self.sent.append(one)
        number = lane.number
        if number is None:
            self._silent.append(one)
        else:
            self._by_number[number] = one
            self._poll.register(number, select.POLLIN)

    def receive(self) -> None:
        """Take what has come, at least the answer to one job; to the first one, where too much is held already."""
        if self._silent:
            self._end(self._silent.popleft())
            return
        first = self.sent[0]
        found = () if self.held_bytes >= _HELD_BYTES else self._poll.poll(QUIET_SECONDS * 1000)
        for one in [self._by_number[number] for number, _ in found] or [first]:
            self._end(one)

    def abandon(self) -> None:
        """Close connections on which answers are still to come."""
        for one in self.sent:
            if one.lane is not None:
                one.lane.close()
            if one.body is not None:
                self._stream.flow.end(one.body, arrived=False)

    def _end(self, one: _Sent[Item]) -> None:
        lane = one.lane
        assert lane is not None
        if lane.number is not None and self._by_number.pop(lane.number, None) is not None:
            self._poll.unregister(lane.number)
        one.response = lane.receive()
        one.lane = None
        self.held_bytes += one.held_bytes
        self.free.append(lane)
        if one.body is not None:
            self._stream.flow.end(one.body, arrived=one.response is not None)
        if one.response is not None:
            self._stream.pace.done()
        elif lane.struggles:
            self._stream.pace.slower(lane.wait_seconds)
            self._stream.pace.rest()


def _close_all(idle: deque[tuple[float, _Lane]]) -> None:
    while idle:
        idle.popleft()[1].close()


class _Lane:
    """One connection with at most one request on it. Faults close it; the next request opens it again."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        self._address, self._tls = address, tls
        self._socket: socket.socket | None = None
        self.struggles = False
        """Whether the last answer was that the server cannot, or none."""
        self.wait_seconds: float | None = None
        self._idle = False
        self._has_body = True
        self._buffer = bytearray(_HEAD_BYTES)
        self._view = memoryview(self._buffer)

    def send(self, request: bytes, *, has_body: bool = True) -> None:
        """Send a request; a connection that has gone stale is opened again. Nothing, where there is nothing to send.
        ``has_body``: whether its answer has one.
        """
        self._idle, self._has_body = not request, has_body
        for _ in range(0 if self._idle else 2):
            fresh = self._socket is None
            try:
                self._open().sendall(request)
            except OSError:
                self.close()
                if fresh:
                    return
            else:
                return

    @property
    def number(self) -> int | None:
        """The descriptor on which an answer is to come; None where there is none."""
        return None if self._socket is None or self._idle else self._socket.fileno()

    def receive(self) -> Response | None:
        """Return the answer if it is a plain success, or to HEAD that there is nothing; else None."""
        self.struggles = False
        try:
            return None if self._socket is None or self._idle else self._receive(self._socket)
        except (OSError, ValueError):
            self.struggles = True
            self.close()
            return None

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        if self._socket is None:
            opened = socket.create_connection(self._address, timeout=CONNECT_MILLISECONDS / 1000)
            opened.settimeout(None)
            # The kernel keeps the time: Python's own timeouts cost a system call for each read.
            patience = struct.pack("ll", int(QUIET_SECONDS), 0)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                opened = self._tls.wrap_socket(opened, server_hostname=self._address[0])
            self._socket = opened
        return self._socket

    def _receive(self, connection: socket.socket) -> Response | None:
        filled = end = 0
        while not end:
            got = connection.recv_into(self._view[filled:])
            if not got:
                raise ConnectionError("closed before the answer was whole")
            filled += got
            end = self._buffer.find(b"\r\n\r\n", 0, filled) + 4 if filled > 4 else 0
            end = 0 if end == 3 else end
        status, headers = parse_head(bytes(self._view[: end - 4]))
        if status in _STRUGGLES:
            self.struggles, self.wait_seconds = True, retry_after(headers.get("retry-after"))
        if status == _NOT_FOUND and not self._has_body:
            return Response(status, headers, b"")
        if status != _OK or "content-length" not in headers:
            self.close()
            return None
        size_bytes = int(headers["content-length"]) if self._has_body else 0
        here = min(filled - end, size_bytes)
        if here == size_bytes:
            body = bytes(self._view[end : end + size_bytes])
        else:
            body = self._rest(connection, self._view[end:filled], size_bytes)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Response(status, headers, body)

    def _rest(self, connection: socket.socket, begun: memoryview, size_bytes: int) -> bytes:
        whole = bytearray(size_bytes)
        view = memoryview(whole)
        done = len(begun)
        view[:done] = begun
        flags = 0 if self._tls is not None else socket.MSG_WAITALL
        while done < size_bytes:
            got = connection.recv_into(view[done:], 0, flags)
            if not got:
                raise ConnectionError("closed before the body was whole")
            done += got
        return bytes(whole)


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return status and headers (names in lower case, values as in ``header_bytes``) of an answer. Raises
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
    return int(status), headers


def _tls_context(made: Any) -> ssl.SSLContext:
    """Return what TLS is checked against: ``ca_bundle`` and AWS_CA_BUNDLE hold as they do for boto3."""
    bundle = made._session.get_config_variable("ca_bundle")  # noqa: SLF001 - boto3 has no public way
    return ssl.create_default_context(cafile=bundle or None)
