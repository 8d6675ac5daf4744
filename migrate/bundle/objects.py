"""The objects of a bundle's bucket, as its index names them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.store.content import Content

_NEEDED = ("key", "size", "sha256", "disposition")


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object that is in the bundle. ``file`` is the bundle's file that holds its bytes, from ``offset``;
    hashes are hex digits. ``key`` is relative to the prefix that was exported.
    """

    key: str
    size_bytes: int
    etag: str
    sha256: str
    md5: str
    crc64nvme: str
    modified: datetime | None
    file: str
    offset: int
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    """What the index knows of it that no target takes from us: lock, ACL, storage class."""

    @property
    def content(self) -> Content:
        """What its bytes are known by."""
        return Content(self.size_bytes, self.sha256, self.md5 or self.etag, self.crc64nvme)


def source_prefix(reader: BundleReader, source: str) -> str:
    """Return the prefix that was exported, empty for a whole bucket. Raises ``DamageError``."""
    for row in reader.catalog():
        if row.source == source and row.kind == "bucket":
            return str(row.details.get("prefix", ""))
    raise DamageError(layout.CATALOG, expected=f"a bucket of the source {source}", found="none")


def object_rows(reader: BundleReader, source: str) -> Iterator[ObjectRow]:
    """Yield the exported objects in the order of the index, streamed. Raises ``DamageError``."""
    prefix = source_prefix(reader, source)
    for batch in reader.index(source):
        for row in batch.to_pylist():
            if any(row.get(name) is None for name in _NEEDED) and row.get("disposition") == "exported":
                raise DamageError(
                    layout.source_file(source, "index/"), expected=f"the columns {_NEEDED}", found="none"
                )
            if row["disposition"] == "exported":
                yield _row(row, prefix, source)


def failed_keys(reader: BundleReader, source: str) -> Iterator[str]:
    """Yield the keys that the index names but whose objects are not in the bundle."""
    for batch in reader.index(source, columns=["key", "disposition"]):
        for row in batch.to_pylist():
            if row["disposition"] != "exported":
                yield row["key"]


def _row(row: dict[str, Any], prefix: str, source: str) -> ObjectRow:
    return ObjectRow(
        key=row["key"].removeprefix(prefix),
        size_bytes=row["size"],
        etag=row["etag"] or "",
        sha256=row["sha256"],
        md5=row["md5"] or "",
        crc64nvme=row["crc64nvme"] or "",
        modified=row["last_modified"],
        file=layout.source_file(source, row["pack"] or row["large"]),
        offset=row["offset"] or 0,
        headers=dict(row["headers"] or ()),
        metadata=dict(row["metadata"] or ()),
        tags=dict(row["tags"] or ()),
        extra=tuple(_extra(row)),
    )


def _extra(row: dict[str, Any]) -> Iterator[str]:
    if row["lock_mode"] or row["legal_hold"] == "ON":
        yield "object lock"
    if row["storage_class"] not in {None, "", "STANDARD"}:
        yield f"storage class {row['storage_class']}"
    if row["acl"]:
        yield "ACL"
