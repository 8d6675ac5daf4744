"""The record of a cutover: what says that the switch was made, and what was compared before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.bundle import canonical_json, layout
from migrate.bundle.findings import Finding
from migrate.bundle.lease import Lease
from migrate.case.model import Endpoint
from migrate.changes.remainder import Carried
from migrate.errors import GoneError, UnreachableError, decoding
from migrate.follow.table_digests import recorded_digests
from migrate.storage.api import Store

RECORD = f"{layout.CHANGES}cutover.json"
VERSION = 1


class Stage(StrEnum):
    """The stages of a cutover in their order, with log and without one."""

    DRAIN = "drain"
    LAST_DELTA = "last delta pass"
    COMPARE_TOUCHED = "compare rows that were written to"
    ASK_WRITTEN = "ask both servers what was written"
    CARRY_UNLOGGED = "carry over what the log lacks"
    CARRY_OUTSIDE_TABLES = "carry over what tables do not hold"
    COMPARE_WHOLE_TABLES = "compare whole tables"
    COMPARE = "compare"


class ProvenSource(Struct, frozen=True):
    """One source at the cutover. ``end``: up to which position of its log all was applied, as the server writes it.
    ``differences``: the tables whose rows are not the same on both sides. ``tables``: rows and digest of each table by
    its name. ``seconds`` of each stage. ``missing``: the tables that the restore left out, and that are still not at
    the destination. ``compared_early``: the tables that were compared before the hold, and not read whole under it;
    ``compared_by_key``: how many rows of them were read again, since the log named them. ``read_whole``: why the others
    were read whole under the hold.
    """

    name: str
    end: str
    carried: Carried
    differences: Sequence[Finding]
    tables: Mapping[str, Sequence[Any]]
    seconds: Mapping[str, float]
    missing: Sequence[str] = ()
    compared_early: Sequence[str] = ()
    compared_by_key: Mapping[str, int] = field(default_factory=dict)
    read_whole: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows were compared and are equal."""
        different = {finding.key for finding in self.differences}
        return sum(rows for name, (rows, _) in self.tables.items() if name not in different)


class ProvenBucket(Struct, frozen=True):
    """One bucket at the cutover. ``objects`` with ``size_bytes`` are equal on both sides. ``problem``: why they are
    not, or were not proved to be; "" where they are. ``seconds``: of the sync and the comparison.
    """

    name: str
    objects: int
    size_bytes: int
    problem: str
    seconds: float


class CutoverRecord(Struct, frozen=True):
    """What says that the switch was made. Times in UTC, ISO 8601, by the clock of the machine with the command;
    ``downtime_seconds`` lie between them.
    """

    held_at: str
    switched_at: str
    downtime_seconds: float
    sources: Sequence[ProvenSource]
    buckets: Sequence[ProvenBucket] = ()


def written_since(record: CutoverRecord, name: str, destination: Endpoint, *, workers: int) -> list[Finding]:
    """Return the tables of the destination that are no longer as at the cutover."""
    proven = next((source for source in record.sources if source.name == name), None)
    if proven is None:
        return []
    now = recorded_digests(destination, workers=workers, names=proven.tables)
    return [
        Finding(table, "was written to since", str(proven.tables.get(table, [0])[0]), str(rows))
        for table, (rows, digest) in sorted(now.items())
        if list(proven.tables.get(table, ())) != [rows, digest]
    ]


def write_record(store: Store, record: CutoverRecord, lease: Lease) -> None:
    """Write the record; the switch is made when this returns. Raises ``UnreachableError`` where the location was away
    meanwhile. A write to a mount point without its disk makes a new directory, which the disk hides when it is back. So
    the lease is looked for, which was there before, and then the record.
    """
    store.put(RECORD, canonical_json.encode_pretty({"version": VERSION, **as_dict(record)}))
    if not lease.is_there():
        remove_record(store)
    elif read_record(store) is not None:
        return
    raise UnreachableError(
        f"{store.location} was away while the record of the switch was written",
        next_step="mount it, or name the location to which the export went; then run the same command again",
    )


def read_record(store: Store) -> CutoverRecord | None:
    """Return the record, None where no switch was made. Raises ``DamageError``."""
    try:
        value = canonical_json.decode(store.read(RECORD), RECORD, version=VERSION)
    except GoneError:
        return None
    with decoding(RECORD, "a record of a cutover"):
        record = msgspec.convert(value, CutoverRecord)
    sources = [replace(source, seconds=_in_order(source.seconds)) for source in record.sources]
    return replace(record, sources=sources)


def _in_order(seconds: Mapping[str, float]) -> Mapping[str, float]:
    """Return the stages in their order, which JSON does not keep."""
    return {name: seconds[name] for name in (*(stage.value for stage in Stage), *seconds) if name in seconds}


def remove_record(store: Store) -> None:
    """Remove the record: the switch was taken back."""
    store.delete(RECORD)
