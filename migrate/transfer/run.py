"""Moves a sealed bundle: bounded workers, every byte hashed on the way.

The engine decides nothing (see ``plan``): it reads, checks, sends, and counts. What is durable at the destination
is found by listing it, so the same command goes on after any interruption, from any machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.lease import Lease
from migrate.errors import UsageError
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import WorkerPool, run_all
from migrate.storage.api import MIN_PART_BYTES, MultipartStore, Store, Upload
from migrate.storage.lost_files import refuse_lost
from migrate.transfer.counters import TransferCounters, TransferOutcome
from migrate.transfer.destination import TransferState, list_sizes, make_room, survey, write_state
from migrate.transfer.file_copy import CopySettings, FileCopier, damaged, hash_of
from migrate.transfer.plan import Phases, SealedFile, phases
from migrate.transfer.source_bundle import SealedSource, read_sealed

_log = logging.getLogger(__name__)


class FileMoves(Struct, frozen=True):
    """What a pool that moves files is given. ``recheck``: what lies at the destination is hashed."""

    lease: Lease
    counters: TransferCounters
    progress: Progress
    recheck: bool


OpenPool = Callable[[FileMoves], WorkerPool[SealedFile, None]]
"""Makes the pool that brings files to the destination, save those that are there or have findings."""


def transfer(
    origin: MultipartStore,
    destination: MultipartStore,
    *,
    workers: int,
    progress: Progress,
    recheck: bool = False,
    open_pool: OpenPool | None = None,
    cancellation: CancellationToken | None = None,
) -> TransferOutcome:
    """Bring the sealed bundle at ``origin`` to ``destination``; what lies there already is not sent again.

    Files that differ from their manifest, or are missing, become findings; the rest is moved, and the destination
    stays unsealed. Files at the origin that no manifest names are findings too, and stay where they are.
    ``recheck`` hashes what lies at the destination and replaces what differs. The pool of ``open_pool`` moves the
    payload instead of the threads of this process. ``cancellation``, on which both stores wait, too, is cancelled
    when the transfer fails. Raises ``UsageError`` (no sealed bundle at the origin, or both are one location),
    ``NotEmptyError`` (the destination holds something else), ``BusyError``, ``DamageError`` (the destination took a
    file and does not have it), and whatever a store raises for good.
    """
    if origin.location == destination.location:
        raise _same_location(origin, destination)
    started = time.monotonic()
    with ThreadPoolExecutor(1, thread_name_prefix="moveout-survey") as threads:
        listing = threads.submit(list_sizes, destination)
        sealed = read_sealed(origin)
    survey(destination, sealed, listing.result())  # refuse a foreign location before leaving a lease there
    with Lease(destination, "transfer", progress=progress, alone=open_pool is None) as lease:
        if lease.is_there(origin):  # by a symbolic link, or another profile or name of a server
            raise _same_location(origin, destination)
        settings = CopySettings(
            origin,
            destination,
            lease,
            cancellation or CancellationToken(),
            on_stuck=lease.abandon,
            workers=workers,
            recheck=recheck,
        )
        run = _Transfer(settings, sealed, lease, progress, open_pool)
        run.move()
        run.tidy()
    return run.counters.outcome(sealed, time.monotonic() - started)


def _same_location(origin: Store, destination: Store) -> UsageError:
    same = f", which is {destination.location}," if origin.location != destination.location else ""
    return UsageError(
        f"the bundle lies at {origin.location}{same} already, and no copy of it was made",
        next_step="name another location for the copy",
    )


class _Transfer:
    """One transfer under way."""

    def __init__(
        self,
        settings: CopySettings,
        sealed: SealedSource,
        lease: Lease,
        progress: Progress,
        open_pool: OpenPool | None,
    ) -> None:
        self.counters = TransferCounters(progress)
        self._origin, self._destination, self._recheck = (
            settings.origin,
            settings.destination,
            settings.recheck,
        )
        self._sealed, self._lease, self._progress, self._open_pool = sealed, lease, progress, open_pool
        surveyed = survey(self._destination, sealed, list_sizes(self._destination))
        if surveyed.predecessor:
            progress.note(f"bundle {surveyed.predecessor}, which this one continues, makes room for it")
            surveyed = make_room(self._destination, sealed, surveyed, self._origin.location)
        self._present, self._resumed = surveyed.present, surveyed.begun
        here = sum(file.key in self._present for file in sealed.files)
        _log.info("%d of %d files lie at the destination", here, len(sealed.files))
        # Before its first byte a transfer says that it is under way: where nothing lies there are no uploads.
        look = any(not key.startswith((layout.LEASE, layout.PROGRESS)) for key in self._present)
        self._copier = FileCopier(settings, self.counters, look=look)
        self._stale_uploads: Future[list[Upload]] | None = None

    def move(self) -> None:
        """Do the phases in order; only the first where a file of the payload is damaged or missing: then the
        others are only looked at.
        """
        self._progress.begin("transfer", items=len(self._sealed.files), size_bytes=self._sealed.size_bytes)
        for finding in self._sealed.extra:
            self.counters.find(finding, blocks=False)
        for finding in self._sealed.findings:
            self.counters.find(finding)
        order: Phases = phases(self._sealed.files)
        self._move_payload(order.payload)
        if self.counters.blocked:
            self._inspect((*order.tags, *order.seals))
        else:
            self._move(order.tags)
            self._refuse_lost((*order.payload, *order.tags))
        with ThreadPoolExecutor(1, thread_name_prefix="moveout-tidy") as threads:
            # Files as small are sent whole: no upload is one of theirs.
            if all(file.size_bytes < MIN_PART_BYTES for file in order.seals):
                self._stale_uploads = threads.submit(lambda: list(self._destination.uploads()))
            for file in order.seals:
                if not self.counters.blocked:
                    self._move([file])
                    refuse_lost(self._destination, [(file.key, file.size_bytes)])
        self._progress.end()

    def _refuse_lost(self, files: Sequence[SealedFile]) -> None:
        """Raise ``DamageError`` where a file that was moved is not there: some servers lose what they took."""
        if self.counters.blocked or not self._resumed:
            return
        listed = list_sizes(self._destination)
        unlike = ((file.key, file.size_bytes) for file in files if listed.get(file.key) != file.size_bytes)
        refuse_lost(self._destination, unlike)  # which asks for the file itself: a listing may be late

    def _move_payload(self, files: Sequence[SealedFile]) -> None:
        if self._open_pool is None:
            self._move(files)
            return
        if any(self._present.get(file.key) != file.size_bytes for file in files):
            self._announce()
        pool = self._open_pool(FileMoves(self._lease, self.counters, self._progress, self._recheck))
        # The largest first, so that none is waited for at the end.
        largest_first = sorted(files, key=lambda file: -file.size_bytes)
        for _ in run_all(pool, largest_first, check=self._lease.check):
            pass

    def _move(self, files: Sequence[SealedFile]) -> None:
        missing = self._copier.missing(files, self._present)
        if missing:
            self._announce()
        self._copier.move(missing)

    def tidy(self) -> None:
        """Remove what only a transfer under way needs."""
        if self.counters.blocked:
            return
        listed = self._stale_uploads.result() if self._stale_uploads else self._destination.uploads()
        for upload in listed:
            self._destination.abort(upload.key, upload.id)
        self._destination.delete(layout.TRANSFER_STATE)

    def _announce(self) -> None:
        """Record at the destination what is coming, before the first byte of it."""
        if self._resumed:
            return
        sealed = self._sealed
        state = TransferState(sealed.id, self._origin.location, len(sealed.files), sealed.size_bytes)
        write_state(self._destination, state)
        self._resumed = True

    def _inspect(self, files: Iterable[SealedFile]) -> None:
        """Look for damage in files that are not moved, so that one run names all there is to repair."""
        reported_keys = {finding.key for finding in self._sealed.findings}
        for file in files:
            if file.key in reported_keys:
                continue
            actual_digest = hash_of(self._origin, file)
            if file.sha256 is not None and actual_digest != file.sha256:
                self.counters.find(damaged(file, actual_digest or "nothing"))
