"""Opens sources: finds the exporter of a URL, and gives it clients and secrets. A source that cannot be opened becomes
an ``UnreadableSource``, so that an export continues with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from msgspec import Struct

from exporters.api import Snapshot, Source, Survey, Workspace
from exporters.bucket_api import Bucket
from exporters.engine import exporter_of
from exporters.errors import SourceError
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
    """Gives clients and secrets to the exporter of one source. See ``exporters.api.Host``."""

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


class UnreadableSource(Struct):
    """A source that could not be opened, or is not asked. Every attempt to read it raises the reason."""

    name: str
    url: str
    error: SourceError

    def survey(self) -> Survey:
        """Raise the reason."""
        raise self.error

    def snapshot(self, workspace: Workspace, *, workers: int) -> AbstractContextManager[Snapshot]:
        """Raise the reason."""
        del workspace, workers
        raise self.error

    def close(self) -> None:
        """Do nothing: nothing is open."""


def no_source_error(failures: Sequence[tuple[str, SourceError]]) -> SourceError:
    """Return the error of an export in which no source could be read. It is of the kind with the highest exit code, and
    names all sources, each with its next step where they differ.
    """
    if len(failures) == 1:
        return failures[0][1]
    worst = max((error for _, error in failures), key=lambda error: error.exit_code)
    same_step = len({error.next_step for _, error in failures}) == 1
    next_step = worst.next_step if same_step else "once these reasons are gone, run the same command again"
    error = type(worst)("no source could be read:", next_step=next_step)
    error.causes = failures
    return error
