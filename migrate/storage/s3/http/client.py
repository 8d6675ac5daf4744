"""The HTTP client for all bodies and small requests of one bucket.

botocore spends 2 ms of CPU on a request. This client signs and sends on plain sockets, so keys and headers go out as
they are, byte by byte. Credentials, regions, certificates and proxies are those that boto3 would use.
"""

from __future__ import annotations

import functools
import logging
import ssl
import threading
import time
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

import botocore.exceptions as boto_errors
import botocore.httpsession
from botocore.utils import get_environ_proxies

from exporters.connections.open_connections import waking
from exporters.connections.silent_servers import silence
from exporters.lossless_text import bytes_of
from migrate.errors import MoveoutError, UsageError
from migrate.runtime.crash_points import reached
from migrate.storage.inflight_limit import Body, inflight_limiter_of, leaving
from migrate.storage.s3.access.renewable_credentials import REFUSALS, renewed
from migrate.storage.s3.client import S3Location, client, session
from migrate.storage.s3.errors import translate
from migrate.storage.s3.http.connection import Connection, Endpoint
from migrate.storage.s3.http.messages import (
    READING,
    Request,
    Response,
    checked_response,
    client_error,
    has_checksums,
    refuses_checksums,
    requested_bytes,
    without_checksums,
)
from migrate.storage.s3.http.signing import Signer

_log = logging.getLogger(__name__)

IDLE_SECONDS = 4.0
"""How long an unused connection is kept: less long than servers keep it."""
_JUST_NOW_SECONDS = 0.05
_REGION = "x-amz-bucket-region"
_BEGINS = "CreateMultipartUpload"
_ELSEWHERE = {301, 307, 400, 403}
"""Statuses of requests that were sent, or signed, for a region that is not the bucket's."""


class _IdleConnections:
    """The open connections to one endpoint that wait for a request, the one used last at the end."""

    def __init__(self) -> None:
        self.queue: deque[tuple[float, Connection]] = deque()
        self.all: weakref.WeakSet[Connection] = weakref.WeakSet()
        """Those that do not wait, too."""
        self.takes_checksums: bool | None = None
        """Whether the server takes the headers of checksums; None: not known yet."""
        weakref.finalize(self, _close_all, self.queue)


_idle_by_endpoint: weakref.WeakValueDictionary[Endpoint, _IdleConnections] = weakref.WeakValueDictionary()
_idle_lock = threading.Lock()


def _idle_connections_to(endpoint: Endpoint) -> _IdleConnections:
    """Return those of an endpoint, which its clients share: on a long link a new one takes a round trip or three."""
    with _idle_lock:
        return _idle_by_endpoint.setdefault(endpoint, _IdleConnections())


class HttpClient:
    """Sends each request exactly once. Thread-safe. ``boto`` is the boto3 client of the location; ``service`` is its
    description of S3.
    """

    @classmethod
    def of(cls, location: S3Location) -> HttpClient:
        """Return that of a location, with a boto3 client of its own; one session (25 ms) serves both."""
        session_of_location = session(location)
        return cls(client(location, boto_session=session_of_location), location, session_of_location)

    def __init__(self, boto: Any, location: S3Location, session_of_location: Any = None) -> None:
        self.boto = boto
        self.bucket, self.url = location.bucket, location.url
        self.service = boto.meta.service_model
        self.inflight = inflight_limiter_of(str(boto.meta.endpoint_url))
        self._location = location
        self._session = session_of_location or session(location)
        self._aim(boto)

    def _aim(self, boto: Any) -> None:
        """Send to the endpoint of a boto3 client, in its region."""
        url = urlsplit(boto.generate_presigned_url("head_bucket", Params={"Bucket": self.bucket}))
        self._region = boto.meta.region_name or "us-east-1"
        headers = self._location.constant_headers
        self._signer = Signer(self._session.get_credentials(), self._region, url.netloc, headers)
        self._root = url.path.rstrip("/") + "/"
        is_secure = url.scheme == "https"
        address = (url.hostname or "", url.port or (443 if is_secure else 80))
        proxy = get_environ_proxies(boto.meta.endpoint_url).get(url.scheme)
        self._endpoint = Endpoint(
            address, _tls_context(self._session) if is_secure else None, _proxy(proxy) if proxy else None
        )
        self._origin = f"http://{url.netloc}" if proxy and not is_secure else ""
        self._shared = _idle_connections_to(self._endpoint)
        self._idle = self._shared.queue

    def call(self, request: Request) -> Response:
        """Return a successful response. Raises ``MoveoutError`` for any other, and where there is none."""
        what = request.key or f"s3://{self.bucket}"
        try:
            response = self.ask(request)
        except OSError as exc:
            raise translate(exc, what) from exc
        return successful(request, response, what)

    def ask(self, request: Request) -> Response:
        """Return the response, whatever its status, and log what was asked. Raises ``OSError``."""
        response = self.exchange(request)
        _log.info("%s s3://%s/%s: %d", request.operation, self.bucket, request.key, response.status)
        return response

    def exchange(self, request: Request, body: Body | None = None) -> Response:
        """Return the response, whatever its status. ``body`` is the body's entry in the in-flight limiter. Raises
        ``OSError``.
        """
        response = self.begin(request, body or leaving()).result()
        region = response.headers.get(_REGION, self._region)
        if response.status in _ELSEWHERE and region != self._region:
            self._aim(client(self._location, boto_session=self._session, region=region))
            response = self.begin(request, body or leaving()).result()
        return response

    def begin(self, request: Request, body: Body | None = None) -> PendingResponse:
        """Send a request. Its response waits in this machine's buffers until it is asked for. What keeps it from being
        sent is raised then, too. ``body``: see ``exchange``.
        """
        connection = self._connection()
        try:
            descriptor = self._send(connection, request, body)
        except (OSError, MoveoutError) as exc:
            connection.close()
            return PendingResponse(self, request, connection, error=exc)
        except BaseException:
            connection.close()
            raise
        return PendingResponse(self, request, connection, descriptor)

    def _send(self, connection: Connection, request: Request, body: Body | None) -> int:
        """Return what ``Connection.send`` does. Raises ``SourceSilentError`` where the command goes on without the
        server.
        """
        if (error := silence(self.url)) is not None:
            raise error
        if self._shared.takes_checksums is False:
            request = without_checksums(request)
        if request.method not in READING:
            reached(f"s3.{request.operation}.before")
        path = self._root + quote(bytes_of(request.key), safe="/")
        head = self._signer.head(request, path, self._origin)
        if self._origin and (lines := self._endpoint.proxy_headers()):
            head = head[:-2] + lines.encode("latin-1") + b"\r\n"
        most_bytes = requested_bytes(request)
        has_no_body = request.method == "HEAD"
        return connection.send(head, request.body, has_no_body=has_no_body, most_bytes=most_bytes, body=body)

    def settled(self, request: Request, response: Response, *, renews: bool) -> Response:
        """Return the response, or that to the request without checksums where the server takes none: Backblaze B2
        refuses whatever names them. Of that to HEAD it does not say why. Servers that know other checksums refuse only
        to begin an upload with ours. ``renews``: see ``PendingResponse.result``, like which it raises.
        """
        if renews and self._is_renewed(request, response):
            response = self.begin(request).result(renews=False)
        shared = self._shared
        if shared.takes_checksums is False or not has_checksums(request):
            return response
        if response.is_success:
            shared.takes_checksums = True
        is_refusal = refuses_checksums(response) or (
            shared.takes_checksums is None and request.method == "HEAD" and response.status == 400
        )
        if not is_refusal:
            return response
        second = self.begin(without_checksums(request)).result()
        if (second.is_success or refuses_checksums(response)) and request.operation != _BEGINS:
            shared.takes_checksums = False
        return second

    def _is_renewed(self, request: Request, response: Response) -> bool:
        """Tell whether the credentials of a request have ended, and were read again."""
        if response.status not in REFUSALS:
            return False
        code = client_error(request, response).response["Error"]["Code"]
        if not renewed(self._session.get_credentials(), code, is_head=request.method == "HEAD"):
            return False
        self._signer = self._signer.anew()
        return True

    def _connection(self) -> Connection:
        """Return a connection that was used a moment ago, else a new one. ``release`` gives it back."""
        while self._idle:
            try:
                since, connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            idle_seconds = time.monotonic() - since
            if idle_seconds < _JUST_NOW_SECONDS or (
                idle_seconds <= IDLE_SECONDS and not connection.is_stale()
            ):
                return connection
            connection.close()
        return self._new_connection()

    def stuck_seconds(self) -> float | None:
        """See ``migrate.storage.silence.Moving``: of all requests to the server."""
        try:
            connections = list(self._shared.all)
        except RuntimeError:  # another thread has opened one meanwhile
            return 0.0
        stuck = [connection.stuck_seconds() for connection in connections]
        return max((seconds for seconds in stuck if seconds is not None), default=None)

    def _new_connection(self) -> Connection:
        connection = waking(self.url, Connection(self._endpoint), Connection.wake)
        self._shared.all.add(connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        self._idle.append((time.monotonic(), connection))
        with suppress(IndexError):  # another thread was faster
            while time.monotonic() - self._idle[0][0] > IDLE_SECONDS:
                self._idle.popleft()[1].close()

    def warm(self, count: int) -> None:
        """Open connections, all at once, so that the next ``count`` requests need not wait for theirs. A fault is left
        to the request that meets it.
        """

        def open_one(connection: Connection) -> None:
            with suppress(OSError):
                connection.open()
                self.release(connection)

        missing = [self._new_connection() for _ in range(count - len(self._idle))]
        if missing:
            with ThreadPoolExecutor(len(missing), thread_name_prefix="moveout-connect") as threads:
                list(threads.map(open_one, missing))


class PendingResponse:
    """A request that was sent, and is answered meanwhile. ``descriptor``: the one on which the response comes, -1 where
    the request could not be sent.
    """

    __slots__ = ("_client", "_connection", "_error", "_request", "descriptor")

    def __init__(
        self,
        client: HttpClient,
        request: Request,
        connection: Connection,
        descriptor: int = -1,
        *,
        error: Exception | None = None,
    ) -> None:
        self._client, self._request, self._connection = client, request, connection
        self.descriptor = descriptor
        self._error = error

    def result(self, *, renews: bool = True) -> Response:
        """Return the response, whatever its status. ``renews``: where the credentials have ended they are read again,
        and the request is sent once more. Raises ``OSError``, or why the request cannot be sent, and what
        ``checked_response`` does.
        """
        if self._error is not None:
            raise self._error
        try:
            response = self._connection.receive()
        except BaseException:
            self._connection.close()
            raise
        self._client.release(self._connection)
        return checked_response(self._request, self._client.settled(self._request, response, renews=renews))

    def wait(self) -> Response:
        """Return a successful response. Raises ``MoveoutError`` like ``HttpClient.call``."""
        what = self._request.key or f"s3://{self._client.bucket}"
        try:
            response = self.result()
        except OSError as exc:
            raise translate(exc, what) from exc
        return successful(self._request, response, what)

    def cancel(self) -> None:
        """Give the request up."""
        self._connection.close()


def successful(request: Request, response: Response, what: str) -> Response:
    """Return a response with a status of 2xx. Raises ``MoveoutError`` for any other."""
    try:
        require_success(request, response)
    except boto_errors.ClientError as exc:
        raise translate(exc, what) from exc
    return response


def require_success(request: Request, response: Response) -> None:
    """Raise ``ClientError``, which is yet to be translated, unless a request succeeded. One that writes has passed its
    point ``after`` then.
    """
    if not response.is_success:
        raise client_error(request, response)
    if request.method not in READING:
        reached(f"s3.{request.operation}.after")


def _close_all(idle: deque[tuple[float, Connection]]) -> None:
    while idle:
        idle.popleft()[1].close()


def _tls_context(session_of_location: Any) -> ssl.SSLContext:
    """Return what TLS is checked against: ``ca_bundle`` and AWS_CA_BUNDLE hold as they do for boto3, else the system's
    certificates and botocore's.
    """
    bundle = session_of_location.get_config_variable("ca_bundle")
    return _tls_context_of(bundle or None)


@functools.cache
def _tls_context_of(bundle: str | None) -> ssl.SSLContext:
    """Return the context of a bundle of certificates; clients of one endpoint share it, as they share connections."""
    context = ssl.create_default_context(cafile=bundle)
    if not bundle:
        context.load_verify_locations(botocore.httpsession.where())
    return context


def _proxy(url: str) -> Any:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        is_usable = parts.scheme == "http" and parts.hostname and parts.port != 0
    except ValueError:
        raise UsageError(
            "the URL of the proxy (HTTP_PROXY, HTTPS_PROXY) cannot be read",
            next_step="write http://HOST:PORT; in a user name and password, / : @ are written %2F %3A %40",
        ) from None
    if not is_usable:
        raise UsageError(
            f"a proxy at {parts.scheme}://{parts.hostname} cannot be used", next_step="give one by http://"
        )
    return parts
