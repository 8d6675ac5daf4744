"""From a URL to an open source: the exporters' entry points, and what is lent to them."""

from __future__ import annotations

from importlib.metadata import entry_points

from exporters.api import Exporter, Source
from exporters.bucket_api import Bucket
from exporters.limits import Limits, Note
from exporters.selection import Selection
from migrate.case.model import Endpoint
from migrate.case.secrets import redact
from migrate.errors import UsageError

ENTRY_POINTS = "moveout.exporters"


def open_source(name: str, endpoint: Endpoint, selection: Selection, limits: Limits, note: Note) -> Source:
    """Open a source. Raises ``SourceError``, and ``UsageError`` where no exporter reads it."""
    return exporter_for(endpoint.url).open(name, endpoint.url, _Host(endpoint, selection, limits, note))


class _Host:
    """Lends clients and secrets to one source's exporter."""

    def __init__(self, endpoint: Endpoint, selection: Selection, limits: Limits, note: Note) -> None:
        self._endpoint = endpoint
        self._selection = selection
        self._limits = limits
        self.note = note

    def limits(self) -> Limits:
        return self._limits

    def secret(self, name: str) -> str | None:
        secret = self._endpoint.secrets.get(name)
        return secret.reveal() if secret else None

    def selection(self) -> Selection:
        return self._selection

    def inventory(self) -> str | None:
        return self._endpoint.inventory

    def bucket(self, url: str) -> Bucket:
        from migrate.storage.s3.source_bucket import open_bucket  # noqa: PLC0415  boto3 takes half a second to import

        return open_bucket(url, secrets=self._endpoint.reveal())


def exporter_for(url: str) -> Exporter:
    """Return the exporter of a URL's scheme. Raises ``UsageError`` that lists the schemes there are."""
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    known = entry_points(group=ENTRY_POINTS)
    for entry in known:
        if entry.name == scheme:
            made: Exporter = entry.load()()
            return made
    schemes = ", ".join(sorted(f"{entry.name}://" for entry in known))
    raise UsageError(
        f"no exporter reads {scheme + '://' if scheme else repr(redact(url))}",
        next_step=f"this moveout reads {schemes}",
    )
