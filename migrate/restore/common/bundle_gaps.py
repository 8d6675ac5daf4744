"""What a bundle itself lacks of a source: no restore can bring it back."""

from __future__ import annotations

from itertools import islice

from migrate.bundle.reader import BundleReader

_NAMED = 1000
"""So many are named one by one."""


def lacking_of(reader: BundleReader, source: str) -> list[str]:
    """Return a sentence for each item of a source that its export could not get."""
    gaps = (gap for owner, gap in reader.gaps() if owner == source and gap.disposition == "failed")
    named = [f"the bundle itself lacks {gap.item}: {gap.reason}" for gap in islice(gaps, _NAMED)]
    more = sum(1 for _ in gaps)
    return [*named, f"the bundle itself lacks {more:,} more: data/gaps.parquet names them"] if more else named
