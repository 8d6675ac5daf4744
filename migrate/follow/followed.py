"""The followed sources of a bundle: how their two sides are opened, and how one of their tables is read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, cast

from msgspec import Struct

from exporters.changes import ChangeLog
from exporters.engine import RereadableLog, TableName, load_part
from migrate.bundle import bundle_json, layout, reconciliation
from migrate.case.model import Endpoint
from migrate.changes.apply import ChangeWriter, Mark, RereadingWriter
from migrate.changes.change_logs import open_change_log
from migrate.changes.remainder import sides_of
from migrate.changes.segments import SegmentFolder
from migrate.engines import registry
from migrate.errors import BusyError, IncompleteError, UsageError
from migrate.follow.table_digests import table_label
from migrate.repair.live_repair import repair_named_tables
from migrate.repair.repair import TableRepair
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import Store


class DatabasePair(Struct, frozen=True):
    """A source, and the database that is to take its place."""

    name: str
    source: Endpoint
    destination: Endpoint

    def activate(self) -> None:
        """Start at the destination what must not run while the source is in use. Raises ``SourceError``."""
        if reference := self.destination.engine.activation:
            load_part(reference)(self.destination.url, self.destination.reveal(), self.name)

    def deactivate(self) -> None:
        """Stop that again. Raises ``SourceError``."""
        if reference := self.destination.engine.deactivation:
            load_part(reference)(self.destination.url, self.destination.reveal(), self.name)

    def gaps_since(self, known: Mapping[str, Any], skipped: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the objects that the source defines and the destination lacks, or that were altered since the
        definitions ``known``; without the tables ``skipped``. None where the engines cannot compare them. Raises
        ``SourceError``.
        """
        reference = self.destination.engine.definition_gaps
        return (
            tuple(load_part(reference)(sides_of(self.source, self.destination), skipped, known))
            if reference
            else ()
        )


class FollowedSource(DatabasePair, frozen=True):
    """A source that is followed. ``base``, ``log`` and ``case`` are those with which its base was opened: position,
    what the engine needs to read on, and the name after which its objects at the server are called.
    """

    base: int
    log: Mapping[str, Any]
    case: str

    def open_log(self) -> ChangeLog:
        """Return the change log of the source. Raises ``UsageError`` where its engine has none."""
        return open_change_log(self.source, self.case)

    def open_writer(self) -> ChangeWriter:
        """Return what writes changes to the destination. Raises ``UsageError``, ``BusyError``, ``SourceError``."""
        open_writer = self._destination_part(self.destination.engine.change_writer)
        destination = self.destination
        return cast("ChangeWriter", open_writer(destination.url, destination.reveal(), self.name, self.log))

    def applied_mark(self) -> Mark | None:
        """Return how far the destination is, also while another process applies changes there; None where the source
        was not restored to it. Raises ``UsageError``, ``SourceError``.
        """
        read_mark = self._destination_part(self.destination.engine.change_mark)
        return cast("Mark | None", read_mark(self.destination.url, self.destination.reveal(), self.name))

    def definition_gaps(self, skipped: Sequence[str]) -> tuple[str, ...]:
        """Return what was defined since the base; see ``gaps_since``."""
        return self.gaps_since(self.log, skipped)

    def note_running(self) -> None:
        """Note at the destination what runs at the source by itself. Raises ``SourceError``."""
        if reference := self.destination.engine.note_running:
            load_part(reference)(sides_of(self.source, self.destination), self.name)

    def _destination_part(self, reference: str) -> Any:
        return load_part(registry.require(self.destination.engine, reference, "followed"))

    def is_at_work(self) -> bool:
        """Tell whether a follow reads the log of the source, or applies its changes. Raises errors of both servers."""
        if self.open_log().state(self.log).is_read:
            return True
        try:
            with closing(self.open_writer()):
                return False
        except BusyError:
            return True

    def folder(self, store: Store) -> SegmentFolder:
        """Return where its changes lie."""
        return SegmentFolder(store, self.name, self.base)


def require_base(followed: FollowedSource, mark: Mark) -> None:
    """Raise ``IncompleteError`` where the destination was not restored from the base of the changes."""
    if mark.base == followed.base:
        return
    log = followed.open_log()
    raise IncompleteError(
        f"{followed.destination.shown} was restored from a snapshot at {log.show(mark.base)}; the changes come after"
        f" one at {log.show(followed.base)}",
        next_step="drop the database, and give moveout restore again: it has the newer snapshot",
    )


class RecordedBase(Struct, frozen=True):
    """The base of one source, as a sealed bundle records it. ``url`` holds no secrets; ``position``, ``log`` and
    ``case``: see ``FollowedSource``.
    """

    source: str
    url: str
    position: int
    log: Mapping[str, Any]
    case: str

    def open_log(self, endpoint: Endpoint | None) -> ChangeLog:
        """Return the change log; ``endpoint`` says how the source is reached, else the bundle's URL does."""
        return open_change_log(endpoint or Endpoint(self.url), self.case)

    def followed(self, source: Endpoint, destination: Endpoint) -> FollowedSource:
        """Return the source with its destination."""
        return FollowedSource(self.source, source, destination, self.position, self.log, self.case)


def recorded_bases(store: Store) -> Iterator[RecordedBase]:
    """Yield the bases of the followed sources of a sealed bundle; none where nothing is sealed. Raises ``DamageError``
    and errors of the location.
    """
    if bundle_json.read_sealed(store) is None:
        return
    for entry in reconciliation.decode(store.read(layout.RECONCILIATION)):
        if (base := entry.changes()) is not None:
            yield RecordedBase(entry.name, entry.url, base.position, base.log, base.name)


def followed_sources(
    store: Store,
    sources: Mapping[str, Endpoint],
    destinations: Mapping[str, Endpoint],
    *,
    may_be_none: bool = False,
) -> list[FollowedSource]:
    """Return the sources of a bundle that were exported with ``--follow`` and have a destination. Raises ``UsageError``
    where there is none, unless ``may_be_none``.
    """
    followed = [
        base.followed(sources[base.source], destinations[base.source])
        for base in recorded_bases(store)
        if base.source in sources and base.source in destinations
    ]
    if not followed and not may_be_none:
        raise UsageError(
            f"no source of {store.location} that has a destination is followed",
            next_step="moveout export --follow takes an export whose changes can be followed; moveout follow --delta"
            " compares the tables instead",
        )
    return followed


def reread_tables(
    followed: FollowedSource,
    schema: str,
    name: str,
    *,
    cancellation: CancellationToken,
    note: Callable[[str], None],
) -> tuple[dict[TableName, TableRepair], str]:
    """Read a table again while the source is written to, and those that have to be read with it. Return what differed
    of each, and the position from which on their changes are applied. They are left out from the beginning on, and that
    is written at the destination: of a run that dies the cutover reads the tables again. The snapshot has an exact
    position in the log, so nothing comes twice.

    Raises ``UsageError`` where the table cannot be followed; ``BusyError`` while changes are applied;
    ``IncompleteError`` where rows are refused; errors of both servers.
    """
    log = followed.open_log()
    table = table_label((schema, name))
    with closing(followed.open_writer()) as writer:
        if not isinstance(log, RereadableLog) or not isinstance(writer, RereadingWriter):
            raise UsageError(
                f"tables of {followed.name} cannot be read again while they are followed",
                next_step=f"moveout verify --against {followed.name}=… --repair --from {followed.name}=… while nothing"
                " is written",
            )
        mark = writer.mark()
        if mark is None or mark.base != followed.base:
            raise IncompleteError(
                f"{followed.destination.shown} was not restored from this bundle yet",
                next_step="run moveout restore, then the same command again",
            )
        with log.reread(followed.log, schema, name, note) as snapshot:
            labels = [table_label(name) for name in snapshot.tables]
            if others := labels[1:]:
                note(
                    f"{table} is read again together with {', '.join(others)}: foreign keys that change rows connect"
                    " them"
                )
            writer.begin_again(labels)
            repaired = repair_named_tables(
                snapshot.rows, followed.destination, snapshot.tables, cancellation=cancellation
            )
        if unequal := [repair for repair in repaired if repair.reason]:
            reasons = "; ".join(
                f"{repair.table} could not be made equal: {repair.reason}" for repair in unequal
            )
            raise IncompleteError(
                reasons,
                next_step="make the table at the destination as it is at the source, then run the same command again;"
                f" until then changes of {', '.join(labels)} are left out",
            )
        writer.end_again(labels, snapshot.position)
    return dict(zip(snapshot.tables, repaired, strict=True)), log.show(snapshot.position)
