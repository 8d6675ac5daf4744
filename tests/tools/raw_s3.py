"""S3 requests whose header values are bytes, signed and sent as they are; and answers read the same way. boto3 sends
no header beyond ASCII, and shows none as its bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from scripts.servers import S3Server

_UNSIGNED = b"UNSIGNED-PAYLOAD"


@dataclass(frozen=True)
class RawAnswer:
    """Header names are in lower case; values are the bytes that came."""

    status: int
    headers: Mapping[str, bytes]
    body: bytes


def raw_request(
    server: S3Server,
    method: str,
    path: str,
    headers: Mapping[str, bytes] | None = None,
    body: bytes = b"",
    query: Mapping[str, str] | None = None,
) -> RawAnswer:
    """Send one request for ``path`` (``bucket/key``). Raises ``AssertionError`` where the server refuses it."""
    url = urlsplit(server.endpoint)
    asked = "&".join(
        f"{quote(name, safe='')}={quote(it, safe='')}" for name, it in sorted((query or {}).items())
    )
    where = "/" + quote(path, safe="/~")
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    sent = {
        "host": url.netloc.encode(),
        "x-amz-content-sha256": _UNSIGNED,
        "x-amz-date": moment.encode(),
        **{name.lower(): value for name, value in (headers or {}).items()},
    }
    signed = {name: value for name, value in sent.items() if name == "host" or name.startswith("x-amz-")}
    names = sorted(signed)
    listed = ";".join(names)
    lines = b"".join(name.encode() + b":" + signed[name] + b"\n" for name in names)
    canonical = f"{method}\n{where}\n{asked}\n".encode() + lines + f"\n{listed}\n".encode() + _UNSIGNED
    scope = f"{moment[:8]}/us-east-1/s3/aws4_request"
    key = f"AWS4{server.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={server.access_key}/{scope}, SignedHeaders={listed}, Signature={signature}"
    ).encode()
    if body or method in {"PUT", "POST"}:
        sent["content-length"] = str(len(body)).encode()
    connection = _connect(server)
    try:
        connection.putrequest(
            method, where + (f"?{asked}" if asked else ""), skip_host=True, skip_accept_encoding=True
        )
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        # http.client reads headers as Latin-1, which loses nothing.
        found = {name.lower(): value.encode("latin-1") for name, value in answer.getheaders()}
        content = answer.read()
    finally:
        connection.close()
    assert answer.status < 300, (answer.status, content)
    return RawAnswer(answer.status, found, content)


def _connect(server: S3Server) -> http.client.HTTPConnection:
    url = urlsplit(server.endpoint)
    assert url.hostname
    if server.ca_bundle is None:
        return http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    context = ssl.create_default_context(cafile=server.ca_bundle)
    return http.client.HTTPSConnection(url.hostname, url.port, timeout=60, context=context)
