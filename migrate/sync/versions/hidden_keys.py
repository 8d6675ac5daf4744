"""Keys whose newest version could not be copied. A delete marker stands above their older versions at the
destination, so that none of them is taken for the current one. The record names these markers; they are removed once
the version is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from exporters.bucket_api import ObjectSummary
from migrate.bundle import canonical_json
from migrate.errors import DamageError, GoneError
from migrate.storage.api import MultipartStore
from migrate.storage.s3.destination_bucket import DestinationBucket
from migrate.storage.s3.metadata.object_metadata import Description

_FILE = "hidden.json"


class HiddenKeys:
    """The markers of one sync, by key without the prefix."""

    def __init__(self, store: MultipartStore, destination: DestinationBucket) -> None:
        self._store, self._destination = store, destination
        try:
            self._markers: dict[str, str] = dict(canonical_json.decode(store.read(_FILE), _FILE)["markers"])
        except (GoneError, DamageError, KeyError, ValueError):
            self._markers = {}

    def without_markers(
        self, listed: Iterable[tuple[str, Sequence[ObjectSummary]]]
    ) -> Iterator[tuple[str, Sequence[ObjectSummary]]]:
        """Yield the histories of the destination without the markers that hide them."""
        for key, versions in listed:
            marker = self._markers.get(key)
            yield (
                key,
                [version for version in versions if version.version_id != marker] if marker else versions,
            )

    def settle(self, keys: AbstractSet[str]) -> None:
        """Hide these keys, and no others. Raises ``MoveoutError``."""
        before = dict(self._markers)
        for key in sorted(self._markers.keys() - keys):
            self._destination.delete(self._destination.prefix + key, self._markers.pop(key))
        for key in sorted(keys - self._markers.keys()):
            if marker := self._hide(self._destination.prefix + key):
                self._markers[key] = marker
        if self._markers != before:
            self._store.put(
                _FILE, canonical_json.encode({"version": 1, "markers": sorted(self._markers.items())})
            )

    def _hide(self, key: str) -> str:
        """Put a delete marker on top of a key that shows an older version; return its id."""
        versions = self._destination.versions(key)
        if not versions or versions[-1].is_delete_marker:
            return ""
        [written] = self._destination.put_versions([(Description(key, before=len(versions)), None)])
        if written.error is not None:
            raise written.error
        return written.version_id
