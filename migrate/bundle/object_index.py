"""The objects of a bundle's bucket, as its index names them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

import pyarrow as pa
from msgspec import Struct, field

from exporters.api import Json
from exporters.objects.index_rows import PART_NUMBERS, as_came
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.storage.checksums import Content

_DICTS = 500
_NEEDED = ("key", "size", "sha256", "disposition")
_NEEDED_OF_MARKER = ("key", "disposition")


class ObjectRow(Struct, frozen=True):
    """One version of an object, or a delete marker, that is in the bundle. ``file`` is the bundle's file that holds
    its bytes, from ``offset``, empty for a delete marker; hashes are hex digits. ``key`` is relative to the prefix
    that was exported. ``version_id`` is the source's, empty without versions. ``lock_until`` is ISO 8601.
    """

    key: str
    size_bytes: int
    sha256: str
    md5: str
    crc64nvme: str
    modified: datetime | None
    file: str
    offset: int
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    etag: str = ""
    version_id: str = ""
    is_latest: bool = True
    is_delete_marker: bool = False
    storage_class: str = "STANDARD"
    lock_mode: str = ""
    lock_until: str = ""
    legal_hold: bool = False
    acl: str = ""
    encryption: str = ""
    part_sizes: tuple[int, ...] = ()
    part_numbers: tuple[int, ...] = ()
    """The numbers of the parts, where they are not 1, 2, 3 …"""

    @property
    def name(self) -> str:
        """The key, and which version where that is known."""
        return f"{self.key} (version {self.version_id})" if self.version_id else self.key

    @property
    def content(self) -> Content:
        """The size and hashes of its bytes. An ETag of what was encrypted by a key of the KMS is none of them."""
        etag = self.etag if self.encryption in {"", "AES256"} else ""
        return Content(self.size_bytes, self.sha256, self.md5 or etag, self.crc64nvme)


def source_prefix(reader: BundleReader, source: str) -> str:
    """Return the prefix that was exported, empty for a whole bucket. Raises ``DamageError``."""
    return str(bucket_details(reader, source).get("prefix", ""))


def has_history(reader: BundleReader, source: str) -> bool:
    """Tell whether the bundle has all versions of a bucket, not only the current ones. Raises ``DamageError``."""
    return bool(bucket_details(reader, source).get("history"))


def bucket_details(reader: BundleReader, source: str) -> Json:
    """Return what the catalog says of a bucket. Raises ``DamageError``."""
    for row in reader.catalog():
        if row.source == source and row.kind == "bucket":
            return row.details
    raise DamageError(layout.CATALOG, expected=f"a bucket of the source {source}", found="none")


def histories(
    rows: Iterable[ObjectRow], hidden: Container[str] = ()
) -> Iterator[tuple[str, list[ObjectRow]]]:
    """Yield each key with its versions and delete markers, oldest first: in the index they follow each other,
    newest first. Keys that are ``hidden`` get a delete marker on top: their newest version is not in the bundle, and no
    older one may be taken for it.
    """
    for key, group in groupby(rows, key=lambda row: row.key):
        versions = list(group)[::-1]
        if key in hidden and not versions[-1].is_delete_marker:
            versions.append(ObjectRow(key, 0, "", "", "", None, "", 0, is_delete_marker=True))
        yield key, versions


def object_rows(reader: BundleReader, source: str) -> Iterator[ObjectRow]:
    """Yield the exported objects in the order of the index, streamed. Raises ``DamageError``."""
    make = row_of(source_prefix(reader, source), source)
    for batch in reader.index(source):
        for row in _dicts(batch):
            if row["disposition"] == "exported":
                yield make(row)


def _dicts(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch, few of them at a time: as dictionaries they take ten times as much memory."""
    for start in range(0, batch.num_rows, _DICTS):
        yield from batch.slice(start, _DICTS).to_pylist()


def row_of(prefix: str, source: str) -> Callable[[dict[str, Any]], ObjectRow]:
    """Return what makes an ``ObjectRow`` of a row of the index. It raises ``DamageError``."""

    def make(row: dict[str, Any]) -> ObjectRow:
        needed = _NEEDED_OF_MARKER if row.get("is_delete_marker") else _NEEDED
        if any(row.get(name) is None for name in needed):
            raise DamageError(
                layout.source_file(source, "index/"), expected=f"the columns {needed}", found="none"
            )
        return _row(row, prefix, source)

    return make


class FailedObject(Struct, frozen=True):
    """A version that the index names and the bundle does not hold. ``key`` is relative to the prefix."""

    key: str
    version_id: str
    is_latest: bool
    reason: str

    @property
    def name(self) -> str:
        """The key, and which version where that is known."""
        return f"{self.key} (version {self.version_id})" if self.version_id else self.key


def failed_objects(reader: BundleReader, source: str) -> Iterator[FailedObject]:
    """Yield the objects that the source listed and that could not be exported."""
    if reader.info.complete:
        return
    import pyarrow.compute as pc  # noqa: PLC0415  a sync of buckets needs none of it

    prefix = source_prefix(reader, source)
    for batch in reader.index(source, columns=["key", "version_id", "is_latest", "disposition", "reason"]):
        for row in batch.filter(pc.equal(batch["disposition"], "failed")).to_pylist():
            latest = row["is_latest"] is not False
            key = row["key"].removeprefix(prefix)
            yield FailedObject(key, row["version_id"] or "", latest, row["reason"] or "")


def hidden_keys(reader: BundleReader, source: str) -> frozenset[str]:
    """Return the keys whose newest version could not be exported."""
    return frozenset(
        failed_object.key for failed_object in failed_objects(reader, source) if failed_object.is_latest
    )


def _row(row: dict[str, Any], prefix: str, source: str) -> ObjectRow:
    other = dict(row["other"] or ())
    return ObjectRow(
        key=row["key"].removeprefix(prefix),
        size_bytes=row["size"],
        sha256=row["sha256"] or "",
        md5=row["md5"] or "",
        crc64nvme=row["crc64nvme"] or "",
        modified=row["last_modified"],
        file="" if row["is_delete_marker"] else layout.source_file(source, row["pack"] or row["large"]),
        offset=row["offset"] or 0,
        headers=as_came(row, "headers"),
        metadata=as_came(row, "metadata"),
        tags=dict(row["tags"] or ()),
        checksums=dict(row["checksums"] or ()),
        etag=row["etag"] or "",
        version_id=row["version_id"] or "",
        is_latest=row["is_latest"] is not False,
        is_delete_marker=bool(row["is_delete_marker"]),
        storage_class=row["storage_class"] or "STANDARD",
        lock_mode=row["lock_mode"] or "",
        lock_until=row["lock_until"] or "",
        legal_hold=row["legal_hold"] == "ON",
        acl=row["acl"] or "",
        encryption=other.get("x-amz-server-side-encryption", ""),
        part_sizes=tuple(row["part_sizes"] or ()),
        part_numbers=tuple(map(int, other[PART_NUMBERS].split(","))) if PART_NUMBERS in other else (),
    )
