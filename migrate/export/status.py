"""How far an export is, from the location alone: also while another process works on it, and after a crash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Literal

from msgspec import Struct

from exporters.api import Gap
from migrate.bundle import bundle_json, export_state, layout, lease, reconciliation
from migrate.bundle.commit_records import CommitRecord, group_infos, read_group, read_records
from migrate.bundle.export_ledger import Totals
from migrate.bundle.lease import LeaseState
from migrate.bundle.left_behind import LeftBehind
from migrate.bundle.reader import no_bundle
from migrate.errors import GoneError
from migrate.export.plan_totals import read_plan_totals
from migrate.runtime import process_identity
from migrate.storage.api import FileInfo, Store, exists

READ_AT_MOST = 5_000
"""How many commit records are read for exact sums; beyond, sums are scaled from the counts."""
_READERS = 16
_GAPS = 1000


class SourceStatus(Struct, frozen=True):
    """``planned`` is None before the first totals were written; ``whole``: the plan is complete. ``exact``:
    ``done`` was summed, not scaled. Both count what has a commit record: a running export is further. In ``planned``
    the estimates of finished units are replaced by what they came to.
    """

    name: str
    url: str
    planned: Totals | None
    whole: bool
    done: Totals
    exact: bool
    finished: bool
    gaps: Sequence[Gap]
    """At most the first 1000."""
    gaps_total: int
    reasons: Sequence[str] = ()
    """What a seal says of why it is incomplete, as far as its gaps do not."""


class ExportStatus(Struct, frozen=True):
    """``state``: empty, exporting (a run holds the location), stopped, incomplete or complete (both sealed).

    ``heartbeat_seconds``: the age of the holder's last sign of life, by the clock of the location against ours.
    """

    location: str
    state: Literal["empty", "exporting", "stopped", "incomplete", "complete"]
    bundle_id: str
    created: str
    sources: Sequence[SourceStatus]
    holder: LeaseState | None = None
    heartbeat_seconds: float | None = None
    left_out: Sequence[str] = ()
    """The names of sources that were taken out on purpose."""
    left_behind: LeftBehind | None = None
    """What the sealed bundle says of what stays on the servers of its case."""


def export_status(store: Store) -> ExportStatus:
    """Say how far the export at a location is. Raises ``UsageError`` where something else lies there, ``GoneError``
    where only the record of a bundle does.
    """
    sealed = bundle_json.read_sealed(store)
    making = export_state.read_state(store)
    holder, age = _holder(store)
    live = holder is not None and holder.purpose == "export" and _lives(holder, age or 0.0)
    is_continued = live and sealed is not None and not sealed.complete
    if sealed is not None and (making is None or (making.id == sealed.id and not is_continued)):
        sources = [
            _sealed_source(source) for source in reconciliation.decode(store.read(layout.RECONCILIATION))
        ]
        kind: Literal["complete", "incomplete"] = "complete" if sealed.complete else "incomplete"
        left_out = [source.name for source in sealed.left_out]
        return ExportStatus(
            location=store.location,
            state=kind,
            bundle_id=sealed.id,
            created=sealed.created,
            sources=sources,
            holder=holder,
            heartbeat_seconds=age,
            left_out=left_out,
            left_behind=sealed.left_behind,
        )
    if making is None:
        kind_of_location, key = export_state.look(store)
        if kind_of_location is export_state.LocationKind.FOREIGN:
            raise no_bundle(store, f"there is {key}")
        return ExportStatus(
            location=store.location,
            state="empty",
            bundle_id="",
            created="",
            sources=[],
            holder=holder,
            heartbeat_seconds=age,
        )
    with ThreadPoolExecutor(_READERS) as executor:
        source_statuses = [_open_source(store, source, executor) for source in making.sources]
    return ExportStatus(
        location=store.location,
        state="exporting" if live else "stopped",
        bundle_id=making.id,
        created=making.created,
        sources=source_statuses,
        holder=holder,
        heartbeat_seconds=age,
    )


def _holder(store: Store) -> tuple[LeaseState | None, float | None]:
    lease_and_file = lease.look(store)
    if lease_and_file is None:
        return None, None
    return lease_and_file[0], max(0.0, (datetime.now(UTC) - lease_and_file[1].modified).total_seconds())


def _lives(holder: LeaseState, age: float) -> bool:
    if process_identity.is_dead(holder.process):
        return False
    return process_identity.is_alive(holder.process) or age < 2 * lease.STALE_SECONDS


def _sealed_source(source: reconciliation.SourceReconciliation) -> SourceStatus:
    gaps = reconciliation.count_gaps(source.gaps, source.dispositions)
    reasons = reconciliation.reasons_beyond_gaps(source)
    return SourceStatus(
        name=source.name,
        url=source.url,
        planned=source.totals,
        whole=True,
        done=source.totals,
        exact=True,
        finished=True,
        gaps=source.gaps,
        gaps_total=gaps,
        reasons=reasons,
    )


def _open_source(store: Store, source: export_state.SourceName, executor: ThreadPoolExecutor) -> SourceStatus:
    prefix = layout.units_prefix(source.name)
    infos = [info for info in store.list(prefix) if info.key.endswith(".json")]
    totals = read_plan_totals(store, source.name)
    grouped = _grouped(store, source.name, executor)
    exact = len(infos) <= READ_AT_MOST
    chosen = infos[:READ_AT_MOST]
    ids = [info.key[len(prefix) : -len(".json")] for info in chosen]
    sample = _sample(chain(grouped, _records(store, source.name, ids, executor)))
    units, counted = len(infos) + len(grouped), len(chosen) + len(grouped)
    scale = units / counted if counted else 0
    done = Totals(units, round(sample.items * scale), round(sample.size_bytes * scale))
    estimated = Totals(units, round(sample.estimated_items * scale), round(sample.estimated_bytes * scale))
    return SourceStatus(
        name=source.name,
        url=source.url,
        planned=_corrected(totals.planned, done, estimated) if totals else None,
        whole=bool(totals and totals.whole),
        done=done,
        exact=exact,
        finished=exists(store, layout.final_record(source.name)),
        gaps=sample.gaps,
        gaps_total=sample.gaps_total,
    )


def _corrected(planned: Totals, done: Totals, estimated: Totals) -> Totals:
    """Return the plan with what finished units came to in place of what was estimated of them."""
    return Totals(
        max(planned.units, done.units),
        max(planned.items - estimated.items, 0) + done.items,
        max(planned.size_bytes - estimated.size_bytes, 0) + done.size_bytes,
    )


class _Sample(Struct, frozen=True):
    items: int
    size_bytes: int
    estimated_items: int
    estimated_bytes: int
    gaps: Sequence[Gap]
    gaps_total: int


def _sample(records: Iterable[CommitRecord | None]) -> _Sample:
    """Sum the records, and what had been estimated of their units."""
    items = size_bytes = estimated_items = estimated_bytes = gaps_total = 0
    gaps: list[Gap] = []
    for record in records:
        if record is None:
            continue
        items += record.outcome.items
        size_bytes += record.outcome.size_bytes
        estimated_items += record.unit.items
        estimated_bytes += record.unit.size_bytes
        gaps_total += len(record.outcome.gaps)
        gaps.extend(islice(record.outcome.gaps, _GAPS - len(gaps)))
    return _Sample(items, size_bytes, estimated_items, estimated_bytes, gaps, gaps_total)


def _grouped(store: Store, source: str, executor: ThreadPoolExecutor) -> list[CommitRecord]:
    """Return the records of units that were committed together."""

    def read(info: FileInfo) -> list[CommitRecord]:
        try:
            return read_group(store, source, info.key)
        except GoneError:
            return []  # a run gives each of them a record of its own, or is cleaning up

    return list(chain.from_iterable(executor.map(read, group_infos(store, source))))


def _records(
    store: Store, source: str, ids: Sequence[str], executor: ThreadPoolExecutor
) -> Iterator[CommitRecord | None]:
    """Yield the records, None for one that vanished meanwhile: a run may be redoing its unit or cleaning
    up.
    """
    left = list(ids)
    while left:
        count = 0
        try:
            for record in read_records(store, source, left, executor):
                count += 1
                yield record
        except GoneError:
            yield None
            count += 1
        left = left[count:]
