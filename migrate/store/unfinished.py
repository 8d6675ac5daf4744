"""What an interrupted run has left of a file: an upload whose parts need not be sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from migrate.errors import GoneError
from migrate.store.base import MultipartStore, Part
from migrate.store.checksums import crc64nvme


def find(store: MultipartStore, key: str, part_bytes: int) -> tuple[str, Mapping[int, Part]] | None:
    """Return the upload of a file that has most parts of this size, with its parts by number; None where there is none.
    The file's other uploads are dropped.
    """
    found: list[tuple[str, Sequence[Part]]] = []
    for upload in store.uploads(key):
        if upload.key == key:
            try:
                found.append((upload.id, store.parts(key, upload.id)))
            except GoneError:
                continue
    able = [one for one in found if _is_cut(one[1], part_bytes)]
    best = max(able, key=lambda one: len(one[1]), default=None)
    for one in found:
        if one is not best:
            store.abort(key, one[0])
    return best and (best[0], {part.number: part for part in best[1]})


def _is_cut(parts: Sequence[Part], part_bytes: int) -> bool:
    """Tell whether these are parts of that size; the last one may be smaller."""
    sizes = [part.size_bytes for part in parts]
    return bool(sizes) and sizes[-1] <= part_bytes and all(size == part_bytes for size in sizes[:-1])


def is_part(part: Part | None, body: bytes) -> bool:
    """Tell whether a part holds these bytes: by the CRC64NVME that the place has of it, else by the MD5 that its ETag
    is.
    """
    if part is None or part.size_bytes != len(body):
        return False
    if part.crc64nvme is not None:
        return part.crc64nvme == crc64nvme(body)
    return part.etag == hashlib.md5(body, usedforsecurity=False).hexdigest()
