"""Signatures of S3 requests (AWS Signature Version 4). What many requests have in common is computed once a second."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any

from msgspec import Struct

from exporters.lossless_text import bytes_of
from migrate.errors import MoveoutError
from migrate.storage.s3.errors import CREDENTIAL_ERRORS, no_credentials
from migrate.storage.s3.http.messages import READING, Headers, Request, encoded_query

_UNSIGNED = "UNSIGNED-PAYLOAD"
_AMZ = "x-amz-"
_Common = tuple[int, tuple[tuple[str, str], ...]]
"""A second, and the x-amz-* headers of a request that reads."""


class Signer:
    """Builds and signs request heads (S3 API reference, "Authenticating requests: using the Authorization header").
    The body stays unsigned: there is none, or a checksum goes along with it. ``headers`` (x-amz-*) go with every
    request.
    """

    def __init__(self, credentials: Any, region: str, host: str, headers: Headers | None = None) -> None:
        self._credentials, self._region, self._host = credentials, region, host
        self._headers = headers or {}
        self._cached: dict[_Common, _Constant] = {}

    def anew(self) -> Signer:
        """Return one that has computed nothing yet: with credentials that were renewed within this second."""
        return Signer(self._credentials, self._region, self._host, self._headers)

    def head(self, request: Request, path: str, origin: str = "") -> bytes:
        """Return the bytes of a request up to its body. ``path`` is percent-encoded; ``origin`` (scheme and host)
        stands before it where a proxy is asked. Raises ``MoveoutError`` for a header that cannot be sent, and where
        there are no credentials any more.
        """
        query = encoded_query(request.query) if request.query else ""
        target = f"{origin}{path}?{query}" if query else origin + path
        for name, value in request.headers.items():
            if not value.isprintable() and any(char in value for char in "\r\n\0"):
                raise MoveoutError(f"{request.key}: the header {name} has a line break, so it cannot be sent")
        second = int(time.time())
        if request.method not in READING:
            constant = self._cached.get((second, ())) or self._compose(second, ())
            return _write_head(constant, request, path, query, target)
        # Only the x-amz-* headers are signed: they are the same for many reads, so most of the work is cached.
        amz, other_lines = [], ""
        for name, value in request.headers.items():
            if name.startswith(_AMZ):
                amz.append((name, value))
            else:
                other_lines += f"{name}: {value}\r\n"
        constant = self._cached.get((second, tuple(amz))) or self._compose(second, tuple(amz))
        canonical = f"{request.method}\n{path}\n{query}\n{constant.canonical}"
        return bytes_of(
            f"{request.method} {target} HTTP/1.1\r\n{other_lines}{constant.head}{constant.sign(canonical)}\r\n\r\n"
        )

    def _compose(self, second: int, amz: tuple[tuple[str, str], ...]) -> _Constant:
        """Return what all requests of one second with these headers have in common, and remember it."""
        try:
            frozen = self._credentials.get_frozen_credentials()
        except CREDENTIAL_ERRORS as exc:  # those of a login, or of a role, end and are fetched anew
            raise no_credentials(exc, self._host) from exc
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        signed = {"host": self._host, "x-amz-content-sha256": _UNSIGNED, "x-amz-date": now}
        signed.update(self._headers, **dict(amz))
        if frozen.token:
            signed["x-amz-security-token"] = frozen.token
        names = sorted(signed)
        lines = "".join(f"{name}:{signed[name]}\n" for name in names)
        listed = ";".join(names)
        scope = f"{now[:8]}/{self._region}/s3/aws4_request"
        key = f"AWS4{frozen.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        amz_lines = "".join(f"{name}: {signed[name]}\r\n" for name in names)
        constant = _Constant(
            canonical=f"{lines}\n{listed}\n{_UNSIGNED}",
            to_sign=f"AWS4-HMAC-SHA256\n{now}\n{scope}\n",
            key=key,
            signed=signed,
            credential=f"{frozen.access_key}/{scope}",
            amz_lines=amz_lines,
            head=amz_lines + f"authorization: AWS4-HMAC-SHA256 Credential={frozen.access_key}/{scope}, "
            f"SignedHeaders={listed}, Signature=",
        )
        of_this_second = {common: cached for common, cached in self._cached.items() if common[0] == second}
        self._cached = {**of_this_second, (second, amz): constant}
        return constant


class _Constant(Struct, frozen=True):
    """The ends of the canonical request, of the string to sign and of the request itself, the key, and what they are
    made of.
    """

    canonical: str
    to_sign: str
    key: bytes
    amz_lines: str
    head: str
    signed: dict[str, str]
    credential: str

    def sign(self, canonical_request: str) -> str:
        """Return the signature of a canonical request."""
        digest = hashlib.sha256(bytes_of(canonical_request)).hexdigest()
        return hmac.digest(self.key, (self.to_sign + digest).encode(), "sha256").hex()


def _write_head(constant: _Constant, request: Request, path: str, query: str, target: str) -> bytes:
    """Sign all headers but those whose spaces a server may see otherwise than we do."""
    signed, sent = dict(constant.signed), constant.amz_lines
    for name, value in request.headers.items():
        lower = name.lower()
        if value.isprintable() or lower.startswith(_AMZ):
            signed[lower] = " ".join(value.split())
        sent += f"{name}: {value}\r\n"
    names = sorted(signed)
    listed = ";".join(names)
    lines = "".join([f"{name}:{signed[name]}\n" for name in names])
    signature = constant.sign(f"{request.method}\n{path}\n{query}\n{lines}\n{listed}\n{_UNSIGNED}")
    return bytes_of(
        f"{request.method} {target} HTTP/1.1\r\n{sent}content-length: {len(request.body)}\r\n"
        f"authorization: AWS4-HMAC-SHA256 Credential={constant.credential}, SignedHeaders={listed}, "
        f"Signature={signature}\r\n\r\n"
    )
