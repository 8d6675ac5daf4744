"""One large object: read in ranges, several at once, hashed in order."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from exporters.api import Gap, Loss, Outcome, Sink, Unit
from exporters.bucket_api import Bucket, Fetched, ObjectSummary
from exporters.errors import (
    SourceError,
    SourceGoneError,
    SourceItemError,
    SourceUnreachableError,
)
from exporters.objects import acls, changed_objects, index_rows
from exporters.objects.listing.inventory import Inventory
from exporters.objects.outage_detection import OutageDetector
from exporters.objects.source_checksums import READS, ContentProof
from exporters.selection import EVERYTHING, Selection

RANGE_BYTES = 8 * 2**20
WINDOW_BYTES = 4 * RANGE_BYTES
AT_ONCE = threading.BoundedSemaphore(3)
"""Large objects that are read at the same time in one process: each holds a window, and its file two
parts.
"""


def export(unit: Unit, bucket: Bucket, inventory: Inventory, sink: Sink, outage: OutageDetector) -> Outcome:
    """Write a large object's file: the version that was listed, else the one that is there now. An object
    that is gone or cannot be read is a gap. Raises ``SourceUnreachableError`` when the source does not answer.
    """
    shard, row = unit.spec["shard"], unit.spec["start"]
    listed = next(inventory.objects(shard, row, 1))
    facts: dict[str, Any] = {"inventory": inventory.totals.id, "shard": shard}
    read = write(bucket, listed, unit.id, sink, outage, selection=inventory.selection)
    if read.unwanted:
        gap = Gap(listed.name, "excluded", read.unwanted)
        facts |= {"row": index_rows.to_json(index_rows.missing(bucket.name, row, listed, gap))}
        return Outcome(0, 0, gaps=[gap], facts=facts)
    if read.error is None:
        fetched, content = read.fetched, read.content
        index_row = index_rows.exported(bucket.name, row, fetched, content)
        object_losses = [*index_rows.losses(fetched), *read.doubts, *acls.fill(bucket, [index_row], outage)]
        facts |= {"row": index_rows.to_json(index_row)}
        facts |= {"reread": 1} if fetched.summary.etag != listed.etag else {}
        return Outcome(1, fetched.summary.size_bytes, losses=object_losses, facts=facts)
    gap = changed_objects.gap(bucket, listed, read.error, ordered=inventory.totals.ordered)
    facts |= {"row": index_rows.to_json(index_rows.missing(bucket.name, row, listed, gap))}
    return Outcome(0, 0, gaps=[gap], facts=facts)


class ReadObject(Struct, frozen=True):
    """What reading a large object came to."""

    fetched: Fetched
    content: index_rows.Content
    error: SourceError | None = None
    unwanted: str = ""
    """Why it was not written after all."""
    doubts: Sequence[Loss] = ()
    """Where a checksum of the source contradicts the bytes, though they came the same twice."""


_NOTHING = index_rows.Content("", "", 0)


def write(
    bucket: Bucket,
    summary: ObjectSummary,
    name: str,
    sink: Sink,
    outage: OutageDetector,
    *,
    selection: Selection = EVERYTHING,
) -> ReadObject:
    """Write one object as a file of its own. Raises ``SourceUnreachableError`` when the source does not answer."""
    fetched = bucket.head(summary)
    error: SourceError | None = None
    before: ContentProof | None = None
    for _ in range(max(changed_objects.ATTEMPTS, READS)):
        error = fetched.error
        if error is None:
            if selection.tags and (reason := selection.excludes_tags(fetched.tags)) is not None:
                return ReadObject(fetched, _NOTHING, unwanted=reason)
            try:
                content, proof = _copy(bucket, fetched, name, sink)
            except (SourceItemError, SourceUnreachableError) as exc:
                error = exc
            else:
                error = proof.error(before)
                if error is None:
                    return ReadObject(fetched, content, doubts=proof.losses())
                before = proof
                continue
        if not changed_objects.has_changed(error):
            break
        fetched = changed_objects.current(bucket, fetched.summary)
        if isinstance(fetched.error, SourceGoneError):
            error = fetched.error
            break
    outage.note(error)
    return ReadObject(fetched, _NOTHING, error)


def _copy(bucket: Bucket, fetched: Fetched, name: str, sink: Sink) -> tuple[index_rows.Content, ContentProof]:
    summary = fetched.summary
    parts = bucket.parts(summary) if "-" in summary.etag else ()
    sha256, proof = hashlib.sha256(), ContentProof(bucket, fetched, [part.size_bytes for part in parts])
    with AT_ONCE, sink.create(name, size_bytes=summary.size_bytes) as file:
        for body in bucket.stream(
            changed_objects.pinned(fetched), part_bytes=RANGE_BYTES, window_bytes=WINDOW_BYTES
        ):
            sha256.update(body)
            proof.update(body)
            file.write(body)
            sink.advance(size_bytes=len(body))
    content = index_rows.Content(sha256.hexdigest(), proof.md5, proof.crc64nvme, large=name, parts=parts)
    return content, proof
