"""Whether this location may take this export, what lies there of it already, and whether there is room: a reserve is
kept, so that what was exported can be sealed where the location is full.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from exporters.errors import SourceError
from migrate.bundle import bundle_json, export_state, layout
from migrate.bundle.bundle_json import LeftOutSource
from migrate.bundle.commit_records import group_infos, read_final, record_ids
from migrate.bundle.export_state import ExportState, LocationKind, SourceName
from migrate.bundle.seal import clean_work, unseal
from migrate.case.server_url import is_pattern
from migrate.errors import DamageError, GoneError, MoveoutError, NoSpaceError, NotEmptyError, UsageError
from migrate.export.standing_seal import StandingSeal
from migrate.number_text import bytes_words
from migrate.runtime.progress import Progress
from migrate.storage.api import MultipartStore, Store


class SourceChanges(Struct, frozen=True):
    """How the sources differ from those with which a bundle was begun. ``lost``: names of sources that cannot be opened
    now. ``dropped``: names of sources to take out of the bundle.
    """

    lost: Collection[str] = ()
    dropped: Collection[str] = ()


_NO_CHANGES = SourceChanges()


def check_names(sources: Sequence[SourceName]) -> None:
    """Raise ``UsageError`` for names that a bundle cannot hold."""
    if not sources:
        raise UsageError("there is no source to export", next_step="name one: postgresql://me@host/db")
    for source in sources:
        if not layout.is_source_name(source.name):
            raise UsageError(
                f"{source.name!r} cannot be the name of a source",
                next_step="use lower-case letters, digits, - and _, at most 63",
            )
    if len({source.name for source in sources}) != len(sources):
        raise UsageError("two sources have the same name", next_step="give each its own")


def refuse_foreign(
    store: Store,
    case_sources: Sequence[SourceName],
    *,
    changes: SourceChanges = _NO_CHANGES,
    opened: bool = True,
    seen: tuple[LocationKind, str] | None = None,
) -> bundle_json.BundleInfo | None:
    """Check, without writing, that the location may take this export.

    Return the complete bundle of the same sources if it lies there already, else None. Raises ``NotEmptyError`` where
    something else lies there. ``opened``: the sources were opened, so their identities are known. ``seen``: what
    ``export_state.look`` has just returned.
    """
    kind, key = seen or export_state.look(store)
    if kind is LocationKind.FOREIGN:
        raise NotEmptyError(
            f"{store.location} is not empty: there is {key}",
            next_step="give an empty directory or another prefix for the bundle",
        )
    if kind is LocationKind.EXPORT and opened:
        state = export_state.read_state(store)
        if state is not None:
            _refuse_others(store, state, case_sources, changes)
    if kind is LocationKind.SEALED:
        info = bundle_json.read_sealed(store)
        assert info is not None
        if not export_state.same_sources(_names(info), case_sources):
            known = any(source.identity for source in info.sources)
            if info.complete and known and not opened:
                return None
            raise export_state.claim_error(store, _names(info), case_sources)
        if info.complete:
            return info
        raise NotEmptyError(
            f"{store.location} holds an incomplete bundle without the records of its work, perhaps a copy",
            next_step="continue at the location where it was made, or export to another location",
        )
    return None


def _refuse_others(
    store: Store, state: ExportState, case_sources: Sequence[SourceName], changes: SourceChanges
) -> None:
    """Raise ``NotEmptyError`` where a source that was begun is another one now, or is not named any more. Others may
    come in.
    """
    given = {source.name: source for source in case_sources}
    for recorded in state.sources:
        if recorded.name in changes.dropped or is_pattern(recorded.url):
            continue  # a pattern stood for a server that could not be listed
        if recorded.name not in given:
            raise export_state.claim_error(store, state.sources, case_sources)
        source = given[recorded.name]
        is_other = recorded.name not in changes.lost and not recorded.same_as(source)
        if is_other and is_begun(store, recorded.name):
            raise export_state.other_source_error(store, recorded, source)


def is_begun(store: Store, source: str) -> bool:
    """Tell whether something of a source was exported to a location."""
    try:
        read_final(store, source)
    except GoneError:
        return next(iter(record_ids(store, source)), None) is not None or bool(group_infos(store, source))
    except DamageError:
        pass
    return True


def left_out_of(store: Store, kind: LocationKind) -> Sequence[LeftOutSource]:
    """Return the sources that were taken out of the bundle at a location on purpose. ``kind``: what lies there."""
    if kind is LocationKind.EXPORT and (state := export_state.read_state(store)) is not None:
        return state.left_out
    if kind is LocationKind.SEALED and (sealed := bundle_json.read_sealed(store)) is not None:
        return sealed.left_out
    return ()


class Claim(Struct, frozen=True):
    """A location that is ours. ``state`` is the bundle in the making; while the ``seal`` of the one that it continues
    stands, it is not recorded yet.
    """

    state: ExportState
    seal: StandingSeal


def claim(
    store: MultipartStore,
    case_sources: Sequence[SourceName],
    *,
    executor: Executor,
    progress: Progress,
    changes: SourceChanges,
) -> Claim | bundle_json.BundleInfo:
    """Make the location ours, under the lease: begin, resume or continue; take sources in and out. A bundle that proves
    complete is cleaned up and returned.
    """
    sealed_bundle = refuse_foreign(store, case_sources, changes=changes)
    if sealed_bundle is not None:
        clean_work(store, executor)
        return sealed_bundle
    state = export_state.read_state(store)
    if state is None:
        state = export_state.new_state(case_sources)
        export_state.write_state(store, state)
        return Claim(state, StandingSeal())
    sealed = bundle_json.read_sealed(store)
    is_continued = sealed is not None and sealed.id == state.id
    next_state = changed = _changed(state, case_sources, changes)
    if sealed is not None and is_continued:
        if sealed.complete and _in_order(changed).sources == _in_order(state).sources:
            clean_work(store, executor)
            return sealed
        progress.note("the bundle was sealed incomplete; continuing it: what failed is tried again")
        next_state = export_state.new_state(changed.sources, changed)
    seal = StandingSeal(partial(_begin, store, next_state, changes, is_sealed=sealed is not None))
    if not is_continued or _in_order(changed) != _in_order(state):
        seal.remove()
    return Claim(next_state, seal)


def _begin(store: MultipartStore, state: ExportState, changes: SourceChanges, *, is_sealed: bool) -> None:
    """Record which bundle is in the making; nothing is left of what was dropped, nor of the seal of the one before."""
    export_state.write_state(store, state)
    for name in changes.dropped:
        for info in list(store.list(f"{layout.WORK}{name}/")):
            store.delete(info.key)
    if is_sealed:
        unseal(store)


def _changed(state: ExportState, case_sources: Sequence[SourceName], changes: SourceChanges) -> ExportState:
    """Return the state with the sources as they are named now. What could not be opened stays as it was recorded."""
    recorded = {source.name: source for source in state.sources}
    sources = []
    for source in case_sources:
        before = recorded.get(source.name)
        if before is not None and source.name in changes.lost:
            sources.append(replace(before, may_be_empty=source.may_be_empty))
        elif before is not None and not source.identity:
            sources.append(replace(source, identity=before.identity))
        else:
            sources.append(source)
    gone = [LeftOutSource(name, recorded[name].url) for name in changes.dropped if name in recorded]
    return replace(state, sources=sources, left_out=[*state.left_out, *gone])


def _in_order(state: ExportState) -> ExportState:
    """Return the state with its sources ordered by name: in which order they are read may change."""
    return replace(state, sources=sorted(state.sources, key=lambda source: source.name))


def _names(info: bundle_json.BundleInfo) -> list[SourceName]:
    return [SourceName(source.name, source.url, source.identity) for source in info.sources]


RESERVE_BYTES = 16 * 2**20
_BYTES_A_UNIT = 1024
"""A unit has a file or more, and a file a line in each of two lists."""


def _needed_bytes(units: int) -> int:
    """Return how much the seal of so many units needs at most."""
    return RESERVE_BYTES + units * _BYTES_A_UNIT


class LocationFullError(SourceError, NoSpaceError):
    """A source was not read to its end, because the bundle's location is full."""

    exit_code = NoSpaceError.exit_code
    code = "location-full"


class LocationRoom:
    """A reserve of space for the seal of one export, and whether the location is full. There is none where the location
    does not say how much is free. ``executor`` writes it: that takes a disk longer than a small export.
    """

    def __init__(self, store: MultipartStore, executor: Executor) -> None:
        self._store = store
        self._executor = executor
        self._reserved_bytes = 0
        self._keeping: Future[None] | None = None
        self._full: NoSpaceError | None = None

    def keep(self, units: int) -> None:
        """Begin to keep a reserve for the seal of so many units; a larger one only where twice as much is needed."""
        needed = _needed_bytes(units)
        if self._full is not None or needed < 2 * self._reserved_bytes:
            return
        self._reserved_bytes = needed
        if self._keeping is not None:
            wait([self._keeping])
        self._keeping = self._executor.submit(self._keep, needed)

    def _keep(self, size_bytes: int) -> None:
        with suppress(MoveoutError):
            self._delete()
            self._store.keep_room(layout.RESERVE, size_bytes)

    def release(self) -> None:
        """Delete the reserve, so that the seal can be written."""
        if self._keeping is not None:
            wait([self._keeping])
        self._delete()

    def _delete(self) -> None:
        if self._store.free_bytes() is not None:
            self._store.delete(layout.RESERVE)

    def as_source_error(self, error: SourceError | NoSpaceError) -> SourceError:
        """Return why a source is not read any more. Where the location is full, note that, and release the reserve."""
        if isinstance(error, SourceError):
            return error
        self._full = self._full or error
        self.release()
        return self._error(self._full)

    def check(self) -> None:
        """Raise ``LocationFullError`` where the location is full: no source need be begun."""
        if self._full is not None:
            raise self._error(self._full)

    def seal_error(self, error: NoSpaceError, units: int) -> NoSpaceError:
        """Return why a bundle of so many units could not be sealed: the location is too small for it, for even what was
        kept for the seal was not enough.
        """
        free, needed = self._store.free_bytes(), bytes_words(_needed_bytes(units))
        left = "" if free is None else f" ({bytes_words(free)} left)"
        return NoSpaceError(
            f"{self._store.location} is too small: what was exported lies there, but there is no room for the"
            f" manifests and reports that seal it{left}: {error}",
            next_step=f"make room there, {needed} are enough, then run the same command again: it continues",
        )

    @staticmethod
    def _error(error: NoSpaceError) -> LocationFullError:
        return LocationFullError(
            f"the location is full, so it was not read to its end: {error}", next_step=error.next_step
        )
