"""What a bucket holds, by a look at its listing: how much, and what some destination may not take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from msgspec import Struct, field

from exporters.bucket_api import Bucket, ObjectSummary
from exporters.objects import pax_headers
from exporters.objects.archive import ARCHIVED
from exporters.objects.key_oddities import Oddities
from exporters.objects.listing.hidden_objects import BENEATH, lists_no_keys_beneath, nothing_under
from exporters.objects.rate_estimate import Census
from exporters.selection import Selection

LOOKED_AT = 200_000
"""So many rows are looked at one by one; those behind are counted only."""
COUNT_SECONDS = 60.0
"""A survey counts for so long, then reports that there are more."""
OBJECT_LOCK = "object lock"
OLDER = "older versions"
MARKERS = "delete markers"
CLASS = "storage class "


class Seen(Struct):
    """What the listing showed. ``features``: oddities of keys, storage classes and the like, by how often. ``goes_on``:
    it was not listed to its end.
    """

    rows: int = 0
    goes_on: bool = False
    excluded: int = 0
    no_file_names: int = 0
    archived: int = 0
    features: Counter[str] = field(default_factory=Counter)

    def warnings(self, bucket: Bucket) -> Iterator[str]:
        """Yield sentences for people."""
        name = bucket.name
        if not self.rows and (nothing := nothing_under(bucket)):
            yield nothing
        if self.goes_on:
            yield f"{name}: more objects than could be counted in a minute; all times are at least what is said"
        elif self.rows > LOOKED_AT:
            yield f"{name}: the first {LOOKED_AT} objects were looked at one by one, the rest was counted"
        if self.no_file_names:
            odd = self.no_file_names
            yield f"{name}: keys that are no file names: {odd}; the bundle keeps them, some destinations refuse them"
        if self.archived:
            yield f"{name}: archived objects: {self.archived}; the export has them brought back, and waits"
        if self.features[OLDER] or self.features[MARKERS]:
            old, markers = self.features[OLDER], self.features[MARKERS]
            yield f"{name}: older versions ({old}) and delete markers ({markers}) leave too"
        if self.excluded:
            yield f"{name}: objects that are not selected and stay: {self.excluded}"
        if lists_no_keys_beneath(bucket.server):
            yield f"{name}: {BENEATH}"


def take(bucket: Bucket, selection: Selection, *, seconds: float | None = None) -> tuple[Seen, Census]:
    """List a bucket, for ``seconds`` at most, or ``COUNT_SECONDS``. Raises ``SourceError``."""
    most_seconds = COUNT_SECONDS if seconds is None else seconds
    seen, counted, kinds = Seen(), Census(), Oddities()
    versions = not selection.current_only and bucket.keeps_versions()
    start, last, start_time = len(bucket.prefix), "", time.monotonic()
    for page in bucket.pages(versions=bool(versions), until=lambda: None):
        if time.monotonic() - start_time > most_seconds:
            seen.goes_on = True
            break
        seen.rows += len(page.keys)
        if seen.rows > LOOKED_AT and not selection.filters:
            counted = counted.plus_all(page.sizes)
            continue
        for summary in page.rows():
            if selection.filters and _is_excluded(summary, start, selection):
                seen.excluded += 1
                continue
            counted = counted.plus_all([summary.size_bytes])
            if seen.rows <= LOOKED_AT:
                _note(seen, summary, kinds, last)
                last = summary.key
    if versions and bucket.configuration().get("object-lock"):
        seen.features[OBJECT_LOCK] += 1
    return seen, counted


def _is_excluded(summary: ObjectSummary, start: int, selection: Selection) -> bool:
    size_bytes = None if summary.is_delete_marker else summary.size_bytes
    return selection.excludes(summary.key[start:], size_bytes, summary.modified) is not None


def _note(seen: Seen, summary: ObjectSummary, kinds: Oddities, last: str) -> None:
    if summary.is_delete_marker:
        seen.features[MARKERS] += 1
    elif not summary.is_latest:
        seen.features[OLDER] += 1
    if summary.storage_class != "STANDARD":
        seen.features[CLASS + summary.storage_class] += 1
        seen.archived += summary.storage_class in ARCHIVED
    if summary.key != last:
        seen.features.update(kinds.of(summary.key, summary.size_bytes))
        seen.no_file_names += pax_headers.member_name(summary.key) != summary.key
