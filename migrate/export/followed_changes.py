"""What is written while an export goes on: captured from the moment of a source's snapshot until the export ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from exporters.api import Followable, Json, Snapshot, Source, Workspace
from exporters.changes import FOLLOW, ChangeLog
from exporters.limits import Note
from migrate.changes.capture_thread import CaptureThread
from migrate.changes.change_logs import FollowRequest
from migrate.changes.segments import SegmentFolder
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import Store


class FollowedChanges:
    """Captures the changes of one export's sources until the context ends; the servers keep what comes later. ``name``
    is that of the bundle: what is made at the servers is called after it. ``requests`` by the names of the sources that
    are followed.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        requests: Mapping[str, FollowRequest],
        cancellation: CancellationToken,
        note: Note,
    ) -> None:
        self._store = store
        self._name = name
        self._requests = requests
        self._cancellation = cancellation
        self._note = note
        self._captures: list[CaptureThread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for capture in self._captures:
            capture.stop()

    def lacks_base(self, source: str, positions: Sequence[Json]) -> bool:
        """Tell whether a source is to be followed, and was finished by a run that took no base."""
        return source in self._requests and FOLLOW not in (positions[-1] if positions else {})

    @contextmanager
    def snapshot(self, source: Source, workspace: Workspace, workers: int) -> Iterator[Snapshot]:
        """Take the snapshot of a source; where it is followed, a base, which takes the place of earlier ones."""
        if source.name not in self._requests or not isinstance(source, Followable):
            with source.snapshot(workspace, workers=workers) as snapshot:
                yield snapshot
            return
        log = self._open_log(source.name)
        with source.base(workspace, log, workers=workers) as snapshot:
            base = snapshot.position[FOLLOW]
            SegmentFolder(self._store, source.name, base["position"]).remove_others()
            capture = self._capture(source.name, log, base)
            try:
                yield snapshot
            except BaseException:
                capture.stop()  # nobody may read the log when it is given up
                raise

    def go_on(self, source: str, positions: Sequence[Json]) -> None:
        """Capture the changes of a source that an earlier run has finished."""
        if source in self._requests and positions and (base := positions[-1].get(FOLLOW)):
            self._capture(source, self._open_log(source), base)

    def _open_log(self, source: str) -> ChangeLog:
        return self._requests[source].open(f"{self._name}_{source}")

    def _capture(self, source: str, log: ChangeLog, base: Mapping[str, Any]) -> CaptureThread:
        capture = CaptureThread(
            source,
            log,
            base,
            self._store,
            cancellation=self._cancellation,
            note=self._note,
            retain_bytes=self._requests[source].retain_bytes,
        )
        self._captures.append(capture)
        return capture
