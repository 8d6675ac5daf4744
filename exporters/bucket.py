"""What the object exporter needs of a bucket; implemented by whoever has the S3 client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from exporters.errors import SourceError

STANDARD_HEADERS = (
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
)
"""Headers that belong to an object and can be given back to a target."""


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """One line of a listing. ``key`` is the whole key within the bucket, prefix included; ``etag`` is
    without quotes. ``version_id`` is that of a listing of versions (``null`` included), empty in a plain
    listing; reads of a summary that has one are reads of that version.
    """

    key: str
    size_bytes: int
    etag: str
    modified: datetime
    storage_class: str = "STANDARD"
    version_id: str = ""
    is_latest: bool = True
    is_delete_marker: bool = False

    @property
    def name(self) -> str:
        """The key, and which version where that is known: for people, and unique within a listing."""
        return f"{self.key} (version {self.version_id})" if self.version_id else self.key


@dataclass(frozen=True, slots=True)
class Fetched:
    """What reading one object gave: the body and all response headers (names in lower case, user metadata as
    ``x-amz-meta-…``) and tags; or the error that this one object ended in. ``crc64nvme``: of the body,
    where it is what the server has kept for it since it was written.
    """

    summary: ObjectSummary
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    error: SourceError | None = None
    crc64nvme: int | None = None


class Bucket(Protocol):
    """A bucket and prefix, read-only and thread-safe. Raises only ``SourceError``s."""

    name: str
    prefix: str
    url: str
    """Without secrets."""
    server: str
    """What the server calls itself (``MinIO``), or empty."""

    def list(self, *, start_after: str = "") -> Iterator[ObjectSummary]:
        """Yield all objects under the prefix, by key, streamed; after ``start_after`` where given."""
        ...

    def keeps_versions(self) -> bool | None:
        """Tell whether there may be older versions: versioning is or was switched on. None where these
        credentials may not know.
        """
        ...

    def list_versions(self, *, after: tuple[str, str] = ("", "")) -> Iterator[ObjectSummary]:
        """Yield all versions and delete markers under the prefix, by key, newest first, streamed; those
        behind ``after`` (key, version id) where given.
        """
        ...

    def part_sizes(self, summary: ObjectSummary) -> Sequence[int]:
        """Return the sizes of the parts that an object was uploaded in; none where it was uploaded whole, or
        where the server does not tell. Asks only for objects whose ETag is that of an upload in parts.
        """
        ...

    def fetch(self, wanted: Iterable[ObjectSummary], *, window_bytes: int) -> Iterator[Fetched]:
        """Read small objects, many at once, yielded in the order of ``wanted``; at most ``window_bytes`` of
        bodies in memory. Reads are pinned by If-Match: an object that changed since the listing is an error.
        """
        ...

    def head(self, summary: ObjectSummary) -> Fetched:
        """Return headers and tags without the body."""
        ...

    def read_range(self, summary: ObjectSummary, start: int, length: int) -> bytes:
        """Return exactly this range, pinned by If-Match."""
        ...

    def stream(self, summary: ObjectSummary, *, part_bytes: int, window_bytes: int) -> Iterator[bytes]:
        """Yield a large object's bytes in ranges of ``part_bytes``, in order, read many at once; at most
        ``window_bytes`` in memory. Pinned by If-Match. Raises ``SourceItemError`` where the fault is the
        object's.
        """
        ...

    def crc64nvme(self, data: bytes, previous: int = 0) -> int:
        """Return the CRC64NVME of ``data``, going on from ``previous``: the client's own fast code for it."""
        ...

    def tags_readable(self, samples: Sequence[ObjectSummary]) -> bool:
        """Tell whether these credentials may read tags. Where they may not, servers do not even say that
        there are any.
        """
        ...

    def configuration(self) -> Mapping[str, Any]:
        """Return the bucket's own settings that can be read (versioning, policy, CORS, …), by name."""
        ...
