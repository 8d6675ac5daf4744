"""One run at a time on a location: a lease file, taken by conditional create, kept by heartbeats, taken over
when stale.

No two clocks are compared. A run that finds the lease taken watches its etag: every heartbeat changes it, so
a lease whose etag stays the same for ``stale_seconds`` *of the watcher's own clock* has no holder. A holder
that was a process of this very machine and is dead is taken over at once, so that the same command goes on
right after a kill. A holder that cannot refresh its lease (a sleeping laptop, a network gone) finds out at
its next ``check``, before it commits anything more.
"""

from __future__ import annotations

import shlex
import threading
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout
from migrate.errors import (
    AlreadyExistsError,
    BusyError,
    ChangedError,
    DamageError,
    GoneError,
    MoveoutError,
    UsageError,
    decoding,
)
from migrate.runtime import process_identity
from migrate.runtime.process_identity import ProcessName, uptime
from migrate.runtime.progress import Progress, Silent
from migrate.storage.api import FileInfo, Store

VERSION = 1
BEAT_SECONDS = 10.0
STALE_SECONDS = 30.0
_RELEASE_SECONDS = 10.0
"""How long a run whose location is out of reach waits until the lease is released; the thread goes on with it."""
_UNSEEN, _UNSEEN_SECONDS = 20, 0.1
"""How often a lease may exist when it is to be written, and be gone when it is read. versitygw 1.8.0 answers so for a
file below a delete marker, without end.
"""


class LeaseState(Struct, frozen=True):
    """What the lease file says. ``since`` (UTC, ISO 8601) is for people, by the holder's clock; nothing is
    computed with it.
    """

    id: str
    purpose: str
    process: ProcessName
    since: str
    beats: int

    def __str__(self) -> str:
        since = self.since.replace("T", " ").replace("+00:00", " UTC")
        return f"{self.purpose} on {self.process.host}, process {self.process.pid}, since {since}"


class Fence(Protocol):
    """The check before every commit."""

    def check(self) -> None:
        """Raise ``BusyError`` once the location is not ours any more."""
        ...


class Lease:
    """Hold the location while the context lasts. Raises ``BusyError`` if another run holds it. Not ``alone``: other
    machines write under this lease too, so that it is over when it has grown stale, not when this process is dead.
    ``bucket``: the URL of what is held, where the location is but a folder for the lease in it.
    """

    def __init__(
        self,
        store: Store,
        purpose: str,
        *,
        progress: Progress | None = None,
        beat_seconds: float = BEAT_SECONDS,
        stale_seconds: float = STALE_SECONDS,
        alone: bool = True,
        bucket: str = "",
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._progress = progress or Silent()
        self._beat_seconds = beat_seconds
        self._stale_seconds = stale_seconds
        this_process = process_identity.this_process()
        holder = this_process if alone else replace(this_process, machine="")
        self._state = LeaseState(uuid.uuid4().hex, purpose, holder, _now(), 0)
        self._etag = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._lost: MoveoutError | None = None
        self._refreshed = 0.0
        self._thread = threading.Thread(target=self._beat_on, name="moveout-lease", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._etag = self._take()
            self._refreshed = uptime()
            self._thread.start()
        except KeyboardInterrupt:
            self._ended.set()
            self._withdraw()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        unreachable = isinstance(error, MoveoutError) and error.retryable
        self._thread.join(_RELEASE_SECONDS if unreachable else None)

    @property
    def id(self) -> str:
        """The id of this run in the lease file."""
        return self._state.id

    def check(self) -> None:
        """Raise ``BusyError`` once the lease is lost. Call it before every commit; it asks the location only
        when heartbeats have failed for so long that somebody else may have taken over.
        """
        if self._lost is None and not self._is_fresh():
            self._beat()
        if self._lost is not None:
            raise self._lost

    def is_there(self, store: Store | None = None) -> bool:
        """Tell whether the location has our lease now: not where it was unmounted, or is another one. Another ``store``
        has it where it leads to the same location. Raises what the store raises.
        """
        lease_and_file = look(store or self._store)
        state = lease_and_file[0] if lease_and_file else None
        return state is not None and state.id == self.id

    def abandon(self) -> None:
        """Stop the heartbeat but leave the lease to grow stale: for threads that could not be stopped and
        may still write.
        """
        self._lost = BusyError("the lease was abandoned")

    def _take(self) -> str:
        unseen = 0
        while True:
            try:
                return self._store.create(layout.LEASE, encode(self._state)).etag
            except AlreadyExistsError:
                pass
            lease_and_file = look(self._store)
            if lease_and_file is None:
                unseen += 1
                if unseen >= _UNSEEN:
                    raise UsageError(
                        f"{self._store.location} neither takes {layout.LEASE} nor shows one: below a delete marker this"
                        " server takes no new file",
                        next_step=f"remove all versions of {layout.LEASE} there, or name another location",
                    )
                time.sleep(_UNSEEN_SECONDS)
                continue
            state, info = lease_and_file
            if state is not None and process_identity.is_alive(state.process):
                raise busy(self._store, state, self._bucket)
            if state is None or not process_identity.is_dead(state.process):
                _watch(self._store, lease_and_file, self._stale_seconds, self._progress, self._bucket)
            with suppress(ChangedError, GoneError):
                etag = self._store.replace(layout.LEASE, encode(self._state), etag=info.etag).etag
                self._progress.note(
                    f"took over from a run that ended without saying so ({state or 'unreadable lease'})"
                )
                return etag

    def _withdraw(self) -> None:
        """Remove the lease if it was written, though the answer was not waited for."""
        with suppress(MoveoutError):
            lease_and_file = look(self._store)
            state = lease_and_file[0] if lease_and_file else None
            if state is not None and state.id == self._state.id:
                self._store.delete(layout.LEASE)

    def _beat_on(self) -> None:
        while not self._ended.wait(self._beat_seconds) and self._lost is None:
            with suppress(MoveoutError):
                self._beat()
        if self._lost is None:
            with suppress(MoveoutError):
                self._release()

    def _beat(self) -> None:
        """Refresh the lease; set ``_lost`` if it is somebody else's. Raises what the store raises when it
        cannot tell.
        """
        with self._lock:
            state = LeaseState(
                self._state.id,
                self._state.purpose,
                self._state.process,
                self._state.since,
                self._state.beats + 1,
            )
            refreshed = uptime()
            try:
                self._etag = self._store.replace(layout.LEASE, encode(state), etag=self._etag).etag
            except (ChangedError, GoneError):
                lease_and_file = look(self._store)
                if lease_and_file is None or lease_and_file[0] is None or lease_and_file[0].id != state.id:
                    self._lost = self._taken_over(lease_and_file)
                    return
                # A retry of our own write whose first answer was lost.
                self._etag = lease_and_file[1].etag
            self._state = state
            self._refreshed = refreshed

    def _taken_over(self, by: tuple[LeaseState | None, FileInfo] | None) -> BusyError:
        if by is not None:
            return busy(self._store, by[0], self._bucket)
        return BusyError(
            f"{self._bucket or self._store.location}: the lease of this run is gone: another one may have taken over",
            next_step="wait until that run has ended, and run the same command again: it goes on from what is there",
        )

    def _release(self) -> None:
        # The beat proves that the lease is ours for another while; the delete that follows cannot hit
        # another's; one of a moment ago does, too. A full location takes no beat; the one before holds for as long as
        # `check` relies on it.
        try:
            if uptime() - self._refreshed > self._beat_seconds / 2:
                self._beat()
        except MoveoutError:
            if not self._is_fresh():
                raise
        if self._lost is None:
            self._store.delete(layout.LEASE)

    def _is_fresh(self) -> bool:
        """Tell whether nobody can have taken over since the last heartbeat."""
        return uptime() - self._refreshed <= self._stale_seconds * 0.7


def clear_dead(store: Store) -> None:
    """Remove the lease of a run of this machine that was killed after its last step. Nothing happens where there is
    none, or where it may be another machine's.
    """
    lease_and_file = look(store)
    state = lease_and_file[0] if lease_and_file else None
    if state is not None and process_identity.is_dead(state.process):
        with Lease(store, state.purpose, progress=Silent()):
            pass


def refuse_live(
    store: Store, *, progress: Progress | None = None, stale_seconds: float = STALE_SECONDS
) -> None:
    """Return once no run is at work at the location, without taking it. Raises ``BusyError``."""
    lease_and_file = look(store)
    if lease_and_file is None:
        return
    state, _ = lease_and_file
    if state is not None and process_identity.is_alive(state.process):
        raise busy(store, state)
    if state is None or not process_identity.is_dead(state.process):
        _watch(store, lease_and_file, stale_seconds, progress or Silent())


def _watch(
    store: Store,
    lease_and_file: tuple[LeaseState | None, FileInfo],
    stale_seconds: float,
    progress: Progress,
    bucket: str = "",
) -> None:
    """Return once the lease is stale or gone; raise ``BusyError`` as soon as it moves."""
    state, info = lease_and_file
    progress.note(
        f"the location is held by {state or 'an unreadable lease'}; waiting up to "
        f"{stale_seconds:.0f} s to see whether that run still lives"
    )
    end = uptime() + stale_seconds
    while uptime() < end:
        time.sleep(min(1.0, stale_seconds / 10))
        try:
            now = store.stat(layout.LEASE)
        except GoneError:
            return
        if now.etag != info.etag:
            moved = look(store)
            raise busy(store, moved[0] if moved else state, bucket)


def look(store: Store) -> tuple[LeaseState | None, FileInfo] | None:
    """Return the lease and its file as of one moment, None where there is none. An unreadable lease is
    (None, file).
    """
    while True:
        try:
            before = store.stat(layout.LEASE)
            data = store.read(layout.LEASE)
            after = store.stat(layout.LEASE)
        except GoneError:
            return None
        if before.etag == after.etag:
            try:
                return decode(data), after
            except DamageError:
                return None, after


def encode(state: LeaseState) -> bytes:
    """Return the lease file's bytes."""
    return canonical_json.encode({"version": VERSION, **as_dict(state)})


def decode(data: bytes) -> LeaseState:
    """Parse a lease file. Raises ``DamageError``."""
    value: dict[str, Any] = canonical_json.decode(data, layout.LEASE)
    with decoding(layout.LEASE, "a lease"):
        return msgspec.convert(value, LeaseState)


def busy(store: Store, state: LeaseState | None, bucket: str = "") -> BusyError:
    """Return the error that names the holder; ``bucket``: see ``Lease``."""
    holder = str(state) if state else "another run"
    status = "" if bucket else f"; how far it is: moveout status {shlex.quote(store.location)}"
    return BusyError(
        f"{bucket or store.location} is in use: {holder}",
        next_step=f"wait for that run or stop it, then run the same command again{status}",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
