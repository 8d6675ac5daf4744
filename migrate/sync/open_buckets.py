"""Opens both buckets of a sync, and decides where its record lies."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from msgspec.structs import replace

from exporters.selection import Selection
from migrate.case.model import Endpoint
from migrate.errors import GoneError, MoveoutError, UsageError
from migrate.restore.common.api import naming_create
from migrate.restore.objects.existing import why_current_only
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from migrate.storage.retry import Note
from migrate.storage.s3 import client
from migrate.storage.s3.destination_bucket import DestinationBucket, make_bucket_like, open_destination_bucket
from migrate.storage.s3.own_objects import SYNC_RECORDS
from migrate.storage.s3.source_bucket import S3Bucket, is_same_bucket, open_bucket
from migrate.sync.plan import Sides

_CONNECTIONS, _SOURCE_CONNECTIONS = 16, 4
"""How many requests are under way at once before the first object is copied."""


def open_sides(
    name: str,
    source: Endpoint,
    destination: Endpoint,
    selection: Selection,
    cancellation: CancellationToken | None = None,
    *,
    note: Note | None = None,
) -> Sides:
    """Open both buckets and prove that they are there; ``note`` is called where one does not answer for long. Raises
    ``UsageError`` where one is within the other.
    """
    for end in (source, destination):
        if urlsplit(end.url).scheme != "s3":
            raise UsageError(
                "a sync goes from bucket to bucket", next_step="give s3://BUCKET/PREFIX?profile=NAME"
            )
    with ThreadPoolExecutor(4, thread_name_prefix="moveout-open") as threads:
        opening = threads.submit(
            open_destination_bucket,
            destination.url,
            secrets=destination.reveal(),
            cancellation=cancellation,
            note=note,
            ask_lock=True,
            connections=_CONNECTIONS,
        )
        source_bucket = open_bucket(
            source.url,
            secrets=source.reveal(),
            cancellation=cancellation,
            note=note,
            connections=_SOURCE_CONNECTIONS,
        )
        with naming_create():
            destination_bucket = opening.result()
        overlap = (
            source_bucket.prefix.startswith(destination_bucket.prefix)
            or destination_bucket.prefix.startswith(source_bucket.prefix)
        ) and is_same_bucket(source_bucket, destination_bucket.reader)
    if overlap:
        raise UsageError(
            f"{source_bucket.url} and {destination_bucket.url} overlap",
            next_step="name another prefix or bucket",
        )
    return Sides(name, source_bucket, destination_bucket, selection)


def lacks_bucket(destination: Endpoint) -> bool:
    """Tell whether the bucket of a destination is missing."""
    try:
        open_destination_bucket(destination.url, secrets=destination.reveal())
    except GoneError:
        return True
    return False


def make_destination(source: Endpoint, destination: Endpoint, *, history: bool, dry_run: bool) -> str:
    """Make the bucket of a destination where there is none, with object lock where the source's bucket has it. Return
    what was made, or with ``dry_run`` would be made; "" where the bucket is there. Raises ``UsageError`` where the
    ``history`` of a source is to be copied that has none.
    """
    if not lacks_bucket(destination):
        return ""
    bucket = open_bucket(source.url, secrets=source.reveal())
    if history:
        _check_history(bucket)
    settings = bucket.configuration()
    if dry_run:
        return f"the bucket {destination.shown} would be made, and all of {source.shown} copied to it"
    return make_bucket_like(settings, destination.url, secrets=destination.reveal()).sentence


def _check_history(source: S3Bucket) -> None:
    if source.keeps_versions() is False:
        raise UsageError(f"{source.url} keeps no versions", next_step="leave out --history")


def check_histories(sides: Sides, *, dry_run: bool) -> None:
    """Make sure that both buckets keep versions. Raises ``UsageError`` where one does not, or cannot."""
    _check_history(sides.source)
    if dry_run:
        return
    if reason := why_current_only(sides.destination):
        raise UsageError(
            f"{sides.destination.url} cannot have a history: {reason}",
            next_step="switch versioning on there, name an empty bucket, or leave out --history: then current versions"
            " are copied, and the ledger says so",
        )


def record_url(sides: Sides, chosen: str | None) -> str:
    """Return where the record lies: where the user wants it, else in the destination bucket, in a folder that nobody's
    objects are in. Raises ``UsageError`` for a location among the destination's objects, or where it could not be kept.
    """
    destination = sides.destination
    if chosen is None:
        if (destination.object_lock() or {}).get("Rule"):
            raise UsageError(
                f"{destination.url} locks all that is written to it; a sync writes its record again and again",
                next_step="name another location for it: --record LOCATION",
            )
        return _own_record(destination)
    if urlsplit(chosen).scheme == "s3":
        for side in (destination.reader, sides.source):
            _check_apart(chosen, side.s3_location, side.prefix)
    return chosen


def clear_versions(sides: Sides) -> str:
    """Remove older versions of the record where the destination keeps them. Return why that failed, "" where it did
    not.
    """
    destination = sides.destination
    try:
        if not destination.versioning():
            return ""
        for version in destination.list_versions(prefix=_folder(destination)):
            if not version.is_latest or version.is_delete_marker:
                destination.delete(version.key, version.version_id)
    except MoveoutError as exc:
        return f"older versions of the record stay at {destination.url}: {exc}"
    return ""


def has_synced(source: Endpoint, destination: Endpoint) -> bool:
    """Tell whether a sync has brought objects from one bucket to the other, by its record in the other. The source need
    not be there any more. Raises ``UsageError``, ``DamageError``, and errors of the destination.
    """
    from migrate.sync.record.sync_record import read_header  # noqa: PLC0415  it imports Arrow

    bucket = open_destination_bucket(destination.url, secrets=destination.reveal())
    record = open_location(_own_record(bucket), secrets=destination.reveal(), part_of=bucket.url)
    header, old = read_header(record), client.parse(source.url)
    return header is not None and (header.source_bucket, header.source_prefix) == (old.bucket, old.prefix)


def _own_record(destination: DestinationBucket) -> str:
    """Return where the record of a sync lies in its destination."""
    return replace(destination.reader.s3_location, prefix=_folder(destination)).url


def _folder(destination: DestinationBucket) -> str:
    folder = hashlib.sha256(destination.prefix.encode()).hexdigest()[:16]
    return f"{SYNC_RECORDS}{folder}/"


def _check_apart(chosen: str, bucket: client.S3Location, prefix: str) -> None:
    location = client.parse(chosen)
    inside = location.prefix.startswith(prefix) and not location.prefix.startswith(SYNC_RECORDS)
    if (location.bucket, location.profile) == (bucket.bucket, bucket.profile) and inside:
        raise UsageError(
            f"{chosen} lies among the objects that are copied",
            next_step=f"name another bucket, a directory, or a prefix below {SYNC_RECORDS}",
        )
