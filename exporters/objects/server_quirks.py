"""Known deviations of named S3 servers from the protocol: one table, each row with where it is known
from.

Servers are known by what they call themselves in the header ``Server`` (rclone calls itself AmazonS3, 1.75). What costs
nothing to find out is not in the table. What a destination takes is tried (``storage.s3.capability_probe``). How many
listings at once are worth it is measured. Calls that a server does not have are tried once.
"""

from __future__ import annotations

from enum import Enum, auto

from msgspec import Struct


class Trait(Enum):
    """In what way a server is peculiar."""

    COUNTS_TAGS = auto()
    """Says with an object how many tags it has; others are asked for the tags of every object."""
    OUT_OF_ORDER = auto()
    """Does not list by key."""
    HIDES_BENEATH = auto()
    """Lists no key below the name of another object."""
    NO_ACLS = auto()
    """Has no ACLs of objects, whatever it answers when asked."""
    WALKS_ON = auto()
    """Walks on to the end of the bucket for every listing that begins in the middle of it."""
    UNPACKS_TARS = auto()
    """Makes objects of the members of a tar that is put."""
    MARKERS_APART = auto()
    """Lists delete markers apart from versions. The ids of both give their order, but "null" gives none: it goes by the
    seconds in which they were replaced.
    """
    KEEPS_CREATION = auto()
    """Says when a bucket was made, and says the same for as long as the bucket is there."""


class Quirk(Struct, frozen=True):
    """One row. ``server`` is how the name begins, in small letters; ``source`` says where it is known from."""

    server: str
    trait: Trait
    source: str


QUIRKS = (
    Quirk("amazons3", Trait.COUNTS_TAGS, "Amazon S3 API reference, GetObject: x-amz-tagging-count"),
    Quirk("minio", Trait.COUNTS_TAGS, "seen, 2026-02-12"),
    Quirk(
        "minio", Trait.HIDES_BENEATH, "seen on a single drive, 2026-02-12: also by prefix and by delimiter"
    ),
    Quirk(
        "minio",
        Trait.NO_ACLS,
        "cmd/acl-handlers.go, 2026-02-12: every object is said to be its owner's alone",
    ),
    Quirk("minio", Trait.WALKS_ON, "cmd/metacache-server-pool.go, 2026-02-12: listAndSave"),
    Quirk("minio", Trait.KEEPS_CREATION, "cmd/bucket-metadata.go, 2026-02-12: BucketMetadata.Created"),
    Quirk("minio", Trait.UNPACKS_TARS, "cmd/object-handlers.go, 2026-02-12: PutObjectExtractHandler"),
    Quirk("versitygw", Trait.COUNTS_TAGS, "seen, 1.8.0"),
    Quirk("versitygw", Trait.OUT_OF_ORDER, "seen, 1.8.0: control characters are listed as U+FFFD, elsewhere"),
    Quirk("versitygw", Trait.MARKERS_APART, "backend/posix/posix.go, 1.8.0: fileToObjVersions"),
    Quirk(
        "versitygw",
        Trait.NO_ACLS,
        "backend/backend.go, 1.8.0: no backend has GetObjectAcl; buckets have ACLs",
    ),
)


def has(server: str, trait: Trait) -> bool:
    """Tell whether a server (as it calls itself) is known for something."""
    name = server.lower()
    return any(name.startswith(quirk.server) and quirk.trait is trait for quirk in QUIRKS)
