"""What has to be moved: decided from lists, without asking anybody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from migrate.bundle import layout
from migrate.storage.api import UploadedPart
from migrate.storage.multipart import part_sizes


class SealedFile(Struct, frozen=True):
    """A file of the sealed bundle. ``sha256`` is what the manifests promise; None for signatures, which no manifest
    names.
    """

    key: str
    size_bytes: int
    sha256: str | None


class PartJob(Struct, frozen=True):
    """One part of a large file. ``kept`` is the part that lies at the destination already, if it may be the
    same.
    """

    number: int
    start: int
    size_bytes: int
    kept: UploadedPart | None


class FileJob(Struct, frozen=True):
    """A file to move: whole if it has one part, else in parts of ``part_bytes`` (the last may be smaller)."""

    file: SealedFile
    part_bytes: int
    upload: str | None
    parts: Sequence[PartJob]

    @property
    def is_small(self) -> bool:
        """Whether one ``put`` does it."""
        return self.file.size_bytes <= self.part_bytes


class Phases(Struct, frozen=True):
    """The order that keeps a half transferred location from being taken for a sealed bundle: payload, then tag
    files, then, one after the other, ``bagit.txt`` and the tag manifest.
    """

    payload: Sequence[SealedFile]
    tags: Sequence[SealedFile]
    seals: Sequence[SealedFile]


SEALS = (layout.BAGIT, layout.TAG_MANIFEST)


def phases(files: Iterable[SealedFile]) -> Phases:
    """Sort files into the three phases."""
    payload: list[SealedFile] = []
    tags: list[SealedFile] = []
    seals: dict[str, SealedFile] = {}
    for file in files:
        if file.key in SEALS:
            seals[file.key] = file
        else:
            (payload if file.key.startswith(layout.DATA) else tags).append(file)
    return Phases(payload, tags, [seals[key] for key in SEALS if key in seals])


def plan_file(
    file: SealedFile, part_bytes: int, upload: str | None = None, stored_parts: Iterable[UploadedPart] = ()
) -> FileJob:
    """Cut a file into parts; a part that lies at the destination with the right size is offered to be kept."""
    parts_by_number = {part.number: part for part in stored_parts}
    jobs: list[PartJob] = []
    for index, size_bytes in enumerate(part_sizes(file.size_bytes, part_bytes)):
        part = parts_by_number.get(index + 1)
        if part is not None and (part.size_bytes != size_bytes or part.crc64nvme is None):
            part = None
        jobs.append(PartJob(index + 1, index * part_bytes, size_bytes, part))
    return FileJob(file, part_bytes, upload, jobs)


def candidates(
    files: Iterable[SealedFile], present: Mapping[str, int]
) -> tuple[list[SealedFile], list[SealedFile]]:
    """Return (must be moved, may lie there already): the second have their size at the destination."""
    missing: list[SealedFile] = []
    same_size: list[SealedFile] = []
    for file in files:
        (same_size if present.get(file.key) == file.size_bytes else missing).append(file)
    return missing, same_size


def foreign(present: Iterable[str], expected_keys: Collection[str]) -> Iterator[str]:
    """Yield keys at the destination that are no files of the bundle, nor may lie next to it."""
    return (
        key for key in present if key not in expected_keys and not key.startswith(layout.OUTSIDE_MANIFESTS)
    )
