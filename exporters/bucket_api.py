"""What the object exporter needs of a bucket; implemented by whoever has the S3 client."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from msgspec import Struct, field

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
"""Headers that belong to an object and can be given back to a destination."""


class ObjectSummary(Struct, frozen=True):
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


class ObjectPart(NamedTuple):
    """A part of an object that was uploaded in parts. Numbers ascend; there may be gaps."""

    number: int
    size_bytes: int


class Page(Struct, frozen=True):
    """Rows of a listing by columns, in the order of the server: much cheaper than ``ObjectSummary`` by the million.
    The last three are empty in a plain listing.
    """

    keys: Sequence[str]
    sizes: Sequence[int]
    etags: Sequence[str]
    modified: Sequence[datetime]
    classes: Sequence[str]
    versions: Sequence[str] = ()
    latest: Sequence[bool] = ()
    markers: Sequence[bool] = ()

    @staticmethod
    def of(rows: Sequence[ObjectSummary]) -> Page:
        """Return the page of these rows of a listing of versions."""
        return Page(
            [row.key for row in rows],
            [row.size_bytes for row in rows],
            [row.etag for row in rows],
            [row.modified for row in rows],
            [row.storage_class for row in rows],
            [row.version_id for row in rows],
            [row.is_latest for row in rows],
            [row.is_delete_marker for row in rows],
        )

    def rows(self) -> Iterator[ObjectSummary]:
        """Yield the rows."""
        return (
            map(ObjectSummary, *(column for column in self._columns() if column)) if self.keys else iter(())
        )

    def cut(self, start: int, end: int) -> Page:
        """Return the rows from ``start`` to ``end``."""
        return Page(*(column[start:end] for column in self._columns()))

    def choose(self, rows: Sequence[int]) -> Page:
        """Return these rows, by number."""
        return Page(
            *([column[row_number] for row_number in rows] if column else () for column in self._columns())
        )

    def _columns(self) -> tuple[Sequence[Any], ...]:
        return (
            self.keys, self.sizes, self.etags, self.modified, self.classes, self.versions, self.latest,
            self.markers,
        )  # fmt: skip


def beginning(first: str, second: str) -> str:
    """Return what two keys begin with alike: so do all keys between them."""
    return next(
        (
            first[:length]
            for length, pair in enumerate(zip(first, second, strict=False))
            if pair[0] != pair[1]
        ),
        min(first, second),
    )


Position = tuple[str, str]
"""Where a listing stands: behind this version of this key, or behind all of the key where the version is empty."""
Bound = Callable[[], str | None]
"""The last key that is of interest, which may become an earlier one meanwhile; None: to the end."""
NULL_VERSION = "null"
"""The id of the version that was written while a bucket kept no versions."""


def no_end() -> str | None:
    """Return the bound of a listing that goes to the end."""
    return None


class Fetched(Struct, frozen=True):
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

    @property
    def identity(self) -> str:
        """The endpoint, the bucket and the prefix. Where the server says which bucket it is, a second line has that and
        the prefix: it is the same whatever host name or port leads there.
        """
        ...

    @property
    def not_utf_8(self) -> Collection[str]:
        """The keys, percent-encoded, that listings have shown so far and do not yield: neither JSON nor Parquet holds
        what is not UTF-8.
        """
        ...

    @property
    def lists_in_order(self) -> bool:
        """Whether listings are ordered by key, as far as it is known of this server."""
        ...

    @property
    def lists_from_anywhere(self) -> bool:
        """Whether a listing that begins in the middle and ends soon costs no more than those pages."""
        ...

    def pages(
        self, *, versions: bool, after: Position = ("", ""), until: Bound, other_pages: bool = False
    ) -> Iterator[Page]:
        """Yield a listing page by page, of what comes behind ``after``, until a page that reaches to ``until`` or
        beyond; that page is yielded whole. The server is asked for the following page while one is used.
        ``other_pages``: cut otherwise, for some servers skip rows between two pages.
        """
        ...

    def names(self, directory: str, after: str) -> tuple[Sequence[str], bool]:
        """Return the first thousand keys and directories (with their slash) in a directory (empty, or with its slash)
        that come behind ``after``, in order, and whether that are all of them.
        """
        ...

    def first_behind(self, after: str, until: str | None) -> str | None:
        """Return the first key behind ``after`` and not behind ``until``, or None."""
        ...

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

    def parts(self, summary: ObjectSummary) -> Sequence[ObjectPart]:
        """Return the parts that an object was uploaded in, in order; none where it was uploaded whole, or where the
        server does not return them. Asks only for objects whose ETag is that of an upload in parts.
        """
        ...

    def fetch(self, summaries: Iterable[ObjectSummary], *, window_bytes: int) -> Iterator[Fetched]:
        """Read small objects, many at once, yielded in the order of ``summaries``; at most ``window_bytes`` of
        bodies in memory. Reads are pinned by If-Match: an object that changed since the listing is an error.
        """
        ...

    def head(self, summary: ObjectSummary) -> Fetched:
        """Return headers and tags without the body."""
        ...

    def heads(self, summaries: Iterable[ObjectSummary]) -> Iterator[Fetched]:
        """``head`` of many at once, in order."""
        ...

    def thaw(
        self, requests: Iterable[tuple[ObjectSummary, str]], *, days: int
    ) -> Iterator[SourceError | None]:
        """Ask the server to bring archived objects back for some days, each by a tier; yield in order the error
        or None. Being brought back already is no error.
        """
        ...

    def pause(self, seconds: float) -> bool:
        """Wait; return whether to go on: not where the run is being stopped."""
        ...

    @property
    def has_acls(self) -> bool:
        """Whether objects have ACLs of their own, as far as it is known."""
        ...

    def acls(self, names: Iterable[tuple[str, str]]) -> Iterator[tuple[str | None, SourceError | None]]:
        """Yield the ACLs of objects (key, version id or empty) in order, as JSON in boto3's names. None where only the
        owner is granted anything; an error where the ACL cannot be read.
        """
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
        """Tell whether these credentials may read tags, and can. Where they may not, servers do not even say that
        there are any. True where the server has no tags.
        """
        ...

    def configuration(self) -> Mapping[str, Any]:
        """Return the bucket's own settings that can be read (versioning, policy, CORS, …), by name."""
        ...
