"""Requests to a bucket by the thousand: sent ahead within a window, answered in order, each failure by
itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from migrate.errors import MoveoutError, UnreachableError
from migrate.storage.concurrency_limit import Pace
from migrate.storage.inflight_limit import Body
from migrate.storage.retry import patiently
from migrate.storage.s3.transport.crt_client import (
    CrtClient,
    HeaderBytesError,
    Headers,
    Pending,
    Request,
    Response,
    concerns_bucket,
)
from migrate.storage.s3.transport.threaded_requests import Heavy, HeavyPending, is_heavy

Item = TypeVar("Item")
Value = TypeVar("Value")

IN_FLIGHT = 48
"""Requests of one stream that are under way at once."""
PATIENCE_SECONDS = 120.0
"""How long one request is tried again. Once that was in vain, the next ones get one more attempt each, until
one succeeds: an outage is noticed once, not once an object.
"""
LEAST_PATIENCE_SECONDS = 15.0
"""The same where the server answered others meanwhile, again and again: such faults are the objects' own."""


@dataclass(frozen=True, slots=True)
class Job(Generic[Item]):
    """A request and what it is for. ``size_bytes`` counts towards the window. The request may be sent twice."""

    item: Item
    request: Request
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Answer(Generic[Item]):
    """What became of a job: a response (and that of the request it gave rise to), or an error."""

    item: Item
    response: Response | None
    also: Response | None = None
    error: MoveoutError | None = None


class Stream:
    """Sends jobs through one client. Thread-safe: streams of several threads share connections and
    patience.
    """

    def __init__(self, client: CrtClient, heavy: Heavy) -> None:
        self._client = client
        self._heavy = heavy
        self.flow = client.flow
        self.pace = Pace()
        self._patience = self._usual_patience = PATIENCE_SECONDS

    def run(
        self,
        jobs: Iterable[Job[Item]],
        *,
        window_bytes: int,
        also: Callable[[Item, Headers], Request | None] | None = None,
    ) -> Iterator[Answer[Item]]:
        """Yield the answers in the order of ``jobs``. What concerns the whole bucket (it is gone, the
        credentials have expired) is raised; what concerns one object is its answer.
        """
        waiting: deque[tuple[Job[Item], Pending | HeavyPending, Body | None]] = deque()
        ahead = 0
        source = iter(jobs)
        following = next(source, None)
        try:
            while waiting or following is not None:
                while following is not None and (
                    not waiting
                    or (
                        ahead + following.size_bytes <= window_bytes
                        and len(waiting) < self.pace.of(IN_FLIGHT)
                    )
                ):
                    has_room, body = self.room_for(following, alone=not waiting)
                    if not has_room:
                        break
                    waiting.append((following, self._send(following, also, body), body))
                    ahead += following.size_bytes
                    following = next(source, None)
                job, pending, body = waiting[0]
                answer = self._settle(job, pending, also, body)
                waiting.popleft()
                ahead -= job.size_bytes
                if body is not None:
                    self.flow.end(body, arrived=answer.response is not None)
                yield answer
        finally:
            for _, pending, body in waiting:
                pending.cancel()
                if body is not None:
                    self.flow.end(body, arrived=False)

    def room_for(self, job: Job[Item], *, alone: bool) -> tuple[bool, Body | None]:
        """Tell whether a job may go out now; take room for its body, if it has one. Where the caller has nothing under
        way (``alone``) there is always some in the end. Raises ``UnreachableError`` where the run is being stopped.
        """
        size_bytes = len(job.request.body)
        if not size_bytes:
            return True, None
        body = self.flow.begin_patiently(size_bytes) if alone else self.flow.begin(size_bytes)
        return body is not None, body

    def call(self, request: Request) -> Response:
        """Send one request and wait, trying again. Raises ``MoveoutError``."""
        with self.flow.sending(len(request.body)):
            return self.patiently(lambda: self._call(request))

    def _call(self, request: Request) -> Response:
        if is_heavy(request):
            return self._heavy.call(request)
        try:
            return self._client.call(request)
        except HeaderBytesError:
            return self._heavy.read(request)

    def patiently(self, attempt: Callable[[], Value]) -> Value:
        """Call, and again after passing faults. Raises ``MoveoutError``."""
        before = self.pace.answered
        try:
            value = patiently(attempt, total_seconds=self._patience)
        except UnreachableError:
            if self.pace.answered > before and self._usual_patience > LEAST_PATIENCE_SECONDS:
                self._usual_patience /= 2
            self._patience = 1.0
            raise
        self._patience = self._usual_patience
        return value

    def send(self, request: Request) -> Pending:
        """Send one request; do not wait."""
        return self._client.send(request)

    def one(self, job: Job[Item], also: Callable[[Item, Headers], Request | None] | None) -> Answer[Item]:
        """Do one job, trying again. Raises like ``run``."""
        return self._settle(job, self._send(job, also), also)

    def _send(
        self,
        job: Job[Item],
        also: Callable[[Item, Headers], Request | None] | None,
        body: Body | None = None,
    ) -> Pending | HeavyPending:
        if is_heavy(job.request):
            return self._heavy.send(job.request, body)
        if also is None:
            return self._client.send(job.request)

        def on_headers(headers: Headers) -> Pending | None:
            second = also(job.item, headers)
            return None if second is None else self._client.send(second)

        return self._client.send(job.request, on_headers=on_headers)

    def _settle(
        self,
        job: Job[Item],
        pending: Pending | HeavyPending,
        also: Callable[[Item, Headers], Request | None] | None,
        body: Body | None = None,
    ) -> Answer[Item]:
        first: Pending | HeavyPending | None = pending

        def attempt() -> Answer[Item]:
            nonlocal first
            current, first = first or self._send(job, also, body), None
            try:
                response = current.wait()
            except HeaderBytesError:
                response = self._heavy.read(job.request)
                more = also and also(job.item, response.headers)
                return Answer(job.item, response, self._client.call(more) if more else None)
            second = current.also.wait() if current.also else None
            return Answer(job.item, response, second)

        try:
            try:
                answer = attempt()  # the usual case must not pay for the machinery of trying again
            except MoveoutError as exc:
                if not exc.retryable:
                    raise
                if isinstance(exc, UnreachableError):
                    self.pace.slower()
                answer = self.patiently(attempt)
        except MoveoutError as exc:
            if concerns_bucket(exc):
                raise
            return Answer(job.item, None, error=exc)
        self._patience = self._usual_patience
        self.pace.done()
        return answer
