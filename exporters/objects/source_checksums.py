"""Compares the bytes of an object with the checksums that the source itself has. So a bit that flips on the way is
noticed while the object can still be read again.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from exporters.api import Loss
from exporters.bucket_api import Bucket, Fetched
from exporters.errors import SourceDamagedError

READS = 4
"""How often an object is read before bytes that contradict the source's checksum count as damaged at the source."""
_MD5 = re.compile(r"[0-9a-f]{32}")
_EIGHT_BYTES = re.compile(r"[A-Za-z0-9+/]{11}=")
_CRC = "x-amz-checksum-crc64nvme"


class _Crc32:
    """A CRC32 with the methods of a hash."""

    def __init__(self) -> None:
        self._crc = 0

    def update(self, body: bytes) -> None:
        self._crc = zlib.crc32(body, self._crc)

    def digest(self) -> bytes:
        return self._crc.to_bytes(4, "big")


_OTHERS: Mapping[str, Callable[[], Any]] = {
    "x-amz-checksum-sha256": hashlib.sha256,
    "x-amz-checksum-crc32": _Crc32,
    "x-amz-checksum-sha1": lambda: hashlib.sha1(usedforsecurity=False),
}
"""Those that S3 has besides, but for CRC32C: nothing at hand computes that fast."""


def promises_md5(fetched: Fetched) -> bool:
    """Tell whether the ETag has the form of an MD5 of the content: not that of parts, nor of an encrypted
    object.
    """
    return is_md5_of(fetched.summary.etag, fetched.headers)


def is_md5_of(etag: str, headers: Mapping[str, str]) -> bool:
    """``promises_md5`` of an ETag that came with these headers."""
    return _is_of_content(headers) and bool(_MD5.fullmatch(etag))


def _is_of_content(headers: Mapping[str, str]) -> bool:
    """Tell whether an ETag that came with these headers may be made of MD5s of the content; that of what is encrypted
    by a key of the KMS or of the customer is not (Amazon S3 API reference, "Object").
    """
    encryption = headers.get("x-amz-server-side-encryption", "AES256")
    return encryption == "AES256" and "x-amz-server-side-encryption-customer-algorithm" not in headers


def only_parts_prove(fetched: Fetched) -> bool:
    """Tell whether the ETag has the form of one made of MD5s of parts, and no CRC64NVME is kept."""
    has_form = "-" in fetched.summary.etag and _is_of_content(fetched.headers)
    return has_form and kept_crc64nvme(fetched.headers) is None


def etag_of_parts(md5s: Sequence[bytes]) -> str:
    """Return the ETag of an object of parts that have these MD5s."""
    return f"{md5_of(b''.join(md5s))}-{len(md5s)}"


def read_again(bucket: Bucket, fetched: Fetched) -> Fetched:
    """Read a small object again whose bytes contradict the source's checksum: they may have been damaged on the way.
    Return the first read that the ETag confirms, or that has the same bytes as the one before. It has a
    ``SourceDamagedError`` where every read brings other bytes.
    """
    summary = fetched.summary
    for _ in range(READS - 1):
        reread = next(iter(bucket.fetch([summary], window_bytes=summary.size_bytes)))
        if isinstance(reread.error, SourceDamagedError):
            continue
        if reread.error is not None or reread.body == fetched.body or md5_of(reread.body) == summary.etag:
            return reread
        fetched = reread
    if fetched.error is not None:
        return fetched
    return replace(
        fetched, error=SourceDamagedError(f"{summary.name}: every time it is read, other bytes come")
    )


def md5_of(body: bytes) -> str:
    """Return the MD5 in hex digits."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


class OtherChecksum(Struct):
    """A checksum of the whole that the server keeps, other than CRC64NVME, and the one of the bytes that come. Of what
    is encrypted by a key the ETag says nothing.
    """

    kept: bytes
    name: str
    _own: Any

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> OtherChecksum | None:
        """Return the one that came with an object's headers, None where there is none of the whole."""
        for name, make in _OTHERS.items():
            kept, own = _decoded(headers.get(name, "")), make()
            if len(kept) == len(own.digest()) and _is_whole(headers):
                return cls(kept, name.rpartition("-")[2].upper(), own)
        return None

    def update(self, body: bytes) -> None:
        """Take the next bytes."""
        self._own.update(body)

    @property
    def fault(self) -> str | None:
        """What the bytes do not have, None where they have it."""
        return None if self._own.digest() == self.kept else f"the {self.name} that the server keeps for it"


class ContentProof:
    """Takes an object's bytes in order. ``md5`` is of the whole, None where the ETag is no such MD5, or something else
    proves them: the CRC64NVME that the server keeps, or the MD5s of the ``parts`` (their sizes) of which the ETag is
    made. Another checksum that it keeps is compared where neither can be.
    """

    def __init__(self, bucket: Bucket, fetched: Fetched, parts: Sequence[int]) -> None:
        self.crc64nvme = 0
        self._bucket, self._fetched = bucket, fetched
        self._kept = kept_crc64nvme(fetched.headers)
        is_complete = sum(parts) == fetched.summary.size_bytes and _is_of_content(fetched.headers)
        self._ends = list(accumulate(parts)) if self._kept is None and parts and is_complete else []
        self._takes_md5 = self._kept is None and (bool(self._ends) or promises_md5(fetched))
        is_proved = self._kept is not None or self._takes_md5
        self._other = None if is_proved else OtherChecksum.of(fetched.headers)
        self._digests: list[bytes] = []
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._at = 0

    def update(self, body: bytes) -> None:
        """Take the next bytes."""
        self.crc64nvme = self._bucket.crc64nvme(body, self.crc64nvme)
        if self._other is not None:
            self._other.update(body)
        if not self._takes_md5:
            return
        rest = memoryview(body)
        for end in self._ends[len(self._digests) :]:
            if self._at + len(rest) < end:
                break
            self._md5.update(rest[: end - self._at])
            self._digests.append(self._md5.digest())
            self._md5 = hashlib.md5(usedforsecurity=False)
            rest, self._at = rest[end - self._at :], end
        self._md5.update(rest)
        self._at += len(rest)

    @property
    def md5(self) -> str | None:
        """The MD5 of all, where it was taken."""
        return self._md5.hexdigest() if self._takes_md5 and not self._ends else None

    def error(self, before: ContentProof | None) -> SourceDamagedError | None:
        """Return why the bytes are to be read again. None where nothing contradicts them, or only an ETag, which need
        not be a checksum, and a read ``before`` came to the same bytes.
        """
        fault = self.fault()
        only_etag = self._kept is None and self._other is None
        is_confirmed = only_etag and before is not None and before._sums == self._sums  # noqa: SLF001
        if fault is None or is_confirmed:
            return None
        return SourceDamagedError(f"{self._fetched.summary.name}: what came does not have {fault}")

    @property
    def _sums(self) -> tuple[int, list[bytes], bytes]:
        return self.crc64nvme, self._digests, self._md5.digest()

    def losses(self) -> Sequence[Loss]:
        """Return the loss of an object that is kept although something contradicts its bytes."""
        fault = self.fault()
        return (
            [Loss(self._fetched.summary.name, "ETag", f"the content does not have {fault}")] if fault else []
        )

    def fault(self) -> str | None:
        """Return the source's checksum that contradicts the bytes, None where none does."""
        etag = self._fetched.summary.etag
        if self._kept is not None:
            return None if self._kept == self.crc64nvme else "the CRC64NVME that the server keeps for it"
        if self._other is not None:
            return self._other.fault
        if self._ends:
            is_same = etag == etag_of_parts(self._digests)
            return None if is_same else "the MD5 of parts that its ETag looks like"
        if self._takes_md5 and self.md5 != etag:
            return "the MD5 that its ETag looks like"
        return None


def kept_crc64nvme(headers: Mapping[str, str]) -> int | None:
    """Return the CRC64NVME of the whole that the server keeps, None where it keeps none that can be read."""
    crc = headers.get(_CRC, "")
    is_kept = _is_whole(headers) and _EIGHT_BYTES.fullmatch(crc)
    return int.from_bytes(base64.b64decode(crc), "big") if is_kept else None


def _decoded(text: str) -> bytes:
    """Return what a text in base64 stands for; nothing where it is none: a checksum of parts ends in -2."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _is_whole(headers: Mapping[str, str]) -> bool:
    """Tell whether the checksum that came with these headers is of the whole, not one of those of parts."""
    return headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT"
