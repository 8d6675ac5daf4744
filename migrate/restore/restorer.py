"""The contract of restores, and a restore of one source, whichever engine it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from exporters.engine import Engine, load_part
from migrate.bundle.reader import BundleReader
from migrate.engines import registry
from migrate.errors import IncompleteError, UsageError
from migrate.restore.common.bundle_gaps import lacking_of
from migrate.restore.common.finished_record import FinishedRestore, unique
from migrate.restore.common.outcome import RestoreOutcome
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.storage.api import MultipartStore


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What shall be restored, and where to.

    ``source`` is its name in the bundle; ``url`` the destination, opened by ``secrets``. ``merge``: into a destination
    that is not empty. ``only``: of a database ``schema``, ``data`` or tables. ``report`` is where the restore writes
    what the destination cannot hold. ``open_pool`` makes the pool of a cluster that writes instead of the threads
    of this process; None where the engine has no use for one. ``cancellation`` ends what is under
    way. ``pack_small_objects``: to MinIO, many objects in one request.
    """

    reader: BundleReader
    source: str
    url: str
    workers: int
    progress: Progress
    secrets: Mapping[str, str] = field(default_factory=dict)
    merge: bool = False
    only: Sequence[str] = ()
    report: MultipartStore | None = None
    open_pool: Any = None
    cancellation: CancellationToken | None = None
    pack_small_objects: bool = False


class Restorer(Protocol):
    """Restores sources of one engine.

    - A destination that holds something else is refused (``NotEmptyError``), and not touched.
    - The same request after an interruption goes on; after success it changes nothing.
    - What is restored is read back and compared with the bundle. What differs is a finding of the outcome.
    - What the destination cannot hold is named in the outcome's ``left_out``.
    """

    def restore(self, request: RestoreRequest) -> RestoreOutcome:
        """Restore one source. Raises errors of ``migrate.errors`` and ``exporters.errors``."""
        ...

    def finished(
        self, reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
    ) -> Sequence[FinishedRestore]:
        """Return what earlier restores of a source left out of a destination, as it is recorded there."""
        ...


class CreateDestination(Protocol):
    """Makes the database or bucket that a restore names, as the source was, where the destination allows it."""

    def __call__(self, reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]) -> str:
        """Return a sentence that says what was made; "" where the destination exists. Raises errors of
        ``migrate.errors`` and ``exporters.errors``.
        """
        ...


def restorer_of(engine: Engine) -> Restorer:
    """Return the engine's restorer. Raises ``UsageError`` where it has none."""
    reference = registry.require(engine, engine.restorer, "restored")
    return cast("Restorer", load_part(reference)())


def restore_source(request: RestoreRequest, shown: str, *, create: bool = False) -> RestoreOutcome:
    """Restore one source of a bundle; ``shown`` is the destination's URL without secrets. ``create``: make the
    destination where it does not exist. Raises ``IncompleteError`` where the bundle has nothing of the source.
    """
    engine = registry.engine_for(request.url, shown)
    require_content(request.reader, request.source)
    if request.only and engine.contents == "objects":
        raise UsageError(
            f"{request.source}: only databases can be restored in parts", next_step="leave --only out"
        )
    restorer = restorer_of(engine)
    made = ""
    if create and engine.create:
        creator = cast("CreateDestination", load_part(engine.create))
        made = creator(request.reader, request.source, request.url, secrets=request.secrets)
        if made:
            request.progress.note(f"{request.source}: {made}")
    outcome = restorer.restore(request)
    return replace(outcome, notes=(made, *outcome.notes)) if made else outcome


def require_content(reader: BundleReader, source: str) -> None:
    """Raise ``IncompleteError`` where the export could not finish a source, so that nothing describes what is there."""
    reader.info.source(source)
    if any(row.source == source for row in reader.catalog()) or any(reader.source_files(source, "schema/")):
        return
    reasons = [
        reason for entry in reader.reconciliation() if entry.name == source for reason in entry.reasons
    ]
    if reasons:
        raise IncompleteError(
            f"nothing of {source} in the bundle can be restored: {reasons[0]}",
            next_step="export it again to the same location, while the old host is there",
        )


def finished_restores(
    reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
) -> Sequence[FinishedRestore]:
    """Return what earlier restores left out of a live source; nothing where moveout cannot restore such sources."""
    engine = registry.find(url)
    if engine is None or not engine.restorer:
        return []
    return restorer_of(engine).finished(reader, source, url, secrets=secrets)


def missing_from(reader: BundleReader, source: str, records: Sequence[FinishedRestore]) -> list[str]:
    """Return what is recorded as missing from a restored source: what its restores left out, and what the bundle
    lacks.
    """
    return unique(*(record.left_out for record in records), lacking_of(reader, source))
