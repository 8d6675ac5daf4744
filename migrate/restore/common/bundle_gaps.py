"""What a bundle itself lacks of a source: no restore can bring it back."""

from __future__ import annotations

from itertools import islice

from migrate.bundle.reader import BundleReader

_NAMED = 1000
"""So many are named one by one."""


def lacking_of(reader: BundleReader, source: str) -> list[str]:
    """Return a sentence for each item of a source that its export could not get; where none is named, for each reason
    why the source is incomplete.
    """
    gaps = reader.failed(source)
    named = [f"the bundle itself lacks {gap.item}: {gap.reason}" for gap in islice(gaps, _NAMED)]
    if not named and not reader.info.source(source).complete:
        reconciliations = (entry for entry in reader.reconciliation() if entry.name == source)
        return [
            f"the bundle is incomplete: {reason}" for entry in reconciliations for reason in entry.reasons
        ]
    more = sum(1 for _ in gaps)
    return [*named, f"the bundle itself lacks {more:,} more: data/gaps.parquet names them"] if more else named
