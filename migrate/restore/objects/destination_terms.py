"""Which properties of an object, and which delete markers, the destination supports; the others are reported before
anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Protocol

from msgspec import Struct, field

from exporters.api import Loss
from exporters.objects.key_oddities import NAMELESS
from migrate.bundle.object_index import ObjectRow
from migrate.storage.s3.capability_probe import (
    FIRST_MARKER,
    LOCK_DENIED,
    REPEATED_MARKER,
    Capabilities,
    Refusals,
)
from migrate.storage.s3.metadata.acl import canned
from migrate.storage.s3.metadata.object_metadata import PUT_BYTES, Description, is_md5, keeps_checksum
from migrate.storage.s3.tar_upload import fits

LARGEST_PART_BYTES = 64 * 2**20
"""Parts of the source's own size are sent up to this: each is held in memory, several at once."""
ONE_PART_BYTES = 2**20
"""An upload in one part is sent as one from this size on: it takes three requests, not one."""
STANDARD = "STANDARD"
_PLAIN_TAG = re.compile(r"[A-Za-z0-9 +\-=._:/@]*")
REFUSED = "the destination makes no delete marker"


class Terms(Refusals, frozen=True):
    """``encrypts``: the destination encrypts what it stores by its own default. ``snowball``: small objects are
    written many at once, see ``tar_upload``. ``only_new``: others are written only where no object of their key is.
    """

    encrypts: bool = False
    snowball: bool = False
    only_new: bool = False
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def of(cls, capabilities: Capabilities, *, encrypts: bool = False) -> Terms:
        """Return the terms of a destination that was tried out."""
        refusals = {name: getattr(capabilities, name) for name in Refusals.__struct_fields__}
        # A request for an object without a key is one for the bucket itself: it would make it, or remove it.
        refusals["refused_keys"] = {NAMELESS: "has no object without one", **capabilities.refused_keys}
        return cls(**refusals, encrypts=encrypts)

    def refused_oddity(self, oddities: AbstractSet[str]) -> str:
        """Return for which of its key's oddities the destination does not take an object; "" where it takes it."""
        return min(oddities & self.refused_keys.keys(), default="")

    def describe(self, key: str, row: ObjectRow, before: int | None = None) -> Description:
        """Return what goes along with a version's bytes; see ``Description`` for ``before``."""
        keeps_class = row.storage_class != STANDARD and row.storage_class not in self.refused_classes
        locked = self.object_lock and self._is_locked(row)
        acl = row.acl and canned(row.acl)
        return Description(
            key,
            {name: value for name, value in row.headers.items() if name not in self.lost_headers},
            row.metadata,
            {tag: value for tag, value in row.tags.items() if not self._refuses(tag, value)},
            row.checksums,
            storage_class=row.storage_class if keeps_class else "",
            lock_mode=row.lock_mode if locked else "",
            lock_until=row.lock_until if locked else "",
            legal_hold=row.legal_hold and self.object_lock,
            acl="" if acl in self.refused_acls else acl,
            before=before,
            only_new=self.only_new,
        )

    def losses(self, key: str, row: ObjectRow) -> Iterator[Loss]:
        """Yield what will not be at the destination of a version that is restored."""
        name = f"{key} (version {row.version_id})" if row.version_id else key
        if row.is_delete_marker:
            return
        if row.lock_mode:
            yield from self._lost_retention(name, row)
        if row.legal_hold and not self.object_lock:
            yield Loss(name, "legal hold", self._no_lock)
        yield from self._lost_tags(name, row)
        for header in sorted(row.headers.keys() & self.lost_headers.keys()):
            why = self.lost_headers[header]
            yield Loss(name, "header", f"{header}: {row.headers[header]}: the destination {why}")
        if row.storage_class in self.refused_classes:
            reason = f"{row.storage_class}: the destination {self.refused_classes[row.storage_class]}"
            yield Loss(name, "storage class", reason)
        acl = row.acl and canned(row.acl)
        if row.acl and not acl:
            yield Loss(name, "ACL", "it names accounts of the old host")
        elif acl in self.refused_acls:
            yield Loss(name, "ACL", f"{acl}: the destination {self.refused_acls[acl]}")
        if row.encryption and not self.encrypts:
            yield Loss(name, "encryption", f"{row.encryption}: the destination's own default holds")
        if self.snowball and row.checksums and fits(self.describe(key, row), row.size_bytes):
            yield Loss(name, "own checksum", "written with others by one request: the destination keeps none")
        else:
            yield from _lost_sums(name, row)

    def _lost_tags(self, name: str, row: ObjectRow) -> Iterator[Loss]:
        for tag, value in row.tags.items():
            if why := self._refuses(tag, value):
                yield Loss(name, "tag", f"{tag}={value}: the destination {why}")

    def _refuses(self, tag: str, value: str) -> str:
        """Return what the destination does with a tag instead of keeping it; nothing where it keeps it."""
        return self.lost_tags or ("" if is_plain_tag(tag, value) else self.refused_tags)

    def _lost_retention(self, name: str, row: ObjectRow) -> Iterator[Loss]:
        retention = f"{row.lock_mode} until {row.lock_until}"
        if not self.object_lock:
            yield Loss(name, "retention", f"{retention}: {self._no_lock}")
        elif not self._is_locked(row):
            yield Loss(name, "retention", f"{retention}: it has ended, and no server takes one that has")

    @property
    def _no_lock(self) -> str:
        return LOCK_DENIED if self.lock_denied else "the destination bucket has no object lock"

    def _is_locked(self, row: ObjectRow) -> bool:
        if not row.lock_mode:
            return False
        try:
            until = datetime.fromisoformat(row.lock_until)
        except ValueError:
            return False
        return (until if until.tzinfo else until.replace(tzinfo=UTC)) > self.now


class Kind(Protocol):
    """A version or a delete marker, wherever it is known from."""

    @property
    def is_delete_marker(self) -> bool:
        """Whether it is a delete marker."""
        ...


class Markers(Struct, frozen=True):
    """The delete markers that a destination does not make (see ``capability_probe``)."""

    refused: frozenset[str] = frozenset()

    def refuse(self, version: Kind, before: Kind | None) -> str:
        """Return why the destination does not make it on top of what is before; nothing where it does."""
        if version.is_delete_marker and before is None and FIRST_MARKER in self.refused:
            return f"{REFUSED} {FIRST_MARKER}"
        if (
            version.is_delete_marker
            and before
            and before.is_delete_marker
            and REPEATED_MARKER in self.refused
        ):
            return f"{REFUSED} {REPEATED_MARKER}"
        return ""


def _lost_sums(name: str, row: ObjectRow) -> Iterator[Loss]:
    if not has_same_etag(row):
        yield Loss(name, "ETag", f"{row.etag} is of parts that are not known or too large to be sent alike")
    if not keeps_checksum(row.checksums, in_parts=in_parts(row)):
        kinds = ", ".join(sorted(set(row.checksums) - {"type"}))
        yield Loss(name, "own checksum", f"{kinds}: the destination keeps a CRC64NVME of the whole instead")


def is_plain_tag(name: str, value: str) -> bool:
    """Tell whether every server takes a tag; S3 itself takes letters of any script."""
    return bool(_PLAIN_TAG.fullmatch(name) and _PLAIN_TAG.fullmatch(value))


def in_parts(row: ObjectRow) -> bool:
    """Tell whether a version is sent in parts: large ones are, and those whose parts are known."""
    return row.size_bytes > PUT_BYTES or has_own_parts(row)


def has_own_parts(row: ObjectRow) -> bool:
    """Tell whether a version is sent in the very parts in which the source had it, so that its ETag is the same."""
    sizes = row.part_sizes
    if not sizes or sum(sizes) != row.size_bytes or max(sizes) > LARGEST_PART_BYTES:
        return False
    return len(sizes) > 1 or (row.size_bytes >= ONE_PART_BYTES and _loses_no_checksum(row))


def _loses_no_checksum(row: ObjectRow) -> bool:
    """Tell whether a version keeps no more of its checksums when it is sent by one request."""
    return keeps_checksum(row.checksums, in_parts=True) or not keeps_checksum(row.checksums, in_parts=False)


def has_same_etag(row: ObjectRow) -> bool:
    """Tell whether the ETag can be the same at the destination: an MD5 of the whole is, one of parts where they are."""
    if "-" in row.etag:
        return has_own_parts(row)
    return row.size_bytes <= PUT_BYTES or not is_md5(row.etag)


def has_odd_tags(row: ObjectRow) -> bool:
    """Tell whether a version has tags that some servers do not take."""
    return any(not is_plain_tag(name, value) for name, value in row.tags.items())


def is_of_concern(row: ObjectRow) -> bool:
    """Tell whether some destination might lose something of a version."""
    if row.is_delete_marker:
        return False
    described = row.lock_mode or row.legal_hold or row.acl or row.encryption or row.storage_class != STANDARD
    described = described or has_odd_tags(row)
    return bool(
        described or not has_same_etag(row) or not keeps_checksum(row.checksums, in_parts=in_parts(row))
    )
