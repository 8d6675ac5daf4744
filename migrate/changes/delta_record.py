"""What is kept of delta passes next to the bundle, one file a source: ``changes/<source>/delta.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout
from migrate.changes.segments import folder, is_time
from migrate.errors import DamageError, GoneError
from migrate.storage.api import Store

_NAME = "delta.json"
VERSION = 1


class DeltaRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """How far delta passes of a source are. ``reason``: why its log cannot be followed, "" where nobody tried.
    ``passes``: how many are done. Of the last one: ``at``, when it began (UTC, ISO 8601); ``rows``, how many it wrote;
    ``tables_read``, how many tables it compared. ``unequal``: which tables it could not make equal, with the reasons.
    ``states``: those of the source's tables at that moment (``exporters.engine.VersionedRows``). ``left``: what was
    left in tables of the destination by label: how digests are computed there, rows, and digest in hex. ``unsettled``:
    tables to which a pass has begun to write, and of which it is not known what it has left. ``defined``: what is known
    of its definitions before the first pass (``exporters.engine.Engine.definition_state``), None before that is asked
    for.
    """

    source: str
    reason: str = ""
    passes: int = 0
    at: str = ""
    seconds: float = 0.0
    rows: int = 0
    tables_read: int = 0
    unequal: Sequence[str] = ()
    states: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, tuple[str, int, str]] = field(default_factory=dict)
    unsettled: Sequence[str] = ()
    defined: Mapping[str, Any] | None = None


def read_delta(store: Store, source: str) -> DeltaRecord | None:
    """Return the record of a source, None where it has no delta passes. Raises ``DamageError``."""
    key = f"{folder(source)}{_NAME}"
    try:
        value = canonical_json.decode(store.read(key), key, version=VERSION)
    except GoneError:
        return None
    try:
        del value["version"]
        record = msgspec.convert(value, DeltaRecord)
    except msgspec.ValidationError as exc:
        raise DamageError(key, expected="a record of delta passes", found=f"something else ({exc})") from exc
    if not is_time(record.at):
        raise DamageError(key, expected="a time", found=repr(record.at))
    return record


def write_delta(store: Store, record: DeltaRecord) -> None:
    """Write the record of a source."""
    content = {"version": VERSION, **as_dict(record)}
    store.put(f"{folder(record.source)}{_NAME}", canonical_json.encode_pretty(content))


def recorded_deltas(store: Store) -> Iterator[DeltaRecord]:
    """Yield the records of all sources."""
    for info in store.list(layout.CHANGES):
        source, _, name = info.key.removeprefix(layout.CHANGES).partition("/")
        if name == _NAME and (record := read_delta(store, source)) is not None:
            yield record
