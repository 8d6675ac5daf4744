"""What a worker holds open for a lead: location, source, snapshot. Made from plain data, with secrets of this
machine.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import cast

from msgspec.structs import replace

from exporters.api import Shareable
from exporters.connections.silent_servers import waiting_for_silent
from exporters.engine import load_part
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.bundle.source_workspace import StoreWorkspace
from migrate.case.model import Endpoint
from migrate.cluster import protocol
from migrate.cluster.bandwidth_shares import Allowance
from migrate.cluster.batch_claims import Claims
from migrate.cluster.dask_client import own_threads
from migrate.cluster.lease_guard import LOOK_SECONDS, LeaseFence, LockFence
from migrate.cluster.protocol import ExportJob, Job, Reach, RestoreJob, RowsJob, TransferJob
from migrate.export.open_sources import open_source
from migrate.export.unit_runner import UnitRunner
from migrate.progress.server_contact import WORKING, WaitingCommand, noted_silence
from migrate.restore.common.api import PartLoader, RowDestination
from migrate.restore.common.table_parts import PartFile, parts_of
from migrate.restore.objects.copy import ObjectCopy
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.runtime.progress import Silent
from migrate.storage.api import MultipartStore
from migrate.storage.rate_limit import RateLimiter
from migrate.storage.registry import open_location
from migrate.storage.retry import TOTAL_SECONDS
from migrate.storage.s3.destination_bucket import open_destination_bucket

_REMEMBERED = 64


class Notes(Silent):
    """Keeps what the lead's user should see."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notes: list[str] = []

    def note(self, message: str) -> None:
        """Keep a sentence."""
        with self._lock:
            self._notes.append(message)

    def take(self) -> list[str]:
        """Return the messages since the last call."""
        with self._lock:
            notes, self._notes = self._notes, []
            return notes


def _moving() -> float:
    """Return that nothing stands still: so the server is asked only once the job is at its end."""
    return 0.0


def _ignore(_message: str) -> None:
    """Do nothing."""


class WorkerSession:
    """One job's location and fence, kept from batch to batch. A ``database`` that falls silent is waited for as this
    machine's own threads would; the lead says so. Raises what opening them raises.
    """

    def __init__(self, job: Job, database: Endpoint | None = None) -> None:
        self.job = job
        self.notes = Notes()
        self.cancellation = CancellationToken()
        self.allowance = Allowance(self.cancellation)
        self.running = 0
        rate_limiter = self.allowance.rate_limiter if job.limited else None
        self.store = self._open(job.location, rate_limiter)
        self.fence = self._fence()
        self._held = ExitStack()
        if database is not None:
            self._held.enter_context(
                noted_silence([database], WaitingCommand(_moving, _ignore, self.cancellation, WORKING))
            )
            self._held.enter_context(waiting_for_silent(self.cancellation.wait))
        try:
            self.fence.start()
        except BaseException:
            self.close()
            raise

    def _fence(self) -> LeaseFence | LockFence:
        return LeaseFence(
            self._open(self.job.location, retry_seconds=LOOK_SECONDS), self.job.lease, self.cancellation
        )

    def _open(
        self,
        reach: Reach,
        rate_limiter: RateLimiter | None = None,
        *,
        retry_seconds: float = TOTAL_SECONDS,
    ) -> MultipartStore:
        return open_location(
            reach.url,
            secrets=reach.endpoint().reveal(),
            rate_limiter=rate_limiter,
            note=self.notes.note,
            retry_seconds=retry_seconds,
            cancellation=self.cancellation,
        )

    def _sealed(self, reach: Reach, rate_limiter: RateLimiter | None) -> MultipartStore:
        """Open a bundle, and prove that it can be read from here."""
        store = self._open(reach, rate_limiter)
        store.stat(layout.BAGIT)
        return store

    def close(self) -> None:
        """Let go of what was opened, once nothing is under way any more."""
        self.cancellation.cancel()
        self._held.close()


class ExportSession(WorkerSession):
    """A source's snapshot, and the location."""

    def __init__(self, job: ExportJob) -> None:
        super().__init__(job, job.source.endpoint())
        endpoint = replace(job.source.endpoint(), selection=protocol.selection_of(job.selection))
        try:
            source = open_source(
                job.name,
                endpoint,
                protocol.limits_of(job.limits),
                self.notes.note,
                cancellation=self.cancellation,
            )
            self._held.callback(source.close)
            # It is read while the session opens, and only an open session has a share of the bandwidth.
            workspace = StoreWorkspace(self._open(job.location), job.name)
            joined = cast("Shareable", source).join(workspace, job.ticket, workers=own_threads())
            snapshot = self._held.enter_context(joined)
        except BaseException:
            self.close()
            raise
        self.runner = UnitRunner(
            store=self.store,
            lease=self.fence,
            cancellation=self.cancellation,
            progress=self.notes,
            source=job.name,
            url=source.url,
            snapshot=snapshot,
            rules=job.rules,
        )


class TransferSession(WorkerSession):
    """Where the bundle comes from, and the location that it goes to."""

    def __init__(self, job: TransferJob) -> None:
        super().__init__(job)
        self.workers, self.recheck = job.workers, job.recheck
        try:
            self.origin = self._sealed(job.origin, None)
        except BaseException:
            self.close()
            raise


class RestoreSession(WorkerSession):
    """The bundle, the bucket that is filled from it, and the claims of those who do."""

    def __init__(self, job: RestoreJob) -> None:
        super().__init__(job)
        try:
            origin = self._sealed(job.origin, self.allowance.rate_limiter if job.limited else None)
            endpoint = job.destination.endpoint()
            destination = open_destination_bucket(
                endpoint.url, secrets=endpoint.reveal(), cancellation=self.cancellation
            )
        except BaseException:
            self.close()
            raise
        self.copy = ObjectCopy(job.name, origin, destination, protocol.terms_of(job.terms), job.versions)
        self.claims = Claims(self.store, job.id, self.cancellation)


class RowsSession(WorkerSession):
    """A source's parts in the bundle, and the database that they go into."""

    def __init__(self, job: RowsJob) -> None:
        endpoint = job.destination.endpoint()
        row_writer = endpoint.engine.row_writer
        self._database: RowDestination = load_part(row_writer)(endpoint.url, endpoint.reveal())
        super().__init__(job, endpoint)
        self._name = job.name
        self._opening = threading.Lock()
        self._rows: tuple[PartLoader, dict[str, PartFile]] | None = None

    def rows(self) -> tuple[PartLoader, Mapping[str, PartFile]]:
        """Return what writes parts, and the parts by name. The bundle is read when they are needed, not before: a
        session that is being opened has no share of the bandwidth yet.
        """
        with self._opening:
            if self._rows is None:
                reader = BundleReader(self.store)
                writer = self._database.writer(reader, workers=own_threads(), cancellation=self.cancellation)
                self._held.callback(writer.close)
                tables = [row for row in reader.tables(self._name) if row.kind == "table"]
                self._rows = writer, {part.name: part for part in parts_of(tables)}
            return self._rows

    def _fence(self) -> LockFence:
        return LockFence(self._is_led, self.cancellation)

    def _is_led(self) -> bool:
        return self._database.is_led(int(self.job.lease))


class Sessions:
    """The sessions of one process."""

    def __init__(self) -> None:
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        self._open: list[WorkerSession] = []
        self._cancelled: deque[str] = deque(maxlen=_REMEMBERED)
        """Jobs whose lead has said that they are at their end: what still comes of them is not begun."""

    @contextmanager
    def enter(self, job: Job, make: Callable[[], WorkerSession]) -> Iterator[WorkerSession]:
        """Lend the job's session, made by ``make`` where there is none. Raises ``Cancelled`` for a job at its end."""
        session = self._claim(job, make)
        try:
            yield session
        finally:
            with self._lock:
                session.running -= 1
            self._sweep()

    def of(self, job: str) -> list[WorkerSession]:
        """Return the sessions of a job. Never waits for one that is being opened."""
        with self._lock:
            return [session for session in self._open if session.job.id == job]

    def cancel(self, job: str) -> int:
        """Cancel all that is done for a job; return how many batches are still under way."""
        with self._lock:
            if job not in self._cancelled:
                self._cancelled.append(job)
        sessions = self.of(job)
        for session in sessions:
            session.cancellation.cancel()
        threading.Thread(target=self._sweep, name="moveout-sweep", daemon=True).start()
        with self._lock:
            return sum(session.running for session in sessions)

    def _claim(self, job: Job, make: Callable[[], WorkerSession]) -> WorkerSession:
        with self._opening:
            with self._lock:
                if job.id in self._cancelled:
                    raise Cancelled
                for session in self._open:
                    if session.job.id == job.id and not session.cancellation.is_cancelled:
                        session.running += 1
                        return session
            session = make()
            with self._lock:
                session.running += 1
                self._open.append(session)
                if job.id in self._cancelled:  # in the meantime
                    session.cancellation.cancel()
            return session

    def _sweep(self) -> None:
        """Close sessions that have come to their end, also those of leads that have died."""
        with self._lock:
            ended_sessions = [
                session for session in self._open if session.cancellation.is_cancelled and not session.running
            ]
            self._open = [session for session in self._open if session not in ended_sessions]
        for session in ended_sessions:
            session.close()
