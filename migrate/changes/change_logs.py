"""Opens the change logs of sources, by whatever engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from exporters.changes import ChangeLog
from exporters.engine import load_part
from migrate.case.model import Endpoint
from migrate.engines import registry

OpenLog = Callable[[str], ChangeLog]
"""Opens a change log under a name."""


def open_change_log(endpoint: Endpoint, name: str) -> ChangeLog:
    """Return the change log of a source under a name. Raises ``UsageError`` where its engine has none."""
    engine = registry.engine_for(endpoint.url, endpoint.shown)
    open_log = load_part(registry.require(engine, engine.change_log, "followed"))
    return cast("ChangeLog", open_log(endpoint.url, endpoint.reveal(), name))


def followable(endpoints: Mapping[str, Endpoint]) -> Mapping[str, OpenLog]:
    """Return how the change logs are opened of those sources that have one."""
    return {
        name: partial(open_change_log, endpoint)
        for name, endpoint in endpoints.items()
        if (engine := registry.find(endpoint.url)) is not None and engine.change_log
    }
