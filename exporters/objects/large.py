"""One large object: read in ranges, several at once, hashed in order."""

from __future__ import annotations

import hashlib
import threading

from exporters.base import Gap, Outcome, Sink, Unit
from exporters.bucket import Bucket
from exporters.errors import SourceError, SourceItemError, SourceUnreachableError
from exporters.objects import rows
from exporters.objects.inventory import Inventory
from exporters.objects.pack import losses

RANGE_BYTES = 8 * 2**20
WINDOW_BYTES = 4 * RANGE_BYTES
AT_ONCE = threading.BoundedSemaphore(3)
"""Large objects that are read at the same time in one process: each holds a window, and its file two
parts.
"""


def export(unit: Unit, bucket: Bucket, inventory: Inventory, sink: Sink) -> Outcome:
    """Write a large object's file. An object that has changed or is gone is a gap. Raises
    ``SourceUnreachableError`` when the source does not answer.
    """
    shard, row = unit.spec["shard"], unit.spec["start"]
    summary = next(inventory.objects(shard, row, 1))
    facts = {"inventory": inventory.totals.id, "shard": shard}
    head = bucket.head(summary)
    error: SourceError | None = head.error
    if error is None:
        try:
            sha256, md5, crc = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
            with AT_ONCE, sink.create(unit.id, size_bytes=summary.size_bytes) as file:
                for body in bucket.stream(summary, part_bytes=RANGE_BYTES, window_bytes=WINDOW_BYTES):
                    sha256.update(body)
                    md5.update(body)
                    crc = bucket.crc64nvme(body, crc)
                    file.write(body)
            content = rows.Content(sha256.hexdigest(), md5.hexdigest(), crc, large=unit.id)
            row_json = rows.to_json(rows.exported(bucket.name, row, head, content))
            return Outcome(1, summary.size_bytes, losses=list(losses(head)), facts=facts | {"row": row_json})
        except SourceItemError as exc:
            error = exc
    if isinstance(error, SourceUnreachableError):
        raise error
    failed = rows.failed(bucket.name, row, summary, str(error))
    gap = Gap(summary.key, "failed", str(error))
    return Outcome(0, 0, gaps=[gap], facts=facts | {"row": rows.to_json(failed)})
