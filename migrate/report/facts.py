"""What the page says: gathered from a bundle's own files, and from what was found out after it was sealed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from exporters.api import Gap, Loss
from migrate.bundle.bundle_json import BundleInfo
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.reconciliation import SourceReconciliation
from migrate.bundle.table_comparison import TableDigest

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_TABLES = 200
SHOWN_GAPS = 200
SHOWN_LOSSES = 200
SHOWN_BARS = 20
_PREFIXES = 5000
"""How many prefixes have lines of their own; what comes later counts as others."""
OTHERS = None
"""The label of what has no bar of its own."""


class Contents(Protocol):
    """A bundle's tables of contents: a sealed one's (``BundleReader``), or one that is just being sealed."""

    @property
    def info(self) -> BundleInfo:
        """Which bundle it is."""
        ...

    @property
    def payload(self) -> tuple[int, int]:
        """Bytes and files."""
        ...

    def reconciliation(self) -> Sequence[SourceReconciliation]:
        """Return the reconciliation."""
        ...

    def catalog(self) -> Sequence[CatalogRow]:
        """Return every table and bucket."""
        ...

    def losses(self) -> Iterator[tuple[str, Loss]]:
        """Yield the list of losses."""
        ...

    def gaps(self) -> Iterator[tuple[str, Gap]]:
        """Yield what is missing."""
        ...

    def index(self, source: str, *, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a bucket's object index."""
        ...


class Checked(Struct, frozen=True):
    """One check after the seal: ``what`` was done, when (UTC, ISO 8601), what was found, and what the restored database
    or bucket is without.
    """

    what: str
    at: str
    findings: Sequence[Finding | str] = ()
    left_out: Sequence[str] = ()


class Event(Struct, frozen=True):
    """One entry of the custody log. ``who`` names the key that signed it, ``hash`` is what the next entry follows."""

    at: str
    event: str
    location: str
    who: str
    hash: str


class Later(Struct, frozen=True):
    """What became known after the seal. Digests by (source, schema, name). ``root``: SHA-256 of the tag manifest;
    ``signers``: fingerprints of the keys that signed it. ``arrived``: when the last of it was written to the location;
    ``compared``: when each source was found equal to a live one. All times UTC, ISO 8601.
    """

    written: str = ""
    location: str = ""
    root: str = ""
    signers: Sequence[str] = ()
    custody: Sequence[Event] = ()
    checks: Sequence[Checked] = ()
    parquet: Mapping[tuple[str, str, str], TableDigest] = field(default_factory=dict)
    destination: Mapping[tuple[str, str, str], TableDigest] = field(default_factory=dict)
    arrived: str = ""
    compared: Mapping[str, str] = field(default_factory=dict)


class SourceFacts(Struct, frozen=True):
    """One source. ``prefixes``: bytes by the beginning of keys, the largest first; None stands for all others."""

    reconciliation: SourceReconciliation
    kind: str
    rows: Sequence[CatalogRow]
    prefixes: Sequence[tuple[str | None, int]]
    losses: Sequence[Loss]
    losses_total: int
    gaps: Sequence[Gap]

    @property
    def tables(self) -> list[CatalogRow]:
        """Its tables, the largest first."""
        return sorted(
            (row for row in self.rows if row.has_rows),
            key=lambda row: (-row.size_bytes, row.schema, row.name),
        )


class Facts(Struct, frozen=True):
    """All of the page."""

    info: BundleInfo
    payload: tuple[int, int]
    sources: Sequence[SourceFacts]
    later: Later


def gather(contents: Contents, later: Later | None = None) -> Facts:
    """Read the tables of contents. Raises what they raise."""
    rows = contents.catalog()
    losses: dict[str, list[Loss]] = {}
    counts: Counter[str] = Counter()
    for source, loss in contents.losses():
        counts[source] += 1
        if counts[source] <= SHOWN_LOSSES:
            losses.setdefault(source, []).append(loss)
    gaps: dict[str, list[Gap]] = {}
    for source, gap in contents.gaps():
        if len(gaps.setdefault(source, [])) < SHOWN_GAPS:
            gaps[source].append(gap)
    kinds = {source.name: source.kind for source in contents.info.sources}
    sources = [
        SourceFacts(
            reconciliation=reconciliation,
            kind=kinds.get(reconciliation.name, ""),
            rows=[row for row in rows if row.source == reconciliation.name],
            prefixes=_prefixes(contents, reconciliation.name, rows),
            losses=losses.get(reconciliation.name, ()),
            losses_total=counts[reconciliation.name],
            gaps=gaps.get(reconciliation.name, ()),
        )
        for reconciliation in contents.reconciliation()
    ]
    return Facts(contents.info, contents.payload, sources, later or Later())


def _prefixes(contents: Contents, source: str, rows: Sequence[CatalogRow]) -> list[tuple[str | None, int]]:
    """Add up the objects' bytes by what comes before the first slash, the bucket's own prefix apart; "" is for keys
    without one.
    """
    buckets = [row for row in rows if row.source == source and row.kind == "bucket"]
    if not any("index_files" in row.details for row in buckets):
        return []
    skip = len(str(buckets[0].details.get("prefix", "")))
    sums: Counter[str | None] = Counter()
    for batch in contents.index(source, columns=["key", "size", "disposition"]):
        for first, size in _sizes(batch, skip):
            sums[first if first in sums or len(sums) < _PREFIXES else OTHERS] += size
    return most(sums)


def _sizes(batch: pa.RecordBatch, skip: int) -> Iterator[tuple[str, int]]:
    """Yield of each exported object what its key begins with, without ``skip`` characters, and its size. Arrow would
    group a million of them in 0.1 s instead of 0.5, but takes 35 ms to import what it needs for that.
    """
    columns = (batch.column(name).to_pylist() for name in ("key", "size", "disposition"))
    for key, size, disposition in zip(*columns, strict=True):
        if disposition == "exported":
            before, slash, _ = key[skip:].partition("/")
            yield before + slash if slash else "", size or 0


def most(sums: Mapping[str | None, int]) -> list[tuple[str | None, int]]:
    """Return the largest, then the sum of all others where there are any."""
    ordered = sorted(
        ((label, size) for label, size in sums.items() if label is not OTHERS),
        key=lambda pair: (-pair[1], pair[0] or ""),
    )
    shown: list[tuple[str | None, int]] = list(islice(ordered, SHOWN_BARS))
    rest = sum(size for _, size in ordered[SHOWN_BARS:]) + sums.get(OTHERS, 0)
    return [*shown, (OTHERS, rest)] if len(ordered) > SHOWN_BARS or OTHERS in sums else shown
