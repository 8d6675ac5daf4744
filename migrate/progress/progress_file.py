"""``_work/progress-<command>.json`` next to a bundle: how far the command is that works there, for whoever asks.

The command renews it every few seconds and removes it when it ends well. What it says proves nothing: that is what
commit records are for. A location that refuses it is left alone, and so is one whose bucket has Object Lock while the
bundle is sealed. Then the file lies in a directory of the user's own on this machine.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

from msgspec import Struct
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout
from migrate.errors import DamageError, GoneError, MoveoutError, decoding
from migrate.progress.state import ProgressState, from_json
from migrate.runtime.process_identity import ProcessName, is_alive, is_dead, this_process
from migrate.runtime.state_folder import state_folder
from migrate.storage.api import FileInfo, Store, exists
from migrate.storage.registry import open_location

VERSION = 1
RENEW_SECONDS = 5.0
"""After this time the file is written again, even if nothing has moved: a sign of life."""
STALE_SECONDS = 30.0
"""A file that is older has no writer, unless that is a process of this machine that lives."""
_LOOK_SECONDS, _LEAST_SECONDS, _MOVED = 0.2, 0.5, 0.004
"""How often the state is looked at; what is the least time between two writes; the share that is worth one."""
_JOIN_SECONDS = 10.0


class StateHolder(Protocol):
    """Where to ask how far a command is: a ``Meter``."""

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to say yet."""
        ...

    def state(self) -> ProgressState:
        """Return how far everything is."""
        ...


class ProgressReport(Struct, frozen=True):
    """What a progress file says. ``age_seconds``: since it was written, by the location's clock against ours.
    ``alive``: its writer is known to live, or has written a moment ago.
    """

    state: ProgressState
    process: ProcessName
    age_seconds: float
    alive: bool

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return self.state.as_json() | {
            "process": as_dict(self.process),
            "age_seconds": self.age_seconds,
            "alive": self.alive,
        }


class ProgressFile:
    """Keeps the file of a command up to date while the context lasts. The first of ``opens`` gives the store to write
    to, each later one that for when the one before refuses; they are called in a thread.
    """

    def __init__(self, command: str, holder: StateHolder, opens: Sequence[Callable[[], Store]]) -> None:
        self._key = layout.progress_file(command)
        self._holder = holder
        self._opens = [*opens]
        self._store: Store | None = None
        self._written = ""
        """What was written last, but for the moments in it."""
        self._fraction = 0.0
        self._at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="moveout-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            return
        if self._store is None:
            if kind is None:
                self._remove_of_dead()
            return
        if kind is None:
            with suppress(MoveoutError):
                self._store.delete(self._key)
        else:
            ended = str(error) if isinstance(error, MoveoutError) else "stopped"
            self._write(replace(self._holder.state(), ended=ended))

    def _remove_of_dead(self) -> None:
        """Remove the file of a run that was killed just before its end: this one was too short to write its own."""
        for open_store in self._opens:
            with suppress(MoveoutError):
                store = open_store()
                if exists(store, self._key):
                    store.delete(self._key)

    def _renew(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            since = time.monotonic() - self._at
            if not self._holder.has_begun or since < _LEAST_SECONDS:
                continue
            state = self._holder.state()
            fraction = state.fraction or 0.0
            news = _headline(state) != self._written or abs(fraction - self._fraction) >= _MOVED
            if not (news or since >= RENEW_SECONDS):
                continue
            self._written, self._fraction, self._at = _headline(state), fraction, time.monotonic()
            if not self._write(state):
                return

    def _leave_store(self) -> None:
        """Leave a store that takes the file no more, such as a full disk: what it has would say that the run died."""
        store, self._store = self._store, None
        if store is not None:
            with suppress(MoveoutError):
                store.delete(self._key)

    def _write(self, state: ProgressState) -> bool:
        """Write the file; return False once no place is left for it. A passing fault is left to the next time."""
        data = encode(state, this_process())
        while True:
            try:
                if self._store is None:
                    if not self._opens:
                        return False
                    self._store = self._opens.pop(0)()
                self._store.put(self._key, data)
            except MoveoutError as exc:
                if exc.retryable and self._store is not None:
                    return True
                self._leave_store()
            else:
                return True


def _headline(state: ProgressState) -> str:
    tasks = [(task.name, task.state) for task in state.tasks]
    return repr((tasks, [stage.state for stage in state.stages], state.gaps, state.notes))


def encode(state: ProgressState, process: ProcessName) -> bytes:
    """Return the bytes of a progress file."""
    return canonical_json.encode({"version": VERSION, "process": as_dict(process)} | state.as_json())


def read_reports(stores: Sequence[Store]) -> list[ProgressReport]:
    """Return what commands say of themselves at a location, the last sign of life first: in the first of ``stores``
    that has something of a command. What cannot be read is not there: it is only for show.
    """
    reports: dict[str, ProgressReport] = {}
    for store in stores:
        with suppress(MoveoutError):
            for info in list(store.list(layout.PROGRESS)):
                with suppress(GoneError, DamageError):
                    reports.setdefault(info.key, _read(store, info))
    return sorted(reports.values(), key=lambda report: report.age_seconds)


def _read(store: Store, info: FileInfo) -> ProgressReport:
    value = canonical_json.decode(store.read(info.key), info.key, version=VERSION)
    with decoding(info.key, "a progress file"):
        process = ProcessName(**value["process"])
        state = from_json(value)
    age = max(0.0, (datetime.now(UTC) - info.modified).total_seconds())
    lives = not is_dead(process) and (is_alive(process) or age < STALE_SECONDS)
    return ProgressReport(state, process, age, lives and not state.ended)


def local_store(url: str) -> Store:
    """Return the directory on this machine for the progress of a location that takes none."""
    name = hashlib.sha256(os.fsencode(url)).hexdigest()[:16]
    return open_location(str(state_folder() / "progress" / name))
