"""The plan of a run: lists both buckets, compares them with the record, and writes the steps before anything is
changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import islice

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Gap
from exporters.bucket_api import Fetched, ObjectSummary, Page, no_end
from exporters.objects.key_oddities import OWN_FOLDER, Oddities, is_own_folder
from exporters.objects.outage_detection import OutageDetector
from exporters.objects.scratch_table import scratch_table
from exporters.selection import Selection
from migrate.restore.objects.destination_terms import Markers
from migrate.runtime.progress import Progress
from migrate.storage.s3.destination_bucket import DestinationBucket
from migrate.storage.s3.own_objects import SYNC_RECORDS, is_record
from migrate.storage.s3.source_bucket import S3Bucket
from migrate.sync.diff import Action, Comparison, SyncStep
from migrate.sync.record.column_pages import KnownPage, UnorderedError, microseconds
from migrate.sync.record.sync_record import PLAN_ROWS, Record
from migrate.sync.versions import version_diff
from migrate.sync.versions.hidden_keys import HiddenKeys
from migrate.sync.versions.version_diff import HistoryComparison, KnownHistories, by_key
from migrate.sync.versions.version_filter import by_tags, judged, steps_by_tags

_RESERVED = "it lies where moveout keeps the records of syncs, so no sync copies it"
_REPORTED_AT_ONCE = 5000
EXAMPLES = 20
_NO_TIME = datetime.min.replace(tzinfo=UTC)
Listings = tuple[Iterator[Page], Iterator[Page]]
"""The listings of the source and of the destination."""


class Plan(Struct):
    """What a run is going to do. ``steps`` are counted by what they do, ``known`` are those of which the record has a
    row; ``size_bytes`` are those to be copied. ``odd`` and ``classes``: what the destination is tried out for.
    ``examples`` names the first few of each kind; ``samples`` are a few current objects that are copied, from all over.
    ``reserved``: the first few that lie where the records of syncs are, and are none; ``not_utf_8``: objects that
    cannot be named.
    """

    run: str
    listed: int = 0
    listed_bytes: int = 0
    same: int = 0
    steps: Counter[Action] = field(default_factory=Counter)
    known: Counter[Action] = field(default_factory=Counter)
    size_bytes: int = 0
    odd: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)
    examples: dict[Action, list[str]] = field(default_factory=dict)
    samples: list[ObjectSummary] = field(default_factory=list)
    reserved: list[Gap] = field(default_factory=list)
    not_utf_8: list[Gap] = field(default_factory=list)

    @property
    def to_do(self) -> int:
        """How many objects are copied or looked at."""
        return self.steps[Action.COPY] + self.steps[Action.LOOK]

    @property
    def excluded(self) -> int:
        """How many objects of the source are not selected."""
        return self.steps[Action.EXCLUDED]

    @property
    def extra(self) -> int:
        """How many objects only the destination has."""
        return self.steps[Action.EXTRA]

    @property
    def strangers(self) -> int:
        """How many of them no sync has written."""
        return self.extra - self.known[Action.EXTRA]


class Sides(Struct, frozen=True):
    """The two buckets and the selection of objects. ``name``: what the source is called; ``recheck``: also what seems
    the same is looked at. ``history``: every version, not only the current ones, into a destination that does not
    make these delete ``markers``; ``overwrite``: also above versions that no sync has written. ``hidden``: keys that
    show no current version.
    """

    name: str
    source: S3Bucket
    destination: DestinationBucket
    selection: Selection
    recheck: bool = False
    history: bool = False
    overwrite: bool = False
    markers: Markers = field(default_factory=Markers)
    hidden: HiddenKeys | None = None

    def excludes(self, key: str, summary: ObjectSummary) -> str | None:
        """Return why an object of the source is not selected, None where it is."""
        if summary.key.startswith(SYNC_RECORDS):
            return _RESERVED
        if is_own_folder(self.destination.prefix + key, summary.size_bytes):
            return OWN_FOLDER
        if not self.selection.filters:
            return None
        size_bytes = None if summary.is_delete_marker else summary.size_bytes
        return self.selection.excludes(key, size_bytes, summary.modified)

    def is_unselected(self, key: str) -> bool:
        """Tell whether a key that only the destination has is not selected, so that it stays."""
        chosen = self.selection
        names = Selection(include=chosen.include, exclude=chosen.exclude)
        return names.filters and names.excludes(key, None, _NO_TIME) is not None

    def walk(
        self,
        comparison: Comparison | HistoryComparison,
        record: Record,
        unordered: frozenset[str],
        listings: Listings | None = None,
    ) -> Iterator[SyncStep | int]:
        """Compare ``listings``, or what is listed now. Raises ``UnorderedError`` for a side that is not in
        ``unordered``.
        """
        listings = listings or self.listings()
        if isinstance(comparison, HistoryComparison):
            return self._walk_histories(comparison, record.known_versions(), unordered, listings)
        return self._walk_objects(comparison, record.known(), unordered, listings)

    def _walk_histories(
        self,
        comparison: HistoryComparison,
        known: KnownHistories,
        unordered: frozenset[str],
        listings: Listings,
    ) -> Iterator[SyncStep | int]:
        source_pages, destination_pages = listings
        skip, its_skip = len(self.source.prefix), len(self.destination.prefix)
        listed = (
            version_diff.in_order(source_pages, skip)
            if "source" in unordered
            else by_key(source_pages, skip, "source")
        )
        judged_histories = judged(listed, self.excludes)
        if self.selection.tags:
            judged_histories = by_tags(judged_histories, self.selection, self._heads)
        destination_histories = (
            version_diff.in_order(destination_pages, its_skip)
            if "destination" in unordered
            else by_key(destination_pages, its_skip, "destination")
        )
        if self.hidden is not None:
            destination_histories = self.hidden.without_markers(destination_histories)
        return comparison.steps(judged_histories, destination_histories, known)

    def _walk_objects(
        self,
        comparison: Comparison,
        known: Iterable[KnownPage],
        unordered: frozenset[str],
        listings: Listings,
    ) -> Iterator[SyncStep | int]:
        source_pages, destination_pages = listings
        steps = comparison.steps(
            in_order(source_pages) if "source" in unordered else source_pages,
            in_order(destination_pages) if "destination" in unordered else destination_pages,
            known,
        )
        return steps_by_tags(steps, self.selection, self._heads) if self.selection.tags else steps

    def listings(self, *, other_pages: bool = False) -> Listings:
        """Return the listing of the source and that of the destination, both begun; see ``Bucket.pages``."""
        listing, prefix = self.destination.reader.listing, self.destination.prefix
        for pages in (self.source.listing, listing):
            pages.not_utf_8.clear()
        source_pages = self.source.pages(versions=self.history, until=no_end, other_pages=other_pages)
        of_destination = listing.versions if self.history else listing.objects
        destination_pages = of_destination(prefix, other_pages=other_pages)
        return begun(iter(source_pages)), without_records(begun(destination_pages), prefix)

    def _heads(self, summaries: Iterable[ObjectSummary]) -> Iterator[Fetched]:
        return OutageDetector(self.source).watch(self.source.heads(summaries))

    def comparison(self, kinds: Oddities | None = None) -> Comparison | HistoryComparison:
        """Return a comparison that has not begun. ``kinds`` sees the destination's names of all keys."""
        prefix = self.destination.prefix
        see = (lambda keys: kinds.see_all([prefix + key for key in keys])) if kinds else None
        if self.history:
            return HistoryComparison(self.is_unselected, self.markers, self.overwrite, see, self.recheck)
        return Comparison(
            source_prefix=self.source.prefix,
            destination_prefix=prefix,
            excludes=self.excludes,
            is_unselected=self.is_unselected,
            chooses=self.selection.filters,
            recheck=self.recheck,
            see=see,
        )


def make_plan(
    sides: Sides, record: Record, run: str, progress: Progress, listings: Listings | None = None
) -> Plan:
    """Compare ``listings``, or what is listed now, and write down what is to be done in the folder ``run``; nowhere
    where that is empty. Raises ``SourceError``, ``MoveoutError``.
    """
    unordered: frozenset[str] = frozenset()
    while True:
        try:
            return _make(sides, record, run, progress, unordered, listings)
        except UnorderedError as exc:
            progress.note(f"the {exc.side} does not list by key; its listing is sorted first")
            unordered |= {exc.side}
            listings = None
            if run:
                record.sweep(run)


def _make(
    sides: Sides,
    record: Record,
    run: str,
    progress: Progress,
    unordered: frozenset[str],
    listings: Listings | None,
) -> Plan:
    plan, kinds = Plan(run), Oddities()
    comparison = sides.comparison(kinds)
    progress.begin(f"compare {sides.name}", items=record.header.rows, size_bytes=0)
    walked = _with_progress(sides.walk(comparison, record, unordered, listings), progress)
    steps = (_noted(step, plan, kinds, sides.destination.prefix) for step in walked)
    number = 0
    while piece := list(islice(steps, PLAN_ROWS)):
        if run:
            record.write_plan(run, number, piece)
        number += 1
    progress.end()
    plan.listed, plan.listed_bytes = comparison.listed, comparison.listed_bytes
    plan.same = comparison.same
    return plan


def _noted(step: SyncStep, plan: Plan, kinds: Oddities, prefix: str) -> SyncStep:
    """Count a step; return it with what is odd about its key."""
    plan.steps[step.do] += 1
    plan.known[step.do] += step.known
    examples = plan.examples.setdefault(step.do, [])
    if len(examples) < EXAMPLES:
        examples.append(step.key)
    is_reserved = step.why == _RESERVED and not is_record(step.source.key if step.source else step.key)
    if is_reserved and len(plan.reserved) < EXAMPLES:
        plan.reserved.append(Gap(step.name, "excluded", step.why))
    if step.do not in {Action.COPY, Action.LOOK} or step.source is None:
        return step
    plan.size_bytes += step.source.size_bytes
    copied = plan.steps[Action.COPY] + plan.steps[Action.LOOK]
    # Of the first, second, fourth, eighth …: a policy may deny what lies below a prefix.
    if copied & (copied - 1) == 0 and not step.source.version_id:
        plan.samples.append(step.source)
    plan.classes.add(step.source.storage_class)
    name = prefix + step.key
    odd = kinds.of(name, step.source.size_bytes)
    plan.odd |= odd
    if not odd:
        return step
    return replace(step, odd=tuple(sorted(odd)))


def _with_progress(walked: Iterable[SyncStep | int], progress: Progress) -> Iterator[SyncStep]:
    """Report how far the comparison is. Nothing is taken ahead: keys are seen in their order."""
    count_not_reported = 0
    for step_or_count in walked:
        count_not_reported += step_or_count if isinstance(step_or_count, int) else 1
        if count_not_reported >= _REPORTED_AT_ONCE:
            progress.advance(items=count_not_reported)
            count_not_reported = 0
        if not isinstance(step_or_count, int):
            yield step_or_count
    progress.advance(items=count_not_reported)


_PAGE_ROWS = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEHIND = SYNC_RECORDS[:-1] + chr(ord(SYNC_RECORDS[-1]) + 1)
"""No key below it comes behind this one."""


def without_records(pages: Iterable[Page], prefix: str) -> Iterator[Page]:
    """Leave out the records of syncs, where the listing of a prefix can hold them."""
    if not SYNC_RECORDS.startswith(prefix):
        yield from pages
        return
    for page in pages:
        if not page.keys or max(page.keys) < SYNC_RECORDS or min(page.keys) >= _BEHIND:
            yield page
            continue
        kept_indexes = [index for index, key in enumerate(page.keys) if not key.startswith(SYNC_RECORDS)]
        yield page if len(kept_indexes) == len(page.keys) else page.choose(kept_indexes)


def begun(pages: Iterator[Page]) -> Iterator[Page]:
    """Yield pages, of which the first is asked for now, by a thread: so both sides list at the same time."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="moveout-listing")
    first: Future[Page | None] = thread.submit(next, pages, None)
    thread.shutdown(wait=False)
    return _behind(first, pages)


def _behind(first: Future[Page | None], pages: Iterator[Page]) -> Iterator[Page]:
    page = first.result()
    if page is not None:
        yield page
        yield from pages


def in_order(pages: Iterable[Page]) -> Iterator[Page]:
    """Sort a listing by key, through a private file that SQLite removes."""
    rows_listed = (
        (
            summary.key,
            summary.size_bytes,
            summary.etag,
            microseconds(summary.modified),
            summary.storage_class,
        )
        for page in pages
        for summary in page.rows()
    )
    table = scratch_table(
        "CREATE TABLE listed (key TEXT PRIMARY KEY, size INTEGER, etag TEXT, modified INTEGER, class TEXT)"
        " WITHOUT ROWID",
        "INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?, ?)",
        rows_listed,
    )
    with closing(table) as rows:
        ordered = rows.execute("SELECT * FROM listed ORDER BY key")
        while piece := ordered.fetchmany(_PAGE_ROWS):
            keys, sizes, etags, modified, classes = map(list, zip(*piece, strict=True))
            times = [_EPOCH + timedelta(microseconds=summary) for summary in modified]
            yield Page(keys, sizes, etags, times, classes)
