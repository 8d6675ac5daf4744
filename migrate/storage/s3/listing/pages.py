"""Listings of a bucket, page by page: objects, or all versions and delete markers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from html import unescape
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree as ET

from exporters.bucket_api import NULL_VERSION, Bound, ObjectSummary, Page, Position, beginning, no_end
from exporters.lossless_text import bytes_of, is_utf_8, text_of
from migrate.errors import UnreachableError
from migrate.storage.s3.http.client import PendingResponse
from migrate.storage.s3.http.concurrent_requests import Requests
from migrate.storage.s3.http.messages import Request

STANDARD = "STANDARD"
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_TAGS = re.compile(rb"<[^<>]*>")
_BEGIN, _END, _WHOLE = b"<Contents>", b"</Contents>", b"</ListBucketResult>"
_FIELDS = (b"Key", b"Size", b"ETag", b"LastModified", b"StorageClass")
_NEEDED = frozenset({b"Key", b"Size", b"LastModified"})
_ENTITIES = (b"&#34;", b"&quot;", b"&amp;", b"&lt;", b"&gt;", b"&#39;", b"&apos;")
_QUOTES = ("&#34;", "&quot;")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\udc80-\udcff]|(?<=[^<>\s])\r|\r(?=[^<>\s])")
"""What XML cannot carry: control characters, bytes that are not UTF-8, and a carriage return within text."""
_STAND_IN = re.compile("[\U000f0000-\U000f00ff]")
_PRIVATE = 0xF0000
"""Here characters begin that mean nothing: they stand for the forbidden ones while XML is parsed."""
_MEANT = {
    **{_PRIVATE + number: number for number in range(32)},
    **{_PRIVATE + number: 0xFFDE + number for number in (0x20, 0x21)},
    **{_PRIVATE + number: 0xDC00 + number for number in range(0x80, 0x100)},
}
_STANDS_FOR = {meant: stand_in for stand_in, meant in _MEANT.items()}
_CONTROLS = bytes({*range(32)} - {9, 10})


def parse_objects(body: bytes) -> Page:
    """Return the objects on a page of ListObjectsV2. Keys are decoded where the server says that they are
    encoded (as in a query: ``+`` is a space); versitygw is asked for that and does not. What of them is not UTF-8 is
    as ``text_of`` has it. Raises what unreadable pages raise.
    """
    page = _by_pattern(body)
    return _objects(parsed(body)) if page is None else page


def parsed(body: bytes) -> Any:
    """Return the root of an answer. What XML cannot carry, and some servers send all the same, is kept. Raises
    ``ET.ParseError``, also where it is no listing: a page of a proxy would pass for an empty one.
    """
    try:
        root = _parsed_exactly(body) if b"\r" in body else ET.fromstring(body)  # noqa: S314 - as below
    except ET.ParseError:
        root = _parsed_exactly(body)
    if not root.tag.endswith("Result"):
        raise ET.ParseError(f"it is <{root.tag}>, which is not S3's")
    return root


def _parsed_exactly(body: bytes) -> Any:
    """Parse what XML cannot carry as it is. Raises ``ET.ParseError``."""
    text = text_of(body)
    if not _FORBIDDEN.search(text) or _STAND_IN.search(text):
        return ET.fromstring(body)  # noqa: S314 - expat expands no external entities
    root = ET.fromstring(_FORBIDDEN.sub(_stand_in, text))  # noqa: S314 - as above
    for element in root.iter():
        if element.text:
            element.text = element.text.translate(_MEANT)
    return root


def _stand_in(match: re.Match[str]) -> str:
    return chr(_STANDS_FOR[ord(match[0])])


def last_key(body: bytes) -> str | None:
    """Return the last key on a page, by a glance at its bytes; None where there is none to be seen."""
    begin, end = body.rfind(b"<Key>") + 5, body.rfind(b"</Key>")
    return _decoder(body)([body[begin:end]])[0] if 5 <= begin <= end and _is_simple(body) else None


def parse_names(root: Any) -> list[str]:
    """Return the keys and the directories (with their slash) on a page of a listing with a delimiter, in order."""
    encoded = encodes(root)
    keys = [_fields(contents, encoded=encoded)["Key"] for contents in root.iterfind("{*}Contents")]
    directories = [directory.text or "" for directory in root.iterfind("{*}CommonPrefixes/{*}Prefix")]
    return sorted(
        keys
        + (
            [unquote_plus(directory, errors="surrogateescape") for directory in directories]
            if encoded
            else directories
        )
    )


def _by_pattern(body: bytes) -> Page | None:
    """Read a page whose rows all look like its first one: a tenth of the time that parsing XML takes. None where they
    do not, or where nothing shows it.
    """
    begin = body.find(_BEGIN)
    end = body.find(_END, begin)
    if begin < 0 or end < 0 or not _is_simple(body):
        return None
    page_pattern = _pattern(tuple(_TAGS.findall(body[begin : end + len(_END)])))
    if page_pattern is None:
        return None
    pattern, names = page_pattern
    rows = pattern.findall(body)
    if len(rows) != body.count(_BEGIN):
        return None
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    count = len(rows)
    return Page(
        keys=_decoder(body)(columns[b"Key"]),
        sizes=list(map(int, columns[b"Size"])),
        etags=_texts(columns.get(b"ETag", (b"",) * count), without='"'),
        modified=list(map(datetime.fromisoformat, _texts(columns[b"LastModified"]))),
        classes=_classes(columns.get(b"StorageClass", (b"",) * count)),
    )


def _is_simple(body: bytes) -> bool:
    """Tell whether a page has nothing in it that only a parser of XML understands: comments, CDATA, references to
    characters, line ends that are to be taken for others.
    """
    rest = body.count(b"&")
    for entity in _ENTITIES:
        if not rest:
            break
        rest -= body.count(entity)
    plain = not rest and b"<!" not in body
    return plain and body.rstrip().endswith(_WHOLE) and len(body.translate(None, _CONTROLS)) == len(body)


@lru_cache(maxsize=64)
def _pattern(tags: tuple[bytes, ...]) -> tuple[re.Pattern[bytes], tuple[bytes, ...]] | None:
    """Return what matches a row of these tags, and the fields that its groups are. None where a row is of another
    making than S3's.
    """
    names, out, depth = [], [], 0
    for tag in tags:
        name = tag[1:-1]
        closes = name.startswith(b"/")
        depth -= closes
        out.append(re.escape(tag))
        is_field = depth == 1 and not closes and name in _FIELDS
        if is_field:
            names.append(name)
        out.append(b"([^<]*)" if is_field else b"[^<]*")
        depth += not closes and not name.endswith(b"/")
    if depth or len(set(names)) != len(names) or not set(names) >= _NEEDED:
        return None
    return re.compile(b"".join(out[:-1])), tuple(names)


def _texts(values: Sequence[bytes], *, without: str = "") -> list[str]:
    """Decode many values at once, and leave out a character; XML holds no NUL."""
    joined = text_of(b"\0".join(values))
    if "&" in joined:
        # Two of them around each ETag: to look up one by one what they are took half of the time.
        for quote in _QUOTES:
            joined = joined.replace(quote, '"')
    joined = unescape(joined) if "&" in joined else joined
    return (joined.replace(without, "") if without else joined).split("\0")


def _decoder(body: bytes) -> Callable[[Sequence[bytes]], list[str]]:
    """Return what makes keys of what stands on this page."""
    if b"<EncodingType>url</EncodingType>" not in body:
        return _texts

    def decode(values: Sequence[bytes]) -> list[str]:
        texts = _texts(values)
        return [
            unquote_plus(key, errors="surrogateescape") if "%" in key or "+" in key else key for key in texts
        ]

    return decode


def _classes(values: Sequence[bytes]) -> list[str]:
    if values.count(values[0]) == len(values):
        return [_texts(values[:1])[0] or STANDARD] * len(values)
    return [name or STANDARD for name in _texts(values)]


def _objects(root: Any) -> Page:
    encoded = encodes(root)
    rows = [_fields(contents, encoded=encoded) for contents in root.iterfind("{*}Contents")]
    return Page(
        keys=[row["Key"] for row in rows],
        sizes=[int(row["Size"]) for row in rows],
        etags=[row.get("ETag", "").strip('"') for row in rows],
        modified=[datetime.fromisoformat(row["LastModified"]) for row in rows],
        classes=[row.get("StorageClass") or STANDARD for row in rows],
    )


def parse_versions(root: Any) -> Page:
    """Return the versions and delete markers on a page of ListObjectVersions, by key, newest first."""
    encoded = encodes(root)
    page, kinds = [], []
    for element in root:
        kind = element.tag.rpartition("}")[2]
        if kind in {"Version", "DeleteMarker"}:
            kinds.append(kind)
            page.append(_version(_fields(element, encoded=encoded), is_marker=kind == "DeleteMarker"))
    if not _are_apart(kinds):
        return Page.of(page)
    ids = {row.version_id for row in page} - {NULL_VERSION}
    if ids and all(map(_ULID.fullmatch, ids)):
        return Page.of(_by_ulids(page))
    return Page.of(page if _in_order(page) else _interleaved(page))


def encodes(root: Any) -> bool:
    """Tell whether the keys of a page are encoded."""
    return bool(root.findtext("{*}EncodingType") == "url")


def _fields(row: Any, *, encoded: bool) -> dict[str, str]:
    """Return what a row of a listing says, by name, its key decoded."""
    fields = {element.tag.rpartition("}")[2]: element.text or "" for element in row}
    if encoded:
        fields["Key"] = unquote_plus(fields["Key"], errors="surrogateescape")
    return fields


def _version(fields: dict[str, str], *, is_marker: bool) -> ObjectSummary:
    return ObjectSummary(
        key=fields["Key"],
        size_bytes=0 if is_marker else int(fields["Size"]),
        etag="" if is_marker else fields.get("ETag", "").strip('"'),
        modified=datetime.fromisoformat(fields["LastModified"]),
        storage_class=fields.get("StorageClass") or STANDARD,
        version_id=fields.get("VersionId") or NULL_VERSION,
        is_latest=fields.get("IsLatest") == "true",
        is_delete_marker=is_marker,
    )


def _are_apart(kinds: list[str]) -> bool:
    """Tell whether all delete markers come after all versions (or before): then the server may not have put
    them in order.
    """
    return sum(left != right for left, right in pairwise(kinds)) == 1


def _in_order(page: list[ObjectSummary]) -> bool:
    return all(
        left.key < right.key
        or (left.key == right.key and left.modified >= right.modified and not right.is_latest)
        for left, right in pairwise(page)
    )


def _interleaved(page: list[ObjectSummary]) -> list[ObjectSummary]:
    """Put versions and delete markers that came one after the other in order."""
    page = sorted(page, key=lambda version: version.modified, reverse=True)
    page.sort(key=lambda version: (version.key, not version.is_latest))
    return page


def _by_ulids(page: list[ObjectSummary]) -> list[ObjectSummary]:
    """Put versions and delete markers of versitygw in order. Its times are those of files that it moves about, and of
    versions whole seconds, but its version ids are ULIDs, which begin with the time.
    """
    page = sorted(page, key=attrgetter("key"))
    return [row for _, rows in groupby(page, attrgetter("key")) for row in _of_one_key(list(rows))]


def _of_one_key(listed: list[ObjectSummary]) -> list[ObjectSummary]:
    """Return the rows of a key, which the server has ``listed``, newest first. The one without an id was written while
    versioning was off or suspended. It stands among its own kind where the server has it, and among the other kind by
    when they were replaced. In one second it counts as the older one (see ``Trait.MARKERS_APART``).
    """
    rows = [row for row in listed if row.version_id != NULL_VERSION]
    rows.sort(key=attrgetter("version_id"), reverse=True)
    for number, row in enumerate(listed):
        if row.version_id == NULL_VERSION:
            second = row.modified.replace(microsecond=0)
            newer = {
                each.version_id for each in listed[:number] if each.is_delete_marker == row.is_delete_marker
            }
            rows.insert(sum(_is_newer(each, row, newer, second) for each in rows), row)
    return sorted(rows, key=lambda row: not row.is_latest)


def _is_newer(other: ObjectSummary, row: ObjectSummary, newer: set[str], second: datetime) -> bool:
    if other.is_delete_marker == row.is_delete_marker:
        return other.version_id in newer
    return other.modified >= second


PAGE_KEYS = 1000
"""S3's maximum for one page of a listing; some servers have a lower one."""
OTHER_FIRST_KEYS = 7
"""With so short a first page all others are cut otherwise, whatever the server's maximum: no two ends of pages of the
two listings are the same.
"""
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]+)</NextContinuationToken>")
_END_BYTES = 40
_BREAKS_OFF = "the listing breaks off without saying how to go on"
_REPEATED = "the listing does not end: it goes on where it has been"
_ASK = "run the same command again; if it happens again, ask who runs the server"
_MOST_NOTED = 100_000
_PLAIN = re.compile(r"(?!.*(?:^|/)\.{0,2}/)[^\0-\x1f\x7f-\x9f\ufffd]*", re.DOTALL)
"""Prefixes that every server takes as they are: no empty segments, none of dots, no control characters."""


class LoopDetector:
    """Notices where the pages of a listing of ``what`` repeat themselves, as some servers do: it would not end."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._seen: Any = None
        self._steps, self._most_steps = 0, 1

    def note(self, where: Any) -> None:
        """Note where the next page begins. Raises ``UnreachableError`` where an earlier one has begun there: one is
        kept, and another after twice as many (Brent's way to find a cycle).
        """
        if where == self._seen:
            raise UnreachableError(_REPEATED, about=self._what, next_step=_ASK)
        self._steps += 1
        if self._steps == self._most_steps:
            self._seen, self._steps, self._most_steps = where, 0, 2 * self._most_steps


def _new_rows(page: Page, before: Page | None) -> Page:
    """Return what of a page was not on the one before it: some servers begin with the last row of that again."""
    if before is None or not before.keys or not page.keys or page.keys[0] > before.keys[-1]:
        return page
    seen = set(zip(before.keys, before.versions or before.keys, strict=True))
    rows = list(zip(page.keys, page.versions or page.keys, strict=True))
    if seen.isdisjoint(rows):
        return page
    return page.choose([number for number, row in enumerate(rows) if row not in seen])


@contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except (ET.ParseError, ValueError) as exc:
        raise UnreachableError(f"the listing cannot be read: {exc}", about=what) from exc


class Pages:
    """The listings of one bucket, each one page ahead of its reader. ``not_utf_8``: see ``Bucket.not_utf_8``. Raises
    ``MoveoutError``.
    """

    def __init__(self, requests: Requests, url: str) -> None:
        self._requests = requests
        self._url = url
        self.not_utf_8: set[str] = set()

    def objects(
        self, prefix: str, start_after: str = "", until: Bound = no_end, *, other_pages: bool = False
    ) -> Iterator[Page]:
        """Yield what a plain listing shows: ListObjectsV2; see ``Bucket.pages``."""
        prefix = longest_directory(prefix, start_after, until())
        after = start_after if start_after.startswith(prefix) else ""
        request = objects_request(prefix, after, "", OTHER_FIRST_KEYS if other_pages else PAGE_KEYS)
        ahead = self._requests.http.begin(request)
        loops, before = LoopDetector(self._url), None
        while True:
            body = self._body(request, ahead)
            with _readable(self._url):
                token = token_behind(body, self._url)
            if token and (bound := until()) is not None and bytes_of(last_key(body) or "") >= bytes_of(bound):
                token = ""
            if token:
                loops.note(token)
                request = objects_request(prefix, "", token, PAGE_KEYS)
                # The server works on it while this page is parsed and used.
                ahead = self._requests.http.begin(request)
            with _readable(self._url):
                page = self._named(parse_objects(body))
            yield _new_rows(page, before)
            before = page
            if not token:
                return

    def versions(
        self, prefix: str, after: Position = ("", ""), until: Bound = no_end, *, other_pages: bool = False
    ) -> Iterator[Page]:
        """Yield versions and delete markers, those behind ``after``: ListObjectVersions; see ``Bucket.pages``."""
        prefix = longest_directory(prefix, after[0], until())
        marker = after if after[0].startswith(prefix) else ("", "")
        request = versions_request(prefix, marker, OTHER_FIRST_KEYS if other_pages else PAGE_KEYS)
        ahead = self._requests.http.begin(request)
        loops, before = LoopDetector(self._url), None
        while True:
            body = self._body(request, ahead)
            with _readable(self._url):
                root = parsed(body)
                whole_page = self._named(parse_versions(root))
            page, before = _new_rows(whole_page, before), whole_page
            bound = until()
            if root.findtext("{*}IsTruncated") != "true" or (
                bound is not None and page.keys and page.keys[-1] > bound
            ):
                yield page
                return
            key, version = (
                root.findtext("{*}NextKeyMarker") or "",
                root.findtext("{*}NextVersionIdMarker") or "",
            )
            following = (_marker(key, whole_page) if encodes(root) else key, version)
            if following == ("", ""):
                raise UnreachableError(_BREAKS_OFF, about=self._url)
            loops.note(following)
            request = versions_request(prefix, following, PAGE_KEYS)
            ahead = self._requests.http.begin(request)
            yield page

    def names(self, directory: str, after: str) -> tuple[list[str], bool]:
        """See ``Bucket.names``."""
        request = objects_request(directory, after if after.startswith(directory) else "", "", PAGE_KEYS, "/")
        root = parsed(self._requests.call(request).body)
        names = [name for name in parse_names(root) if name > after and is_utf_8(name)]
        return names, root.findtext("{*}IsTruncated") != "true"

    def first_behind(self, prefix: str, after: str, until: str | None) -> str | None:
        """See ``Bucket.first_behind``; within a prefix."""
        prefix = longest_directory(prefix, after, until)
        request = objects_request(prefix, after if after.startswith(prefix) else "", "", 1)
        keys = self._named(parse_objects(self._requests.call(request).body)).keys
        return keys[0] if keys and (until is None or keys[0] <= until) else None

    def _named(self, page: Page) -> Page:
        """Return the rows whose keys are UTF-8; the other keys are noted."""
        if is_utf_8("".join(page.keys)):
            return page
        odd_keys = [key for key in page.keys if not is_utf_8(key)]
        if len(self.not_utf_8) < _MOST_NOTED:
            self.not_utf_8.update(quote(bytes_of(key)) for key in odd_keys)
        return page.choose([number for number, key in enumerate(page.keys) if is_utf_8(key)])

    def _body(self, request: Request, ahead: PendingResponse) -> bytes:
        """Return a page, asked for again where it is not whole, or is somebody else's."""
        with suppress(UnreachableError):
            body = self._requests.wait(ahead).body
            if body[-_END_BYTES:].rstrip().endswith(b"Result>"):
                return body
        return self._requests.call(request).body


def versioning_status(body: bytes) -> str | None:
    """Return ``Enabled``, ``Suspended`` or nothing, as an answer to GetBucketVersioning says; None where it is another
    answer, which says nothing about versions.
    """
    try:
        root = ET.fromstring(body)  # noqa: S314 - as above
    except ET.ParseError:
        return None
    is_asked_for = "Versioning" in root.tag.rpartition("}")[2]  # moto names it otherwise than S3
    return root.findtext("{*}Status") or "" if is_asked_for else None


def _marker(key: str, page: Page) -> str:
    """Return the key by which a listing goes on behind a page of encoded keys. Ceph does not encode this one."""
    return key if page.keys and key == page.keys[-1] else unquote_plus(key, errors="surrogateescape")


def token_behind(body: bytes, what: str) -> str:
    """Return the token by which a listing of ``what`` goes on after a page of ListObjectsV2, empty after the last.
    Raises ``UnreachableError`` where it does not say, and what unreadable pages raise.
    """
    token = _next_token(body)
    if token is not None:
        return token
    root = parsed(body)
    if root.findtext("{*}IsTruncated") != "true":
        return ""
    if parsed_token := root.findtext("{*}NextContinuationToken"):
        return str(parsed_token)
    raise UnreachableError(_BREAKS_OFF, about=what)


def _next_token(body: bytes) -> str | None:
    """Return how to go on after a page, empty after the last, by a glance at its bytes; None where only parsing it can
    tell.
    """
    if b"<!" in body:
        return None
    if b"<IsTruncated>false</IsTruncated>" in body:
        return ""
    match = _TOKEN.search(body)
    if match is None or b"<IsTruncated>true</IsTruncated>" not in body:
        return None
    return unescape(match[1].decode())


def longest_directory(prefix: str, after: str, until: str | None) -> str:
    """Return the longest directory under which all keys between two lie: what begins alike stands together. Servers
    that walk through directories then walk through fewer.
    """
    if until is None:
        return prefix
    common = beginning(after, until)
    directory = common[: common.rfind("/") + 1]
    return directory if len(directory) > len(prefix) and _PLAIN.fullmatch(directory) else prefix


def objects_request(prefix: str, start_after: str, token: str, count: int, delimiter: str = "") -> Request:
    """Return the request of one page of objects."""
    query = {"list-type": "2", "encoding-type": "url", "max-keys": str(count)}
    parameters = {
        "prefix": prefix,
        "start-after": start_after,
        "continuation-token": token,
        "delimiter": delimiter,
    }
    query |= {name: value for name, value in parameters.items() if value}
    return Request("ListObjectsV2", "GET", query=query)


def versions_request(prefix: str, after: tuple[str, str], count: int) -> Request:
    """Return the request of one page of versions."""
    query = {"versions": "", "encoding-type": "url", "max-keys": str(count)}
    parameters = {"prefix": prefix, "key-marker": after[0], "version-id-marker": after[1] if after[0] else ""}
    query |= {name: value for name, value in parameters.items() if value}
    return Request("ListObjectVersions", "GET", query=query)
