"""Many requests to a bucket at once: sent ahead within a window, answered in order, each failure by itself.

One thread keeps a handful of connections busy. A request goes out on each before the first response is read; responses
are read as they come, and each connection gets its next request at once. Large bodies leave by threads of their own.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from msgspec import Struct

from migrate.errors import MoveoutError, SlowDownError, UnreachableError
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.inflight_limit import Body
from migrate.storage.outage import ANSWER_SECONDS, outage_of
from migrate.storage.retry import Note, RetryPolicy, RetryServer, RetryTimeout
from migrate.storage.s3.errors import translate
from migrate.storage.s3.http.client import HttpClient, PendingResponse, successful
from migrate.storage.s3.http.messages import Headers, Request, Response, concerns_bucket, is_server_fault

Item = TypeVar("Item")
Value = TypeVar("Value")

CONNECTIONS = 32
"""Requests of one run that are under way at once, where the server keeps up."""
LARGE_BYTES = 256 * 2**10
"""Bodies up to this size fit into what the kernel takes at once; larger ones leave by threads."""
_LARGE_AT_ONCE = 16
"""At most: each has its body in memory, which the caller's window bounds."""
FOLLOW_UPS_AHEAD = 32
RETRY_SECONDS = 120.0
"""How long one request is tried again. Once that was in vain, the next ones get one more attempt each, until
one succeeds: an outage is noticed once, not once an object.
"""
LEAST_RETRY_SECONDS = 15.0
"""How long it is tried where the server answers others meanwhile: such faults are the objects' own."""
SHORT_RETRY_SECONDS = 5.0
"""How long what is not worth more is tried again (see ``run``)."""


class Job(Struct, Generic[Item], frozen=True):
    """A request and what it is for. The request may be sent twice."""

    item: Item
    request: Request


class Answer(Struct, Generic[Item], frozen=True):
    """What became of a job: a response (and that of the follow-up request), or an error."""

    item: Item
    request: Request
    response: Response | None
    follow_up: Response | None = None
    error: MoveoutError | None = None


FollowUp = Callable[[Item, Headers], Request | None]
"""Returns the second request that the headers of a response give rise to."""


class Requests:
    """Sends requests to one bucket and tries them again. Thread-safe: all threads share connections and retries."""

    def __init__(self, http: HttpClient, cancellation: CancellationToken, *, note: Note | None) -> None:
        self.http = http
        self.cancellation = cancellation
        self.retry = _BucketRetry(http, cancellation, note)
        self.limiter = self.retry.limiter
        self.threads = ThreadPoolExecutor(_LARGE_AT_ONCE, thread_name_prefix="moveout-body")
        """They send large bodies."""

    def call(self, request: Request) -> Response:
        """Send one request and wait, trying again. Raises ``MoveoutError``."""
        with self.http.inflight.sending(len(request.body), self.cancellation):
            return self.retry.run(lambda: self.http.call(request))

    def wait(self, pending: PendingResponse) -> Response:
        """Return the response to a request that was sent ahead. Raises ``MoveoutError``."""
        return self.retry.ask_once(pending.wait)

    def run(
        self,
        jobs: Iterable[Job[Item]],
        *,
        window_bytes: int,
        follow_up: FollowUp[Item] | None = None,
        long_retries: bool = True,
    ) -> Iterator[Answer[Item]]:
        """Yield the answers in the order of ``jobs``. What concerns the whole bucket (it is gone, the credentials have
        expired) is raised; what concerns one object is its answer. At most ``window_bytes`` of bodies are sent ahead,
        or held because they came before their turn: a response that is late keeps no other connection waiting. Without
        ``long_retries``, what the server answers with an internal error is retried for a short time only.
        """
        run = _Run(self, iter(jobs), window_bytes)
        arrived: deque[tuple[_Sent[Item], PendingResponse | None]] = deque()
        try:
            run.send()
            while run.sent:
                if run.sent[0].has_ended:
                    first = run.sent.popleft()
                    run.held_bytes -= first.held_bytes
                    second = None
                    if follow_up is not None and first.response is not None:
                        second = follow_up(first.job.item, first.response.headers)
                    arrived.append((first, None if second is None else self.http.begin(second)))
                else:
                    run.receive()
                run.send()
                while arrived and (arrived[0][1] is None or len(arrived) > FOLLOW_UPS_AHEAD or not run.sent):
                    first, pending = arrived.popleft()
                    if first.error is None and pending is None:
                        yield Answer(first.job.item, first.job.request, first.response)
                    else:
                        yield self._answer(first, pending, follow_up, long_retries=long_retries)
        finally:
            run.close()
            for _, pending in arrived:
                if pending is not None:
                    pending.cancel()

    def _answer(
        self,
        sent: _Sent[Item],
        pending: PendingResponse | None,
        follow_up: FollowUp[Item] | None,
        *,
        long_retries: bool,
    ) -> Answer[Item]:
        """Return the answer to a job that has failed, or has a second request."""
        job, error = sent.job, sent.error
        if pending is not None:
            try:
                return Answer(job.item, job.request, sent.response, self.wait(pending))
            except MoveoutError as exc:
                error = exc
        assert error is not None
        if not error.retryable:
            return self._failed(job, error)
        if long_retries or not is_server_fault(error):
            return self.again(job, follow_up)
        policy = RetryPolicy(RetryTimeout(SHORT_RETRY_SECONDS), cancellation=self.cancellation)
        return self.again(job, follow_up, policy)

    def again(
        self, job: Job[Item], follow_up: FollowUp[Item] | None, policy: RetryPolicy | None = None
    ) -> Answer[Item]:
        """Do one job, trying again. Raises like ``run``."""

        def attempt() -> Answer[Item]:
            response = self.http.call(job.request)
            second = None if follow_up is None else follow_up(job.item, response.headers)
            answer = None if second is None else self.http.call(second)
            return Answer(job.item, job.request, response, answer)

        try:
            return (policy or self.retry).run(attempt)
        except MoveoutError as exc:
            return self._failed(job, exc)

    def _failed(self, job: Job[Item], error: MoveoutError) -> Answer[Item]:
        if concerns_bucket(error):
            raise error
        return Answer(job.item, job.request, None, error=error)


class _BucketRetry(RetryPolicy):
    """Retries for a shorter time once that was in vain: see ``RETRY_SECONDS``."""

    def __init__(self, http: HttpClient, cancellation: CancellationToken, note: Note | None) -> None:
        super().__init__(
            RetryTimeout(RETRY_SECONDS),
            RetryServer(http.url, outage_of(http.url), note, http.stuck_seconds),
            cancellation=cancellation,
        )
        self._in_vain_at = -1
        """How many requests were answered when one was given up."""

    @property
    def timeout_seconds(self) -> float:
        return 1.0 if self.limiter.answered == self._in_vain_at else self.total_seconds

    def run(self, call: Callable[[], Value]) -> Value:
        before = self.limiter.answered
        try:
            return super().run(call)
        except UnreachableError:
            if self.limiter.answered > before and self.total_seconds > LEAST_RETRY_SECONDS:
                self.total_seconds /= 2
            self._in_vain_at = self.limiter.answered
            raise


class _Sent(Struct, Generic[Item]):
    """A job that went out. Its response is ``pending``: it comes on a ``descriptor``, which is polled, or by a thread.
    When it has ended there is a successful ``response``, of which ``held_bytes`` are in memory, or an ``error``.
    """

    job: Job[Item]
    body: Body | None
    pending: PendingResponse | Future[Response] | None = None
    descriptor: int = -1
    has_ended: bool = False
    response: Response | None = None
    held_bytes: int = 0
    error: MoveoutError | None = None


class _Run(Generic[Item]):
    """The jobs of one run: what is to come, what is on its way, what came before its turn."""

    def __init__(self, requests: Requests, jobs: Iterator[Job[Item]], window_bytes: int) -> None:
        self.sent: deque[_Sent[Item]] = deque()
        self.held_bytes = 0
        self._requests, self._http, self._limiter = requests, requests.http, requests.limiter
        self._inflight = requests.http.inflight
        self._window_bytes = window_bytes
        self._jobs = jobs
        self._next: Job[Item] | None = None
        self._poll = select.poll()
        self._by_descriptor: dict[int, _Sent[Item]] = {}
        self._busy = self._sent_bytes = 0

    def send(self) -> None:
        """Send as many requests as may be under way now. Raises ``Cancelled``."""
        most = self._limiter.of(CONNECTIONS)
        # A server that struggles gets nothing while an answer of its has not had its turn.
        ahead = most if self._limiter.share < 1.0 else 2 * most
        while self._busy < most and len(self.sent) < ahead and self.held_bytes < max(self._window_bytes, 1):
            job = self._next or next(self._jobs, None)
            if job is None:
                return
            self._next = job
            size_bytes = len(job.request.body)
            if self.sent and self._sent_bytes + size_bytes > self._window_bytes and size_bytes:
                return
            body = None
            if size_bytes:
                # Where nothing is under way there is always room in the end.
                take_room = self._inflight.begin if self._busy else self._inflight.begin_patiently
                body = take_room(size_bytes, self._requests.cancellation)
                if body is None:
                    return
            self._next = None
            self._begin(_Sent(job, body), size_bytes)

    def receive(self) -> None:
        """Take what has come, at least the response to one job: to the first one, where too much is held already."""
        self._requests.retry.ask(self._receive)

    def _receive(self) -> None:
        first = self.sent[0]
        if first.descriptor < 0:
            self._end(first)
            return
        events = () if self.held_bytes >= self._window_bytes else self._poll.poll(ANSWER_SECONDS * 1000)
        for sent in [self._by_descriptor[number] for number, _ in events] or [first]:
            self._end(sent)

    def close(self) -> None:
        """Give up what is on its way, and the connections back."""
        for sent in self.sent:
            if sent.pending is not None:
                sent.pending.cancel()
            if sent.body is not None:
                self._inflight.end(sent.body, arrived=False)

    def _begin(self, sent: _Sent[Item], size_bytes: int) -> None:
        self.sent.append(sent)
        self._busy += 1
        self._sent_bytes += size_bytes
        if size_bytes > LARGE_BYTES:
            sent.pending = self._requests.threads.submit(self._http.exchange, sent.job.request, sent.body)
            return
        sent.pending = pending = self._http.begin(sent.job.request)
        sent.descriptor = pending.descriptor
        if sent.descriptor < 0:
            self._end(sent)
            return
        self._by_descriptor[sent.descriptor] = sent
        self._poll.register(sent.descriptor, select.POLLIN)

    def _end(self, sent: _Sent[Item]) -> None:
        """Take the response to a job, and tell the concurrency limiter whether the server keeps up."""
        assert sent.pending is not None
        request, response = sent.job.request, None
        if self._by_descriptor.pop(sent.descriptor, None) is not None:
            self._poll.unregister(sent.descriptor)
        try:
            try:
                response = sent.pending.result()
            except OSError as exc:
                raise translate(exc, request.key) from exc
            self._requests.retry.note_answer()
            sent.response = successful(request, response, request.key)
            sent.held_bytes = len(response.body)
        except MoveoutError as exc:
            sent.error = exc
        sent.pending = None
        sent.has_ended = True
        self._busy -= 1
        self._sent_bytes -= len(request.body)
        self.held_bytes += sent.held_bytes
        if sent.body is not None:
            self._inflight.end(sent.body, arrived=response is not None)
        if response is not None and response.status < 429:
            self._limiter.succeeded()
        elif isinstance(sent.error, UnreachableError):
            wait_seconds = sent.error.wait_seconds if isinstance(sent.error, SlowDownError) else None
            self._limiter.slow_down(wait_seconds)
            self._limiter.rest(self._requests.cancellation)
