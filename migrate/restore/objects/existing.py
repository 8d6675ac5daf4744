"""What a destination bucket holds already, compared with what it is to hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from exporters.bucket_api import ObjectSummary
from migrate.bundle.object_index import ObjectRow
from migrate.case.model import Endpoint
from migrate.errors import MoveoutError, UnreachableError
from migrate.restore.objects.lease import RestoreFolder
from migrate.storage.s3.capability_probe import is_probe_object
from migrate.storage.s3.client import S3Location, parse
from migrate.storage.s3.destination_bucket import DestinationBucket
from migrate.storage.s3.listing.ordered_listing import ListedObjects, ListedVersions
from migrate.storage.s3.own_objects import is_own, of_others
from migrate.storage.s3.source_bucket import S3Bucket, is_same_bucket

_SAME, _OTHER = "same", "other"


class ExistingObjects:
    """The objects that the destination had before the restore, or all their ``versions``. For one thread at a time."""

    def __init__(self, destination: DestinationBucket, *, versions: bool) -> None:
        self._destination = destination
        self.probe_objects = set[str]()
        """The keys of what a killed restore had written to try the destination out, once all is listed."""
        listing = destination.list_versions() if versions else destination.list()
        listing = self._without_traces(listing)
        self._listed = ListedVersions(listing) if versions else ListedObjects(listing)

    def earlier_versions(self, key: str, rows: Sequence[ObjectRow]) -> Sequence[ObjectSummary] | None:
        """Return the versions of a key that are there; None where these are not the first of ``rows``, oldest first."""
        summaries, mark = self._find(key)
        if not summaries:
            return ()
        if not mark:
            mark = _SAME if begins(self._destination, summaries, rows) else _OTHER
            self._listed.mark(key, mark)
        return summaries if mark == _SAME else None

    def _find(self, key: str) -> tuple[Sequence[ObjectSummary], str]:
        if isinstance(self._listed, ListedVersions):
            return self._listed.of(key)
        listed = self._listed.find(key)
        return ([listed[0]], listed[1]) if listed else ((), "")

    def foreign(self) -> str | None:
        """Return a key that is neither the bundle's nor moveout's own; None where there is none."""
        return next((key for key in self._listed.unmarked() if not is_own(self._destination, key)), None)

    def _without_traces(self, summaries: Iterable[ObjectSummary]) -> Iterator[ObjectSummary]:
        """Leave out what restores keep here, and note what a killed one has tried the destination out with."""
        ours = RestoreFolder(self._destination).prefix
        for summary in summaries:
            if is_probe_object(self._destination, summary.key):
                self.probe_objects.add(summary.key)
            elif not summary.key.startswith(ours):
                yield summary

    def close(self) -> None:
        """Close the listing."""
        self._listed.close()


def taken(key: str) -> str:
    """Return the finding about a key at which the bucket holds something else."""
    return f"{key}: the bucket holds another object of this key; it was left alone"


def begins(
    destination: DestinationBucket, listed: Sequence[ObjectSummary], rows: Sequence[ObjectRow]
) -> bool:
    """Tell whether the ``listed`` versions of a key are the first of ``rows``. Both are oldest first."""
    return len(listed) <= len(rows) and all(
        _is(destination, summary, row) for summary, row in zip(listed, rows, strict=False)
    )


def _is(destination: DestinationBucket, summary: ObjectSummary, row: ObjectRow) -> bool:
    if summary.is_delete_marker or row.is_delete_marker:
        return summary.is_delete_marker == row.is_delete_marker
    return destination.holds(summary, row.content)


def overlap(destination: Endpoint, location: Endpoint) -> str:
    """Return how a destination bucket or prefix and the location of a bundle overlap; "" where they do not, or where a
    server does not answer.
    """
    if not all(urlsplit(endpoint.url).scheme == "s3" for endpoint in (destination, location)):
        return ""
    with suppress(MoveoutError):
        own, of_bundle = (
            parse(endpoint.url, secrets=endpoint.reveal()) for endpoint in (destination, location)
        )
        is_inside = of_bundle.folder.startswith(own.folder)
        if (is_inside or own.folder.startswith(of_bundle.folder)) and _is_same_bucket(own, of_bundle):
            return (
                f"the bundle at {location.shown} lies in it" if is_inside else f"it lies in {location.shown}"
            )
    return ""


def _is_same_bucket(own: S3Location, other: S3Location) -> bool:
    if own.bucket != other.bucket or own.profile == other.profile:
        return own.bucket == other.bucket
    buckets = S3Bucket(own), S3Bucket(other)
    for bucket in buckets:
        bucket.check()
    return is_same_bucket(*buckets)


def why_current_only(destination: DestinationBucket) -> str:
    """Return why the destination can take current versions only; "" where it keeps older ones, too. In an empty bucket
    versioning is switched on for that. A bucket that holds objects and keeps no versions is left as it is.
    """
    if destination.versioning() == "Enabled":
        return ""
    if next(of_others(destination, destination.list(prefix="")), None) is not None:
        return "the bucket holds objects and keeps no versions"
    try:
        destination.configure("versioning", {"Status": "Enabled"})
    except UnreachableError:
        raise
    except MoveoutError as exc:
        return f"the destination keeps no versions ({exc})"
    return "" if destination.versioning() == "Enabled" else "the destination keeps no versions"
