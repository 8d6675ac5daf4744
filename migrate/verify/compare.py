"""Comparison of a source of a bundle with a live one, of any engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from exporters.engine import load_part
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_comparison import TableDigest
from migrate.case.model import Endpoint
from migrate.engines import registry
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.verify.live_database import Accepts, compare_database


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
    ``compare_database``. Raises ``UsageError`` where the engine cannot be compared.
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
