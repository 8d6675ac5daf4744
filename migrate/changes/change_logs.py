"""Opens the change logs of sources, by whatever engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from msgspec import Struct

from exporters.changes import ChangeLog
from exporters.engine import load_part
from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.engines import registry


class FollowRequest(Struct, frozen=True):
    """How a source is followed: ``open`` opens its change log under a name; None where its engine has none, so that
    delta passes find what it writes. Its server may keep ``retain_bytes`` of the log for us, any number where that is
    None. ``defined`` returns what is to be known of its definitions before the first pass.
    """

    open: Callable[[str], ChangeLog] | None
    retain_bytes: int | None = None
    defined: Callable[[], Mapping[str, Any]] = dict


def open_change_log(endpoint: Endpoint, name: str) -> ChangeLog:
    """Return the change log of a source under a name. Raises ``UsageError`` where its engine has none."""
    open_log = load_part(registry.require(endpoint.engine, endpoint.engine.change_log, "followed"))
    return cast("ChangeLog", open_log(endpoint.url, endpoint.reveal(), name))


def definition_state(endpoint: Endpoint, reader: BundleReader | None, source: str) -> Mapping[str, Any]:
    """Return what is to be known of a source's definitions, so that later changes of them are seen. ``reader`` and
    ``source``: see ``exporters.engine.Engine.definition_state``. Raises ``SourceError``, ``DamageError``.
    """
    reference = registry.engine_for(endpoint.url, endpoint.shown).definition_state
    return load_part(reference)(endpoint.url, endpoint.reveal(), reader, source) if reference else {}


def followable(endpoints: Mapping[str, Endpoint]) -> Mapping[str, FollowRequest]:
    """Return how those sources are followed that have a change log, or rows that can be compared."""
    return {
        name: FollowRequest(
            partial(open_change_log, endpoint) if engine.change_log else None,
            endpoint.retain_bytes,
            partial(definition_state, endpoint, None, name),
        )
        for name, endpoint in endpoints.items()
        if (engine := registry.find(endpoint.url)) is not None and (engine.change_log or engine.row_repair)
    }
