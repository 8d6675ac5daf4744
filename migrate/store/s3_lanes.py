"""Many small objects by few threads: a handful of connections that one thread keeps busy.

A request goes out on each connection before the first answer is read; answers are then read in that order,
and each connection gets its next request at once. While one answer is read, the others arrive in the kernel's
buffers: the server works on all of them, and the client needs neither threads nor callbacks. That costs a
third of the processor time that the C client takes for a small GET.

What is not a plain success is asked again through the careful client, which knows errors and patience.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from botocore.utils import get_environ_proxies

from migrate.errors import MoveoutError
from migrate.store.s3_client import S3Location, retry_after, session
from migrate.store.s3_crt import (
    CONNECT_MILLISECONDS,
    QUIET_SECONDS,
    Headers,
    Pending,
    Request,
    Response,
    encoded_query,
)
from migrate.store.s3_objects import Answer, Job, Stream

Item = TypeVar("Item")
Also = Callable[[Item, Headers], Request | None]

LANES = 32
"""Connections of one stream of reads, where the server keeps up."""
_STRUGGLES = {429, 500, 502, 503, 504}
IDLE_SECONDS = 4.0
"""So long an unused connection is kept for the next stream: less than servers keep it."""
_HEAD_BYTES = 64 * 1024
_TAGS_AHEAD = 32
_UNSIGNED = "UNSIGNED-PAYLOAD"


class Lanes:
    """Reads through connections of its own. Thread-safe: no two runs share one at a time."""

    def __init__(self, client: Any, location: S3Location, stream: Stream) -> None:
        url = urlsplit(client.generate_presigned_url("head_bucket", Params={"Bucket": location.bucket}))
        made = session(location)
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
        """Yield answers in the order of ``jobs``, like ``Stream.run``; one body is in memory at a time."""
        source = iter(jobs)
        pace = self._stream.pace
        free: list[_Lane] = []
        sent: deque[tuple[Job[Item], _Lane]] = deque()
        ready: deque[tuple[Job[Item], Response | None, Pending | None]] = deque()
        try:
            self._send_all(source, free, sent)
            while sent:
                job, lane = sent[0]
                response = lane.receive()
                if response is not None:
                    pace.done()
                elif lane.struggles:
                    pace.slower(lane.wait_seconds)
                    pace.rest()
                free.append(lane)
                sent.popleft()
                self._send_all(source, free, sent)
                second = None if response is None else also(job.item, response.headers)
                ready.append((job, response, None if second is None else self._stream.send(second)))
                while ready and (ready[0][2] is None or len(ready) > _TAGS_AHEAD):
                    yield self._answer(*ready.popleft(), also)
            while ready:
                yield self._answer(*ready.popleft(), also)
        finally:
            for _, lane in sent:  # abandoned with answers on the way
                lane.close()
            self._idle.extend((time.monotonic(), lane) for lane in free)

    def _lane(self) -> _Lane:
        """Return a connection that another run left a moment ago, else a new one."""
        with suppress(IndexError):
            left, lane = self._idle.popleft()
            if time.monotonic() - left > IDLE_SECONDS:
                lane.close()
            return lane
        return _Lane(self._address, self._tls)

    def _send_all(
        self, source: Iterator[Job[Item]], free: list[_Lane], sent: deque[tuple[Job[Item], _Lane]]
    ) -> None:
        """Send on as many connections as may be busy now; a free one that was used last is used first."""
        most = self._stream.pace.of(LANES)
        while len(sent) < most:
            job = next(source, None)
            if job is None:
                return
            lane = free.pop() if free else self._lane()
            request = job.request
            path = self._root + quote(request.key, safe="/")
            query = encoded_query(request.query) if request.query else ""
            lane.send(self._signer.get(path, request.headers, query))
            sent.append((job, lane))

    def _answer(
        self, job: Job[Item], response: Response | None, second: Pending | None, also: Also[Item]
    ) -> Answer[Item]:
        if response is not None:
            if second is None:
                return Answer(job.item, response)
            with suppress(MoveoutError):
                return Answer(job.item, response, second.wait())
        return self._stream.one(job, also)


def _close_all(idle: deque[tuple[float, _Lane]]) -> None:
    while idle:
        idle.popleft()[1].close()


class Signer:
    """Signs GETs: AWS Signature Version 4 (S3 API reference, "Authenticating requests: using the
    Authorization header"), the body unsigned because there is none.
    """

    def __init__(self, credentials: Any, region: str, host: str) -> None:
        self._credentials, self._region, self._host = credentials, region, host
        self._second = 0
        self._known: dict[tuple[tuple[str, str], ...], _Constant] = {}

    def get(self, path: str, headers: Headers, query: str = "") -> bytes:
        """Return the bytes of a GET. ``path`` and ``query`` are encoded already, ``query`` in order."""
        amz, others = [], ""
        for name, value in headers.items():
            if name.startswith("x-amz-"):
                amz.append((name, value))
            else:
                others += f"{name}: {value}\r\n"
        constant = self._constant(tuple(amz))
        digest = hashlib.sha256(f"GET\n{path}\n{query}\n{constant.canonical}".encode()).hexdigest()
        signature = hmac.digest(constant.key, (constant.to_sign + digest).encode(), "sha256").hex()
        target = f"{path}?{query}" if query else path
        return f"GET {target} HTTP/1.1\r\n{others}{constant.head}{signature}\r\n\r\n".encode()

    def _constant(self, amz: tuple[tuple[str, str], ...]) -> _Constant:
        """Return what all requests of one second with these headers have in common."""
        second = int(time.time())
        known = self._known
        if second != self._second:
            known = self._known = {}
            self._second = second
        found = known.get(amz)
        if found is None:
            found = known[amz] = self._compose(amz, second)
        return found

    def _compose(self, amz: tuple[tuple[str, str], ...], second: int) -> _Constant:
        frozen = self._credentials.get_frozen_credentials()
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        signed = {"host": self._host, "x-amz-content-sha256": _UNSIGNED, "x-amz-date": now, **dict(amz)}
        if frozen.token:
            signed["x-amz-security-token"] = frozen.token
        names = sorted(signed)
        lines = "".join(f"{name}:{signed[name]}\n" for name in names)
        listed = ";".join(names)
        scope = f"{now[:8]}/{self._region}/s3/aws4_request"
        key = f"AWS4{frozen.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return _Constant(
            canonical=f"{lines}\n{listed}\n{_UNSIGNED}",
            to_sign=f"AWS4-HMAC-SHA256\n{now}\n{scope}\n",
            key=key,
            head="".join(f"{name}: {signed[name]}\r\n" for name in names)
            + f"authorization: AWS4-HMAC-SHA256 Credential={frozen.access_key}/{scope}, "
            f"SignedHeaders={listed}, Signature=",
        )


@dataclass(frozen=True, slots=True)
class _Constant:
    """The ends of the canonical request, of the string to sign and of the request itself, and the key."""

    canonical: str
    to_sign: str
    key: bytes
    head: str


class _Lane:
    """One connection with at most one request on it. Faults close it; the next request opens it again."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        self._address, self._tls = address, tls
        self._socket: socket.socket | None = None
        self.struggles = False
        """Whether the last answer was that the server cannot, or none."""
        self.wait_seconds: float | None = None
        self._buffer = bytearray(_HEAD_BYTES)
        self._view = memoryview(self._buffer)

    def send(self, request: bytes) -> None:
        """Send a request; a connection that has gone stale is opened again."""
        for _ in range(2):
            fresh = self._socket is None
            try:
                self._open().sendall(request)
            except OSError:
                self.close()
                if fresh:
                    return
            else:
                return

    def receive(self) -> Response | None:
        """Return the answer if it is a plain success, else None."""
        self.struggles = False
        try:
            return None if self._socket is None else self._receive(self._socket)
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
        if status != 200 or "content-length" not in headers:
            self.close()
            return None
        size_bytes = int(headers["content-length"])
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
    """Return status and headers (names in lower case) of an answer. Raises ``ValueError``."""
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = lines[0].split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(f"no HTTP answer: {lines[0]!r}")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(status), headers


def _tls_context(made: Any) -> ssl.SSLContext:
    """Return what TLS is checked against: ``ca_bundle`` and AWS_CA_BUNDLE hold as they do for boto3."""
    bundle = made._session.get_config_variable("ca_bundle")  # noqa: SLF001 - boto3 has no public way
    return ssl.create_default_context(cafile=bundle or None)
