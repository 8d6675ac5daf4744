"""Which bucket goes to which: one pair, all of an account, or all that a case file names."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from migrate.bundle.export_state import SourceName
from migrate.case.model import Case, Endpoint
from migrate.case.server_url import is_pattern
from migrate.discover.expand import expand_destinations, expand_sources
from migrate.errors import MoveoutError, UsageError
from migrate.runtime.progress import Progress


class BucketPair(Struct, frozen=True):
    """One sync. ``error`` says why it cannot begin: then nothing is known of its ``destination``."""

    name: str
    source: Endpoint
    destination: Endpoint | None
    error: MoveoutError | None = None

    def ready_destination(self) -> Endpoint:
        """Return the destination. Raises the error of a sync that cannot begin."""
        if self.error is not None:
            raise self.error
        assert self.destination is not None
        return self.destination


def pairs_of(
    name: str, source: Endpoint, destination: Endpoint, progress: Progress, case: Case | None
) -> list[BucketPair]:
    """Return the sync from one bucket to another one, or a sync for each bucket that a pattern means. Each keeps its
    name, or has the one that the destination's pattern makes of it. Raises ``UsageError``, and the error of an account
    that cannot be listed.
    """
    if not is_pattern(source.url) and not is_pattern(destination.url):
        return [BucketPair(name, source, destination)]
    if not is_pattern(destination.url):
        raise UsageError(
            f"all buckets of {source.shown} would come to {destination.shown}",
            next_step="write a * where the bucket's name goes: s3://*?profile=NEW, s3://old-*?profile=NEW",
        )
    sources = expand_sources({name: source}, progress, left_out=case.left_out if case else ())
    return _paired(sources, {destination.url: destination}, None)


def pairs_in(case: Case, progress: Progress) -> tuple[list[BucketPair], list[str]]:
    """Return a sync for each bucket of a case, and the names of its sources that are no buckets. Raises ``UsageError``
    where it has no bucket.
    """
    buckets = {name: source for name, source in case.sources.items() if source.engine.url_names == "bucket"}
    if not buckets:
        raise UsageError("the case file has no bucket among its sources", next_step="add a [[source]]")
    sources = expand_sources(buckets, progress, left_out=case.left_out)
    return _paired(sources, case.destinations, case), [name for name in case.sources if name not in buckets]


def _paired(
    sources: Mapping[str, Endpoint], destinations: Mapping[str, Endpoint], case: Case | None
) -> list[BucketPair]:
    listed = [SourceName(name, source.url) for name, source in sources.items() if source.error is None]
    chosen = expand_destinations(listed, destinations, case).endpoints
    return [
        BucketPair(name, source, chosen.get(name), source.error or _missing(name, chosen))
        for name, source in sources.items()
    ]


def _missing(name: str, destinations: Mapping[str, Endpoint]) -> UsageError | None:
    if name in destinations:
        return None
    return UsageError(
        f"the case file does not say where {name} goes",
        next_step='write the new bucket, or the address of the new server, into [[destination]]: url = "…" or to = "…"',
    )
