"""Listings of a bucket, page by page: objects, or all versions and delete markers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from html import unescape
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

from exporters.bucket import ObjectSummary
from migrate.errors import UnreachableError
from migrate.store.s3_crt import Pending, Request
from migrate.store.s3_objects import Stream

PAGE_KEYS = 1000
"""S3's maximum for one page of a listing."""
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]+)</NextContinuationToken>")
NULL = "null"
"""The id of a version that was written while the bucket kept none."""
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


class Pages:
    """The listings of one bucket, each one page ahead of its reader. Raises ``MoveoutError``."""

    def __init__(self, requests: Stream, url: str) -> None:
        self._requests = requests
        self._url = url

    def objects(self, prefix: str, start_after: str = "") -> Iterator[list[ObjectSummary]]:
        """Yield what a plain listing shows: ListObjectsV2."""
        request = objects_request(prefix, start_after, "", PAGE_KEYS)
        ahead = self._requests.send(request)
        while True:
            body = self._body(request, ahead)
            root = None
            token = _next_token(body)
            if token is None:
                root = ET.fromstring(body)  # noqa: S314 - expat expands no external entities
                token = self._parsed_token(root)
            if token:
                request = objects_request(prefix, "", token, PAGE_KEYS)
                # The server works on it while this page is parsed and used.
                ahead = self._requests.send(request)
            yield parse_objects(ET.fromstring(body) if root is None else root)  # noqa: S314
            if not token:
                return

    def versions(self, prefix: str, after: tuple[str, str] = ("", "")) -> Iterator[list[ObjectSummary]]:
        """Yield versions and delete markers, those behind ``after`` (key, version id): ListObjectVersions."""
        marker = after
        request = versions_request(prefix, marker, PAGE_KEYS)
        ahead = self._requests.send(request)
        while True:
            root = ET.fromstring(self._body(request, ahead))  # noqa: S314 - as above
            page = parse_versions(root)
            if root.findtext("{*}IsTruncated") != "true":
                yield page
                return
            key, version = (
                root.findtext("{*}NextKeyMarker") or "",
                root.findtext("{*}NextVersionIdMarker") or "",
            )
            following = (unquote_plus(key, errors="strict") if _encodes(root) else key, version)
            if following in {marker, ("", "")}:
                raise self._broken()
            marker = following
            request = versions_request(prefix, marker, PAGE_KEYS)
            ahead = self._requests.send(request)
            yield page

    def _body(self, request: Request, ahead: Pending) -> bytes:
        try:
            return ahead.wait().body
        except UnreachableError:
            return self._requests.call(request).body

    def _parsed_token(self, root: Any) -> str:
        """Return how to go on after a page, empty after the last."""
        if root.findtext("{*}IsTruncated") != "true":
            return ""
        token = root.findtext("{*}NextContinuationToken") or ""
        if not token:
            raise self._broken()
        return token

    def _broken(self) -> UnreachableError:
        return UnreachableError(f"{self._url}: the listing breaks off without saying how to go on")


def _next_token(body: bytes) -> str | None:
    """Return how to go on after a page, by a glance at its bytes; None where only parsing it can tell."""
    found = _TOKEN.search(body)
    if found is None or b"<IsTruncated>true</IsTruncated>" not in body:
        return None
    return unescape(found[1].decode())


def objects_request(prefix: str, start_after: str, token: str, count: int) -> Request:
    """Return the request of one page of objects."""
    query = {"list-type": "2", "encoding-type": "url", "max-keys": str(count)}
    given = {"prefix": prefix, "start-after": start_after, "continuation-token": token}
    query |= {name: value for name, value in given.items() if value}
    return Request("ListObjectsV2", "GET", query=query)


def versions_request(prefix: str, after: tuple[str, str], count: int) -> Request:
    """Return the request of one page of versions."""
    query = {"versions": "", "encoding-type": "url", "max-keys": str(count)}
    given = {"prefix": prefix, "key-marker": after[0], "version-id-marker": after[1] if after[0] else ""}
    query |= {name: value for name, value in given.items() if value}
    return Request("ListObjectVersions", "GET", query=query)


def parse_objects(root: Any) -> list[ObjectSummary]:
    """Return the objects on a page of ListObjectsV2. Keys are decoded where the server says that they are
    encoded (as in a query: ``+`` is a space); versitygw is asked for that and does not.
    """
    encoded = _encodes(root)
    page = []
    for contents in root.iterfind("{*}Contents"):
        found = _fields(contents, encoded=encoded)
        page.append(
            ObjectSummary(
                key=found["Key"],
                size_bytes=int(found["Size"]),
                etag=found.get("ETag", "").strip('"'),
                modified=datetime.fromisoformat(found["LastModified"]),
                storage_class=found.get("StorageClass") or "STANDARD",
            )
        )
    return page


def parse_versions(root: Any) -> list[ObjectSummary]:
    """Return the versions and delete markers on a page of ListObjectVersions, by key, newest first."""
    encoded = _encodes(root)
    page, kinds = [], []
    for element in root:
        kind = element.tag.rpartition("}")[2]
        if kind in {"Version", "DeleteMarker"}:
            kinds.append(kind)
            page.append(_version(_fields(element, encoded=encoded), is_marker=kind == "DeleteMarker"))
    return _interleaved(page) if _are_apart(kinds) and not _in_order(page) else page


def _encodes(root: Any) -> bool:
    return bool(root.findtext("{*}EncodingType") == "url")


def _fields(row: Any, *, encoded: bool) -> dict[str, str]:
    """Return what a row of a listing says, by name, its key decoded."""
    found = {element.tag.rpartition("}")[2]: element.text or "" for element in row}
    if encoded:
        found["Key"] = unquote_plus(found["Key"], errors="strict")
    return found


def _version(found: dict[str, str], *, is_marker: bool) -> ObjectSummary:
    return ObjectSummary(
        key=found["Key"],
        size_bytes=0 if is_marker else int(found["Size"]),
        etag="" if is_marker else found.get("ETag", "").strip('"'),
        modified=datetime.fromisoformat(found["LastModified"]),
        storage_class=found.get("StorageClass") or "STANDARD",
        version_id=found.get("VersionId") or NULL,
        is_latest=found.get("IsLatest") == "true",
        is_delete_marker=is_marker,
    )


def _are_apart(kinds: list[str]) -> bool:
    """Tell whether all delete markers come after all versions (or before): then the server may not have put
    them in order.
    """
    return sum(one != other for one, other in pairwise(kinds)) == 1


def _in_order(page: list[ObjectSummary]) -> bool:
    return all(
        one.key < other.key
        or (one.key == other.key and one.modified >= other.modified and not other.is_latest)
        for one, other in pairwise(page)
    )


def _interleaved(page: list[ObjectSummary]) -> list[ObjectSummary]:
    """Put versions and delete markers that came one after the other in order. versitygw sends them so; its times are
    those of files that it moves about, but its version ids are ULIDs, which begin with the time.
    """
    page = sorted(page, key=lambda one: one.modified, reverse=True)
    if all(_ULID.fullmatch(one.version_id) or one.version_id == NULL for one in page):
        page.sort(key=lambda one: "" if one.version_id == NULL else one.version_id, reverse=True)
    page.sort(key=lambda one: (one.key, not one.is_latest))
    return page
