"""Opens sources: finds the exporter of a URL, and lends it clients and secrets."""

from __future__ import annotations

from msgspec import Struct

from exporters.api import Source
from exporters.bucket_api import Bucket
from exporters.engine import exporter_of
from exporters.limits import Limits, Note
from exporters.selection import Selection
from migrate.case.model import Endpoint
from migrate.runtime.cancellation import CancellationToken


def open_source(
    name: str,
    endpoint: Endpoint,
    limits: Limits,
    note: Note,
    *,
    cancellation: CancellationToken | None = None,
) -> Source:
    """Open a source. Raises ``SourceError``, and ``UsageError`` where no engine reads it."""
    if endpoint.error is not None:
        raise endpoint.error
    exporter = exporter_of(endpoint.engine)
    return exporter.open(name, endpoint.url, _Host(endpoint, limits, note, cancellation))


class _Host(Struct, frozen=True):
    """Lends clients and secrets to one source's exporter."""

    _endpoint: Endpoint
    _limits: Limits
    note: Note
    _cancellation: CancellationToken | None

    def limits(self) -> Limits:
        return self._limits

    def secret(self, name: str) -> str | None:
        secret = self._endpoint.secrets.get(name)
        return secret.reveal() if secret else None

    def selection(self) -> Selection:
        return self._endpoint.selection

    def inventory(self) -> str | None:
        return self._endpoint.inventory

    def bucket(self, url: str) -> Bucket:
        from migrate.storage.s3.source_bucket import open_bucket  # noqa: PLC0415  boto3 takes half a second to import

        return open_bucket(
            url, secrets=self._endpoint.reveal(), cancellation=self._cancellation, note=self.note
        )
