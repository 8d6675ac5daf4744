"""Comparison of a source of a bundle with a live one, of any engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

from exporters.engine import load_part
from exporters.errors import SourceSnapshotLostError, SourceUnreachableError
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_comparison import TableDigest
from migrate.case.model import Endpoint
from migrate.engines import registry
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.verify.live_database import Accepts, compare_database

_MOST_SNAPSHOTS = 3
_PATIENCE_SECONDS, _AGAIN_SECONDS = 90.0, 2.0
"""A server that begins anew lets nobody in for so long at most, and is asked so often."""


class Compare(Protocol):
    """Compares a source whose contents are no tables with a live one."""

    def __call__(
        self,
        reader: BundleReader,
        source: str,
        url: str,
        *,
        workers: int,
        progress: Progress,
        read_all: bool,
        secrets: Mapping[str, str],
        cancellation: CancellationToken | None,
    ) -> Sequence[Finding]:
        """Return what differs. ``read_all``: read every byte, where less would do. Raises errors of ``migrate.errors``
        and ``exporters.errors`` where it cannot be read.
        """
        ...


def compare_source(
    reader: BundleReader,
    source: str,
    endpoint: Endpoint,
    *,
    workers: int,
    progress: Progress,
    read_all: bool,
    digests: list[TableDigest],
    accepted: Sequence[Accepts] = (),
    cancellation: CancellationToken | None = None,
) -> Sequence[Finding]:
    """Return what differs between a source and what lives at the endpoint. ``digests`` and ``accepted``: see
    ``compare_database``. Where the snapshot of a live database is lost, it begins again under a new one. Raises
    ``UsageError`` where the engine cannot be compared.
    """
    engine = registry.engine_for(endpoint.url, endpoint.shown)
    secrets = endpoint.reveal()
    if engine.comparison:
        compare = cast("Compare", load_part(engine.comparison))
        return compare(
            reader,
            source,
            endpoint.url,
            workers=workers,
            progress=progress,
            read_all=read_all,
            secrets=secrets,
            cancellation=cancellation,
        )

    def compare_tables() -> Sequence[Finding]:
        digests.clear()
        return compare_database(
            reader,
            source,
            endpoint.url,
            workers=workers,
            progress=progress,
            secrets=secrets,
            digests=digests,
            accepted=accepted,
        )

    return _under_new_snapshots(source, compare_tables, progress, cancellation or CancellationToken())


def _under_new_snapshots(
    source: str,
    compare: Callable[[], Sequence[Finding]],
    progress: Progress,
    cancellation: CancellationToken,
) -> Sequence[Finding]:
    """Compare; where the snapshot is lost, begin again, so often at most. A server that begins anew is waited for."""
    lost, until = 0, 0.0
    while True:
        try:
            return compare()
        except SourceUnreachableError as exc:
            if isinstance(exc, SourceSnapshotLostError):
                lost, until = lost + 1, time.monotonic() + _PATIENCE_SECONDS
                if lost < _MOST_SNAPSHOTS:
                    progress.note(f"! {exc}; {source} is compared from its beginning, under a new snapshot")
            if lost == _MOST_SNAPSHOTS or time.monotonic() >= until:
                raise
        progress.end(stopped=True)
        cancellation.sleep(_AGAIN_SECONDS)
        cancellation.check()
