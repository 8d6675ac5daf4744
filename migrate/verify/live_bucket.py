"""A source's objects in a bundle, compared with a live bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

from exporters.bucket_api import Fetched, ObjectSummary
from exporters.errors import SourceNotAllowedError, SourceUnreachableError
from exporters.lossless_text import printable
from exporters.objects.key_oddities import is_own_folder
from migrate.bundle.findings import Finding
from migrate.bundle.object_index import ObjectRow, has_history, hidden_keys, histories, object_rows
from migrate.number_text import things
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import SourceTask
from migrate.runtime.worker_pool import ThreadWorkerPool, run_all
from migrate.storage.s3.destination_bucket import DestinationBucket, open_destination_bucket
from migrate.storage.s3.listing.ordered_listing import ListedObjects, ListedVersions
from migrate.storage.s3.metadata.metadata_check import as_text, moment_of, user_metadata
from migrate.storage.s3.metadata.object_metadata import LEGAL_HOLD, LOCK_MODE, LOCK_UNTIL, sendable
from migrate.storage.s3.own_objects import is_own
from migrate.verify.compare import ComparisonRequest, SourceComparison

T = TypeVar("T")
V = TypeVar("V", ObjectSummary, ObjectRow)
Pair = tuple[ObjectSummary, ObjectRow]

_BATCH = 500
_SMALL_BYTES = 8 * 2**20
_WINDOW_BYTES = 8 * 2**20
_NAMED_EXTRA = 1000


def compare_bucket(request: ComparisonRequest) -> SourceComparison:
    """Compare every object of a source with a bucket: size, content, headers, metadata, tags, and locks that still
    hold; and find objects that only the bucket has. Where the bundle has all versions, compare each with the one at the
    same place of the bucket's history, oldest first.

    Content is compared by the MD5 or CRC64NVME that the server keeps, and read where it keeps neither; with
    ``read_all`` every byte is read and its SHA-256 compared. Raises ``MoveoutError`` or ``SourceError`` where one
    cannot look.
    """
    reader, source, progress = request.reader, request.source, request.progress
    cancellation = (request.cancellation or CancellationToken()).child()
    destination = open_destination_bucket(
        request.url, secrets=request.secrets, cancellation=cancellation, note=progress.note
    )
    findings: list[Finding] = []
    history = has_history(reader, source)
    if history and not destination.versioning():
        findings.append(Finding(destination.url, "keeps no versions: only current ones were compared"))
        history = False
    listed = ListedVersions(destination.list_versions()) if history else ListedObjects(destination.list())
    try:
        progress.begin(f"compare {source}", items=listed.count, size_bytes=0, of=SourceTask(source))
        if isinstance(listed, ListedVersions):
            matches = _matched_versions(request, destination.prefix, listed)
        else:
            matches = _matched_objects(request, destination.prefix, listed)

        def compare(batch: list[Pair | Finding]) -> tuple[int, list[Finding]]:
            pairs = [match for match in batch if not isinstance(match, Finding)]
            different = [match for match in batch if isinstance(match, Finding)]
            different += _compare(destination, pairs, read_all=request.read_all)
            progress.advance(items=len(pairs), size_bytes=sum(row.size_bytes for _, row in pairs))
            return len(pairs), different

        pool = ThreadWorkerPool(
            compare, request.workers, name="moveout-compare", ahead=1, cancellation=cancellation
        )
        compared = 0
        for _, (count, different) in run_all(pool, _batches(matches)):
            compared += count
            findings += different
        progress.advance(items=listed.count - compared)  # delete markers, and what the bundle does not have
        findings.sort(key=lambda finding: finding.key)
        findings.extend(_extra(destination, listed))
        progress.end()
    finally:
        listed.close()
    return SourceComparison(findings)


def _matched_objects(
    request: ComparisonRequest, prefix: str, listed: ListedObjects
) -> Iterator[Pair | Finding]:
    """Yield the objects of the bundle, each with that of the bucket, or what is wrong where it has none."""
    for row in object_rows(request.reader, request.source):
        if row.is_delete_marker or not row.is_latest:
            continue
        key = prefix + row.key
        if is_own_folder(key, row.size_bytes):
            continue
        listed_object = listed.find(key)
        if listed_object is None:
            yield Finding(key, "is not in the bucket")
            continue
        listed.mark(key, "known")
        yield listed_object[0], row


def _matched_versions(
    request: ComparisonRequest, prefix: str, listed: ListedVersions
) -> Iterator[Pair | Finding]:
    """Yield the versions of the bundle, each with that of the bucket, or what is wrong. Delete markers that hide
    nothing may be missing, and are noted.
    """
    reader, source = request.reader, request.source
    missing_markers = 0
    for relative, all_rows in histories(object_rows(reader, source), hidden_keys(reader, source)):
        key = prefix + relative
        if is_own_folder(key, max(row.size_bytes for row in all_rows)):
            continue
        all_versions, _ = listed.of(key)
        versions, rows = all_versions, all_rows
        if len(all_versions) < len(all_rows):
            versions, rows = _without_idle_markers(all_versions), _without_idle_markers(all_rows)
            if len(versions) == len(rows):
                missing_markers += len(all_rows) - len(all_versions)
        if rows and not versions:
            yield Finding(key, "is not in the bucket")
            continue
        listed.mark(key, "known")
        yield from _matched_history(key, versions, rows)
    if missing_markers:
        request.progress.note(
            f"{things(missing_markers, 'delete marker')} of {source} not in the bucket: they would hide nothing, and"
            " some servers make none"
        )


def _matched_history(
    key: str, versions: Sequence[ObjectSummary], rows: Sequence[ObjectRow]
) -> Iterator[Pair | Finding]:
    """Yield pairs of versions of a key, in their order. Where their numbers differ, yield that, and the newest pair."""
    pairs = list(zip(versions, rows, strict=False))
    if len(versions) != len(rows):
        yield Finding(key, "has another number of versions", str(len(rows)), str(len(versions)))
        pairs = [(versions[-1], rows[-1])] if rows else []
    for summary, row in pairs:
        if summary.is_delete_marker != row.is_delete_marker:
            what = _what(row.is_delete_marker), _what(summary.is_delete_marker)
            yield Finding(summary.name, "is another thing", *what)
        elif not row.is_delete_marker:
            yield summary, row


def _without_idle_markers(versions: Sequence[V]) -> list[V]:
    """Return a history without the delete markers that hide nothing: before any version, or right after another one."""
    kept: list[V] = []
    for version in versions:
        if not version.is_delete_marker or (kept and not kept[-1].is_delete_marker):
            kept.append(version)
    return kept


def _what(is_delete_marker: bool) -> str:
    return "a delete marker" if is_delete_marker else "a version"


def _extra(destination: DestinationBucket, listed: ListedObjects | ListedVersions) -> Iterator[Finding]:
    others = (key for key in listed.unmarked() if not is_own(destination, key))
    extra = list(islice(others, _NAMED_EXTRA + 1))
    for key in extra[:_NAMED_EXTRA]:
        yield Finding(key, "is in the bucket, but not in the bundle")
    if len(extra) > _NAMED_EXTRA:
        yield Finding("…", f"more than {_NAMED_EXTRA} objects are in the bucket, but not in the bundle")
    for key in sorted(destination.reader.not_utf_8)[:_NAMED_EXTRA]:
        yield Finding(
            key, "is in the bucket, but not in the bundle; its key is not UTF-8, and percent-encoded here"
        )


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, _BATCH)):
        yield batch


def _compare(destination: DestinationBucket, batch: list[Pair], *, read_all: bool) -> Iterator[Finding]:
    same_size = []
    for summary, row in batch:
        if summary.size_bytes == row.size_bytes:
            same_size.append((summary, row))
        else:
            sizes = (f"{row.size_bytes} bytes", f"{summary.size_bytes} bytes")
            yield Finding(summary.name, "has another size", *sizes)
    whole = [pair for pair in same_size if read_all and pair[1].size_bytes <= _SMALL_BYTES]
    bucket = destination.reader
    read = bucket.fetch((summary for summary, _ in whole), window_bytes=_WINDOW_BYTES)
    for (_, row), fetched in zip(whole, read, strict=True):
        yield from _described(row, fetched)
        if fetched.error is None and hashlib.sha256(fetched.body).hexdigest() != row.sha256:
            sha256 = hashlib.sha256(fetched.body).hexdigest()
            yield Finding(fetched.summary.name, "has another SHA-256", row.sha256, sha256)
    others = [pair for pair in same_size if not read_all or pair[1].size_bytes > _SMALL_BYTES]
    heads = bucket.heads(summary for summary, _ in others)
    is_denied = False
    for (summary, row), fetched in zip(others, heads, strict=True):
        if isinstance(fetched.error, SourceNotAllowedError) and not is_denied:
            is_denied = True
            bucket.check()  # a refusal of HEAD has no words: it may be of credentials that have ended
        yield from _described(row, fetched)
        if fetched.error is None:
            yield from _content(destination, summary, row, read_all=read_all)


def _content(
    destination: DestinationBucket, summary: ObjectSummary, row: ObjectRow, *, read_all: bool
) -> Iterator[Finding]:
    if not read_all and destination.holds(summary, row.content):
        return
    found = destination.sha256(summary)
    if found != row.sha256:
        yield Finding(summary.name, "has another SHA-256", row.sha256, found)


def _described(row: ObjectRow, fetched: Fetched) -> Iterator[Finding]:
    """Yield what differs apart from the bytes."""
    key = fetched.summary.name
    if isinstance(fetched.error, SourceUnreachableError):
        raise fetched.error
    if fetched.error is not None:
        yield Finding(key, f"cannot be read ({fetched.error})")
        return
    for name, value in sendable(row.headers).items():
        found = fetched.headers.get(name, "")
        if found != value:
            yield Finding(key, f"has another {name}", printable(value), printable(found))
    yield from _maps(key, "metadata", row.metadata, user_metadata(fetched.headers))
    yield from _maps(key, "tags", row.tags, fetched.tags)
    yield from _locks(key, row, fetched.headers)


def _locks(key: str, row: ObjectRow, headers: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what differs of locks that still hold; one that has ended cannot be written again."""
    hold = headers.get(LEGAL_HOLD, "OFF") == "ON"
    if hold != row.legal_hold:
        yield Finding(key, "has another legal hold", _on(row.legal_hold), _on(hold))
    expected = (row.lock_mode, moment_of(row.lock_until))
    found = (headers.get(LOCK_MODE, ""), moment_of(headers.get(LOCK_UNTIL, "")))
    now = datetime.now(UTC)
    holds = [bool(mode) and until is not None and until > now for mode, until in (expected, found)]
    if any(holds) and expected != found:
        expected_text, found_text = (f"{mode or 'none'} {until or ''}" for mode, until in (expected, found))
        yield Finding(key, "has another retention", expected_text, found_text)


def _on(value: bool) -> str:
    return "on" if value else "off"


def _maps(key: str, what: str, expected: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted({*expected, *found}):
        if as_text(expected.get(name)) != as_text(found.get(name)):
            both = (printable(expected.get(name, "nothing")), printable(found.get(name, "nothing")))
            yield Finding(key, f"has other {what}: {name}", *both)
