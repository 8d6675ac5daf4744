"""The ``WorkerPool`` (see ``migrate.runtime.worker_pool``) of the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from msgspec import Struct

from exporters.api import Json
from exporters.errors import SourceUnreachableError
from migrate.cluster.available_machines import Machines
from migrate.cluster.dispatch import Dispatch, HeldLock
from migrate.cluster.protocol import Job
from migrate.errors import MoveoutError
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.retry import Note

Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

BATCH_BYTES = 8 * 2**20
BATCH_ITEMS = 64


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
        self._dispatch = Dispatch(machines, job, note)
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
