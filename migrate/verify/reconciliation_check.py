"""The reconciliation, recomputed: whether a bundle that is called complete is complete.

Hashes and signatures show that nobody changed it since. They do not show that its counts were right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from exporters.api import CatalogEntry
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.bundle.reconciliation import SourceReconciliation, reasons_incomplete
from migrate.errors import DamageError


def check(reader: BundleReader) -> list[Finding]:
    """Return where the summary, the catalog and the gaps contradict the word ``complete``, or each other."""
    try:
        reconciliations, rows = reader.reconciliation(), reader.catalog()
        missing: dict[str, Counter[str]] = {}
        for source, gap in reader.gaps():
            missing.setdefault(source, Counter())[gap.disposition] += 1
    except DamageError as exc:
        return [Finding(exc.key, "cannot be read", exc.expected, exc.found)]
    findings = list(_identity(reader, reconciliations))
    for reconciliation in reconciliations:
        source_rows = [row for row in rows if row.source == reconciliation.name]
        findings += _source(reconciliation, source_rows, missing.get(reconciliation.name, Counter()))
    return findings


def _identity(reader: BundleReader, reconciliations: Sequence[SourceReconciliation]) -> Iterator[Finding]:
    info = reader.info
    recorded = {source.name: source.complete for source in info.sources}
    there = {reconciliation.name: reconciliation.complete for reconciliation in reconciliations}
    if recorded != there:
        what = f"says of other sources than {layout.RECONCILIATION} that they are complete"
        yield Finding(layout.BUNDLE_META, what, _words(there), _words(recorded))
    whole = all(there.values())
    if info.complete != whole:
        yield Finding(
            layout.BUNDLE_META, f"differs from {layout.RECONCILIATION}", _word(whole), _word(info.complete)
        )
    status = reader.bag_info.get("Moveout-Status", "")
    if status != _word(whole):
        yield Finding(layout.BAG_INFO, f"differs from {layout.RECONCILIATION}", _word(whole), status)


def _source(
    reconciliation: SourceReconciliation, rows: Sequence[CatalogRow], missing: Counter[str]
) -> Iterator[Finding]:
    recorded = {
        name: count for name, count in reconciliation.dispositions.items() if name != "exported" and count
    }
    if recorded != dict(missing):
        what = f"counts other gaps of {reconciliation.name} than {layout.GAPS} has"
        yield Finding(layout.RECONCILIATION, what, str(dict(missing)), str(recorded))
    if reconciliation.dispositions.get("exported") != reconciliation.totals.items:
        what = f"has two numbers of exported items of {reconciliation.name}"
        yield Finding(
            layout.RECONCILIATION,
            what,
            str(reconciliation.totals.items),
            str(reconciliation.dispositions.get("exported")),
        )
    if not reconciliation.complete:
        return
    entries = [
        CatalogEntry(
            kind=row.kind,
            number=row.number,
            schema=row.schema,
            name=row.name,
            items=row.items,
            size_bytes=row.size_bytes,
            digest=row.digest,
            details=row.details,
        )
        for row in rows
    ]
    summary = replace(reconciliation.summary, entries=entries)
    # That nothing was in a source is no damage: whether it may be so was decided when the bundle was sealed.
    for reason in reasons_incomplete(summary, reconciliation.totals, missing, may_be_empty=True):
        yield Finding(layout.RECONCILIATION, f"says that {reconciliation.name} is complete, though {reason}")


def _word(complete: bool) -> str:
    return "complete" if complete else "incomplete"


def _words(sources: dict[str, bool]) -> str:
    return ", ".join(f"{name} {_word(complete)}" for name, complete in sorted(sources.items()))
