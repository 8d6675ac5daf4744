"""Unfinished uploads in a directory: ``<id>/meta.json``, ``<id>/data`` and ``<id>/journal``.

The journal gets a line ``number size crc`` only after the part's bytes are durable, yet it is never believed:
a part counts when its bytes, read again, have that CRC64NVME.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from migrate.errors import DamageError, GoneError, UsageError
from migrate.storage.api import MAX_PARTS, Upload, UploadedPart
from migrate.storage.checksums import combine, crc64nvme, to_header
from migrate.storage.local.whole_file import sync_directory

_ID = re.compile(r"[0-9a-f]{32}")
_BLOCK_BYTES = 4 * 2**20


class _Meta(Struct, frozen=True):
    key: str
    started: datetime
    part_bytes: int


class Uploads:
    """All unfinished uploads of a directory. Raises ``OSError`` as it comes; the store translates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._checked: dict[str, dict[int, tuple[int, int]]] = {}
        """upload -> number -> (size, crc) of parts that this process wrote or read again."""

    def begin(self, key: str, part_bytes: int) -> str:
        """Return the id of a new upload."""
        upload = uuid.uuid4().hex
        directory = self.directory / upload
        for _ in range(20):
            with suppress(FileNotFoundError):
                directory.mkdir(parents=True, exist_ok=True)
                (directory / "data").touch()
                (directory / "journal").touch()
                break
        meta = {"key": key, "started": datetime.now(UTC).isoformat(), "part_bytes": part_bytes}
        # Renamed into place last: an upload without it was never begun.
        temporary = directory / "meta.new"
        _write_durably(temporary, json.dumps(meta).encode(), os.O_CREAT | os.O_TRUNC)
        temporary.rename(directory / "meta.json")
        for path in (directory, self.directory, self.directory.parent):
            sync_directory(path)
        return upload

    def all(self) -> list[Upload]:
        """Return every upload that was begun, by key and time."""
        if not self.directory.is_dir():
            return []
        uploads = []
        for upload_directory in self.directory.iterdir():
            with suppress(GoneError):
                meta = self._meta(upload_directory.name)
                uploads.append(Upload(meta.key, upload_directory.name, meta.started))
        return sorted(uploads, key=lambda upload: (upload.key.encode(), upload.started, upload.id))

    def parts(self, key: str, upload: str) -> list[UploadedPart]:
        """Return the parts whose bytes are what the journal says."""
        meta = self._meta(upload, key)
        parts = []
        for number, (size, crc) in sorted(self._journal(upload).items()):
            if self._computed(upload, meta, number, size) == crc:
                self._note(upload, number, size, crc)
                parts.append(_part(number, size, crc))
        return parts

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> UploadedPart:
        """Write the part to its place in the file, make it durable, then note it."""
        meta = self._meta(upload, key)
        if not 1 <= number <= MAX_PARTS:
            raise UsageError(f"{key}: there is no part {number}; parts are numbered 1 to {MAX_PARTS}")
        if len(data) > meta.part_bytes:
            raise UsageError(f"{key}: part {number} has {len(data)} bytes, more than {meta.part_bytes}")
        crc = crc64nvme(data)
        directory = self.directory / upload
        descriptor = os.open(directory / "data", os.O_WRONLY)
        try:
            _write_at(descriptor, data, (number - 1) * meta.part_bytes)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        _write_durably(directory / "journal", f"\n{number} {len(data)} {crc:016x}\n".encode(), os.O_APPEND)
        self._note(upload, number, len(data), crc)
        return _part(number, len(data), crc)

    def finish(self, key: str, upload: str, parts: list[UploadedPart], *, crc64nvme: int) -> Path:
        """Check the whole and return the path of the durable file, ready to be renamed."""
        meta = self._meta(upload, key)
        sizes = [part.size_bytes for part in parts]
        if [part.number for part in parts] != list(range(1, len(parts) + 1)) or not parts:
            raise UsageError(f"{key}: the parts of an upload are numbered from 1 without a gap")
        if any(size != meta.part_bytes for size in sizes[:-1]):
            raise UsageError(f"{key}: all parts but the last must have {meta.part_bytes} bytes")
        combined = combine(self._check_part(key, upload, meta, part) for part in parts)
        if combined != crc64nvme:
            raise DamageError(
                key, expected=f"CRC64NVME {to_header(crc64nvme)}", found=f"CRC64NVME {to_header(combined)}"
            )
        path = self.directory / upload / "data"
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, sum(sizes))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return path

    def drop(self, upload: str) -> None:
        """Remove an upload."""
        if _ID.fullmatch(upload):
            with suppress(FileNotFoundError):
                (self.directory / upload / "meta.json").unlink()
            shutil.rmtree(self.directory / upload, ignore_errors=True)
            self._checked.pop(upload, None)

    def _note(self, upload: str, number: int, size_bytes: int, crc: int) -> None:
        self._checked.setdefault(upload, {})[number] = (size_bytes, crc)

    def _check_part(self, key: str, upload: str, meta: _Meta, part: UploadedPart) -> tuple[int, int]:
        """Return (crc, size) of a part, read again unless this process has done so before."""
        size, crc = self._checked.get(upload, {}).get(part.number) or (
            part.size_bytes,
            self._computed(upload, meta, part.number, part.size_bytes),
        )
        if (size, f"{crc or 0:016x}") != (part.size_bytes, part.etag) or crc is None:
            raise DamageError(key, expected=f"part {part.number} as {part.etag}", found=f"{crc or 0:016x}")
        return crc, size

    def _meta(self, upload: str, key: str | None = None) -> _Meta:
        gone = GoneError(f"{key or self.directory}: there is no upload {upload}")
        if not _ID.fullmatch(upload):
            raise gone
        try:
            meta = json.loads((self.directory / upload / "meta.json").read_bytes())
            upload_meta = _Meta(meta["key"], datetime.fromisoformat(meta["started"]), int(meta["part_bytes"]))
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, RecursionError):
            raise gone from None
        if key is not None and key != upload_meta.key:
            raise gone
        return upload_meta

    def _journal(self, upload: str) -> dict[int, tuple[int, int]]:
        """Return number -> (size, crc) as claimed; the last line of a number holds, a torn line does not."""
        claimed: dict[int, tuple[int, int]] = {}
        for line in (self.directory / upload / "journal").read_bytes().split(b"\n"):
            if match := re.fullmatch(rb"(\d+) (\d+) ([0-9a-f]{16})", line):
                claimed[int(match[1])] = (int(match[2]), int(match[3], 16))
        return claimed

    def _computed(self, upload: str, meta: _Meta, number: int, size: int) -> int | None:
        """Return the CRC64NVME of the part's bytes as they lie there, or None if they are not all there."""
        crc, read_bytes, start = 0, 0, (number - 1) * meta.part_bytes
        with (self.directory / upload / "data").open("rb", buffering=0) as file:
            while read_bytes < size:
                block = os.pread(file.fileno(), min(_BLOCK_BYTES, size - read_bytes), start + read_bytes)
                if not block:
                    return None
                crc = crc64nvme(block, crc)
                read_bytes += len(block)
        return crc


def _part(number: int, size: int, crc: int) -> UploadedPart:
    return UploadedPart(number, size, etag=f"{crc:016x}", crc64nvme=crc)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _write_durably(path: Path, data: bytes, flags: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | flags, 0o666)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
