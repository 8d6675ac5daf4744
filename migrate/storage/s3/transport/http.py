"""The short way to S3 for bodies, and for what is done many times: read a range, put a file, put a part, delete.

botocore spends 2 ms of CPU on a request: its description, endpoint rules, hooks, and a search for forty
headers in the answer. Of that a body needs the signature and the connection, which are botocore's own here
too, so that credentials, proxies and certificates are what they are elsewhere. Whatever is not a plain
success is left to botocore: an answer of another kind is ``None`` here, and the caller goes the long way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import botocore.exceptions as boto_errors
import urllib3.exceptions as http_errors
from botocore.awsrequest import AWSRequest

from exporters.header_bytes import bytes_of, from_latin_1
from migrate.runtime.cancellation import PROCESS
from migrate.storage.inflight_limit import flow_to
from migrate.storage.s3.transport.crt_client import NO_REASON, Response

FOREIGN = (boto_errors.BotoCoreError, boto_errors.ClientError, http_errors.HTTPError, OSError)
"""What goes wrong on this way."""
_DOTS = frozenset({".", ".."})
_NOTHING: Mapping[str, str] = {}
_REFUSED = 400
_LONG_WAY = {400, 401, 403}
"""Statuses after which botocore may know what to do: another region, a clock that is off."""
_CODE = re.compile(rb"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]*)</Message>")


def is_kept(key: str) -> bool:
    """Tell whether a key arrives as it is: urllib3 takes segments of dots out of a path. The C client does not."""
    return not _DOTS & set(key.split("/"))


class Wire:
    """Requests for one bucket through a boto3 client's own signer and connections. Thread-safe."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._usable = str(client.meta.config.signature_version) == "s3v4"
        url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
        self._base = url.partition("?")[0].removesuffix("k")
        self.flow = flow_to(str(client.meta.endpoint_url))

    def get(
        self, key: str, headers: Mapping[str, str], query: Mapping[str, str] = _NOTHING
    ) -> tuple[int, Any] | None:
        """Return (announced size, raw body) of a successful GET; the caller reads and closes the body.

        Raises ``ClientError`` as botocore would; None where the long way must be taken.
        """
        answer = self._send("GET", key, query, headers, b"")
        if answer is None:
            return None
        length = answer.headers.get("content-length")
        if length is None or answer.headers.get("content-encoding") is not None:
            answer.raw.close()
            return None
        return int(length), answer.raw

    def put(
        self, key: str, query: Mapping[str, str], headers: Mapping[str, str], data: bytes
    ) -> Mapping[str, str] | None:
        """Return the headers of a successful PUT; errors as for ``get``."""
        try:
            answer = self._send("PUT", key, query, headers, data)
        except boto_errors.HTTPClientError:
            if PROCESS.is_cancelled:
                raise
            return None  # maybe refused before the body was sent: botocore asks first (Expect)
        if answer is None or "etag" not in answer.headers:
            return None
        return _headers_of(answer)

    def delete(self, key: str) -> bool:
        """Delete an object; errors as for ``get``. False where the long way must be taken."""
        try:
            return self._send("DELETE", key, {}, {}, b"") is not None
        except boto_errors.HTTPClientError:
            return False

    def once(
        self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], data: bytes
    ) -> Response:
        """Send a request exactly once; return the answer of a success. For what comes to more when it is sent twice:
        the C client sends again by itself. Raises ``ClientError`` and ``HTTPClientError``.
        """
        answer = self._exchange(method, key, query, headers, data)
        body = answer.content
        if answer.status_code < 300:
            return Response(answer.status_code, _headers_of(answer), body)
        raise self._error(answer, body, method)

    def _exchange(
        self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], data: bytes
    ) -> Any:
        url = self._base + quote(key, safe="/~")
        if query:
            url += "?" + urlencode(query, quote_via=quote)
        # A server may see other spaces than ours in what is to be signed. Only x-amz-* has to be.
        unsigned = {name: value for name, value in headers.items() if _is_left_unsigned(name, value)}
        signed = {name: value for name, value in headers.items() if name not in unsigned}
        request = AWSRequest(method, url, headers=signed, data=data, stream_output=method == "GET")
        request.context["client_config"] = self._client.meta.config
        signer = self._client._request_signer  # noqa: SLF001
        signer.get_auth_instance("s3", self._client.meta.region_name, "s3v4").add_auth(request)
        prepared = request.prepare()
        sent = {**dict(prepared.headers), **unsigned}
        # Python's client would send a text as Latin-1.
        prepared.headers = {
            name: value if value.isascii() else bytes_of(value) for name, value in sent.items()
        }
        return self._client._endpoint.http_session.send(prepared)  # noqa: SLF001

    def _send(
        self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], data: bytes
    ) -> Any | None:
        if not self._usable:
            return None
        answer = self._exchange(method, key, query, headers, data)
        if answer.status_code < 300:
            return answer
        body = answer.content
        if answer.status_code < _REFUSED:
            self._usable = False
        if answer.status_code < _REFUSED or answer.status_code in _LONG_WAY:
            return None
        raise self._error(answer, body, method)

    def _error(self, answer: Any, body: bytes, method: str) -> Exception:
        code, message = (
            found[1].decode(errors="replace") if (found := pattern.search(body)) else default
            for pattern, default in ((_CODE, str(answer.status_code)), (_MESSAGE, ""))
        )
        if answer.status_code == 400 and method == "HEAD":
            message = NO_REASON
        response = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {
                "HTTPStatusCode": answer.status_code,
                "HTTPHeaders": _headers_of(answer),
            },
        }
        made: Exception = self._client.exceptions.from_code(code)(response, method)
        return made


def _is_left_unsigned(name: str, value: str) -> bool:
    return not value.isprintable() and not name.lower().startswith("x-amz-")


def _headers_of(answer: Any) -> dict[str, str]:
    return {name.lower(): from_latin_1(value) for name, value in answer.headers.items()}
