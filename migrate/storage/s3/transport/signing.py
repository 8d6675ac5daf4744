"""Signatures of S3 requests (AWS Signature Version 4). What many requests have in common is computed once a second."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Any

from migrate.storage.s3.transport.crt_client import Headers

_UNSIGNED = "UNSIGNED-PAYLOAD"


def is_plain(headers: Headers) -> bool:
    """Tell whether headers are signed as they stand: ASCII, and no spaces that the canonical form would drop."""
    return all(
        value.isascii() and value.isprintable() and "  " not in value and value == value.strip()
        for value in headers.values()
    )


class Signer:
    """Signs GETs and HEADs, and PUTs of objects: AWS Signature Version 4 (S3 API reference, "Authenticating requests:
    using the Authorization header"), the body unsigned: there is none, or checksums go along with it.
    """

    def __init__(self, credentials: Any, region: str, host: str) -> None:
        self._credentials, self._region, self._host = credentials, region, host
        self._second = 0
        self._known: dict[tuple[tuple[str, str], ...], _Constant] = {}

    def get(self, path: str, headers: Headers, query: str = "", method: str = "GET") -> bytes:
        """Return the bytes of a GET or HEAD. ``path`` and ``query`` are encoded already, ``query`` in order."""
        amz, others = [], ""
        for name, value in headers.items():
            if name.startswith("x-amz-"):
                amz.append((name, value))
            else:
                others += f"{name}: {value}\r\n"
        constant = self._constant(tuple(amz))
        digest = hashlib.sha256(f"{method}\n{path}\n{query}\n{constant.canonical}".encode()).hexdigest()
        signature = hmac.digest(constant.key, (constant.to_sign + digest).encode(), "sha256").hex()
        destination = f"{path}?{query}" if query else path
        return f"{method} {destination} HTTP/1.1\r\n{others}{constant.head}{signature}\r\n\r\n".encode()

    def put(self, path: str, headers: Headers, size_bytes: int) -> bytes:
        """Return the bytes of a PUT up to its body. ``path`` is encoded already, ``headers`` are plain."""
        constant = self._constant(())
        signed = constant.signed | {name.lower(): value for name, value in headers.items()}
        names = sorted(signed)
        lines = "".join([f"{name}:{signed[name]}\n" for name in names])
        listed = ";".join(names)
        request = f"PUT\n{path}\n\n{lines}\n{listed}\n{_UNSIGNED}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = hmac.digest(constant.key, (constant.to_sign + digest).encode(), "sha256").hex()
        sent = "".join([f"{name}: {signed[name]}\r\n" for name in names])
        return (
            f"PUT {path} HTTP/1.1\r\n{sent}content-length: {size_bytes}\r\nauthorization: AWS4-HMAC-SHA256 "
            f"Credential={constant.credential}, SignedHeaders={listed}, Signature={signature}\r\n\r\n"
        ).encode()

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
            signed=signed,
            credential=f"{frozen.access_key}/{scope}",
            head="".join(f"{name}: {signed[name]}\r\n" for name in names)
            + f"authorization: AWS4-HMAC-SHA256 Credential={frozen.access_key}/{scope}, "
            f"SignedHeaders={listed}, Signature=",
        )


@dataclass(frozen=True, slots=True)
class _Constant:
    """The ends of the canonical request, of the string to sign and of the request itself, and the key; and what they
    are made of.
    """

    canonical: str
    to_sign: str
    key: bytes
    head: str
    signed: dict[str, str]
    credential: str
