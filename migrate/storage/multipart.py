"""Large files in parts: how they are cut, and how an upload that an earlier run began is continued."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from msgspec import Struct

from migrate.errors import GoneError
from migrate.storage.api import MIN_PART_BYTES, MultipartStore, Upload, UploadedPart
from migrate.storage.checksums import crc64nvme

HALF_PART_BYTES = 8 * 2**20
"""The size of a part while the link's rate is unknown."""
_CUTS = frozenset(base << n for base in (MIN_PART_BYTES, HALF_PART_BYTES) for n in range(16))


def cut_of(parts: Iterable[UploadedPart]) -> int | None:
    """Return the size of the parts of an unfinished upload; None where its parts do not show it, or none of ours is so
    large. All have one size but the last one of the file, which may be smaller.
    """
    sizes = [part.size_bytes for part in sorted(parts, key=lambda part: part.number)]
    cut = max(sizes, default=0)
    return cut if cut in _CUTS and all(size == cut for size in sizes[:-1]) else None


def part_sizes(size_bytes: int, part_bytes: int) -> list[int]:
    """Return the size of each part of a file; an empty file has none."""
    full_parts, rest = divmod(size_bytes, part_bytes)
    return [part_bytes] * full_parts + ([rest] if rest else [])


class ResumableUpload(Struct, frozen=True):
    """An upload to continue: the size of its parts, and the durable ones by number."""

    id: str
    part_bytes: int
    parts: Mapping[int, UploadedPart]


def find_upload(
    store: MultipartStore,
    key: str,
    part_bytes: int,
    *,
    uploads: Iterable[Upload] | None = None,
    least_bytes: int = 1,
    drop_others: bool = True,
) -> ResumableUpload | None:
    """Return the upload of a file that has most bytes, None where none has ``least_bytes``.

    ``part_bytes`` is the size of its parts where they do not show it. ``uploads`` are the candidates where the caller
    has them. ``drop_others``: the other ones are dropped; not where they may belong to other programs.
    """
    candidates = list(store.uploads(key) if uploads is None else uploads)
    best: ResumableUpload | None = None
    dropped: list[str] = []
    most_bytes = 0
    for upload in candidates:
        if upload.key != key:
            continue
        try:
            parts = store.parts(key, upload.id)
        except GoneError:
            continue
        size_bytes = sum(part.size_bytes for part in parts)
        if size_bytes < least_bytes or (best is not None and size_bytes <= most_bytes):
            dropped.append(upload.id)
            continue
        if best is not None:
            dropped.append(best.id)
        most_bytes = size_bytes
        best = ResumableUpload(upload.id, cut_of(parts) or part_bytes, {part.number: part for part in parts})
    if drop_others:
        for upload_id in dropped:
            store.abort(key, upload_id)
    return best


def is_part(part: UploadedPart | None, body: bytes) -> bool:
    """Tell whether a part holds these bytes: by the CRC64NVME that the location has of it, else by the MD5 that its
    ETag is.
    """
    if part is None or part.size_bytes != len(body):
        return False
    if part.crc64nvme is not None:
        return part.crc64nvme == crc64nvme(body)
    return part.etag == hashlib.md5(body, usedforsecurity=False).hexdigest()
