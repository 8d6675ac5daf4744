"""What the pages of a listing say, in columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from html import unescape
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

from exporters.bucket_api import NULL_VERSION, ObjectSummary, Page

STANDARD = "STANDARD"
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_TAGS = re.compile(rb"<[^<>]*>")
_BEGIN, _END, _WHOLE = b"<Contents>", b"</Contents>", b"</ListBucketResult>"
_FIELDS = (b"Key", b"Size", b"ETag", b"LastModified", b"StorageClass")
_NEEDED = frozenset({b"Key", b"Size", b"LastModified"})
_ENTITIES = (b"&#34;", b"&quot;", b"&amp;", b"&lt;", b"&gt;", b"&#39;", b"&apos;")
_QUOTES = ("&#34;", "&quot;")
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_STAND_IN = re.compile(rb"\xf3\xb0\x80[\x80-\x9f]")
_PRIVATE = 0xF0000
"""Here characters begin that mean nothing: the first 32 stand for the forbidden ones while XML is parsed."""
_MEANT = {_PRIVATE + number: number for number in range(32)}
_CONTROLS = bytes({*range(32)} - {9, 10})


def parse_objects(body: bytes) -> Page:
    """Return the objects on a page of ListObjectsV2. Keys are decoded where the server says that they are
    encoded (as in a query: ``+`` is a space); versitygw is asked for that and does not. Raises what unreadable
    pages raise.
    """
    page = _by_pattern(body)
    return _objects(parsed(body)) if page is None else page


def parsed(body: bytes) -> Any:
    """Return the root of an answer. Control characters that XML cannot carry, and that some servers send all the same,
    are kept. Raises ``ET.ParseError``.
    """
    try:
        return ET.fromstring(body)  # noqa: S314 - expat expands no external entities
    except ET.ParseError:
        if not _FORBIDDEN.search(body) or _STAND_IN.search(body):
            raise
    root = ET.fromstring(_FORBIDDEN.sub(_stand_in, body))  # noqa: S314 - as above
    for element in root.iter():
        if element.text:
            element.text = element.text.translate(_MEANT)
    return root


def _stand_in(match: re.Match[bytes]) -> bytes:
    return chr(_PRIVATE + match[0][0]).encode()


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
            [unquote_plus(directory, errors="strict") for directory in directories]
            if encoded
            else directories
        )
    )


def _by_pattern(body: bytes) -> Page | None:
    """Read a page whose rows all look like its first one: a tenth of the time that parsing XML takes. None where they
    do not, or where it cannot be told.
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
    joined = b"\0".join(values).decode()
    if "&" in joined:
        for quote in (
            _QUOTES
        ):  # two of them around each ETag: to look up one by one what they are took half of the time
            joined = joined.replace(quote, '"')
    joined = unescape(joined) if "&" in joined else joined
    return (joined.replace(without, "") if without else joined).split("\0")


def _decoder(body: bytes) -> Callable[[Sequence[bytes]], list[str]]:
    """Return what makes keys of what stands on this page."""
    if b"<EncodingType>url</EncodingType>" not in body:
        return _texts

    def decode(values: Sequence[bytes]) -> list[str]:
        texts = _texts(values)
        return [unquote_plus(key, errors="strict") if "%" in key or "+" in key else key for key in texts]

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
    return Page.of(_interleaved(page) if _are_apart(kinds) and not _in_order(page) else page)


def encodes(root: Any) -> bool:
    """Tell whether the keys of a page are encoded."""
    return bool(root.findtext("{*}EncodingType") == "url")


def _fields(row: Any, *, encoded: bool) -> dict[str, str]:
    """Return what a row of a listing says, by name, its key decoded."""
    fields = {element.tag.rpartition("}")[2]: element.text or "" for element in row}
    if encoded:
        fields["Key"] = unquote_plus(fields["Key"], errors="strict")
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
    """Put versions and delete markers that came one after the other in order. versitygw sends them so; its times are
    those of files that it moves about, but its version ids are ULIDs, which begin with the time.
    """
    page = sorted(page, key=lambda version: version.modified, reverse=True)
    if all(_ULID.fullmatch(version.version_id) or version.version_id == NULL_VERSION for version in page):
        page.sort(
            key=lambda version: "" if version.version_id == NULL_VERSION else version.version_id, reverse=True
        )
    page.sort(key=lambda version: (version.key, not version.is_latest))
    return page
