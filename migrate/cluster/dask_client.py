"""A Dask cluster: the only module that uses its library.

``distributed`` documentation, "Client": functions are sent by name, so the workers need this package as well.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from migrate.errors import MoveoutError, UnreachableError, UsageError

CONNECT_SECONDS = 20.0
_LOOKS = ("profile", "profile-cycle")
"""What a worker does again and again, by the names that Dask has for it (``distributed.worker``)."""
_STACKS_ARE_SAFE = (3, 11, 9)
_SAME = "install the same moveout[cluster] on the scheduler, the workers and here"


class WorkersDiedError(MoveoutError):
    """Several workers in a row have died while they had a batch."""


class LostBatchError(MoveoutError):
    """The scheduler does not know a batch any more."""


class Ticket(Struct, frozen=True):
    """A batch that was handed over; ``future`` is the library's."""

    key: str
    future: Any


class Cluster:
    """A connection to a scheduler. Thread-safe."""

    def __init__(self, address: str, client: Any) -> None:
        self.address = address
        self._client = client

    def threads(self) -> Mapping[str, int]:
        """Return the workers that are there, each with the number of batches it does at once. Raises
        ``UnreachableError``.
        """
        with self._errors():
            threads_by_address: Mapping[str, int] = self._client.nthreads()
        return threads_by_address

    def submit(
        self, function: Callable[[str], str], text: str, *, key: str, workers: Collection[str] | None
    ) -> Ticket:
        """Hand a batch over, to any worker or to one of these. Raises ``UnreachableError``."""
        with self._errors():
            only = None if workers is None else sorted(workers)
            return Ticket(key, self._client.submit(function, text, key=key, pure=False, workers=only))

    def when_done(self, ticket: Ticket, tell: Callable[[Ticket], None]) -> None:
        """Have ``tell`` called, in another thread, once a batch has ended in any way."""
        ticket.future.add_done_callback(lambda _: tell(ticket))

    def result(self, ticket: Ticket) -> str:
        """Return what a batch that has ended came to. Raises ``WorkersDiedError``, ``LostBatchError``, and
        ``UsageError`` where the worker could not even begin.
        """
        from distributed import CancelledError, KilledWorker  # noqa: PLC0415  not everybody has it

        try:
            return str(ticket.future.result())
        except KilledWorker as exc:
            raise WorkersDiedError("the workers that had this batch died") from exc
        except (CancelledError, OSError) as exc:
            raise LostBatchError(f"the scheduler {self.address} lost a batch: {exc!r}") from exc
        except Exception as exc:
            raise UsageError(f"a worker could not take its order: {exc!r}", next_step=_SAME) from exc

    def drop(self, tickets: Sequence[Ticket]) -> None:
        """Take batches back that nobody has begun."""
        with contextlib.suppress(Exception):
            self._client.cancel([ticket.future for ticket in tickets], force=True)

    def call(self, worker: str, function: Callable[..., Any], *arguments: object) -> Any:
        """Call a function of ours within a worker, at once. Raises ``UnreachableError`` where it cannot be reached."""
        with self._errors():
            return self._client.run(function, *arguments, workers=[worker])[worker]

    def close(self) -> None:
        """Part."""
        with contextlib.suppress(Exception):
            self._client.close(timeout=5)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (MoveoutError, UsageError):
            raise
        except Exception as exc:
            raise UnreachableError(
                f"the cluster at {self.address} does not answer: {exc!r}",
                next_step="check its scheduler, then run the same command again: it continues",
            ) from exc


def connect(scheduler: str) -> Cluster:
    """Return the cluster of a scheduler: ``tcp://host:port``, ``tls://…``, or the path of a scheduler file.

    Raises ``UsageError`` without the library or for an address that is none, ``UnreachableError``.
    """
    try:
        from distributed import Client  # noqa: PLC0415  an extra
    except ImportError as exc:
        raise UsageError(
            f"a cluster needs packages that are not there ({exc.name})",
            next_step="pip install 'moveout[cluster]'",
        ) from exc
    _silence_logging()
    scheduler_arguments = (
        {"address": scheduler} if "://" in scheduler else {"scheduler_file": _file(scheduler)}
    )
    try:
        client: Any = Client(
            **scheduler_arguments, timeout=CONNECT_SECONDS, set_as_default=False, name="moveout"
        )  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, KeyError) as exc:
        raise UsageError(
            f"{scheduler!r} is not a scheduler: {exc}",
            next_step="give tcp://HOST:8786, or the scheduler file's path",
        ) from exc
    except Exception as exc:
        raise UnreachableError(
            f"no scheduler answers at {scheduler}", next_step="start one: dask scheduler; then run this again"
        ) from exc
    return Cluster(scheduler, client)


def _silence_logging() -> None:
    """Keep the library's own log out of what the user sees: what concerns them is said as errors and notes."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in {"distributed", "tornado"}:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _file(path: str) -> str:
    if not Path(path).is_file():
        raise UsageError(
            f"there is no scheduler file {path!r}",
            next_step="give tcp://HOST:8786, or the scheduler file's path",
        )
    return path


def sample_no_stacks() -> None:
    """Have the worker that this runs on leave the stacks of its threads alone, where looking at them can be the end.

    Dask looks a hundred times a second, for its statistics. Before 3.11.9, where a collection began in the middle of
    it, CPython waited for a lock that it held itself, and all threads behind it
    (github.com/python/cpython/issues/106883). Such a worker never says anything again, and nobody takes it for dead at
    once. 3.12 collects elsewhere.
    """
    from distributed import get_worker  # noqa: PLC0415

    if sys.version_info >= _STACKS_ARE_SAFE:
        return
    worker = get_worker()
    for name in _LOOKS:
        if (looks := worker.periodic_callbacks.pop(name, None)) is not None:
            worker.loop.add_callback(looks.stop)


def own_address() -> str:
    """Return the name of this worker in the cluster."""
    from distributed import get_worker  # noqa: PLC0415  not everybody has it

    return str(get_worker().address)


def own_threads() -> int:
    """Return how many batches the worker that this is does at once."""
    from distributed import get_worker  # noqa: PLC0415  not everybody has it

    return int(get_worker().state.nthreads)
