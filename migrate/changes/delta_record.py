"""What is kept of delta passes next to the bundle: ``changes/<source>/delta.json``, one file a source; and, of a pass
that has not ended, one file for each table that it writes to: ``changes/<source>/delta/``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field
from xxhash import xxh3_128_hexdigest

from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout
from migrate.changes.segments import folder, is_time
from migrate.errors import DamageError, GoneError, UnreachableError, decoding
from migrate.storage.api import Store

_NAME, _TABLES = "delta.json", "delta/"
_AFTER_SLASH = "0"
"""What comes next behind a slash in the order of keys."""
VERSION = 1
T = TypeVar("T")
TableState = tuple[str, int, str]
"""The rows of a table: how their digest is computed, how many there are, and the digest in hex."""


class DeltaRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """How far delta passes of a source are. ``reason``: why its log cannot be followed, "" where nobody tried.
    ``passes``: how many are done. Of the last one: ``at``, when it began (UTC, ISO 8601); ``rows``, how many it wrote;
    ``tables_read``, how many tables it compared. ``unequal``: which tables it could not make equal, with the reasons.
    ``states``: those of the source's tables at that moment (``exporters.engine.VersionedRows``). ``left``: what was
    left in tables of the destination by label. ``unsettled``: tables to which a pass has written, and of which nobody
    has noted what it has left. ``defined``: what is known of its definitions before the first pass
    (``exporters.engine.Engine.definition_state``), None before that is asked for.
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
    left: Mapping[str, TableState] = field(default_factory=dict)
    unsettled: Sequence[str] = ()
    defined: Mapping[str, Any] | None = None


class WrittenTable(Struct, frozen=True, forbid_unknown_fields=True):
    """A table to which the pass after so many ``passes`` has written: its ``label``, and all ``states`` that a kill may
    have left it in; none where that is not known.
    """

    label: str
    passes: int
    states: Sequence[TableState] = ()


def note_written(store: Store, source: str, table: WrittenTable) -> None:
    """Write down that a pass is about to write to a table. Raises ``UnreachableError`` where there is no record of its
    source, as where a disk is not mounted, and errors of the location.
    """
    require_delta(store, source)
    content = canonical_json.encode_pretty({"version": VERSION, **as_dict(table)})
    store.put(f"{folder(source)}{_TABLES}{xxh3_128_hexdigest(table.label.encode())}.json", content)


def written_tables(store: Store, source: str, passes: int) -> list[WrittenTable]:
    """Return the tables to which a pass has written that has not ended, after so many. Raises ``DamageError``."""
    tables = [
        _read(store, info.key, WrittenTable, "a table that a delta pass writes to")
        for info in store.list(f"{folder(source)}{_TABLES}")
    ]
    return [table for table in tables if table.passes == passes]


def forget_written(store: Store, source: str) -> None:
    """Remove what is noted of tables: the record of the pass has it."""
    store.delete_all([info.key for info in store.list(f"{folder(source)}{_TABLES}")])


def require_delta(store: Store, source: str) -> None:
    """Raise ``UnreachableError`` where there is no record of a source, as where a disk is not mounted: what was written
    there would be lost when the disk is back.
    """
    try:
        store.stat(f"{folder(source)}{_NAME}")
    except GoneError as exc:
        raise UnreachableError(
            f"{store.location} has no record of the delta passes of {source}",
            next_step="mount it, or name the location to which the export went",
        ) from exc


def read_delta(store: Store, source: str) -> DeltaRecord | None:
    """Return the record of a source, None where it has no delta passes. Raises ``DamageError``."""
    key = f"{folder(source)}{_NAME}"
    try:
        record = _read(store, key, DeltaRecord, "a record of delta passes")
    except GoneError:
        return None
    if not is_time(record.at):
        raise DamageError(key, expected="a time", found=repr(record.at))
    return record


def _read(store: Store, key: str, kind: type[T], expected: str) -> T:
    """Return what a file has. Raises ``GoneError``, and ``DamageError`` where it has something else."""
    value = canonical_json.decode(store.read(key), key, version=VERSION)
    del value["version"]
    with decoding(key, expected):
        return msgspec.convert(value, kind)


def write_delta(store: Store, record: DeltaRecord) -> None:
    """Write the record of a source."""
    content = {"version": VERSION, **as_dict(record)}
    store.put(f"{folder(record.source)}{_NAME}", canonical_json.encode_pretty(content))


def recorded_deltas(store: Store) -> Iterator[DeltaRecord]:
    """Yield the records of all sources. What a source has captured is not listed: that may be many files."""
    after = ""
    while (info := next(iter(store.list(layout.CHANGES, start_after=after)), None)) is not None:
        source = info.key.removeprefix(layout.CHANGES).partition("/")[0]
        if (record := read_delta(store, source)) is not None:
            yield record
        after = f"{layout.CHANGES}{source}{_AFTER_SLASH}"
