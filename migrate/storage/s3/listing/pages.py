"""Listings of a bucket, page by page: objects, or all versions and delete markers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import unquote_plus

from exporters.bucket_api import Bound, Page, Position, beginning, no_end
from migrate.errors import UnreachableError
from migrate.storage.s3.http.client import PendingResponse
from migrate.storage.s3.http.concurrent_requests import Requests
from migrate.storage.s3.http.messages import Request
from migrate.storage.s3.listing.page_parser import (
    encodes,
    last_key,
    parse_names,
    parse_objects,
    parse_versions,
    parsed,
)

PAGE_KEYS = 1000
"""S3's maximum for one page of a listing."""
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]+)</NextContinuationToken>")
_BREAKS_OFF = "the listing breaks off without saying how to go on"
_PLAIN = re.compile(r"(?!.*(?:^|/)\.{0,2}/)[^\0-\x1f\x7f-\x9f\ufffd]*", re.DOTALL)
"""Prefixes that every server takes as they are: no empty segments, none of dots, no control characters."""


class Pages:
    """The listings of one bucket, each one page ahead of its reader. Raises ``MoveoutError``."""

    def __init__(self, requests: Requests, url: str) -> None:
        self._requests = requests
        self._url = url

    def objects(self, prefix: str, start_after: str = "", until: Bound = no_end) -> Iterator[Page]:
        """Yield what a plain listing shows: ListObjectsV2; see ``Bucket.pages`` for ``until``."""
        prefix = longest_directory(prefix, start_after, until())
        request = objects_request(
            prefix, start_after if start_after.startswith(prefix) else "", "", PAGE_KEYS
        )
        ahead = self._requests.http.begin(request)
        while True:
            body = self._body(request, ahead)
            token = token_behind(body, self._url)
            if token and (bound := until()) is not None and (last_key(body) or "") >= bound:
                token = ""
            if token:
                request = objects_request(prefix, "", token, PAGE_KEYS)
                # The server works on it while this page is parsed and used.
                ahead = self._requests.http.begin(request)
            yield parse_objects(body)
            if not token:
                return

    def versions(self, prefix: str, after: Position = ("", ""), until: Bound = no_end) -> Iterator[Page]:
        """Yield versions and delete markers, those behind ``after``: ListObjectVersions; see ``Bucket.pages``."""
        prefix = longest_directory(prefix, after[0], until())
        marker = after if after[0].startswith(prefix) else ("", "")
        request = versions_request(prefix, marker, PAGE_KEYS)
        ahead = self._requests.http.begin(request)
        while True:
            root = parsed(self._body(request, ahead))
            page = parse_versions(root)
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
            following = (unquote_plus(key, errors="strict") if encodes(root) else key, version)
            if following in {marker, ("", "")}:
                raise self._broken()
            marker = following
            request = versions_request(prefix, marker, PAGE_KEYS)
            ahead = self._requests.http.begin(request)
            yield page

    def names(self, directory: str, after: str) -> tuple[list[str], bool]:
        """See ``Bucket.names``."""
        request = objects_request(directory, after if after.startswith(directory) else "", "", PAGE_KEYS, "/")
        root = parsed(self._requests.call(request).body)
        names = [name for name in parse_names(root) if name > after]
        return names, root.findtext("{*}IsTruncated") != "true"

    def first_behind(self, prefix: str, after: str, until: str | None) -> str | None:
        """See ``Bucket.first_behind``; within a prefix."""
        prefix = longest_directory(prefix, after, until)
        request = objects_request(prefix, after if after.startswith(prefix) else "", "", 1)
        keys = parse_objects(self._requests.call(request).body).keys
        return keys[0] if keys and (until is None or keys[0] <= until) else None

    def _body(self, request: Request, ahead: PendingResponse) -> bytes:
        try:
            return self._requests.wait(ahead).body
        except UnreachableError:
            return self._requests.call(request).body

    def _broken(self) -> UnreachableError:
        return UnreachableError(_BREAKS_OFF, about=self._url)


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
