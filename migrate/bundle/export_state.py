"""Whose location it is: ``_work/export.json`` says which bundle is being made there, from which sources.

It is the first file of an export and, with the lease, the last to go after a complete seal. A bundle that was sealed
*incomplete* keeps its ``_work/``: the same export command later takes it up again. When something comes of that, the
bundle gets a new id, and the old one stands in ``continues`` (see ``migrate.export.standing_seal``). What was sealed
under the old id does not exist any more once its tag files are taken down.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from enum import Enum
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout
from migrate.bundle.bundle_json import LeftOutSource
from migrate.errors import DamageError, GoneError, NotEmptyError, decoding
from migrate.number_text import list_words
from migrate.storage.api import Store, exists

VERSION = 1
_SHOWN_SOURCES = 3


class SourceName(Struct, frozen=True):
    """A source as the bundle records it. ``url`` holds no secrets. ``identity`` is the server's own, "" where it is not
    known; of several lines each is surer than the one before. ``may_be_empty``: nothing is wrong where nothing is in
    it.
    """

    name: str
    url: str
    identity: str = ""
    may_be_empty: bool = False

    def same_as(self, other: SourceName) -> bool:
        """Tell whether both mean one source: by what their servers say they are, else by their URLs, in which users,
        profiles and options may differ.
        """
        if self.identity and other.identity:
            own, others = self.identity.split("\n"), other.identity.split("\n")
            surest = min(len(own), len(others)) - 1
            return own[surest] == others[surest]
        return _address(self.url) == _address(other.url)

    def described(self) -> str:
        """Return it as people tell it from others."""
        return f"{self.url} ({', '.join(self.identity.splitlines())})" if self.identity else self.url


class ExportState(Struct, frozen=True):
    """The bundle in the making. ``created`` in UTC, ISO 8601; ``continues`` the ids of its incomplete
    predecessors, of which the first was created when ``begun`` says ("" without one): what they have finished is not
    read again. ``left_out``: sources that were taken out on purpose.
    """

    id: str
    created: str
    sources: Sequence[SourceName]
    continues: Sequence[str] = []
    left_out: Sequence[LeftOutSource] = []
    begun: str = ""


class LocationKind(Enum):
    """What lies at a location."""

    EMPTY = "empty"
    EXPORT = "export"
    SEALED = "sealed"
    FOREIGN = "foreign"


def new_state(sources: Sequence[SourceName], predecessor: ExportState | None = None) -> ExportState:
    """Return the state of a new bundle, or of the one that continues ``predecessor``."""
    continues = [*predecessor.continues, predecessor.id] if predecessor else []
    left_out = predecessor.left_out if predecessor else []
    begun = (predecessor.begun or predecessor.created) if predecessor else ""
    return ExportState(str(uuid.uuid4()), now(), list(sources), continues, left_out, begun)


def followed_name(case: str, state: ExportState) -> str:
    """Return the name after which what is made at followed sources is called; ``case`` is that of the case, "" without
    one.
    """
    first_id = state.continues[0] if state.continues else state.id
    return f"{case or 'bundle'}_{first_id[:8]}"


def read_state(store: Store) -> ExportState | None:
    """Return the export that is at work at the location, None without one. Raises ``DamageError``."""
    try:
        data = store.read(layout.EXPORT_STATE)
    except GoneError:
        return None
    step = "nothing can go on without this file: export to another location"
    value = canonical_json.decode(data, layout.EXPORT_STATE, version=VERSION, next_step=step)
    with decoding(layout.EXPORT_STATE, "an export", next_step=step):
        return msgspec.convert(value, ExportState)


def write_state(store: Store, state: ExportState) -> None:
    """Write or replace the state; the lease must be held."""
    store.put(layout.EXPORT_STATE, encode_state(state))


def encode_state(state: ExportState) -> bytes:
    """Return the bytes of ``_work/export.json``."""
    return canonical_json.encode(
        {
            "version": VERSION,
            "id": state.id,
            "created": state.created,
            "sources": [_source_json(source) for source in state.sources],
            "continues": list(state.continues),
        }
        | ({"left_out": [as_dict(source) for source in state.left_out]} if state.left_out else {})
        | ({"begun": state.begun} if state.begun else {})
    )


def _source_json(source: SourceName) -> dict[str, Any]:
    identity = {"identity": source.identity} if source.identity else {}
    may_be_empty = {"may_be_empty": True} if source.may_be_empty else {}
    return {"name": source.name, "url": source.url} | identity | may_be_empty


def seal_time(store: Store, state: ExportState) -> str:
    """Return when the seal of this bundle was begun: now, or what an interrupted run has recorded. So a rerun gives
    the same bytes.
    """
    try:
        value: dict[str, Any] = canonical_json.decode(store.read(layout.SEAL_STATE), layout.SEAL_STATE)
    except (GoneError, DamageError):
        value = {}
    if value.get("id") == state.id and isinstance(value.get("sealed"), str):
        return str(value["sealed"])
    sealed = now()
    store.put(
        layout.SEAL_STATE, canonical_json.encode({"version": VERSION, "id": state.id, "sealed": sealed})
    )
    return sealed


def look(store: Store) -> tuple[LocationKind, str]:
    """Say what lies at the location, and name one file of it (the one that shows it)."""
    listing = iter(store.list())
    with ThreadPoolExecutor(
        2, thread_name_prefix="moveout-look"
    ) as threads:  # on a long link each takes its time
        is_sealed = threads.submit(exists, store, layout.TAG_MANIFEST)
        first = threads.submit(next, listing, None)
        if exists(store, layout.EXPORT_STATE):
            return LocationKind.EXPORT, layout.EXPORT_STATE
        if is_sealed.result():
            return LocationKind.SEALED, layout.TAG_MANIFEST
        first_info = first.result()
    for info in chain([first_info] if first_info else [], listing):
        if info.key == layout.TRANSFER_STATE or not info.key.startswith(layout.WORK):
            return LocationKind.FOREIGN, info.key
    return LocationKind.EMPTY, ""


class OtherSourcesError(NotEmptyError):
    """A location holds the bundle of other sources; ``unnamed`` are those of them that are not named any more."""

    unnamed: Sequence[str] = ()

    def name_command(self, command: str) -> None:
        """Say in the next step by which export those are left out on purpose."""
        options = " ".join(f"--drop {name}" for name in self.unnamed)
        dropped = f"; {command} {options} leaves out on purpose what is not named any more" if options else ""
        self.next_step = (
            "use another location for this export, or give the sources that this bundle was begun with"
            + dropped
        )


def claim_error(
    store: Store, recorded_sources: Sequence[SourceName], case_sources: Sequence[SourceName]
) -> NotEmptyError:
    """Return the error for a location that holds the bundle of sources that are not named now."""

    def listed(sources: Sequence[SourceName]) -> str:
        return list_words([f"{source.name}={source.url}" for source in sources], _SHOWN_SOURCES) or "nothing"

    named = {source.name for source in case_sources}
    error = OtherSourcesError(
        f"{store.location} holds the bundle of {listed(recorded_sources)}, not of {listed(case_sources)}"
    )
    error.unnamed = [source.name for source in recorded_sources if source.name not in named]
    error.name_command("the same export with")
    return error


def other_source_error(store: Store, recorded: SourceName, given: SourceName) -> NotEmptyError:
    """Return the error for a name under which another source was begun."""
    return NotEmptyError(
        f"{given.name} of the bundle at {store.location} is {recorded.described()},"
        f" and {given.described()} is another source",
        next_step=f"give the other one a name of its own; --drop {given.name} gives up what was exported of the first",
    )


def same_sources(left: Sequence[SourceName], right: Sequence[SourceName]) -> bool:
    """Tell whether two lists name the same sources, in any order."""
    by_name = {source.name: source for source in right}
    return len(left) == len(right) and all(
        source.name in by_name and source.same_as(by_name[source.name]) for source in left
    )


def now() -> str:
    """The time in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _address(url: str) -> tuple[str, str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/")
