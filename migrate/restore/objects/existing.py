"""What a destination bucket holds already, compared with what it is to hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from exporters.bucket_api import ObjectSummary
from migrate.bundle.object_index import ObjectRow
from migrate.restore.objects.lease import Folder
from migrate.storage.s3.capability_probe import is_probe_object
from migrate.storage.s3.destination_bucket import DestinationBucket
from migrate.storage.s3.listing.ordered_listing import Listed, ListedVersions

_SAME, _OTHER = "same", "other"


class Present(Protocol):
    """The destination as it was when the restore began. For one thread at a time."""

    probe_objects: set[str]
    """The keys of what a killed restore had written to try the destination out, once all is listed."""

    def begun(self, key: str, rows: Sequence[ObjectRow]) -> Sequence[ObjectSummary] | None:
        """Return the versions of a key that are there and are the first of ``rows`` (oldest first); None where
        something else is there.
        """
        ...

    def foreign(self) -> str | None:
        """Return a key that was asked for by nobody, or None."""
        ...

    def close(self) -> None:
        """Forget it."""
        ...


class PresentObjects:
    """``Present`` of a bucket whose versions are of no concern."""

    def __init__(self, destination: DestinationBucket) -> None:
        self._destination = destination
        self.probe_objects = set[str]()
        self._listed = Listed(of_others(destination, destination.list(), self.probe_objects))

    def begun(self, key: str, rows: Sequence[ObjectRow]) -> Sequence[ObjectSummary] | None:
        """See ``Present.begun``; of one row."""
        listed = self._listed.find(key)
        if listed is None:
            return ()
        summary, mark = listed
        if not mark:
            mark = _SAME if self._destination.holds(summary, rows[-1].content) else _OTHER
            self._listed.mark(key, mark)
        return (summary,) if mark == _SAME else None

    def foreign(self) -> str | None:
        """See ``Present.foreign``."""
        return next(self._listed.unmarked(), None)

    def close(self) -> None:
        """See ``Present.close``."""
        self._listed.close()


class PresentVersions:
    """``Present`` of a bucket with all its versions."""

    def __init__(self, destination: DestinationBucket) -> None:
        self._destination = destination
        self.probe_objects = set[str]()
        self._listed = ListedVersions(of_others(destination, destination.list_versions(), self.probe_objects))

    def begun(self, key: str, rows: Sequence[ObjectRow]) -> Sequence[ObjectSummary] | None:
        """See ``Present.begun``."""
        listed, mark = self._listed.of(key)
        if not listed:
            return ()
        if not mark:
            mark = _SAME if begins(self._destination, listed, rows) else _OTHER
            self._listed.mark(key, mark)
        return listed if mark == _SAME else None

    def foreign(self) -> str | None:
        """See ``Present.foreign``."""
        return next(self._listed.unmarked(), None)

    def close(self) -> None:
        """See ``Present.close``."""
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
    """Leave out what restores keep in the destination themselves, and what a killed one had tried it out with, whose
    keys are added to ``probe_objects``.
    """
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
