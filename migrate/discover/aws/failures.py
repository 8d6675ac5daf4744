"""Failed calls as sentences: the same failure in many regions is one sentence with the regions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from migrate.discover.aws.connection import Failure

POLICY_STEP = "`moveout discover --print-policy` prints the policy that the role needs"


class FailedCalls:
    """What could not be listed, and where. ``regions`` are all regions that were asked."""

    def __init__(self, regions: Sequence[str]) -> None:
        self._regions = regions
        self._failures: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._not_offered: dict[str, set[str]] = defaultdict(set)
        self._closed_listings: dict[str, int] = defaultdict(int)

    def add(self, sentence: str, region: str, failure: Failure) -> None:
        """Record that something failed in a region (empty: in the whole account); ``sentence`` lacks the reason."""
        self._failures[sentence, failure.reason].add(region)

    def add_listing(self, services: Collection[str], region: str, failure: Failure) -> None:
        """Record that services could not be listed in a region."""
        *most, last = services
        words = f"{', '.join(most)} and {last}" if most else last
        self._closed_listings[region] += failure.is_denied or failure.not_offered
        if failure.not_offered:
            self._not_offered[words].add(region)
        else:
            self.add(f"{words} could not be listed", region, failure)

    def sentences(self, listings: int) -> list[str]:
        """Return the gaps. A region in which each of the ``listings`` is denied or not offered is one sentence."""
        closed = {region for region, count in self._closed_listings.items() if region and count >= listings}
        sentences = []
        if closed:
            sentences.append(
                f"{self._words(closed)}: nothing could be listed: every call is denied; {POLICY_STEP}"
            )
        for (sentence, reason), regions in self._failures.items():
            where = regions - closed
            if where:
                prefix = f"{self._words(where)}: " if any(where) else ""
                sentences.append(f"{prefix}{sentence}: {reason}")
        return sentences

    def not_offered(self) -> list[str]:
        """Return what regions do not offer, and what the account has never used: nothing is missing there."""
        return [
            f"{self._words(regions)}: {services} is not offered there, or was never used"
            for services, regions in sorted(self._not_offered.items())
        ]

    def _words(self, regions: Collection[str]) -> str:
        if len(regions) > 1 and len(regions) == len(self._regions):
            return f"all {len(regions)} regions"
        return ", ".join(sorted(filter(None, regions)))
