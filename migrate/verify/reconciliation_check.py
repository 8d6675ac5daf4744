"""The closure account, recomputed: whether a bundle may be called what it calls itself.

Hashes and signatures show that nobody changed it since; not that whoever sealed it counted right, or meant well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from exporters.api import CatalogEntry
from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.bundle.reconciliation import SourceScope, reasons_incomplete
from migrate.errors import DamageError


def check(reader: BundleReader) -> list[Finding]:
    """Return where the account, the catalog and the gaps contradict the word ``complete``, or each other."""
    try:
        scopes, rows = reader.scope(), reader.catalog()
        missing: dict[str, Counter[str]] = {}
        for source, gap in reader.gaps():
            missing.setdefault(source, Counter())[gap.disposition] += 1
    except DamageError as exc:
        return [Finding(exc.key, "cannot be read", exc.expected, exc.found)]
    found = list(_identity(reader, scopes))
    for scope in scopes:
        mine = [row for row in rows if row.source == scope.name]
        found += _source(scope, mine, missing.get(scope.name, Counter()))
    return found


def _identity(reader: BundleReader, scopes: Sequence[SourceScope]) -> Iterator[Finding]:
    info = reader.info
    said = {source.name: source.complete for source in info.sources}
    there = {scope.name: scope.complete for scope in scopes}
    if said != there:
        what = f"says of other sources than {layout.SCOPE} that they are complete"
        yield Finding(layout.BUNDLE_META, what, _words(there), _words(said))
    whole = all(there.values())
    if info.complete != whole:
        yield Finding(layout.BUNDLE_META, f"differs from {layout.SCOPE}", _word(whole), _word(info.complete))
    status = reader.bag_info.get("Moveout-Status", "")
    if status != _word(whole):
        yield Finding(layout.BAG_INFO, f"differs from {layout.SCOPE}", _word(whole), status)


def _source(scope: SourceScope, rows: Sequence[CatalogRow], missing: Counter[str]) -> Iterator[Finding]:
    said = {name: count for name, count in scope.dispositions.items() if name != "exported" and count}
    if said != dict(missing):
        what = f"counts other gaps of {scope.name} than {layout.GAPS} has"
        yield Finding(layout.SCOPE, what, str(dict(missing)), str(said))
    if scope.dispositions.get("exported") != scope.totals.items:
        what = f"has two numbers of exported items of {scope.name}"
        yield Finding(layout.SCOPE, what, str(scope.totals.items), str(scope.dispositions.get("exported")))
    if not scope.complete:
        return
    entries = [
        CatalogEntry(
            row.kind, row.number, row.schema, row.name, row.items, row.size_bytes, row.digest, row.details
        )
        for row in rows
    ]
    account = replace(scope.account, entries=entries)
    for reason in reasons_incomplete(account, scope.totals, missing):
        yield Finding(layout.SCOPE, f"says that {scope.name} is complete, though {reason}")


def _word(complete: bool) -> str:
    return "complete" if complete else "incomplete"


def _words(sources: dict[str, bool]) -> str:
    return ", ".join(f"{name} {_word(complete)}" for name, complete in sorted(sources.items()))
