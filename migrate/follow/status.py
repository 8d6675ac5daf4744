"""How far the changes of followed sources are, and what is kept for following: at the location and at the servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from exporters.changes import ChangeLog, LogState
from migrate.bundle import layout
from migrate.bundle.export_state import followed_name, read_state
from migrate.case.model import Endpoint
from migrate.changes.apply import Mark
from migrate.changes.change_logs import open_change_log
from migrate.changes.delta_record import recorded_deltas
from migrate.changes.retained_log import is_near
from migrate.changes.segments import Place, SegmentFolder, folder
from migrate.errors import GoneError, MoveoutError
from migrate.follow.followed import FollowedSource, RecordedBase, recorded_bases
from migrate.follow.follower import UNCOMPARED
from migrate.number_text import bytes_words, things
from migrate.storage.api import MultipartStore, Store, Tidying

_COUNTED_SEGMENTS = 50
"""The changes of more segments are not counted: each costs a request."""
_CLOCKS_DIFFER_SECONDS = 5.0
"""How far apart the clocks of two machines may be."""
_DRAINED_SECONDS = 10.0
"""Where no more than this waits, it is left to the cutover itself."""
_SPEED_SECONDS = 3.0
"""How long we watch how fast the rest becomes less."""


class KeptChanges(Struct, frozen=True):
    """The segments of one source after its newest base. ``written``: see ``SegmentFolder.written``."""

    segments: int
    size_bytes: int
    position: int
    written: str


class WaitingChanges(Struct, frozen=True):
    """What is captured, and not applied yet. ``changes``: about how many, of ``segments``; where these are more than
    ``_COUNTED_SEGMENTS``, of the first of them. ``lag_bytes`` of the source's log. ``lag_seconds``: since when the
    oldest waits; None where clocks do not say.
    """

    changes: int
    segments: int
    lag_bytes: int
    lag_seconds: float | None

    @property
    def is_counted(self) -> bool:
        """Whether ``changes`` are all of them."""
        return self.segments <= _COUNTED_SEGMENTS


class FollowStatus(Struct, frozen=True):
    """How far the changes of one source are. Positions are as its server writes them. ``captured``: what was committed
    before it is at the location. ``lag_bytes`` and ``lag_seconds``: how much of the log is not, and for how long at
    most. ``retained_bytes``: what the server keeps on its disk. ``is_read``: a capture is at work. None where the
    server was not asked, or did not answer, which ``problem`` says; where it is ``lost``, why changes are. ``applied``:
    up to where the destination has them, "" where that is not known; ``waiting``: what is captured and not there yet.
    ``skipped``: tables whose changes are left out. ``undefined``: what only the source defines. ``detour``: how changes
    are read, where the usual way is refused, and why. ``cutover_seconds``: after how long a cutover has next to nothing
    left to capture and to apply, at the speed of now. None where that is not known, or the rest does not become less.
    """

    source: str
    base: str
    captured: str
    segments: int
    size_bytes: int
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    retained_bytes: int | None = None
    is_read: bool | None = None
    applied: str = ""
    problem: str = ""
    lost: bool = False
    skipped: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    detour: str = ""
    waiting: WaitingChanges | None = None
    cutover_seconds: float | None = None


def follow_status(
    store: Store, sources: Mapping[str, Endpoint], destinations: Mapping[str, Endpoint]
) -> list[FollowStatus]:
    """Return how far the followed sources of a sealed bundle are, but for those that are kept up by delta passes since
    their log is gone. The servers of those among ``sources`` are asked, and the ``destinations``; where changes wait,
    twice, some seconds apart. Raises errors of the location.
    """
    deltas = {record.source for record in recorded_deltas(store)}
    statuses, rests = [], dict[str, _Rest]()
    for base in recorded_bases(store):
        if base.source not in deltas:
            source, destination = sources.get(base.source), destinations.get(base.source)
            status, left_bytes = _status_of(store, base, source, destination)
            statuses.append(status)
            if source and destination and left_bytes is not None and not _is_drained(status):
                rests[base.source] = _Rest(base, source, destination, left_bytes, time.monotonic())
    if rests:
        time.sleep(_SPEED_SECONDS)
    seconds = {name: rest.seconds_left() for name, rest in rests.items()}
    return [
        replace(status, cutover_seconds=0.0 if _is_drained(status) else seconds.get(status.source))
        for status in statuses
    ]


def _is_drained(status: FollowStatus) -> bool:
    """Tell whether next to nothing is left to capture and to apply."""
    if not status.applied or status.lag_bytes is None or status.lost:
        return False
    if status.waiting and status.is_read is False:
        return False  # nobody applies it: where a follow has stopped, a cutover would stop, too
    ages = [status.lag_seconds if status.lag_bytes else 0.0]
    ages.append(status.waiting.lag_seconds if status.waiting else 0.0)
    return all(age is not None and age < _DRAINED_SECONDS for age in ages)


class _Rest(Struct, frozen=True):
    """How much of a source's log was not at its destination at a moment of the monotonic clock."""

    base: RecordedBase
    source: Endpoint
    destination: Endpoint
    left_bytes: int
    asked_at: float

    def seconds_left(self) -> float | None:
        """Ask again, and return in how many seconds nothing is left; None where it is no less, or a server does not
        answer.
        """
        log = self.base.open_log(self.source)
        try:
            mark = self.base.followed(self.source, self.destination).applied_mark()
            if mark is None:
                return None
            left_bytes = log.distance_bytes(mark.applied, log.state(self.base.log, mark.applied).end)
        except MoveoutError:
            return None
        return _seconds_left(self.left_bytes, left_bytes, time.monotonic() - self.asked_at)


def _seconds_left(before: int, now: int, watched_seconds: float) -> float | None:
    """Return in how many seconds nothing is left, where it was ``before`` and is ``now``; None where it is no less."""
    return now * watched_seconds / (before - now) if now < before else None


def _status_of(
    store: Store, base: RecordedBase, source: Endpoint | None, destination: Endpoint | None
) -> tuple[FollowStatus, int | None]:
    """Return the status, and how much of the log is not at the destination; None where that is not known or lost."""
    log = base.open_log(source)
    kept = _kept(store, base.source, base.position)
    state: LogState | None = None
    mark: Mark | None = None
    problem = detour = ""
    undefined: tuple[str, ...] = ()
    if source is not None:
        try:
            state = log.state(base.log, kept.position)
            detour = log.detour()
            problem = (
                state.lost
                or _near_limit(state, source)
                or "; ".join(table.sentence for table in log.troubled_tables(base.log))
            )
        except MoveoutError as exc:
            problem = str(exc)
    try:
        SegmentFolder(store, base.source, base.position).require_begun()
    except MoveoutError as exc:
        problem = problem or f"{exc} → {exc.next_step}"
    if source is not None and destination is not None:
        try:
            followed = base.followed(source, destination)
            mark = followed.applied_mark()
            undefined = followed.definition_gaps(mark.skipped) if mark is not None else ()
        except GoneError:
            pass  # nothing is restored yet
        except MoveoutError as exc:
            unknown = UNCOMPARED if mark is not None else "how far the changes were applied is not known"
            problem = problem or f"{unknown}: {exc}"
    captured = max(kept.position, state.acknowledged if state else 0)
    behind = log.distance_bytes(captured, state.end) if state else None
    is_ours = mark is not None and mark.base == base.position
    left_bytes = None
    if state is not None and not state.lost and mark is not None and is_ours:
        left_bytes = log.distance_bytes(mark.applied, state.end)
    status = FollowStatus(
        source=base.source,
        base=log.show(base.position),
        captured=log.show(captured),
        segments=kept.segments,
        size_bytes=kept.size_bytes,
        lag_bytes=behind,
        lag_seconds=age_seconds(kept.written) if behind else behind,
        retained_bytes=state.retained_bytes if state else None,
        is_read=state.is_read if state else None,
        applied=log.show(mark.applied) if mark and is_ours else "",
        problem=problem,
        lost=bool(state and state.lost),
        skipped=mark.skipped if mark else (),
        undefined=undefined,
        detour=detour,
        waiting=_waiting(store, base, log, mark) if mark is not None and is_ours else None,
    )
    return status, left_bytes


def _waiting(store: Store, base: RecordedBase, log: ChangeLog, mark: Mark) -> WaitingChanges | None:
    """Return what is captured and not applied; None where there is nothing."""
    segments = SegmentFolder(store, base.source, base.position)
    last = segments.last()
    if last is None or mark.place >= last.boundary:
        return None
    first = mark.place.segment
    ends = mark.place >= Place(first, segments.record(first).messages) if first else True
    unread = [segments.record(number) for number in _counted(first + ends, last.number)]
    messages = sum(record.messages - 2 * record.transactions for record in unread)
    read = 0 if ends else mark.place.message
    return WaitingChanges(
        max(messages - read, 1),
        last.number - first - ends + 1,
        log.distance_bytes(mark.applied, last.position),
        age_seconds(unread[0].written),
    )


def _counted(first: int, last: int) -> range:
    return range(first, min(last, first + _COUNTED_SEGMENTS - 1) + 1)


def _near_limit(state: LogState, source: Endpoint) -> str:
    limit = source.retain_bytes
    if limit is None or not state.is_reserved or not is_near(state.retained_bytes, limit):
        return ""
    return f"the server may keep {bytes_words(limit)}; a capture that finds more gives the changes up"


def _kept(store: Store, source: str, base: int) -> KeptChanges:
    segments = SegmentFolder(store, source, base)
    infos = list(store.list(folder(source)))
    last = segments.last()
    return KeptChanges(
        last.number if last else 0,
        sum(info.size_bytes for info in infos),
        max(base, last.position if last else 0, segments.idle_position()),
        segments.written(),
    )


def age_seconds(written: str) -> float | None:
    """Return how long ago something was written; None where the clock that wrote it is ahead of ours, so that the age
    is unknown.
    """
    if not written:
        return None
    seconds = (datetime.now(UTC) - datetime.fromisoformat(written)).total_seconds()
    return max(seconds, 0.0) if seconds > -_CLOCKS_DIFFER_SECONDS else None


def _forget_mark(followed: FollowedSource) -> bool:
    with closing(followed.open_writer()) as writer:
        is_marked = writer.mark() is not None
        writer.forget()
        return is_marked


def _delete(store: MultipartStore, keys: Sequence[str]) -> bool:
    store.delete_all(keys)
    if store.tidying:
        for name in _empty_folders(store.tidying):
            store.tidying.remove_leftover(name)
    return True


def _empty_folders(tidying: Tidying) -> list[str]:
    """Return the folders of changes that killed runs have left empty."""
    keys = [info.key for info in tidying.leftovers()]
    return [key for key in keys if key.startswith(layout.CHANGES) and key.endswith("/")]


def _of_unsealed(store: Store, sources: Mapping[str, Endpoint], case: str) -> list[KeptThing]:
    """Return what an export that has not sealed may have made at the servers: it does not write down whether it did."""
    state = read_state(store)
    if state is None:
        return []
    unsealed, prefix = [], followed_name(case, state)
    known = {base.case for base in recorded_bases(store)}
    for source in state.sources:
        endpoint, name = sources.get(source.name, Endpoint(source.url)), f"{prefix}_{source.name}"
        if name in known or not endpoint.engine.change_log:
            continue
        log = open_change_log(endpoint, name)
        if log.leaves_objects:
            what = f"{source.name}: what an unfinished export keeps at {endpoint.shown}, called after {name}"
            unsealed.append(KeptThing(what, partial(log.drop, {})))
    return unsealed


class KeptThing(Struct, frozen=True):
    """Something that is kept for following a source. ``remove`` tells whether it was still there; it raises
    ``SourceError`` and errors of the location.
    """

    what: str
    remove: Callable[[], bool]
    is_at_location: bool = False


def kept_things(
    store: MultipartStore,
    sources: Mapping[str, Endpoint],
    destinations: Mapping[str, Endpoint],
    case: str = "",
) -> list[KeptThing]:
    """Return what is kept of the changes of a bundle's sources: first at their servers, then at the destinations, then
    at the location. ``sources`` say how the servers are reached, else the URLs of the bundle do. ``case``: the name of
    the case, after which an export that was killed before its seal has called what it made.
    """
    kept, marks = _of_unsealed(store, sources, case), []
    for base in recorded_bases(store):
        source = sources.get(base.source, Endpoint(base.url))
        what = f"{base.source}: what keeps its changes at {base.url}, called after {base.case}"
        log = base.open_log(source)
        if log.leaves_objects:
            kept.append(KeptThing(what, partial(log.drop, base.log)))
        if (destination := destinations.get(base.source)) is not None:
            what = f"{base.source}: how far its changes were applied, at {destination.shown}"
            marks.append(KeptThing(what, partial(_forget_mark, base.followed(source, destination))))
    kept += marks
    keys = [info.key for info in store.list(layout.CHANGES)]
    folders = _empty_folders(store.tidying) if store.tidying and not keys else []
    if keys or folders:
        amount = things(len(keys), "file") if keys else things(len(folders), "empty folder")
        what = f"{amount} of changes at {store.location}"
        kept.append(KeptThing(what, partial(_delete, store, keys[::-1]), is_at_location=True))
    return kept
