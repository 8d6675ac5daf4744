"""Which code brings a source up again, or compares it with a live one: decided by the URL's scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.case import Endpoint
from migrate.errors import UsageError
from migrate.progress import Progress
from migrate.restore.outcome import RestoreOutcome

_DATABASES = {"postgresql", "postgres"}


def check_pairs(reader: BundleReader, endpoints: Mapping[str, Endpoint]) -> None:
    """Raise ``UsageError`` for a name that is no source of the bundle."""
    for name in endpoints:
        reader.info.source(name)


def restore_source(
    reader: BundleReader, name: str, endpoint: Endpoint, *, workers: int, progress: Progress, merge: bool
) -> RestoreOutcome:
    """Bring one source of the bundle up at the endpoint."""
    if _scheme(endpoint) in _DATABASES:
        from migrate.restore.sql import restore_database  # noqa: PLC0415  a restore of objects needs no database driver

        password = endpoint.reveal().get("password")
        return restore_database(
            reader,
            name,
            endpoint.url,
            workers=workers,
            progress=progress,
            into_existing=merge,
            password=password,
        )
    from migrate.restore.objects import restore_bucket  # noqa: PLC0415

    return restore_bucket(
        reader, name, endpoint.url, workers=workers, progress=progress, merge=merge, secrets=endpoint.reveal()
    )


def compare_source(
    reader: BundleReader, name: str, endpoint: Endpoint, *, workers: int, progress: Progress, read_all: bool
) -> Sequence[Finding]:
    """Compare one source of the bundle with what lives at the endpoint."""
    if _scheme(endpoint) in _DATABASES:
        from migrate.verify.database import compare_database  # noqa: PLC0415

        password = endpoint.reveal().get("password")
        return compare_database(
            reader, name, endpoint.url, workers=workers, progress=progress, password=password
        )
    from migrate.verify.bucket import compare_bucket  # noqa: PLC0415

    return compare_bucket(
        reader,
        name,
        endpoint.url,
        workers=workers,
        progress=progress,
        read_all=read_all,
        secrets=endpoint.reveal(),
    )


def _scheme(endpoint: Endpoint) -> str:
    scheme = urlsplit(endpoint.url).scheme
    if scheme in _DATABASES or scheme == "s3":
        return scheme
    raise UsageError(f"{endpoint.shown!r} is neither a postgresql:// nor an s3:// URL")
