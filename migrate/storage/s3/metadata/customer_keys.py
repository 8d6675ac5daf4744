"""Objects that are encrypted with a key of the customer's own (SSE-C): the key goes along with each request that reads
one (Amazon S3 user guide, "Specifying server-side encryption with customer-provided keys"). A listing does not say
which objects are, and a server refuses the key with any other, so what it refuses is asked for the other way.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from msgspec.structs import replace

from migrate.errors import MoveoutError
from migrate.storage.s3.http.messages import NO_REASON, Request, error_code

_HEADER = "x-amz-server-side-encryption-customer-"
ALGORITHM = f"{_HEADER}algorithm"
_REFUSED = {"InvalidRequest", "400"}
GIVE_KEY = 'give its key: sse_c = "file:PATH" at the source in the case file, or s3://BUCKET?sse_c=file:PATH'


class CustomerKey:
    """One key of a bucket. Thread-safe. ``encoded``: the key in base64."""

    def __init__(self, encoded: str) -> None:
        md5 = hashlib.md5(base64.b64decode(encoded), usedforsecurity=False).digest()
        self.headers = {
            ALGORITHM: "AES256",
            f"{_HEADER}key": encoded,
            f"{_HEADER}key-md5": base64.b64encode(md5).decode(),
        }
        self._goes_first = False

    def likely(self, request: Request) -> Request:
        """Return a request with the key where the last object needed it, else without."""
        return self.with_key(request) if self._goes_first else request

    def with_key(self, request: Request) -> Request:
        """Return a request with the key."""
        return replace(request, headers={**request.headers, **self.headers})

    def other(self, request: Request) -> Request:
        """Return a request with the key if it had none, without if it had."""
        if ALGORITHM not in request.headers:
            return self.with_key(request)
        headers = {name: value for name, value in request.headers.items() if name not in self.headers}
        return replace(request, headers=headers)

    def learn(self, request: Request) -> None:
        """Note what a request had that was answered."""
        self._goes_first = ALGORITHM in request.headers


def is_about_key(error: MoveoutError) -> bool:
    """Tell whether a server may have refused to read an object for a key that was missing, or was not asked for."""
    return type(error) is MoveoutError and error_code(error) in _REFUSED


def needs_key(error: MoveoutError) -> bool:
    """Tell whether a server refused to read an object because it needs a key."""
    text = str(error)
    return is_about_key(error) and (NO_REASON in text or "Server Side Encryption" in text)


def is_encrypted(headers: Mapping[str, str]) -> bool:
    """Tell whether an object that was read is encrypted with a key of the customer's own."""
    return ALGORITHM in headers
