"""The ``WorkerPool`` (see ``migrate.runtime.worker_pool``) of the workers of a cluster: what becomes of each piece of
work, whichever worker dies or is not fit.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from msgspec import Struct

from exporters.api import Json
from exporters.errors import SourceError, SourceUnreachableError
from migrate.cluster import protocol, worker
from migrate.cluster.dask_client import Cluster, LostBatchError, Ticket, WorkersDiedError
from migrate.cluster.machines import Machines, Roster
from migrate.cluster.protocol import Job, Order
from migrate.errors import BusyError, MoveoutError, UnreachableError
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.retry import Note

Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

BATCH_BYTES = 8 * 2**20
BATCH_ITEMS = 64
MORE_THAN_THREADS = 0.25
"""How much more is under way than the workers do at once: what waits for them when they have finished."""
ATTEMPTS = 5
"""How often a piece is given out whose workers die, or come back without having tried it."""
CANCEL_SECONDS = 10.0


class HeldLock(Protocol):
    """What a lead holds while others work for it: a lease, or a lock."""

    def check(self) -> None:
        """Raise ``BusyError`` once it is lost."""
        ...

    def abandon(self) -> None:
        """Leave it to whatever ends it: somebody did not stop in time."""
        ...


class ItemCodec(Protocol[Item_contra, Result_co]):
    """How the items of one job travel as plain data."""

    def encode(self, item: Item_contra) -> Json:
        """Return an item; ``id`` names it within the job."""
        ...

    def size_bytes(self, item: Item_contra) -> int:
        """Return how much work it is: of little, much goes into one batch."""
        ...

    def decode(self, responses: Sequence[tuple[Item_contra, Json]]) -> Iterator[Result_co]:
        """Return what workers say of items, in order."""
        ...


class Batching(Struct, frozen=True):
    """How many items travel together at most."""

    size_bytes: int = BATCH_BYTES
    items: int = BATCH_ITEMS


_BATCHING = Batching()


class ClusterWorkerPool(Generic[Item, Result]):
    """Sends items in batches. A batch takes a worker tens of milliseconds at least, so that what it costs the scheduler
    is little; and no more than need be, so that all workers end together. ``lease`` is given up when workers do not
    stop in time after an error. When ``cancellation`` is cancelled, all that is under way is taken back, and ends with
    an error.
    """

    def __init__(
        self,
        machines: Machines,
        job: Job,
        codec: ItemCodec[Item, Result],
        *,
        lease: HeldLock,
        note: Note,
        batching: Batching = _BATCHING,
        cancellation: CancellationToken | None = None,
    ) -> None:
        self._cancellation = cancellation or CancellationToken()
        self._codec = codec
        self._lease = lease
        self._batching = batching
        self._dispatch = _Dispatch(machines, job, note)
        self._under_way: dict[str, Item] = {}
        self._following: Item | None = None
        """An item that did not fit into the last batch."""

    @property
    def idle(self) -> bool:
        """See ``WorkerPool.idle``."""
        return self._dispatch.idle and self._following is None

    def fill(self, pull: Callable[[], Item | None]) -> None:
        """See ``WorkerPool.fill``."""
        while self._dispatch.has_room and (pieces := self._batch(pull)):
            self._dispatch.send(pieces)

    def settle(self, seconds: float) -> Iterator[tuple[Item, Result | Exception]]:
        """See ``WorkerPool.settle``. Raises ``BusyError`` where a worker says that the lease is lost."""
        if self._cancellation.is_cancelled:
            yield from self._taken_back()
            return
        responses: list[tuple[Item, Json]] = []
        for piece, response in self._dispatch.settle(seconds):
            item = self._under_way.pop(piece["id"])
            if isinstance(response, Exception):
                yield item, response
            else:
                responses.append((item, response))
        for (item, _), result in zip(responses, self._codec.decode(responses), strict=True):
            yield item, result

    def _taken_back(self) -> Iterator[tuple[Item, MoveoutError]]:
        """Stop all workers. What one has finished meanwhile lies there all the same."""
        items = [*self._under_way.values(), *([] if self._following is None else [self._following])]
        self._under_way, self._following = {}, None
        self._dispatch.cancel()
        for item in items:
            yield item, SourceUnreachableError("it was taken back from the workers")

    def __enter__(self) -> Self:
        """Return the pool itself; the workers are under watch already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop whoever is at the job. After an error the lease is left to grow stale if somebody does not stop."""
        try:
            if not self._dispatch.cancel() and error is not None:
                self._lease.abandon()
        finally:
            self._dispatch.close()

    def _batch(self, pull: Callable[[], Item | None]) -> list[Json]:
        pieces: list[Json] = []
        total = 0
        while len(pieces) < self._batching.items:
            item = pull() if self._following is None else self._following
            self._following = None
            if item is None:
                break
            total += self._codec.size_bytes(item)
            if pieces and total > self._batching.size_bytes:
                self._following = item
                break
            piece = self._codec.encode(item)
            self._under_way[piece["id"]] = item
            pieces.append(piece)
        return pieces


class _Batch(Struct, frozen=True):
    ticket: Ticket
    pieces: Sequence[Json]
    workers: frozenset[str] | None


class _Dispatch:
    """Sends pieces of one job to who is there, under watch until ``close``. For one thread's use."""

    def __init__(self, machines: Machines, job: Job, note: Note) -> None:
        self._cluster = machines.cluster
        self._roster = Roster(machines.cluster, job.id, note, machines.limit)
        self._roster.start()
        self._job = job
        self._note = note
        self._batches: dict[str, _Batch] = {}
        self._ended: queue.SimpleQueue[Ticket] = queue.SimpleQueue()
        self._tries: Counter[str] = Counter()
        self._sent = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._batches

    @property
    def has_room(self) -> bool:
        """Whether another batch should be sent."""
        threads = sum(self._roster.fit.values())
        return len(self._batches) < threads + max(2, int(threads * MORE_THAN_THREADS))

    def send(self, pieces: Sequence[Json]) -> None:
        """Send a batch. Raises ``UnreachableError`` where the scheduler does not answer."""
        self._sent += 1
        only = frozenset(self._roster.fit) if self._roster.has_unfit else None
        key = f"moveout-{self._job.kind}-{self._job.id}-{self._sent:08d}"
        text = protocol.encode(Order(self._job, pieces))
        ticket = self._cluster.submit(worker.do, text, key=key, workers=only)
        self._batches[key] = _Batch(ticket, pieces, only)
        self._cluster.when_done(ticket, self._ended.put)

    def settle(self, seconds: float) -> Iterator[tuple[Json, Json | Exception]]:
        """Yield what became of pieces: what the worker says, or an error; wait so long for the first.

        Raises ``UnreachableError`` where the scheduler is gone, the error of the location where no worker can go on.
        """
        try:
            ticket = self._ended.get(timeout=seconds)
        except queue.Empty:
            self._rescue()
            return
        while True:
            batch = self._batches.pop(ticket.key, None)
            if batch is not None:
                yield from self._result(batch)
            try:
                ticket = self._ended.get_nowait()
            except queue.Empty:
                return

    def cancel(self) -> bool:
        """Take everything back and stop who has begun; tell whether all have ended."""
        self._cluster.drop([batch.ticket for batch in self._batches.values()])
        self._batches.clear()
        return _cancel_everywhere(self._cluster, self._job.id)

    def close(self) -> None:
        """Watch nobody any more."""
        self._roster.stop()

    def _result(self, batch: _Batch) -> Iterator[tuple[Json, Json | Exception]]:
        try:
            report = json.loads(self._cluster.result(batch.ticket))
        except WorkersDiedError as exc:
            self._note(
                "several workers died while they had the same work; it is given out again, piece by piece"
            )
            yield from self._again(batch.pieces, exc, alone=True)
        except LostBatchError as exc:
            raise UnreachableError(
                str(exc),
                next_step="start the cluster again, then run the same command: what is done stays done",
            ) from exc
        else:
            yield from self._read_report(batch, report)

    def _read_report(self, batch: _Batch, report: dict[str, Any]) -> Iterator[tuple[Json, Json | Exception]]:
        for note in report["notes"]:
            self._note(note)
        unfit = "unfit" in report
        if unfit:
            self._exclude(report["worker"], protocol.error_of(report["unfit"]))
        left: list[Json] = []
        for piece in batch.pieces:
            response = report["answers"].get(piece["id"])
            error = protocol.error_of(response) if response and "error" in response else None
            if response is None or _is_of_the_worker(error):
                left.append(piece)
                if error is not None:
                    unfit = True
                    self._exclude(report["worker"], error)
            else:
                yield piece, error or response
        if left and (unfit or len(left) < len(batch.pieces)):
            self.send(left)
        elif left:
            retry_error = MoveoutError("workers stopped before they had done it")
            yield from self._again(left, retry_error, alone=False)

    def _exclude(self, name: str, reason: Exception) -> None:
        if isinstance(reason, BusyError):
            raise reason
        self._roster.exclude(name, reason)

    def _again(
        self, pieces: Sequence[Json], error: MoveoutError, *, alone: bool
    ) -> Iterator[tuple[Json, Exception]]:
        """Send pieces again; ``alone``: each by itself, so that one that kills its worker is found out."""
        left = []
        for piece in pieces:
            self._tries[piece["id"]] += 1
            if self._tries[piece["id"]] < ATTEMPTS:
                left.append(piece)
            else:
                yield piece, SourceError(f"{error}, {ATTEMPTS} times")
        for batch in [[piece] for piece in left] if alone else [left] if left else []:
            self.send(batch)

    def _rescue(self) -> None:
        """Send batches anew that were meant for workers of whom none is there any more."""
        fit_workers = self._roster.fit
        if not fit_workers:
            return
        for key, batch in list(self._batches.items()):
            if batch.workers is not None and batch.workers.isdisjoint(fit_workers):
                del self._batches[key]
                self._cluster.drop([batch.ticket])
                self.send(batch.pieces)


def _is_of_the_worker(error: Exception | None) -> bool:
    """Tell whether another worker may fare better: this one does not reach the location any more."""
    return isinstance(error, UnreachableError) and not isinstance(error, BusyError | SourceError)


def _cancel_everywhere(cluster: Cluster, job: str) -> bool:
    """Cancel all that is done for a job at any worker; tell whether everything has come to its end."""
    try:
        left = list(cluster.threads())
    except MoveoutError:
        return False
    end = time.monotonic() + CANCEL_SECONDS
    with ThreadPoolExecutor(max(1, min(32, len(left))), thread_name_prefix="moveout-cancel") as pool:
        while left and time.monotonic() < end:
            running = list(pool.map(lambda name: _running(cluster, name, job), left))
            left = [name for name, count in zip(left, running, strict=True) if count]
            if left:
                threading.Event().wait(0.1)
    return not left


def _running(cluster: Cluster, name: str, job: str) -> int:
    try:
        return int(cluster.call(name, worker.cancel_job, job))
    except MoveoutError:
        return 1
