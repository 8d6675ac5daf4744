"""What a destination bucket holds already, compared with what it is to hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from exporters.bucket_api import ObjectSummary
from migrate.bundle.object_index import ObjectRow
from migrate.errors import MoveoutError, UnreachableError
from migrate.restore.objects.lease import Folder
from migrate.storage.s3.capability_probe import is_probe_object
from migrate.storage.s3.destination_bucket import DestinationBucket
from migrate.storage.s3.listing.ordered_listing import SYNC_RECORDS, Listed, ListedVersions

_SAME, _OTHER = "same", "other"


class Present:
    """The destination as it was at first, with all its ``versions`` or without. For one thread at a time."""

    def __init__(self, destination: DestinationBucket, *, versions: bool) -> None:
        self._destination = destination
        self.probe_objects = set[str]()
        """The keys of what a killed restore had written to try the destination out, once all is listed."""
        listing = destination.list_versions() if versions else destination.list()
        listing = of_others(destination, listing, self.probe_objects)
        self._listed = ListedVersions(listing) if versions else Listed(listing)

    def begun(self, key: str, rows: Sequence[ObjectRow]) -> Sequence[ObjectSummary] | None:
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
        """Return a key that was asked for by nobody, or None; the record of a sync is no object of anybody's."""
        return next((key for key in self._listed.unmarked() if not key.startswith(SYNC_RECORDS)), None)

    def close(self) -> None:
        """Forget it."""
        self._listed.close()


def begins(
    destination: DestinationBucket, listed: Sequence[ObjectSummary], rows: Sequence[ObjectRow]
) -> bool:
    """Tell whether what was found of a key is the first of ``rows``; both oldest first."""
    return len(listed) <= len(rows) and all(
        _is(destination, summary, row) for summary, row in zip(listed, rows, strict=False)
    )


def of_others(
    destination: DestinationBucket, summaries: Iterable[ObjectSummary], probe_objects: set[str] | None = None
) -> Iterator[ObjectSummary]:
    """Leave out what restores keep here, and probes of a killed restore, which ``probe_objects`` gets."""
    ours = Folder(destination).prefix
    for summary in summaries:
        if is_probe_object(destination, summary.key):
            if probe_objects is not None:
                probe_objects.add(summary.key)
        elif not summary.key.startswith(ours):
            yield summary


def _is(destination: DestinationBucket, summary: ObjectSummary, row: ObjectRow) -> bool:
    if summary.is_delete_marker or row.is_delete_marker:
        return summary.is_delete_marker == row.is_delete_marker
    return destination.holds(summary, row.content)


def why_flat(destination: DestinationBucket) -> str:
    """Return why the destination cannot have older versions; nothing where it can, then it keeps them from now on.
    Switches nothing on that was not asked for: a bucket that holds objects without versions is left as it is.
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
