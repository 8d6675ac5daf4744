"""Comparison of a source of a bundle with a live one, of any engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from msgspec import Struct

from exporters.engine import load_part
from exporters.errors import SourceSnapshotLostError, SourceUnreachableError
from exporters.row_digest import RowsDigest
from migrate.bundle.findings import Finding
from migrate.bundle.reader import LiveSource
from migrate.bundle.table_comparison import TableDigest
from migrate.case.secrets import redact
from migrate.engines import registry
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.retry_pauses import RESTART_POLL_SECONDS, RESTART_SECONDS

_TABLE_COMPARISON = "migrate.verify.live_database:compare_database"

_MOST_SNAPSHOTS = 3

Accepts = Callable[[tuple[str, str], RowsDigest | None], bool]
"""Takes a table (schema, name) and its digest in the live database, None for no table."""


class ComparisonRequest(LiveSource, frozen=True, kw_only=True):
    """What is compared, and with which live database or bucket.

    ``read_all``: read every byte, where less would do. Each function of ``accepted`` returns whether the
    difference of a table is known and reported elsewhere. ``unfinished``: a restore into it was interrupted, so what
    is only missing may still come.
    """

    read_all: bool = False
    unfinished: bool = False
    accepted: Sequence[Accepts] = ()


class SourceComparison(Struct, frozen=True):
    """What differs between a source of a bundle and a live one. ``digests``: of the live tables that were read."""

    findings: Sequence[Finding]
    digests: Sequence[TableDigest] = ()


class Compare(Protocol):
    """Compares a source with a live one."""

    def __call__(self, request: ComparisonRequest) -> SourceComparison:
        """Return what differs. Raises errors of ``migrate.errors`` and ``exporters.errors`` where it cannot be read."""
        ...


def compare_source(request: ComparisonRequest) -> SourceComparison:
    """Return what differs. Where the snapshot of a live database is lost, begin again under a new one, up to
    ``_MOST_SNAPSHOTS`` in all; wait for a server that restarts. Raises ``UsageError`` where the engine cannot be
    compared; see ``Compare``.
    """
    engine = registry.engine_for(request.url, redact(request.url))
    compare = cast("Compare", load_part(engine.comparison or _TABLE_COMPARISON))
    cancellation = request.cancellation or CancellationToken()
    lost, until = 0, 0.0
    while True:
        try:
            return compare(request)
        except SourceUnreachableError as exc:
            if isinstance(exc, SourceSnapshotLostError):
                lost, until = lost + 1, time.monotonic() + RESTART_SECONDS
                if lost < _MOST_SNAPSHOTS:
                    words = f"{request.source} is compared from its beginning, under a new snapshot"
                    request.progress.note(f"! {exc}; {words}")
            if lost == _MOST_SNAPSHOTS or time.monotonic() >= until:
                raise
        request.progress.end(stopped=True)
        cancellation.sleep(RESTART_POLL_SECONDS)
        cancellation.check()
