"""The one retry policy of storage, and the store that follows it.

An error says by its type whether it may be tried again (``retryable``). Most calls can simply be repeated: they come to
the same end. Three cannot, because an attempt that seemed to fail may have worked: a conditional ``create`` or
``replace`` then meets its own file, and ``complete`` an upload that is gone. These look at what lies there before they
call it an error.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct, field

from migrate.errors import (
    AlreadyExistsError,
    ChangedError,
    DamagedOnTheWayError,
    GoneError,
    MoveoutError,
    SlowDownError,
    WrongAnswerError,
)
from migrate.number_text import duration_words
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import (
    PART_BYTES,
    FileInfo,
    MultipartStore,
    NewFile,
    Parts,
    StoreWrapper,
    Upload,
    UploadedPart,
)
from migrate.storage.checksums import crc64nvme as crc64
from migrate.storage.concurrency_limit import ConcurrencyLimiter
from migrate.storage.outage import ANSWER_SECONDS, SILENT_SECONDS, Outage, is_looking
from migrate.storage.silence import watch

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")
Note = Callable[[str], None]

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
TOTAL_SECONDS = 300.0
FIRST_CONTACT_SECONDS = 10.0
"""A server that has never answered is more likely misspelt than down."""
NOTE_AFTER_SECONDS = 10.0
SAME_ATTEMPTS = 5
"""How often bytes are sent that arrive damaged each time, or a request whose answer is a wrong one each time."""
_NO_ACCIDENT = (DamagedOnTheWayError, WrongAnswerError)


class RetryTimeout(Struct, frozen=True):
    """A call is tried again until ``total_seconds`` have passed since it failed, or since every call has failed. Before
    the server has answered anybody these are ``first_contact_seconds``. A ``deadline`` that lies ahead ends it, too.
    """

    total_seconds: float = TOTAL_SECONDS
    first_contact_seconds: float | None = None
    deadline: datetime | None = None


class RetryServer(Struct, frozen=True):
    """The server that calls go to. Several policies may share its ``outage``. ``note`` is called when a retry takes
    long. It is also called when calls have had no answer for 15 s, and, where ``stuck_seconds`` is known, no byte came
    or went for as long. They go on: only a slow server answers yet.
    """

    name: str = "the server"
    outage: Outage = field(default_factory=Outage)
    note: Note | None = None
    stuck_seconds: Callable[[], float | None] | None = None


class RetryPolicy:
    """When and how long a call is tried again. The pause has full jitter up to ``LONGEST_WAIT_SECONDS``, or is as long
    as the other side asks. Thread-safe: shared by all calls to one server.

    A cancelled run waits no more: what fails from then on fails for good. ``limiter`` says how much may be under way at
    once at a struggling server.
    """

    def __init__(
        self,
        timeout: RetryTimeout | None = None,
        server: RetryServer | None = None,
        *,
        cancellation: CancellationToken | None = None,
        limiter: ConcurrencyLimiter | None = None,
    ) -> None:
        timeout, server = timeout or RetryTimeout(), server or RetryServer()
        deadline = timeout.deadline
        left_seconds = (deadline - datetime.now(UTC)).total_seconds() if deadline else 0.0
        self._until = time.monotonic() + left_seconds if left_seconds > 0 else None
        self._first_contact_seconds = timeout.first_contact_seconds
        self.total_seconds = timeout.total_seconds
        self._name, self._outage, self._stuck_seconds = server.name, server.outage, server.stuck_seconds
        self._note: Note = server.note or _ignore
        self.cancellation = cancellation or CancellationToken()
        self.limiter = limiter or ConcurrencyLimiter()
        if server.note is not None:
            watch(self)

    @property
    def timeout_seconds(self) -> float:
        """How long a call is tried again by now, where the server has answered before."""
        return self.total_seconds

    def run(self, call: Callable[[], T]) -> T:
        """Return what the call returns, at its first attempt or a later one. Raises what its last attempt raises."""
        try:
            value = self.ask(call)  # the usual case must not pay for the machinery of trying again
        except MoveoutError as exc:
            if not exc.retryable:
                self.note_answer()
                raise
            value = self._run_again(call, exc, time.monotonic())
        self.note_answer()
        self.limiter.succeeded()
        return value

    def ask(self, call: Callable[[], T]) -> T:
        """Return what the call returns, once; who waits long for it sees a note."""
        under_way = self._outage.asked()
        try:
            return call()
        finally:
            self._outage.over(under_way)

    def ask_once(self, call: Callable[[], T]) -> T:
        """Do as ``ask`` does, and note that the server has answered."""
        value = self.ask(call)
        self.note_answer()
        return value

    def look(self) -> None:
        """See ``Watched``."""
        seconds = self._outage.silent_seconds()
        stuck_seconds = self._stuck_seconds() if self._stuck_seconds is not None else None
        if stuck_seconds is not None:
            seconds = min(seconds, stuck_seconds)
        if seconds < SILENT_SECONDS or self.cancellation.is_cancelled or is_looking():
            return
        self._outage.silent(seconds)
        if self._outage.is_note_due():
            self._note(self._words(f"requests have had no answer for {seconds:.0f} s"))

    def note_answer(self) -> None:
        """Note that the server has answered."""
        seconds = self._outage.end()
        if seconds:
            self._note(f"{self._name} answers again, after {duration_words(seconds)}")

    def _run_again(self, call: Callable[[], T], first: MoveoutError, started: float) -> T:
        import tenacity  # noqa: PLC0415  takes tornado along where that is installed; most commands try nothing again

        error: MoveoutError | None = first
        failures = Counter[type]()
        jitter = tenacity.wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS)

        def attempt() -> T:
            nonlocal error
            if error is not None:
                raised, error = error, None
                raise raised
            return self.ask(call)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=lambda state: _wait(state, jitter(state)),
            stop=lambda state: self._is_over(state, started) or _is_hopeless(state, failures),
            sleep=self.cancellation.sleep,
            before_sleep=self._note_failure,
            reraise=True,
        )(attempt)

    def _is_over(self, state: tenacity.RetryCallState, started: float) -> bool:
        now = time.monotonic()
        self._outage.failed()
        passed = max(now - started, self._outage.seconds) + state.upcoming_sleep
        limit = self._limit_seconds
        is_late = self._until is not None and now + state.upcoming_sleep > self._until
        return self.cancellation.is_cancelled or passed > limit or is_late

    @property
    def _limit_seconds(self) -> float:
        if self._first_contact_seconds is not None and not self._outage.has_answered:
            return min(self.timeout_seconds, self._first_contact_seconds)
        return self.timeout_seconds

    def _note_failure(self, state: tenacity.RetryCallState) -> None:
        self.limiter.slow_down()
        error = state.outcome.exception() if state.outcome else None
        _log.info(
            "attempt %d failed (%s); the next one in %.1f s",
            state.attempt_number,
            error,
            state.upcoming_sleep,
        )
        is_long = (state.seconds_since_start or 0.0) + state.upcoming_sleep >= NOTE_AFTER_SECONDS
        if is_long and error is not None and self._outage.is_note_due():
            self._note(self._words(error))

    def _words(self, error: BaseException | str) -> str:
        what = "has refused requests" if isinstance(error, SlowDownError) else "has not answered"
        if not self._outage.has_answered and not self._outage.seconds:
            # It may be misspelt: the first call is not tried again, or not for long.
            return (
                f"{self._name} {what} since {self._outage.since}, and is waited for until"
                f" {self._outage.moment(ANSWER_SECONDS)}: {error}"
            )
        seconds = self._limit_seconds
        if not self._outage.seconds:  # no call has failed yet
            seconds += ANSWER_SECONDS
        if self._until is not None:
            passed = self._outage.seconds or SILENT_SECONDS
            seconds = min(seconds, passed + self._until - time.monotonic())
        return (
            f"{self._name} {what} since {self._outage.since}, and is tried again until"
            f" {self._outage.moment(seconds)}: {error}"
        )


def _wait(state: tenacity.RetryCallState, jitter: float) -> float:
    """Full jitter; or what the other side asks for, and a little jitter, so that not all come back at once."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, SlowDownError) and error.wait_seconds is not None:
        return error.wait_seconds + min(jitter, 1.0)
    return jitter


def _passes(error: BaseException) -> bool:
    return isinstance(error, MoveoutError) and error.retryable


def _is_hopeless(state: tenacity.RetryCallState, failures: Counter[type]) -> bool:
    """Count a failed attempt; tell whether all has gone wrong in the same way so often that it is no accident."""
    error = state.outcome.exception() if state.outcome else None
    failures[type(error)] += 1
    return isinstance(error, _NO_ACCIDENT) and failures[type(error)] >= SAME_ATTEMPTS


def _ignore(_: str) -> None:
    """Report nothing."""


class Retrying(StoreWrapper):
    """A store whose calls follow a ``RetryPolicy``. ``on_resent`` is called with the bytes that are sent once more."""

    def __init__(
        self,
        store: MultipartStore,
        policy: RetryPolicy | None = None,
        *,
        on_resent: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(store)
        self._on_resent = on_resent
        self.policy = policy or RetryPolicy(RetryTimeout(first_contact_seconds=FIRST_CONTACT_SECONDS))

    @property
    def limiter(self) -> ConcurrencyLimiter:
        """See ``MultipartStore.limiter``."""
        return self.policy.limiter

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``."""
        return self._send(len(data), lambda: self._store.put(key, data, sha256=sha256))

    def put_all(self, files: Sequence[NewFile]) -> None:
        """See ``Store.put_all``."""
        self._send(sum(len(file.data) for file in files), lambda: self._store.put_all(files))

    def create(self, key: str, data: bytes) -> FileInfo:
        """See ``Store.create``."""
        return self._try_conditional(lambda: self._store.create(key, data), key, data)

    def replace(self, key: str, data: bytes, *, etag: str) -> FileInfo:
        """See ``Store.replace``."""
        return self._try_conditional(lambda: self._store.replace(key, data, etag=etag), key, data)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``Store.read``."""
        return self.policy.run(lambda: self._store.read(key, start, length))

    def stat(self, key: str) -> FileInfo:
        """See ``Store.stat``."""
        return self.policy.run(lambda: self._store.stat(key))

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[FileInfo]:
        """See ``Store.list``. After a fault it goes on behind the last file that was seen."""
        last = start_after
        rows = iter(self._store.list(prefix, start_after=last))

        def again() -> FileInfo | None:
            nonlocal rows
            try:
                return next(rows, None)
            except MoveoutError:
                rows = iter(self._store.list(prefix, start_after=last))  # a generator that raised is finished
                raise

        while (info := self.policy.run(again)) is not None:
            last = info.key
            yield info

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        self.policy.run(lambda: self._store.delete(key))

    def delete_all(self, keys: Sequence[str]) -> None:
        """See ``Store.delete_all``."""
        self.policy.run(lambda: self._store.delete_all(keys))

    def begin(self, key: str, *, sha256: str | None = None, part_bytes: int = PART_BYTES) -> str:
        """See ``MultipartStore.begin``. A lost answer leaves an empty upload behind, which the transfer's end
        removes.
        """
        return self.policy.run(lambda: self._store.begin(key, sha256=sha256, part_bytes=part_bytes))

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """See ``MultipartStore.uploads``."""
        return iter(self.policy.run(lambda: list(self._store.uploads(prefix))))

    def parts(self, key: str, upload: str) -> Parts:
        """See ``MultipartStore.parts``."""
        return self.policy.run(lambda: self._store.parts(key, upload))

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> UploadedPart:
        """See ``MultipartStore.put_part``."""
        return self._send(len(data), lambda: self._store.put_part(key, upload, number, data))

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        """See ``MultipartStore.complete``."""
        attempts = 0

        def attempt() -> FileInfo:
            nonlocal attempts
            attempts += 1
            try:
                return self._store.complete(key, upload, parts, crc64nvme=crc64nvme)
            except GoneError:
                finished = self._finished(key, parts, crc64nvme) if attempts > 1 else None
                if finished is None:
                    raise
                return finished

        return self.policy.run(attempt)

    def abort(self, key: str, upload: str) -> None:
        """See ``MultipartStore.abort``."""
        self.policy.run(lambda: self._store.abort(key, upload))

    def _send(self, size_bytes: int, call: Callable[[], T]) -> T:
        attempts = 0

        def attempt() -> T:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and self._on_resent is not None:
                self._on_resent(size_bytes)
            return call()

        return self.policy.run(attempt)

    def _finished(self, key: str, parts: Parts, crc64nvme: int) -> FileInfo | None:
        """Return the file if it is what these parts make: an earlier attempt has worked, its answer was
        lost.
        """
        try:
            info = self._store.stat(key)
        except GoneError:
            return None
        if info.size_bytes != sum(part.size_bytes for part in parts):
            return None
        crc = 0
        for start in range(0, info.size_bytes, PART_BYTES):
            crc = crc64(self._store.read(key, start, PART_BYTES), crc)
        return info if crc == crc64nvme else None

    def _try_conditional(self, call: Callable[[], FileInfo], key: str, data: bytes) -> FileInfo:
        """Try; where a second attempt finds the condition broken, see whether our own first attempt broke
        it.
        """
        attempts = 0

        def attempt() -> FileInfo:
            nonlocal attempts
            attempts += 1
            try:
                return call()
            except (AlreadyExistsError, ChangedError):
                if attempts == 1:
                    raise
                info = self._store.stat(key)
                if info.size_bytes != len(data) or self._store.read(key) != data:
                    raise
                return info

        return self.policy.run(attempt)
