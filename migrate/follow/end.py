"""The end of following: what keeps changes at the servers, and what was kept at the location, is removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from migrate.bundle import layout
from migrate.case.model import Endpoint
from migrate.follow.status import recorded_bases
from migrate.storage.api import Store


@dataclass(frozen=True, slots=True)
class KeptThing:
    """Something that is kept for following a source. ``remove`` raises ``SourceError`` and errors of the location."""

    what: str
    remove: Callable[[], None]
    is_at_location: bool = False


def kept_things(store: Store, sources: Mapping[str, Endpoint]) -> list[KeptThing]:
    """Return what is kept of the changes of a sealed bundle's sources: first at their servers, then at the location.
    ``sources`` say how the servers are reached, else the URLs of the bundle do.
    """
    things = []
    for base in recorded_bases(store):
        log, objects = base.open_log(sources.get(base.source)), base.recorded["log"]
        what = f"{base.source}: what keeps its changes at {base.url}: {', '.join(map(str, objects.values()))}"
        things.append(KeptThing(what, partial(log.drop, objects)))
    keys = [info.key for info in store.list(layout.CHANGES)]
    if keys:
        what = f"{len(keys)} files of changes at {store.location}"
        things.append(KeptThing(what, partial(store.delete_all, keys[::-1]), is_at_location=True))
    return things
