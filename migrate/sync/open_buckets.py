"""Both buckets opened, and where the record of their sync lies."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from urllib.parse import urlsplit

from exporters.selection import Selection
from migrate.case.model import Endpoint
from migrate.errors import MoveoutError, UsageError
from migrate.restore.objects.versions import why_flat
from migrate.storage.s3 import client
from migrate.storage.s3.destination_bucket import open_target_bucket
from migrate.storage.s3.source_bucket import open_bucket
from migrate.sync.ordered_listing import RESERVED
from migrate.sync.plan import Sides


def open_sides(name: str, source: Endpoint, target: Endpoint, selection: Selection) -> Sides:
    """Open both buckets and prove that they are there. Raises ``UsageError`` where one is within the other."""
    for end in (source, target):
        if urlsplit(end.url).scheme != "s3":
            raise UsageError(
                "a sync goes from bucket to bucket", next_step="give s3://BUCKET/PREFIX?profile=NAME"
            )
    ours = open_bucket(source.url, secrets=source.reveal())
    theirs = open_target_bucket(target.url, secrets=target.reveal())
    same = (ours.boto.meta.endpoint_url, ours.name) == (theirs.source.boto.meta.endpoint_url, theirs.name)
    if same and (ours.prefix.startswith(theirs.prefix) or theirs.prefix.startswith(ours.prefix)):
        raise UsageError(f"{ours.url} and {theirs.url} overlap", next_step="name another prefix or bucket")
    return Sides(name, ours, theirs, selection)


def check_histories(sides: Sides, *, dry_run: bool) -> None:
    """See to it that both buckets keep versions. Raises ``UsageError`` where one cannot."""
    if sides.source.keeps_versions() is False:
        raise UsageError(f"{sides.source.url} keeps no versions", next_step="leave out --history")
    if dry_run:
        return
    if why := why_flat(sides.target):
        raise UsageError(
            f"{sides.target.url} cannot have a history: {why}",
            next_step="switch versioning on there, name an empty bucket, or leave out --history: then current versions"
            " are copied, and the ledger says so",
        )


def record_url(sides: Sides, chosen: str | None) -> str:
    """Return where the record lies: where the user wants it, else in the target bucket, in a folder that nobody's
    objects are in. Raises ``UsageError`` for a place among the target's objects, or where it could not be kept.
    """
    target = sides.target
    if chosen is None:
        if (target.object_lock() or {}).get("Rule"):
            raise UsageError(
                f"{target.url} locks all that is written to it; the record of a sync must be written again and again",
                next_step="name another place for it: --record PLACE",
            )
        return replace(target.source.location, prefix=_folder(sides)).url
    if urlsplit(chosen).scheme == "s3":
        for side in (target.source, sides.source):
            _check_apart(chosen, side.location, side.prefix)
    return chosen


def clear_versions(sides: Sides) -> str:
    """Where the target keeps versions, remove those of the record that do not count; return why it could not be."""
    target = sides.target
    if not target.versioning():
        return ""
    try:
        for one in target.list_versions(prefix=_folder(sides)):
            if not one.is_latest or one.is_delete_marker:
                target.delete(one.key, one.version_id)
    except MoveoutError as exc:
        return f"older versions of the record stay at {target.url}: {exc}"
    return ""


def _folder(sides: Sides) -> str:
    folder = hashlib.sha256(sides.target.prefix.encode()).hexdigest()[:16]
    return f"{RESERVED}{folder}/"


def _check_apart(chosen: str, bucket: client.S3Location, prefix: str) -> None:
    place = client.parse(chosen)
    inside = place.prefix.startswith(prefix) and not place.prefix.startswith(RESERVED)
    if (place.bucket, place.profile) == (bucket.bucket, bucket.profile) and inside:
        raise UsageError(
            f"{chosen} lies among the objects that are copied",
            next_step=f"name another bucket, a directory, or a prefix below {RESERVED}",
        )
