"""``restored/`` next to a bundle: what the last restore of each source to each destination came to, for whoever asks.

It proves nothing: a comparison with the destination does that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from msgspec import Struct

from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout
from migrate.errors import DamageError, GoneError, MoveoutError, UsageError, decoding
from migrate.storage.api import Store

VERSION = 1
UP, IN_PART, FAILED = "yes", "in part", "no"


class RestoreRecord(Struct, frozen=True):
    """``bundle``: the id of the bundle that was restored. ``destination``: its URL without secrets. ``at``: when the
    restore ended, UTC, ISO 8601. ``result``: "yes", "in part", "differs" or "no"; ``happened`` and ``next_step`` say it
    in sentences. ``only``: what of a database was asked for, empty for all of it. ``notes``: what the restore that
    wrote the data noted.
    """

    bundle: str
    source: str
    destination: str
    at: str
    result: str
    happened: str
    next_step: str = ""
    only: str = ""
    notes: Sequence[str] = ()

    @property
    def is_up(self) -> bool:
        """Whether all of the source is there as it was in the bundle."""
        return self.result == UP and not self.only

    @property
    def key(self) -> str:
        """The key of its file: the newest restore to a destination replaces the one before."""
        digest = hashlib.sha256(self.destination.encode()).hexdigest()[:8]
        return f"{layout.RESTORED}{self.source}-{digest}.json"


class RestoreRecords:
    """Writes records to the first of the stores that takes them; where none does, nothing is raised."""

    def __init__(self, opens: Sequence[Callable[[], Store]]) -> None:
        self._opens = [*opens]
        self._store: Store | None = None

    def write(self, record: RestoreRecord) -> None:
        """Write one record."""
        data = canonical_json.encode_pretty({"version": VERSION} | as_dict(record))
        while self._store is not None or self._opens:
            with suppress(MoveoutError):
                self._store = self._store or self._opens.pop(0)()
                self._store.put(record.key, data)
                return
            self._store = None


def read_restore_records(stores: Sequence[Store]) -> list[RestoreRecord]:
    """Return the newest record of each source and destination. What cannot be read is not there."""
    records = []
    for store in stores:
        with suppress(MoveoutError):
            for info in list(store.list(layout.RESTORED)):
                with suppress(GoneError, DamageError, UsageError):
                    records.append(_read(store, info.key))
    return newest(records)


def newest(records: Iterable[RestoreRecord]) -> list[RestoreRecord]:
    """Return the newest record of each source and destination, by their names."""
    by_ends = {
        (record.source, record.destination): record
        for record in sorted(records, key=lambda record: record.at)
    }
    return [by_ends[ends] for ends in sorted(by_ends)]


def _read(store: Store, key: str) -> RestoreRecord:
    value = canonical_json.decode(store.read(key), key, version=VERSION)
    with decoding(key, "a record of a restore"):
        texts = {name: str(value[name]) for name in RestoreRecord.__struct_fields__ if name != "notes"}
        return RestoreRecord(**texts, notes=tuple(map(str, value.get("notes", ()))))
