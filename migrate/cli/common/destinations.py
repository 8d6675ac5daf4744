"""Which code brings a source up again, or compares it with a live one: decided by the URL's scheme.

A further engine joins by a line in ``_WAYS`` (see ``exporters.engine`` for the rest of it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_digests import TableDigest
from migrate.case.model import Endpoint
from migrate.errors import UsageError
from migrate.restore.common.bundle_gaps import lacking_of
from migrate.restore.common.finished_record import FinishedRestore, unique
from migrate.restore.common.outcome import RestoreOutcome
from migrate.runtime.progress import Progress
from migrate.storage.api import MultipartStore

if TYPE_CHECKING:
    from migrate.cluster.machines import Machines
    from migrate.restore.objects.workers import Hands
    from migrate.restore.postgres.rows.load_rows import Copiers


@dataclass(frozen=True, slots=True)
class _Way:
    """The functions for one kind of source, as ``module:function``: imported when they are needed, because a restore
    of objects needs no database driver.
    """

    restore: str
    compare: str = "migrate.verify.live_database:compare_database"
    left_out: str = ""
    """Returns the records of what restores left out, as the destination keeps them (``FinishedRestore``)."""
    ledger: bool = False
    """Whether a restore may find out that the destination cannot hold something, and keeps a loss ledger then."""


_POSTGRES = _Way(
    "migrate.restore.postgres.restore:restore_database",
    left_out="migrate.restore.postgres.left_out:known",
    ledger=True,
)
_SQLITE = _Way(
    "migrate.restore.sqlite.restore:restore_database", left_out="migrate.restore.sqlite.left_out:known"
)
_MYSQL = _Way(
    "migrate.restore.mysql.restore:restore_database",
    left_out="migrate.restore.mysql.left_out:known",
    ledger=True,
)
_BUCKET = _Way("migrate.restore.objects.restore:restore_bucket", "migrate.verify.live_bucket:compare_bucket")

_WAYS: Mapping[str, _Way] = {
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
    "sqlite": _SQLITE,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "s3": _BUCKET,
}
"""By URL scheme; schemes that mean the same have the same way."""


@dataclass(frozen=True, slots=True)
class Others:
    """The machines of a cluster, and how they reach the bundle."""

    machines: Machines
    bundle: Endpoint

    def fillers(self, destination: Endpoint) -> Hands:
        """Return who fills a bucket. Raises ``UsageError`` where a URL holds a secret."""
        from migrate.cluster.object_tasks import Fillers  # noqa: PLC0415  see ``cli.cluster``
        from migrate.cluster.protocol import Reach  # noqa: PLC0415

        return Fillers(self.machines, Reach.of(self.bundle), Reach.of(destination))

    def copiers(self, destination: Endpoint) -> Copiers:
        """Return who copies rows into a PostgreSQL database. Raises ``UsageError`` where a URL holds a secret."""
        from migrate.cluster.protocol import Reach  # noqa: PLC0415
        from migrate.cluster.row_tasks import ByCluster  # noqa: PLC0415  see ``cli.cluster``

        return ByCluster(self.machines, Reach.of(self.bundle), Reach.of(destination))


def check_pairs(reader: BundleReader, endpoints: Mapping[str, Endpoint]) -> None:
    """Raise ``UsageError`` for a name that is no source of the bundle, or a URL of another kind than the source's."""
    for name, endpoint in endpoints.items():
        kind = reader.info.source(name).kind
        if _WAYS.get(kind) != _way(endpoint):
            raise UsageError(
                f"{name} is a {kind}:// source, {endpoint.shown} is of another kind",
                next_step=f"give {name}={kind}://…",
            )


def restore_source(
    reader: BundleReader,
    name: str,
    endpoint: Endpoint,
    *,
    workers: int,
    progress: Progress,
    merge: bool,
    report_to: MultipartStore,
    only: Sequence[str] = (),
    snowball: bool = False,
    others: Others | None = None,
) -> RestoreOutcome:
    """Bring one source of the bundle, or what ``only`` says of it, up at the endpoint. ``report_to`` is where the
    restore says what the destination cannot hold. ``others`` help where they can.
    """
    way = _way(endpoint)
    if only and way is _BUCKET:
        raise UsageError(f"{name}: only databases can be restored in parts", next_step="leave --only out")
    restore = _load(way.restore)
    outcome: RestoreOutcome
    if way is _BUCKET:
        outcome = restore(
            reader,
            name,
            endpoint.url,
            workers=workers,
            progress=progress,
            merge=merge,
            secrets=endpoint.reveal(),
            report_to=report_to,
            snowball=snowball,
            hands=others.fillers(endpoint) if others else None,
        )
        return outcome
    copiers = others.copiers(endpoint) if others and way is _POSTGRES else None
    if others is not None and copiers is None:
        progress.note(f"{name} can only be restored by one machine: this one does it")
    password = endpoint.reveal().get("password")
    outcome = restore(
        reader,
        name,
        endpoint.url,
        workers=workers,
        progress=progress,
        into_existing=merge,
        password=password,
        only=only,
        **({"report_to": report_to} if way.ledger else {}),
        **({"copiers": copiers} if copiers else {}),
    )
    return outcome


def compare_source(
    reader: BundleReader,
    name: str,
    endpoint: Endpoint,
    *,
    workers: int,
    progress: Progress,
    read_all: bool,
    digests: list[TableDigest],
) -> tuple[Sequence[Finding], list[str]]:
    """Compare one source of the bundle with what lives at the endpoint; return what differs, and what is known to be
    missing there: what its restore left out, and what the bundle lacks. ``digests`` fills up with a database's tables.
    """
    way = _way(endpoint)
    compare = _load(way.compare)
    findings: Sequence[Finding]
    lacking = lacking_of(reader, name)
    if way is _BUCKET:
        findings = compare(
            reader,
            name,
            endpoint.url,
            workers=workers,
            progress=progress,
            read_all=read_all,
            secrets=endpoint.reveal(),
        )
        return findings, lacking
    password = endpoint.reveal().get("password")
    records: Sequence[FinishedRestore] = ()
    if way.left_out:
        records = _load(way.left_out)(reader, name, endpoint.url, password=password)
    findings = compare(
        reader,
        name,
        endpoint.url,
        workers=workers,
        progress=progress,
        password=password,
        digests=digests,
        accepted=[record.accepts for record in records],
    )
    return findings, unique(*(record.left_out for record in records), lacking)


def _load(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


def _way(endpoint: Endpoint) -> _Way:
    way = _WAYS.get(urlsplit(endpoint.url).scheme)
    if way is None:
        known = ", ".join(f"{scheme}://" for scheme in _WAYS)
        raise UsageError(
            f"{endpoint.shown!r} is no URL of a database or bucket", next_step=f"it begins with {known}"
        )
    return way
