"""Which sources of a bundle are followed, and what opens their two sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from exporters.changes import FOLLOW, ChangeLog
from exporters.engine import Engine, load_part
from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.changes.apply import ChangeWriter
from migrate.changes.change_logs import open_change_log
from migrate.changes.segments import SegmentFolder
from migrate.engines import registry
from migrate.errors import UsageError
from migrate.storage.api import Store


@dataclass(frozen=True, slots=True)
class FollowedSource:
    """A source that is followed. ``base``, ``log`` and ``case`` are those with which its base was opened: position,
    what the engine needs to read on, and the name after which its objects at the server are called.
    """

    name: str
    source: Endpoint
    destination: Endpoint
    base: int
    log: Mapping[str, Any]
    case: str

    @property
    def source_engine(self) -> Engine:
        """The engine of the source."""
        return registry.engine_for(self.source.url, self.source.shown)

    @property
    def destination_engine(self) -> Engine:
        """The engine of the destination."""
        return registry.engine_for(self.destination.url, self.destination.shown)

    def open_log(self) -> ChangeLog:
        """Return the change log of the source. Raises ``UsageError`` where its engine has none."""
        return open_change_log(self.source, self.case)

    def open_writer(self) -> ChangeWriter:
        """Return what writes changes to the destination. Raises ``UsageError``, ``SourceError``."""
        engine = self.destination_engine
        reference = registry.require(engine, engine.change_writer, "followed")
        open_writer = load_part(reference)
        return cast("ChangeWriter", open_writer(self.destination.url, self.destination.reveal(), self.name))

    def folder(self, store: Store) -> SegmentFolder:
        """Return where its changes lie."""
        return SegmentFolder(store, self.name, self.base)


def followed_sources(
    reader: BundleReader, sources: Mapping[str, Endpoint], destinations: Mapping[str, Endpoint]
) -> list[FollowedSource]:
    """Return the sources of a bundle that were exported with ``--follow`` and have a destination. Raises ``UsageError``
    where there is none.
    """
    followed = []
    for name, source in sources.items():
        base = reader.newest_position(name).get(FOLLOW)
        if base is not None and name in destinations:
            followed.append(
                FollowedSource(name, source, destinations[name], base["position"], base["log"], base["name"])
            )
    if not followed:
        raise UsageError(
            f"no source of {reader.store.location} that has a destination is followed",
            next_step="moveout export --follow takes a base whose changes can be followed",
        )
    return followed
