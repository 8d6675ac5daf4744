"""A bucket as a source: listing, reading many small objects at once, tags, its own settings.

Implements ``exporters.bucket_api.Bucket``; the errors of this side of the fence end here and go on as
``SourceError``s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import botocore.exceptions as boto_errors
from msgspec.structs import replace

from exporters.bucket_api import (
    NULL_VERSION,
    Bound,
    Fetched,
    ObjectPart,
    ObjectSummary,
    Page,
    Position,
    no_end,
)
from exporters.errors import (
    SourceChangedError,
    SourceError,
    SourceItemError,
)
from exporters.objects.server_quirks import Trait, has
from migrate.case.secrets import CUSTOMER_KEY
from migrate.errors import (
    ChangedError,
    GoneError,
    MoveoutError,
    NotAllowedError,
    UnreachableError,
)
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.checksums import crc64nvme
from migrate.storage.multipart import part_sizes
from migrate.storage.retry import Note
from migrate.storage.s3 import client
from migrate.storage.s3.errors import as_source_errors, http_date, source_error
from migrate.storage.s3.http.client import HttpClient
from migrate.storage.s3.http.concurrent_requests import Answer, Job, Requests
from migrate.storage.s3.http.messages import (
    Headers,
    Request,
    Response,
    concerns_bucket,
    error_code,
    xml_request,
)
from migrate.storage.s3.http.read_responses import (
    acl_query,
    checked,
    parse_parts,
    parse_tags,
    parts_request,
    read_range,
    read_ranges,
    read_request,
    tags_request,
    which,
)
from migrate.storage.s3.listing.pages import (
    PAGE_KEYS,
    Pages,
    objects_request,
    parse_objects,
    parse_versions,
    parsed,
    versioning_status,
    versions_request,
)
from migrate.storage.s3.metadata import acl as s3_acl
from migrate.storage.s3.metadata.bucket_configuration import (
    NO_SUCH_CALL,
    read_configuration,
    read_setting,
    unless_it_fails,
)
from migrate.storage.s3.metadata.customer_keys import (
    GIVE_KEY,
    CustomerKey,
    is_about_key,
    is_encrypted,
    needs_key,
)

EXPEDITED, STANDARD_TIER = "Expedited", "Standard"
_UNDER_WAY = "RestoreAlreadyInProgress"
_BODY = (
    '<RestoreRequest xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Days>{days}</Days>'
    "<GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters></RestoreRequest>"
)


_OF_PARTS = re.compile(r"[0-9a-f]{32}-[1-9][0-9]{0,4}")
_PARTS_ASKED = 200
_AMAZON = re.compile(r"amazonaws\.com(?:\.cn)?(?=[:/]|$)")
_SETTLES_SECONDS = 3.0
"""More than that is no question of rounded seconds: clocks differ."""
_AS_STORED = {"Accept-Encoding": "gzip"}


class S3Bucket:
    """See ``exporters.bucket_api.Bucket``. ``requests``, ``listing`` and ``boto`` are for the writing side."""

    crc64nvme = staticmethod(crc64nvme)

    def __init__(
        self,
        s3_location: client.S3Location,
        cancellation: CancellationToken | None = None,
        *,
        note: Note | None = None,
    ) -> None:
        self.s3_location = s3_location
        self.cancellation = cancellation or CancellationToken()
        self.name = s3_location.bucket
        self.prefix = s3_location.folder
        self.url = s3_location.url
        self.http = HttpClient.of(s3_location)
        self.boto = self.http.boto
        self.requests = Requests(self.http, self.cancellation, note=note)
        self.listing = Pages(self.requests, self.url)
        encoded = s3_location.secrets.get(CUSTOMER_KEY)
        self._customer_key = CustomerKey(encoded) if encoded else None
        self.server = ""
        self._no_tags = self._counts_tags = self._takes_gzip = False
        self._lists_parts: bool | None = None
        self._acls: bool | None = None
        self._first_key = ""

    def check(self) -> None:
        """Prove that the bucket can be listed. Raises ``MoveoutError``, at once."""
        try:
            response = self.requests.retry.ask_once(
                lambda: self.http.call(objects_request(self.prefix, "", "", 1))
            )
        except GoneError as exc:
            raise GoneError(
                f"there is no bucket {self.name!r} at {self.boto.meta.endpoint_url}",
                next_step="check its name, and that it is a bucket of this server",
            ) from exc
        self.server = response.headers.get("server", "")
        self._counts_tags = has(self.server, Trait.COUNTS_TAGS)
        self._first_key = next(iter(parse_objects(response.body).keys), "")
        if not self._counts_tags and self._first_key:
            self._no_tags = not self._knows(
                Request("GetObjectTagging", "GET", self._first_key, {"tagging": ""})
            )

    @property
    def identity(self) -> str:
        """See ``Bucket.identity``."""
        address = f"s3:{self.boto.meta.endpoint_url}/{self.name}/{self.prefix}"
        return f"{address}\n{self.own_name}/{self.prefix}" if self.own_name else address

    @cached_property
    def own_name(self) -> str:
        """What the server says which bucket this is, whatever leads to it; "" where it does not say. The names of
        Amazon's buckets are unique in a partition (Amazon S3 user guide, "Bucket naming rules"), and the dates that it
        says change. Elsewhere two servers may have the same owner and name, but not made at the same millisecond.
        """
        endpoint = str(self.boto.meta.endpoint_url)
        if amazon := _AMAZON.search(endpoint):
            return f"s3:{'gov.' if '.us-gov-' in endpoint else ''}{amazon[0]}/{self.name}"
        if not has(self.server, Trait.KEEPS_CREATION):
            return ""
        try:
            response = self.boto.list_buckets()
        except (boto_errors.ClientError, boto_errors.BotoCoreError, OSError, TypeError):
            return ""  # TypeError: botocore 1.43 cannot follow a redirect of this call
        buckets = response.get("Buckets", ())
        made = next((item["CreationDate"] for item in buckets if item["Name"] == self.name), None)
        owner = response.get("Owner", {}).get("ID")
        return f"s3:{owner}/{self.name} of {made.isoformat()}" if made and owner else ""

    def _knows(self, request: Request, is_answer: Callable[[bytes], bool] = lambda _: True) -> bool:
        """Tell whether the server has such a call at all; some answer with something else."""
        try:
            response = unless_it_fails(lambda: self.http.call(request), self.cancellation)
        except (NotAllowedError, GoneError):
            return True
        except UnreachableError:
            raise
        except MoveoutError:
            return False
        return is_answer(response.body)

    def fetch(self, summaries: Iterable[ObjectSummary], *, window_bytes: int) -> Iterator[Fetched]:
        """See ``Bucket.fetch``."""
        return self._read(summaries, window_bytes=window_bytes, body=True)

    def head(self, summary: ObjectSummary) -> Fetched:
        """See ``Bucket.head``."""
        return next(iter(self.heads([summary])))

    def heads(self, summaries: Iterable[ObjectSummary]) -> Iterator[Fetched]:
        """``head`` of many, in order."""
        return self._read(summaries, window_bytes=0, body=False)

    def _read(
        self, summaries: Iterable[ObjectSummary], *, window_bytes: int, body: bool
    ) -> Iterator[Fetched]:
        """Read objects, many at once, in order, with the customer's key where there is one and it is needed."""
        key = self._customer_key
        requests = ((summary, self._read_request(summary, body=body)) for summary in summaries)
        jobs = (Job(summary, key.likely(request) if key else request) for summary, request in requests)
        with as_source_errors(self.url):
            for answer in self.requests.run(jobs, window_bytes=window_bytes, follow_up=self._ask_tags):
                keyed = answer if key is None else self._by_key(key, answer)
                yield self._fetched(self._as_stored(keyed, body=body), body=body)

    def _read_request(self, summary: ObjectSummary, *, body: bool = True, whole: bool = True) -> Request:
        request = read_request(summary, body=body, whole=whole)
        return _otherwise_encoded(request) if self._takes_gzip else request

    def _as_stored(self, answer: Answer[ObjectSummary], *, body: bool) -> Answer[ObjectSummary]:
        """Return the answer of the size that was listed. Some servers, and networks before them, decompress what has
        the Content-Encoding gzip, and name no size, where a request does not say that it takes gzip. Others compress
        where it says so. Later requests are like the one that was answered right.
        """
        size_bytes = answer.item.size_bytes
        if answer.response is None:
            return answer
        came_bytes = _size_of(answer.response, body=body)
        # Other headers are those of another object.
        if came_bytes == size_bytes or not (body or came_bytes is None):
            return answer
        request = _otherwise_encoded(answer.request)
        stored = self.requests.again(Job(answer.item, request), self._ask_tags)
        if stored.response is None or _size_of(stored.response, body=body) != size_bytes:
            return answer
        self._takes_gzip = _AS_STORED.keys() <= request.headers.keys()
        return stored

    def _by_key(self, key: CustomerKey, answer: Answer[ObjectSummary]) -> Answer[ObjectSummary]:
        """Return the answer to a request; that to the other one, with the key or without, where it was refused."""
        if answer.error is None:
            key.learn(answer.request)
        elif is_about_key(answer.error):
            other = key.other(answer.request)
            second_answer = self.requests.again(Job(answer.item, other), self._ask_tags)
            if second_answer.error is None:
                key.learn(other)
                return second_answer
            if is_encrypted(other.headers):  # the answer to the request with the key says more
                return second_answer
        return answer

    def _keyed(self, summary: ObjectSummary, request: Request) -> Request:
        """Return a request for an object with the customer's key, if the object needs it."""
        key = self._customer_key
        return key.with_key(request) if key and is_encrypted(self.head(summary).headers) else request

    @property
    def has_acls(self) -> bool:
        """See ``Bucket.has_acls``. Buckets of S3 have none unless they are old or somebody has changed that."""
        if self._acls is None:
            request = Request("GetObjectAcl", "GET", self._first_key, {"acl": ""})
            with as_source_errors(self.url):
                known = (
                    not has(self.server, Trait.NO_ACLS)
                    and bool(self._first_key)
                    and self._knows(request, _is_acl)
                )
                self._acls = known and not self._owner_enforced()
        return self._acls

    def _owner_enforced(self) -> bool:
        try:
            setting = read_setting(self.http, "ownership", self.cancellation)
        except MoveoutError:
            return False
        rules = setting.get("OwnershipControls", {}).get("Rules", [])
        return any(rule.get("ObjectOwnership") == "BucketOwnerEnforced" for rule in rules)

    def acls(self, versions: Iterable[tuple[str, str]]) -> Iterator[tuple[str | None, SourceError | None]]:
        """See ``Bucket.acls``. A server that has none at all is not asked again."""
        jobs = (
            Job(version, Request("GetObjectAcl", "GET", version[0], acl_query(version[1])))
            for version in versions
        )
        with as_source_errors(self.url):
            for answer in self.requests.run(jobs, window_bytes=0, long_retries=False):
                acl = None if answer.response is None else s3_acl.parse(answer.response.body)
                if acl is not None:
                    yield s3_acl.to_text(acl), None
                elif answer.error is None:
                    yield None, SourceItemError(f"{answer.item[0]}: the answer is no ACL")
                elif error_code(answer.error) in NO_SUCH_CALL:
                    self._acls = False
                    yield None, None
                else:
                    yield None, source_error(answer.error)

    def thaw(self, tiers: Iterable[tuple[ObjectSummary, str]], *, days: int) -> Iterator[SourceError | None]:
        """See ``Bucket.thaw``: RestoreObject. Expedited may not be available; then it is asked for by Standard."""
        jobs = (
            Job((summary, tier), restore_request(summary.key, which(summary), days, tier))
            for summary, tier in tiers
        )
        with as_source_errors(self.url):
            for answer in self.requests.run(jobs, window_bytes=0):
                error = answer.error
                if error is not None and answer.item[1] == EXPEDITED:
                    summary = answer.item[0]
                    request = restore_request(summary.key, which(summary), days, STANDARD_TIER)
                    error = next(self.requests.run([Job(answer.item, request)], window_bytes=0)).error
                yield None if error is None or is_under_way(error) else source_error(error)

    def pause(self, seconds: float) -> bool:
        """See ``Bucket.pause``."""
        return not self.cancellation.wait(seconds)

    def read_range(self, summary: ObjectSummary, start: int, length: int) -> bytes:
        """See ``Bucket.read_range``."""
        with as_source_errors(self.url):
            request = self._keyed(summary, self._read_request(summary, whole=False))
            return read_range(self.requests, request, summary, start, length)

    def stream(self, summary: ObjectSummary, *, part_bytes: int, window_bytes: int) -> Iterator[bytes]:
        """See ``Bucket.stream``."""
        return self.stream_parts(
            summary, part_sizes(summary.size_bytes, part_bytes), window_bytes=window_bytes
        )

    def stream_parts(
        self, summary: ObjectSummary, sizes: Sequence[int], *, window_bytes: int
    ) -> Iterator[bytes]:
        """``stream`` in ranges of these sizes."""
        parts = self.read_parts(summary, sizes, window_bytes=window_bytes)
        with as_source_errors(self.url):
            while (body := _own_fault(parts)) is not None:
                yield body

    def read_parts(
        self, summary: ObjectSummary, sizes: Sequence[int], *, window_bytes: int
    ) -> Iterator[bytes]:
        """Do the work of ``stream_parts``. Raises ``MoveoutError``. What does not even begin as it was asked for is
        asked for as it is stored, see ``_as_stored``.
        """
        if len(sizes) > 1 and not summary.etag:
            self._let_settle(summary)
        request = self._keyed(summary, self._read_request(summary, whole=False))
        try:
            bodies = read_ranges(self.requests, request, summary, sizes, window_bytes=window_bytes)
            first = next(bodies, b"")
        except (UnreachableError, NotAllowedError, GoneError):
            raise
        except MoveoutError:
            request = _otherwise_encoded(request)
            bodies = read_ranges(self.requests, request, summary, sizes, window_bytes=window_bytes)
            first = next(bodies, b"")
        if sizes:
            yield first
        yield from bodies

    def _let_settle(self, summary: ObjectSummary) -> None:
        """Wait until what replaces an object has another time: that is of whole seconds, and nothing else tells parts
        of the one from parts of the other where there is no ETag.
        """
        at_server = http_date(self.head(summary).headers.get("date", ""))
        seconds = math.ceil(summary.modified.timestamp()) + 1 - at_server.timestamp()
        if 0 < seconds <= _SETTLES_SECONDS:
            self.cancellation.wait(seconds)

    @property
    def not_utf_8(self) -> Collection[str]:
        """See ``Bucket.not_utf_8``."""
        return self.listing.not_utf_8

    @property
    def lists_in_order(self) -> bool:
        """See ``Bucket.lists_in_order``."""
        return not has(self.server, Trait.OUT_OF_ORDER)

    @property
    def lists_from_anywhere(self) -> bool:
        """See ``Bucket.lists_from_anywhere``."""
        return not has(self.server, Trait.WALKS_ON)

    def pages(
        self,
        *,
        versions: bool,
        after: Position = ("", ""),
        until: Bound = no_end,
        other_pages: bool = False,
    ) -> Iterator[Page]:
        """See ``Bucket.pages``."""
        with as_source_errors(self.url):
            if versions:
                yield from self.listing.versions(self.prefix, after, until, other_pages=other_pages)
            else:
                yield from self.listing.objects(self.prefix, after[0], until, other_pages=other_pages)

    def names(self, directory: str, after: str) -> tuple[Sequence[str], bool]:
        """See ``Bucket.names``."""
        with as_source_errors(self.url):
            return self.listing.names(directory, after)

    def first_behind(self, after: str, until: str | None) -> str | None:
        """See ``Bucket.first_behind``."""
        with as_source_errors(self.url):
            return self.listing.first_behind(self.prefix, after, until)

    def list(self, *, start_after: str = "") -> Iterator[ObjectSummary]:
        """See ``Bucket.list``."""
        for page in self.pages(versions=False, after=(start_after, "")):
            yield from page.rows()

    def list_versions(self, *, after: tuple[str, str] = ("", "")) -> Iterator[ObjectSummary]:
        """See ``Bucket.list_versions``."""
        for page in self.pages(versions=True, after=after):
            yield from page.rows()

    def keeps_versions(self) -> bool | None:
        """See ``Bucket.keeps_versions``."""
        with as_source_errors(self.url):
            try:
                response = self.requests.call(Request("GetBucketVersioning", "GET", query={"versioning": ""}))
            except UnreachableError:
                raise
            except MoveoutError:
                return self._shows_versions()
            status = versioning_status(response.body)
            return self._shows_versions() if status is None else bool(status)

    def _shows_versions(self) -> bool | None:
        """Look at the listing of versions where the setting may not or cannot be read. If its first page shows none and
        is not all, there may be some behind it.
        """
        try:
            response = self.requests.call(versions_request(self.prefix, ("", ""), PAGE_KEYS))
        except NotAllowedError:
            return None
        except UnreachableError:
            raise
        except MoveoutError:  # the server supports no versions
            return False
        root = parsed(response.body)
        page = parse_versions(root)
        goes_on = root.findtext("{*}IsTruncated") == "true"
        return goes_on or any(version != NULL_VERSION for version in page.versions)

    def parts(self, summary: ObjectSummary) -> Sequence[ObjectPart]:
        """See ``Bucket.parts``. Where the server does not list them, each is asked for by its number."""
        count = int(summary.etag.rpartition("-")[2]) if _OF_PARTS.fullmatch(summary.etag) else 0
        if count < 2:
            return [ObjectPart(1, summary.size_bytes)] * count
        with as_source_errors(self.url):
            listed = self._listed_parts(summary)
            if len(listed) != count or sum(part.size_bytes for part in listed) != summary.size_bytes:
                listed = list(map(ObjectPart, range(1, count + 1), self._asked_sizes(summary, count)))
        return listed

    def _listed_parts(self, summary: ObjectSummary) -> Sequence[ObjectPart]:
        """Return the parts as GetObjectAttributes lists them; many servers do so only for uploads with checksums."""
        parts: list[ObjectPart] = []
        if self._lists_parts is None:
            self._lists_parts = self._knows(parts_request(summary, 0))
        while self._lists_parts:
            after = parts[-1].number if parts else 0
            try:
                request = self._keyed(summary, parts_request(summary, after))
                page = parse_parts(self.requests.call(request))
            except UnreachableError:
                raise
            except MoveoutError as exc:
                self._lists_parts = isinstance(exc, GoneError)
                return ()
            new_parts = [part for part in page if part.number > after]
            if not new_parts:
                break
            parts += new_parts
        self._lists_parts = bool(parts)
        return parts

    def _asked_sizes(self, summary: ObjectSummary, count: int) -> Sequence[int]:
        """Ask for each part, of very many only for the first and the last; none where the answers do not add up."""
        first = next(self._part_sizes(summary, [1]))
        if first is None:
            return ()
        if count > _PARTS_ASKED:
            last = summary.size_bytes - (count - 1) * first
            is_so = 0 <= last <= first and next(self._part_sizes(summary, [count])) in {None, last}
            return [first] * (count - 1) + [last] if is_so else ()
        answered_sizes = [first, *self._part_sizes(summary, range(2, count + 1))]
        sizes = [size for size in answered_sizes if size is not None]
        if answered_sizes[-1] is None:  # some servers do not answer for an empty one
            sizes.append(0)
        return sizes if len(sizes) == count and sum(sizes) == summary.size_bytes else ()

    def _part_sizes(self, summary: ObjectSummary, numbers: Iterable[int]) -> Iterator[int | None]:
        """Yield the sizes of parts; None where the server does not report them."""
        request = self._keyed(summary, Request("HeadObject", "HEAD", summary.key))
        queries = (which(summary) | {"partNumber": str(number)} for number in numbers)
        jobs = (Job(None, replace(request, query=query)) for query in queries)
        for answer in self.requests.run(jobs, window_bytes=0):
            if isinstance(answer.error, UnreachableError):
                raise answer.error
            length = -1 if answer.response is None else int(answer.response.headers.get("content-length", -1))
            yield length if 0 <= length <= summary.size_bytes else None

    def tags_readable(self, samples: Sequence[ObjectSummary]) -> bool:
        """See ``Bucket.tags_readable``."""
        jobs = (Job(summary, tags_request(summary)) for summary in samples)
        with as_source_errors(self.url):
            for answer in self.requests.run(jobs, window_bytes=0):
                if isinstance(answer.error, NotAllowedError):
                    return False
                if answer.error is None or isinstance(answer.error, GoneError | UnreachableError):
                    continue  # an error of this object alone, or reading it shows it
                self._no_tags = True
                return error_code(answer.error) in NO_SUCH_CALL
        return True

    def configuration(self) -> Mapping[str, Any]:
        """See ``Bucket.configuration``."""
        with as_source_errors(self.url):
            return read_configuration(self.http, self.cancellation)

    def _ask_tags(self, summary: ObjectSummary, headers: Headers) -> Request | None:
        count = headers.get("x-amz-tagging-count")
        if count is None and (self._no_tags or self._counts_tags):
            return None
        return None if count == "0" else tags_request(summary)

    def _fetched(self, answer: Answer[ObjectSummary], *, body: bool) -> Fetched:
        summary, response = answer.item, answer.response
        if response is None:
            error = answer.error or GoneError(summary.key)
            if needs_key(error):
                error = MoveoutError(f"{error}; {GIVE_KEY}")
            return Fetched(summary, error=source_error(error))
        try:
            crc = checked(response, summary) if body else None
            tags = parse_tags(answer.follow_up, summary.key) if answer.follow_up is not None else {}
        except MoveoutError as exc:
            return Fetched(summary, error=source_error(exc))
        return Fetched(summary, response.body, response.headers, tags, crc64nvme=crc)


def open_bucket(
    url: str,
    *,
    secrets: Mapping[str, str] | None = None,
    cancellation: CancellationToken | None = None,
    note: Note | None = None,
    connections: int = 0,
) -> S3Bucket:
    """Open the bucket of ``s3://bucket/prefix?profile=NAME`` and prove that it can be listed. ``note`` is called where
    it does not answer for long. Somebody needs so many ``connections`` at once.

    Raises ``SourceError``s: a wrong URL (2), credentials (4), no answer (5), no such bucket (7).
    """
    with as_source_errors(url.partition("?")[0]):
        bucket = S3Bucket(client.parse(url, secrets=secrets), cancellation, note=note)
        with ThreadPoolExecutor(1, thread_name_prefix="moveout-open") as threads:
            threads.submit(bucket.http.warm, connections)
            bucket.check()
        return bucket


def is_same_bucket(bucket: S3Bucket, other: S3Bucket) -> bool:
    """Tell whether both are one bucket, also where different endpoints lead to it; both are then asked at once."""
    if bucket.name != other.name:
        return False
    if bucket.boto.meta.endpoint_url == other.boto.meta.endpoint_url:
        return True
    with ThreadPoolExecutor(2, thread_name_prefix="moveout-names") as threads:
        own_names = list(threads.map(lambda each: each.own_name, (bucket, other)))
    return bool(own_names[0]) and own_names[0] == own_names[1]


def _is_acl(body: bytes) -> bool:
    return s3_acl.parse(body) is not None


def _otherwise_encoded(request: Request) -> Request:
    """Return a request that says that it takes gzip; one that does not say so where it does."""
    headers = {**request.headers, **_AS_STORED}
    if headers == request.headers:
        headers = {name: value for name, value in headers.items() if name not in _AS_STORED}
    return replace(request, headers=headers)


def _size_of(response: Response, *, body: bool) -> int | None:
    """Return the size of an object by its body, or by its headers; None where they do not say it."""
    if body:
        return response.announced_bytes
    size = response.headers.get("content-length", "")
    return int(size) if size.isdecimal() else None


def _own_fault(parts: Iterator[bytes]) -> bytes | None:
    """Return the next part. What is the object's fault alone is no outage."""
    try:
        return next(parts, None)
    except MoveoutError as exc:
        if isinstance(exc, UnreachableError) or concerns_bucket(exc):
            raise
        kind = SourceChangedError if isinstance(exc, ChangedError | GoneError) else SourceItemError
        error = source_error(exc)
        raise kind(error.explanation, about=error.about, next_step=exc.next_step) from exc


def restore_request(key: str, which: Mapping[str, str], days: int, tier: str) -> Request:
    """Return the request that asks for an object (``which``: its version) by a tier."""
    text = _BODY.format(days=days, tier=tier)
    return xml_request("RestoreObject", "POST", key, {"restore": "", **which}, text)


def is_under_way(error: MoveoutError) -> bool:
    """Tell whether it was asked for before."""
    return error_code(error) == _UNDER_WAY
