"""The part of a whole move that follows databases: what they write is captured during the other steps, then applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime

from migrate.case.model import Case, Endpoint
from migrate.changes.capture_thread import CaptureThread
from migrate.changes.change_logs import followable
from migrate.changes.delta_record import recorded_deltas
from migrate.changes.segments import START
from migrate.cli.common.session import Session
from migrate.cli.common.summary_lines import SummaryLine
from migrate.cli.follow import Followed, run_follow
from migrate.engines import registry
from migrate.errors import MoveoutError
from migrate.follow.cutover_record import CutoverRecord, read_record
from migrate.follow.delta import sources_to_follow
from migrate.follow.followed import FollowedSource, recorded_bases
from migrate.restore.restore_records import read_restore_records
from migrate.storage.api import Store


class FollowedMove:
    """The followed sources of one move. ``location``: where their bundle is exported to. The changes stay there, also
    where the bundle is transferred. ``keeps_following``: follow until Ctrl-C or a cutover, not only until caught up.
    """

    def __init__(
        self,
        session: Session,
        location: Endpoint,
        case: Case,
        *,
        keeps_following: bool,
    ) -> None:
        self._session = session
        self._location = location
        self._case = case
        self._keeps_following = keeps_following
        asked = {name: source for name, source in case.sources.items() if source.follow}
        self.names: Sequence[str] = [name for name in followable(asked) if name in case.destinations]
        """The sources to follow; after a cutover those that it has switched."""
        self.record: CutoverRecord | None = None
        if case.destinations:  # else nothing can have been switched
            with suppress(MoveoutError):  # the step that needs the location says so
                self.record = read_record(self._store())
        if self.record is not None:
            switched = {source.name for source in self.record.sources}
            switched |= {bucket.name for bucket in self.record.buckets}
            self.names = [name for name in case.destinations if name in switched.union(self.names)]

    def with_later_changes(self) -> set[str]:
        """Return the sources whose destinations have changes that the bundle lacks: comparing them makes no sense."""
        if self.record is not None:
            return set(self.names)
        if not self._case.destinations:
            return set()
        ahead = set[str]()
        with suppress(MoveoutError):  # there is no location yet
            ahead |= self.delta_passes().keys()
        for source in self._followed():
            with suppress(MoveoutError):  # the restore has reported that
                mark = source.applied_mark()
                if mark is not None and mark.place != START:
                    ahead.add(source.name)
        return ahead

    def restored_before(self, *, by_marks: bool) -> set[str]:
        """Return the sources that an earlier run has restored whole, and that must not be restored again: delta passes,
        or a sync of their bucket, have changed the destination since. ``by_marks``: also those whose destination has
        the mark of this bundle's base. A restore writes that mark last, after its comparison.
        """
        with suppress(MoveoutError):  # there is no location yet, or a destination is away
            shown = {name: endpoint.shown for name, endpoint in self._case.destinations.items()}
            records = read_restore_records(self._stores())
            whole = {
                record.source
                for record in records
                if record.is_up and record.destination == shown.get(record.source)
            }
            marked = {
                source.name
                for source in (self._followed() if by_marks else ())
                if source.name in whole
                and (mark := source.applied_mark()) is not None
                and mark.base == source.base
            }
            return (
                marked
                | (whole & self.delta_passes().keys())
                | {name for name in whole if self._is_synced(name)}
            )
        return set()

    def _is_synced(self, name: str) -> bool:
        """Tell whether a source is a bucket that ``moveout sync`` keeps up."""
        source, destination = self._case.sources.get(name), self._case.destinations[name]
        if source is None or not registry.holds_objects(source.url):
            return False
        from migrate.sync.open_buckets import has_synced  # noqa: PLC0415  it imports botocore

        with suppress(MoveoutError):  # the restore says what is wrong
            return has_synced(source, destination)
        return False

    def delta_passes(self) -> dict[str, datetime]:
        """Return when the last pass began of each source that is kept up by delta passes. Raises errors of the
        location.
        """
        records = recorded_deltas(self._store())
        return {record.source: datetime.fromisoformat(record.at) for record in records if record.passes}

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Capture what the sources write while the context lasts, so that their servers keep little."""
        with ExitStack() as stack:
            if self.names and self.record is None:
                with suppress(MoveoutError):  # nothing was exported yet, or the location is away
                    self._begin_captures(stack)
            yield

    def _begin_captures(self, stack: ExitStack) -> None:
        store, sources = self._store(), self._case.sources
        for base in recorded_bases(store):
            if base.source in self.names:
                capture = CaptureThread(
                    base.source,
                    base.open_log(sources[base.source]),
                    {"position": base.position, "log": base.log},
                    store,
                    cancellation=self._session.cancellation,
                    note=self._session.progress.note,
                    retain_bytes=sources[base.source].retain_bytes,
                )
                stack.callback(capture.stop)

    def follow(self, names: Sequence[str]) -> Followed:
        """Follow these sources. Raises ``UsageError`` where the bundle has no base of them."""
        store = self._store()
        sources = {name: self._case.sources[name] for name in names}
        followed = sources_to_follow(
            store, sources, self._case.destinations, copies=self._session.copies(self._case)
        )
        return run_follow(
            self._session,
            store,
            followed,
            until_caught_up=not self._keeps_following,
            case_option=self._case.option,
        )

    def lines(self, followed: Followed | None) -> Mapping[str, SummaryLine]:
        """Return what became of each source, as far as that is known."""
        if self.record is not None:
            happened = f"the switch was made at {self.record.switched_at}"
            return {name: SummaryLine(name, "yes", happened) for name in self.names}
        return {line.source: line for line in followed.summary()} if followed else {}

    def sentence(self, followed: Followed | None) -> str:
        """Return what became of it, and what to type next; "" where nothing is to be followed."""
        case_option = self._case.option
        if not self.names:
            return ""
        if self.record is not None:
            switched = f"The switch was made at {self.record.switched_at}"
            return f"{switched}. → moveout cutover {case_option} --undo goes back."
        if followed is not None and followed.handed_over:
            return "A cutover has begun, and goes on from here."
        if followed is None:
            return ""  # the whole command is to be given again
        if any(source.stopped for source in followed.sources):
            return f"→ once the reasons are gone: moveout follow {case_option}"
        return (
            f"→ to keep up: moveout follow {case_option}; to switch, and prove that nothing is lost:"
            f" moveout cutover {case_option} --hold"
        )

    def _stores(self) -> list[Store]:
        """Return the locations next to which restores are recorded."""
        locations = [self._location, *([self._case.transfer_to] if self._case.transfer_to else [])]
        return [self._session.open(location) for location in locations]

    def _store(self) -> Store:
        return self._session.open(self._location)

    def _followed(self) -> list[FollowedSource]:
        sources, destinations = self._case.sources, self._case.destinations
        with suppress(MoveoutError):  # there is no bundle yet, or not any more
            return [
                base.followed(sources[base.source], destinations[base.source])
                for base in recorded_bases(self._store())
                if base.source in self.names
            ]
        return []
