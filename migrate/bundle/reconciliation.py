"""The reconciliation: is everything that was enumerated accounted for? Pure; the answer is
``meta/reconciliation.json``.

A source is complete when
- it was counted in at least two independent ways, and all counts of one thing agree;
- the items of its commit records add up to the items of its catalog, and to one of those counts (in a
  bucket: together with the items that are missing for a stated reason);
- no unit failed and no item has the disposition ``failed``. What was *excluded* on purpose is named, and
  does no harm;
- there is something in it: a table or another definition, or an object that was not excluded. A source may be declared
  to be empty.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict

from exporters.api import Enumeration, Gap, Json, SourceSummary
from exporters.changes import FOLLOW
from exporters.engine import load_part
from migrate.bundle import canonical_json, layout
from migrate.bundle.export_ledger import Totals
from migrate.engines import registry
from migrate.errors import DamageError, decoding

VERSION = 1
INLINE_FAILURES = 20
INLINE_GAPS = 1000
"""How many gaps stand in ``meta/reconciliation.json`` itself; all of them in ``data/gaps.parquet``."""


class RecordedChanges(Struct, frozen=True):
    """Where the changes of a followed source begin: the position, what the engine needs to read on, and the name after
    which its objects at the server are called (``docs/FORMAT.md``, "Changes after the snapshot").
    """

    position: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    log: dict[str, Any]
    name: str


class SourceReconciliation(Struct, frozen=True):
    """The summary of one source. ``reasons`` are sentences; none means complete."""

    name: str
    url: str
    summary: SourceSummary
    totals: Totals
    dispositions: Mapping[str, int]
    gaps: Sequence[Gap]
    reasons: Sequence[str]

    @property
    def complete(self) -> bool:
        """Whether everything is accounted for."""
        return not self.reasons

    def changes(self) -> RecordedChanges | None:
        """Return where the changes of the source begin; None where they are not followed since its newest snapshot.
        Raises ``DamageError``, also where values are not of the types that its engine needs.
        """
        positions = self.summary.positions
        value = positions[-1].get(FOLLOW) if positions else None
        if not value:
            return None
        try:
            changes = msgspec.convert(value, RecordedChanges)
            engine = registry.find(self.url)
            if engine is not None and engine.change_base:
                msgspec.convert(changes.log, load_part(engine.change_base))
        except msgspec.ValidationError as exc:
            raise DamageError(
                layout.RECONCILIATION, expected="where the changes of a source begin", found=str(exc)
            ) from exc
        return changes


def count_gaps(gaps: Sequence[Gap], dispositions: Mapping[str, int]) -> int:
    """Return how many gaps a source has. ``gaps`` are the first of them."""
    return max(len(gaps), sum(count for name, count in dispositions.items() if name != "exported"))


def reasons_incomplete(
    summary: SourceSummary,
    totals: Totals,
    gaps: Mapping[str, int],
    failures: Sequence[str] = (),
    *,
    may_be_empty: bool = False,
) -> list[str]:
    """Return what does not add up, as sentences. ``gaps``: number of gaps by disposition; ``failures``:
    units that failed. ``may_be_empty``: nothing is wrong where the source has nothing.
    """
    reasons = list(failures[:INLINE_FAILURES])
    if len(failures) > INLINE_FAILURES:
        reasons.append(f"{len(failures) - INLINE_FAILURES} more units failed")
    if failures and not summary.enumerations:  # it was never finished, so there is nothing to compare
        return reasons
    reasons += _disagreements(summary.enumerations)
    listed = sum(entry.items for entry in summary.entries)
    if listed != totals.items:
        reasons.append(f"the catalog says {listed} items, the commit records {totals.items}")
    counts = {item.count for item in summary.enumerations if not item.not_counted}
    buckets = any(entry.kind == "bucket" for entry in summary.entries)
    accounted = totals.items + (sum(gaps.values()) if buckets else 0)
    if counts and accounted not in counts and not gaps.get("failed"):
        reasons.append(
            f"{accounted} items are accounted for, but none of the counts says so: {sorted(counts)}"
        )
    if failed := gaps.get("failed", 0):
        reasons.append(_failed_words(failed))
    if not reasons and not may_be_empty and (nothing := _nothing_in(summary, totals, gaps)):
        reasons.append(f"{nothing}: check its name, prefix and filters, or say --allow-empty")
    return reasons


def _failed_words(count: int) -> str:
    return f"{count} {'item' if count == 1 else 'items'} could not be exported"


def reasons_beyond_gaps(source: SourceReconciliation) -> list[str]:
    """Return why a source is incomplete, as far as its first gaps do not say it."""
    gap_reasons = [gap.reason for gap in source.gaps if gap.reason]
    count = _failed_words(source.dispositions.get("failed", 0))
    return [
        reason
        for reason in source.reasons
        if reason != count and not any(gap_reason in reason for gap_reason in gap_reasons)
    ]


def _nothing_in(summary: SourceSummary, totals: Totals, gaps: Mapping[str, int]) -> str:
    """Return why a source is empty, "" where it is not. A table without rows is something; PostgreSQL's large objects
    are an entry also where there are none.
    """
    has_tables = any(entry.kind != "bucket" and entry.number for entry in summary.entries)
    if totals.items or has_tables or summary.has_definitions:
        return ""
    if not any(entry.kind == "bucket" for entry in summary.entries):
        return "it is empty: there is no table in it"
    excluded = gaps.get("excluded", 0)
    return "it is empty: " + (
        f"all objects in it ({excluded:,}) were excluded" if excluded else "there is no object in it"
    )


def _disagreements(enumerations: Sequence[Enumeration]) -> list[str]:
    counted = [item for item in enumerations if not item.not_counted]
    if not counted:
        return ["nothing was counted"]
    by_what: dict[str, list[Enumeration]] = defaultdict(list)
    for item in counted:
        by_what[item.what].append(item)
    reasons = []
    for what, items in sorted(by_what.items()):
        if len({item.how for item in items}) < 2:
            reasons.append(f"{what} were counted in one way only ({items[0].how}: {items[0].count})")
        elif len({item.count for item in items}) > 1:
            counts = ", ".join(f"{item.how}: {item.count}" for item in items)
            reasons.append(f"the counts of {what} differ: {counts}")
    return reasons


def used_positions(known: Sequence[Json], used: Sequence[tuple[Json, int, int]]) -> list[Json]:
    """Return the positions over which a source was taken, oldest first. Those under which units were read have
    ``units`` and ``items``. The newest is the one under which all of them were found to hold. ``known``: all positions
    of all runs; ``used``: position, units and items of the commit records.
    """
    counts = {canonical_json.encode(position): (units, items) for position, units, items in used}
    listed = {canonical_json.encode(position) for position in known}
    newest = canonical_json.encode(known[-1]) if known else b""
    positions: dict[bytes, Json] = {}
    earlier = (position for position, _, _ in used if canonical_json.encode(position) not in listed)
    for position in [*earlier, *known]:
        key = canonical_json.encode(position)
        if key in counts or key == newest:
            units, items = counts.get(key, (0, 0))
            positions.setdefault(key, {**position, "units": units, "items": items})
    return list(positions.values())


def reconciliation_json(reconciliations: Sequence[SourceReconciliation]) -> dict[str, Any]:
    """Return the content of ``meta/reconciliation.json``."""
    return {
        "version": VERSION,
        "complete": all(reconciliation.complete for reconciliation in reconciliations),
        "sources": [_source_json(reconciliation) for reconciliation in reconciliations],
    }


def _source_json(reconciliation: SourceReconciliation) -> dict[str, Any]:
    gaps = sum(count for name, count in reconciliation.dispositions.items() if name != "exported")
    return {
        "name": reconciliation.name,
        "url": reconciliation.url,
        "server": reconciliation.summary.server,
        "complete": reconciliation.complete,
        "reasons": list(reconciliation.reasons),
        "units": reconciliation.totals.units,
        "items": reconciliation.totals.items,
        "size_bytes": reconciliation.totals.size_bytes,
        "dispositions": dict(reconciliation.dispositions),
        "enumerations": [
            {"what": item.what, "how": item.how, "count": item.count}
            | ({"not_counted": item.not_counted} if item.not_counted else {})
            for item in reconciliation.summary.enumerations
        ],
        "positions": list(reconciliation.summary.positions),
        "gaps_total": gaps,
        "gaps": [asdict(gap) for gap in reconciliation.gaps],
    }


def decode(data: bytes) -> list[SourceReconciliation]:
    """Parse ``meta/reconciliation.json``; the result has neither catalog entries nor losses. Raises
    ``DamageError``.
    """
    value = canonical_json.decode(data, layout.RECONCILIATION, version=VERSION)
    with decoding(layout.RECONCILIATION, "a reconciliation"):
        sources = [_source_reconciliation(item) for item in value["sources"]]
    for source in sources:
        if not layout.is_source_name(source.name):
            raise DamageError(layout.RECONCILIATION, expected="names of sources", found=repr(source.name))
    return sources


def _source_reconciliation(value: Mapping[str, Any]) -> SourceReconciliation:
    counts = [
        Enumeration(
            str(item["what"]), str(item["how"]), _count(item["count"]), str(item.get("not_counted", ""))
        )
        for item in value["enumerations"]
    ]
    gaps = msgspec.convert(value["gaps"], list[Gap])
    return SourceReconciliation(
        name=str(value["name"]),
        url=str(value["url"]),
        summary=SourceSummary(
            [], counts, gaps, positions=[dict(p) for p in value["positions"]], server=str(value["server"])
        ),
        totals=Totals(_count(value["units"]), _count(value["items"]), _count(value["size_bytes"])),
        dispositions={str(name): _count(count) for name, count in value["dispositions"].items()},
        gaps=gaps,
        reasons=[str(reason) for reason in value["reasons"]],
    )


def _count(value: Any) -> int:
    """Return a count that may be one. Raises ``ValueError``."""
    count = int(value)
    if not 0 <= count < 2**63:
        raise ValueError(f"{str(value)[:40]} is not a count")
    return count
