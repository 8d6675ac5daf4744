"""What an interrupted run has left of a file: an upload whose parts need not be sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from migrate.errors import GoneError
from migrate.storage.api import MultipartStore, Part
from migrate.storage.checksums import crc64nvme
from migrate.storage.part_sizes import cut_of


def find(store: MultipartStore, key: str, part_bytes: int) -> tuple[str, int, Mapping[int, Part]] | None:
    """Return the upload of a file that has most bytes, the size of its parts (``part_bytes`` where it does not tell),
    and these by number; None where there is none that can be gone on with. The file's other uploads are dropped.
    """
    found: list[tuple[str, int, Sequence[Part]]] = []
    for upload in store.uploads(key):
        if upload.key == key:
            try:
                parts = store.parts(key, upload.id)
            except GoneError:
                continue
            found.append((upload.id, cut_of(parts) or part_bytes, parts))
    able = [one for one in found if one[2]]
    best = max(able, key=lambda one: sum(part.size_bytes for part in one[2]), default=None)
    for one in found:
        if one is not best:
            store.abort(key, one[0])
    return best and (best[0], best[1], {part.number: part for part in best[2]})


def is_part(part: Part | None, body: bytes) -> bool:
    """Tell whether a part holds these bytes: by the CRC64NVME that the location has of it, else by the MD5 that its
    ETag
    is.
    """
    if part is None or part.size_bytes != len(body):
        return False
    if part.crc64nvme is not None:
        return part.crc64nvme == crc64nvme(body)
    return part.etag == hashlib.md5(body, usedforsecurity=False).hexdigest()
