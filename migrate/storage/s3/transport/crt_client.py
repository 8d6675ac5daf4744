"""Many small requests to one S3 endpoint, through AWS's C client.

Python threads around boto3 cost about five times the processor time of this client for a small object, so
that they, not the server, set the pace. It names any key, shows every response header, and needs no thread of
its own per request: ``send`` returns at once, ``Pending.wait`` gives the answer.

The client pools connections by host name and forgets the port, so there is one client for each endpoint.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

import botocore.exceptions as boto_errors
from awscrt import auth, exceptions, http, s3
from awscrt import io as crt_io

from migrate.errors import MoveoutError, UnreachableError
from migrate.storage.inflight_limit import flow_to
from migrate.storage.s3.client import S3Location, translate

CONNECTIONS = 32
"""Open at once to one endpoint."""
QUIET_SECONDS = 90.0
"""A request that hears nothing for so long is given up, once its body can be there."""
_SLOWEST = 8192
"""Bytes a second. The client tells of no body how far it has left; on what is silent it gives up itself."""
CONNECT_MILLISECONDS = 10_000
_GIGABITS = 4.0
_CLIENT_MEMORY = 2**30

Headers = Mapping[str, str]


class HeaderBytesError(MoveoutError):
    """The answer has headers that are not UTF-8, which the C client cannot hand over."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``operation`` is S3's name of it; ``query`` values are not encoded yet."""

    operation: str
    method: str
    key: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | memoryview = b""


@dataclass(frozen=True, slots=True)
class Response:
    """What a successful request gave. Header names are in lower case."""

    status: int
    headers: Headers
    body: bytes


class Pending:
    """A request on its way. ``also`` is a second request that the headers of this one gave rise to."""

    __slots__ = (
        "_also",
        "_chunks",
        "_handle",
        "_headers",
        "_heard",
        "_location",
        "_on_headers",
        "_request",
        "_status",
    )

    def __init__(
        self, request: Request, location: str, on_headers: Callable[[Headers], Pending | None] | None
    ) -> None:
        self._request = request
        self._location = location
        self._on_headers = on_headers
        self._status = 0
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._heard = time.monotonic()
        self._also: Pending | None = None
        self._handle: Any = None

    def start(self, client: Any, message: Any) -> None:
        """Hand the request over; nothing is waited for."""
        self._handle = client.make_request(
            type=s3.S3RequestType.DEFAULT,
            operation_name=self._request.operation,
            request=message,
            on_headers=self._take_headers,
            on_body=self._take_body,
        )

    @property
    def also(self) -> Pending | None:
        """The second request, if there is one; known once ``wait`` has returned."""
        return self._also

    def wait(self) -> Response:
        """Return the answer. Raises ``MoveoutError``, translated like botocore's."""
        try:
            return self._wait()
        finally:
            # The request holds on to this object, through C code that the garbage collector cannot look into.
            self._handle = None

    def _wait(self) -> Response:
        what = self._request.key or self._location
        future = self._handle.finished_future
        patience = QUIET_SECONDS + len(self._request.body) / _SLOWEST
        while True:
            try:
                future.result(timeout=QUIET_SECONDS / 6)
                break
            except NotYetError:
                if time.monotonic() - self._heard > patience:
                    self._handle.cancel()
                    raise UnreachableError(
                        f"{what}: no answer for {patience:.0f} s", next_step="check the network"
                    ) from None
            except s3.S3ResponseError as exc:
                raise _refused(exc, self._request.operation, what) from exc
            except exceptions.AwsCrtError as exc:
                if exc.name == _CALLBACK_NAME:
                    raise HeaderBytesError(f"{what}: the answer has headers that are not UTF-8") from exc
                if exc.name == _SKEWED_NAME:
                    raise _denied(_SKEWED, self._request.operation, what) from exc
                raise UnreachableError(
                    f"{what}: {exc.message.rstrip('.')}",
                    next_step="check the endpoint and the network, then run the same command again",
                ) from exc
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        return Response(self._status, self._headers, body)

    def cancel(self) -> None:
        """Give the request up."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.cancel()
        if self._also is not None:
            self._also.cancel()

    def _take_headers(self, status_code: int, headers: list[tuple[str, str]], **_: Any) -> None:
        self._status = status_code
        self._headers = {name.lower(): value for name, value in headers}
        self._heard = time.monotonic()
        if self._on_headers is not None and status_code in {200, 206}:
            self._also = self._on_headers(self._headers)

    def _take_body(self, chunk: Any, **_: Any) -> None:
        self._chunks.append(bytes(chunk))
        self._heard = time.monotonic()


class CrtClient:
    """Requests to one bucket. ``client`` is the boto3 client whose endpoint and addressing style are
    taken, ``made`` the location's session.
    """

    def __init__(self, client: Any, s3_location: S3Location, made: Any) -> None:
        self.bucket = s3_location.bucket
        self.flow = flow_to(str(client.meta.endpoint_url))
        url = urlsplit(client.generate_presigned_url("head_bucket", Params={"Bucket": s3_location.bucket}))
        self._host = url.netloc
        self._root = url.path.rstrip("/") + "/"
        region = client.meta.region_name or "us-east-1"
        secure = url.scheme == "https"
        self._client = s3.S3Client(
            bootstrap=_bootstrap(),
            region=region,
            tls_mode=s3.S3RequestTlsMode.ENABLED if secure else s3.S3RequestTlsMode.DISABLED,
            tls_connection_options=_tls(made, url.hostname or "") if secure else None,
            signing_config=s3.create_default_s3_signing_config(
                region=region, credential_provider=_provider(made)
            ),
            throughput_target_gbps=_GIGABITS,
            memory_limit=_CLIENT_MEMORY,
            max_active_connections_override=CONNECTIONS,
            connect_timeout_ms=CONNECT_MILLISECONDS,
            # Trying again has one owner, and it is not this client; 1 is the least it takes.
            retry_config=s3.S3RetryConfig(max_retries=1, backoff_scale_factor_ms=1),
        )

    def send(
        self, request: Request, *, on_headers: Callable[[Headers], Pending | None] | None = None
    ) -> Pending:
        """Send a request; do not wait. ``on_headers`` runs in the client's own thread: it must be quick."""
        lines = [("Host", self._host), *request.headers.items()]
        if request.body or request.method in {"PUT", "POST"}:
            lines.append(("Content-Length", str(len(request.body))))
        try:
            message = http.HttpRequest(
                request.method,
                self._root + quote(request.key, safe="/") + _query(request.query),
                http.HttpHeaders(lines),
                io.BytesIO(request.body) if request.body else None,
            )
        except UnicodeEncodeError as exc:
            raise MoveoutError(
                f"{request.key}: a header that is not UTF-8 cannot be sent for this key"
            ) from exc
        pending = Pending(request, f"s3://{self.bucket}", on_headers)
        pending.start(self._client, message)
        return pending

    def call(self, request: Request) -> Response:
        """Send a request and wait. Raises ``MoveoutError``."""
        return self.send(request).wait()


def _query(query: Mapping[str, str]) -> str:
    return "?" + encoded_query(query) if query else ""


def encoded_query(query: Mapping[str, str]) -> str:
    """Return a query as it is sent and signed: encoded, by name."""
    pairs = [quote(name) + "=" + quote(value, safe="") for name, value in sorted(query.items())]
    return "&".join(pairs)


_lock = threading.Lock()


@lru_cache(maxsize=1)
def _bootstrap_once() -> Any:
    group = crt_io.EventLoopGroup(1)
    return crt_io.ClientBootstrap(group, crt_io.DefaultHostResolver(group))


def _bootstrap() -> Any:
    with _lock:
        return _bootstrap_once()


def _tls(made: Any, host: str) -> Any:
    """Return the options for TLS; ``ca_bundle`` of the profile and AWS_CA_BUNDLE hold as they do for
    boto3.
    """
    options = crt_io.TlsContextOptions()
    bundle = made._session.get_config_variable("ca_bundle")  # noqa: SLF001 - boto3 has no public way
    if bundle:
        options.override_default_trust_store_from_path(None, bundle)
    connection = crt_io.ClientTlsContext(options).new_connection_options()
    connection.set_server_name(host)
    return connection


def _provider(made: Any) -> Any:
    """Return the credentials, asked for again at each signature where they can expire."""
    credentials = made.get_credentials()

    def current() -> Any:
        frozen = credentials.get_frozen_credentials()
        return auth.AwsCredentials(frozen.access_key, frozen.secret_key, frozen.token)

    if hasattr(credentials, "refresh_needed"):
        return auth.AwsCredentialsProvider.new_delegate(current)
    frozen = credentials.get_frozen_credentials()
    return auth.AwsCredentialsProvider.new_static(frozen.access_key, frozen.secret_key, frozen.token)


NO_REASON = "no reason is given; so is answered what is encrypted by a key that its owner has (SSE-C)"


def _refused(exc: Any, operation: str, what: str) -> MoveoutError:
    """Translate an answer that is an error, through the same table as botocore's."""
    headers = {name.lower(): value for name, value in exc.headers or ()}
    code, message = _error_fields(exc.body or b"")
    if code == "" and exc.status_code == 412:
        code = "PreconditionFailed"
    if code == "" and exc.status_code == 400 and operation == "HeadObject":
        message = NO_REASON
    response = {
        "Error": {"Code": code or str(exc.status_code), "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": exc.status_code, "HTTPHeaders": headers},
    }
    return translate(boto_errors.ClientError(response, operation), what)


def _denied(code: str, operation: str, what: str) -> MoveoutError:
    """Translate an answer of which the client tells the code only."""
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    return translate(boto_errors.ClientError(response, operation), what)


def _error_fields(body: bytes) -> tuple[str, str]:
    try:
        root = ET.fromstring(body)  # noqa: S314 - see the import
    except ET.ParseError:
        return "", ""
    return root.findtext("Code") or "", root.findtext("Message") or ""


_SKEWED, _SKEWED_NAME = "RequestTimeTooSkewed", "AWS_ERROR_S3_REQUEST_TIME_TOO_SKEWED"
_CALLBACK_NAME = "AWS_ERROR_CRT_CALLBACK_EXCEPTION"
_EVERYTHING = {
    "NoSuchBucket",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "InvalidTokenId",
    "TokenRefreshRequired",
    "AccountProblem",
    _SKEWED,
}


def concerns_bucket(error: MoveoutError) -> bool:
    """Tell whether an error of ``Pending.wait`` would meet every other request as well."""
    return error_code(error) in _EVERYTHING


def error_code(error: MoveoutError) -> str:
    """Return S3's code of an error of ``Pending.wait``; empty where it has none."""
    cause = error.__cause__
    if isinstance(cause, s3.S3ResponseError):
        return _error_fields(cause.body or b"")[0]
    if isinstance(cause, boto_errors.ClientError):
        return str(cause.response.get("Error", {}).get("Code", ""))
    return _SKEWED if getattr(cause, "name", "") == _SKEWED_NAME else ""


def was_answered(error: MoveoutError) -> bool:
    """Tell whether the server gave an error of ``Pending.wait`` itself, rather than the way to it."""
    cause = error.__cause__
    if isinstance(cause, s3.S3ResponseError | boto_errors.ClientError):
        return True
    return getattr(cause, "name", "") == "AWS_ERROR_S3_INTERNAL_ERROR"  # what the C client makes of 500


def plain(elements: Iterable[Any]) -> dict[str, str]:
    """Return the texts of XML elements by their names without namespace."""
    return {element.tag.rpartition("}")[2]: element.text or "" for element in elements}
