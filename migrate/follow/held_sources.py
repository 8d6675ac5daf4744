"""The old databases of a cutover, held so that nobody writes to them until the switch is made or given up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from migrate.custody.source_holds import source_hold, undo_file
from migrate.custody.source_holds.contract import HoldRequest, SourceHold
from migrate.custody.source_holds.undo_file import UndoFile
from migrate.errors import BusyError, UnreachableError
from migrate.follow.delta import DeltaSource
from migrate.follow.followed import FollowedSource
from migrate.runtime.cancellation import CancellationToken

SwitchedSource = FollowedSource | DeltaSource

_RELEASE_SECONDS, _POLL_SECONDS = 60.0, 1.0


@contextmanager
def open_holds(
    sources: Sequence[SwitchedSource], *, whole_server: bool = False
) -> Iterator[Mapping[str, SourceHold]]:
    """Open what can hold each source, by its name. Nothing is changed by that."""
    request = HoldRequest(whole_server=whole_server)
    with ExitStack() as stack:
        holds: dict[str, SourceHold] = {}
        for source in sources:
            holds[source.name] = source_hold.open_hold(source.source, request)
            stack.callback(holds[source.name].close)
        yield holds


class HeldSources(Struct, frozen=True):
    """The old databases, and how they are held. ``file`` is the undo file."""

    file: Path
    holds: Mapping[str, SourceHold]
    plan: UndoFile

    def place(self) -> None:
        """Hold them. Raises ``BusyError`` where they can still be written to."""
        source_hold.place(self.file, self.holds, self.plan)
        known = undo_file.read(self.file) or self.plan
        source_hold.close_write_paths(self.holds, known)
        self.require()

    def require(self) -> None:
        """Raise ``BusyError`` where they can be written to: some holds end with a restart of the server."""
        standings = source_hold.survey(self.holds, undo_file.read(self.file) or self.plan)
        if open_paths := [finding for standing in standings for finding in standing.findings]:
            raise BusyError(
                f"the old side can still be written to: {open_paths[0]}",
                next_step="end that, then run the same command again",
            )

    def require_still(self, sources: Sequence[SwitchedSource]) -> None:
        """See ``require``; a source whose session has ended meanwhile gets a new one."""
        for source in sources:
            try:
                replace(self, holds={source.name: self.holds[source.name]}).require()
            except BusyError:
                raise
            except UnreachableError:
                with self.reopened([source]) as reopened:
                    reopened.require()

    def release(self) -> None:
        """Make them as they were; nothing happens where nothing was changed."""
        if (known := undo_file.read(self.file)) is not None:
            source_hold.take_back(self.file, self.holds, known, force=False)

    def release_after_error(
        self,
        sources: Sequence[SwitchedSource],
        cancellation: CancellationToken,
        report: Callable[[str], None],
    ) -> None:
        """Release them by new sessions. One that does not answer is asked again for a minute, since nobody can write
        there until then.
        """
        left, ends_at, last_error = list(sources), time.monotonic() + _RELEASE_SECONDS, ""
        while self.file.exists() and left:
            source = left.pop(0)
            try:
                with self.reopened([source]) as reopened:
                    reopened.release()
            except UnreachableError as error:
                if time.monotonic() >= ends_at or cancellation.wait(_POLL_SECONDS):
                    raise
                if last_error != str(error):
                    last_error = str(error)
                    report(f"{source.name} is held, and is released as soon as possible: {last_error}")
                left.append(source)

    @contextmanager
    def reopened(self, sources: Sequence[SwitchedSource]) -> Iterator[HeldSources]:
        """Yield the holds of sources by new sessions: older ones may have ended with the network."""
        with open_holds(sources, whole_server=True) as holds:
            yield replace(self, holds=holds)
