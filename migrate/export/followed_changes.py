"""What is written during an export: captured from the moment of a source's snapshot until the export ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from exporters.api import Followable, Json, Snapshot, Source, Workspace
from exporters.changes import FOLLOW, ChangeLog
from exporters.errors import SourceError, SourceNotAllowedError, SourceUsageError
from exporters.limits import Note
from migrate.changes.change_logs import FollowRequest
from migrate.changes.delta_record import DeltaRecord, read_delta, write_delta
from migrate.changes.segments import SegmentFolder
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import Store

if TYPE_CHECKING:
    from migrate.changes.capture_thread import CaptureThread


class FollowedChanges:
    """Captures the changes of one export's sources until the context ends; the servers keep what comes later. ``name``
    is that of the bundle: what is made at the servers is called after it. ``requests`` by the names of the sources that
    are followed. ``before_base`` is called before a base takes the place of the one that a sealed bundle may name.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        requests: Mapping[str, FollowRequest],
        cancellation: CancellationToken,
        note: Note,
        *,
        before_base: Callable[[], None],
    ) -> None:
        self._store = store
        self._name = name
        self._requests = requests
        self._cancellation = cancellation
        self._note = note
        self._before_base = before_base
        self._captures: list[CaptureThread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for capture in self._captures:
            capture.stop()

    def lacks_base(self, source: str, positions: Sequence[Json]) -> bool:
        """Tell whether a source is to be followed, and has neither a base nor a record of delta passes from an earlier
        run.
        """
        if source not in self._requests or FOLLOW in (positions[-1] if positions else {}):
            return False
        return read_delta(self._store, source) is None

    @contextmanager
    def snapshot(self, source: Source, workspace: Workspace, workers: int) -> Iterator[Snapshot]:
        """Take the snapshot of a source; where it is followed, a base, which takes the place of earlier ones."""
        with ExitStack() as stack:
            log = self._log_of(source)
            snapshot = self._base(source, log, workspace, workers, stack) if log is not None else None
            if log is None or snapshot is None:
                yield stack.enter_context(source.snapshot(workspace, workers=workers))
                return
            self._before_base()
            base = snapshot.position[FOLLOW]
            folder = SegmentFolder(self._store, source.name, base["position"])
            folder.begin()
            folder.remove_others()
            capture = self._capture(source.name, log, base)
            try:
                yield snapshot
            except BaseException:
                capture.stop()  # nobody may read the log when it is given up
                raise

    def _base(
        self, source: Source, log: ChangeLog, workspace: Workspace, workers: int, stack: ExitStack
    ) -> Snapshot | None:
        """Take a base; None where settings or rights at the source do not allow that."""
        if not isinstance(source, Followable):
            return None
        try:
            return stack.enter_context(source.base(workspace, log, workers=workers))
        except (SourceUsageError, SourceNotAllowedError) as exc:
            self._note_delta(source.name, f"{exc} ({exc.next_step})" if exc.next_step else str(exc))
            return None

    def _log_of(self, source: Source) -> ChangeLog | None:
        """Return the change log of a source, None where it is not followed, or has none."""
        if source.name not in self._requests:
            return None
        if self._requests[source.name].open is None:
            self._note_delta(source.name, "its engine has no log of changes that moveout follows")
            return None
        return self._open_log(source.name)

    def _note_delta(self, source: str, reason: str) -> None:
        """Record that delta passes find what a source writes, since its log cannot be followed."""
        defined = None
        with suppress(SourceError):  # the first pass asks again
            defined = self._requests[source].defined()
        write_delta(self._store, DeltaRecord(source, reason, defined=defined))
        self._note(
            f"! {source}: its log cannot be followed, so moveout follow compares its tables in delta passes: {reason}"
        )

    def resume(self, source: str, positions: Sequence[Json]) -> None:
        """Capture the changes of a source that an earlier run has finished."""
        if source in self._requests and positions and (base := positions[-1].get(FOLLOW)):
            self._capture(source, self._open_log(source), base)

    def _open_log(self, source: str) -> ChangeLog:
        open_log = self._requests[source].open
        assert open_log is not None, "a source without a log has no base"
        return open_log(f"{self._name}_{source}")

    def _capture(self, source: str, log: ChangeLog, base: Mapping[str, Any]) -> CaptureThread:
        from migrate.changes.capture_thread import CaptureThread  # noqa: PLC0415  few exports are followed

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
