"""What an export is asked for and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct, field

from exporters.api import Enumeration, Gap
from exporters.errors import SourceError
from exporters.limits import Limits
from migrate.bundle.bundle_json import CaseInfo, LeftOutSource
from migrate.bundle.left_behind import LeftBehind
from migrate.bundle.reconciliation import SourceReconciliation, count_gaps
from migrate.changes.change_logs import FollowRequest
from migrate.errors import OK, IncompleteError
from migrate.export.seal_time import SealTime, SealTimeError
from migrate.export.unit_runner import OpenPool
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import MultipartStore
from migrate.storage.rate_limit import RateLimiter


class ExportOptions(Struct, frozen=True):
    """``attempts``: how often a unit is tried while the source cannot be reached. ``open_pool`` makes the pool that
    executes a source's units; by default it has threads, as many as there are workers.

    ``prove``: rows are read back from the files that were written, and compared with what the source sent.

    ``ask``: a source whose finished summary does not add up is asked again; else that summary stands.

    ``seal_time``: when no more is read, so that what there is can be sealed. ``open_unit_store`` opens the location
    for the units, whose waiting for it then ends with the token that it is given; by default they share the export's.
    ``rate_limiter`` is lifted for a seal before the deadline.

    ``may_be_empty``: names of sources in which nothing need be. ``dropped``: names of sources that are taken out of the
    bundle.

    ``strict_snapshot``: what was read under an earlier snapshot is read again, even where it is shown to be the same.

    ``follow``: how sources are followed from their snapshots on, by name.

    ``left_behind``: what stays on the servers, and ``case``: by which case it was exported, which the bundle says of
    itself.

    ``limits``: how the sources are spared; None where nothing was typed, so that the case says it.

    ``is_seen``: ``already_sealed`` has just looked at the location. It is looked at again under the lease only.
    """

    attempts: int = 3
    strict_snapshot: bool = False
    prove: bool = False
    ask: bool = True
    may_be_empty: Collection[str] = frozenset()
    dropped: Collection[str] = frozenset()
    open_pool: OpenPool | None = None
    left_behind: LeftBehind | None = None
    case: CaseInfo | None = None
    follow: Mapping[str, FollowRequest] = field(default_factory=dict)
    seal_time: SealTime = field(default_factory=SealTime)
    open_unit_store: Callable[[CancellationToken], MultipartStore] | None = None
    rate_limiter: RateLimiter | None = None
    limits: Limits | None = None
    is_seen: bool = False


class SourceResult(Struct, frozen=True):
    """What became of one source. ``gaps`` are at most the first 1000; ``reasons`` are sentences, none means
    complete; ``enumerations`` are all ways in which it was counted. ``lost``: what the bundle cannot represent: each
    property, of how many items, and the first of them; none where the bundle was sealed before.
    """

    name: str
    url: str
    complete: bool
    items: int
    size_bytes: int
    dispositions: Mapping[str, int]
    reasons: Sequence[str]
    gaps: Sequence[Gap]
    enumerations: Sequence[Enumeration] = ()
    lost: Mapping[str, tuple[int, str]] = {}

    @property
    def gaps_total(self) -> int:
        """How many gaps it has, all of them."""
        return count_gaps(self.gaps, self.dispositions)


class BrokenSource(Struct, frozen=True):
    """A source that could not be opened or broke off. ``error`` ended it; ``reason`` says so among the reasons of its
    ``SourceResult``.
    """

    name: str
    error: SourceError
    reason: str


class ExportOutcome(Struct, frozen=True):
    """A sealed bundle. ``files`` and ``size_bytes`` of payload. ``already_sealed``: it was so before,
    nothing was done.

    ``left_out``: sources that were taken out of the bundle on purpose. ``left_behind``: what stays on their servers,
    where that was looked for.
    """

    location: str
    bundle_id: str
    complete: bool
    files: int
    size_bytes: int
    sources: Sequence[SourceResult]
    already_sealed: bool = False
    broken: Sequence[BrokenSource] = ()
    left_out: Sequence[LeftOutSource] = ()
    left_behind: LeftBehind | None = None

    @property
    def stopped_early(self) -> bool:
        """Whether it was sealed before all was read, in time before the deadline."""
        return any(isinstance(broken.error, SealTimeError) for broken in self.broken)

    @property
    def exit_code(self) -> int:
        """Return 0 where the bundle is complete, else 3."""
        return OK if self.complete else IncompleteError.exit_code


def result(reconciliation: SourceReconciliation) -> SourceResult:
    """Return a reconciliation as the outcome reports it."""
    return SourceResult(
        name=reconciliation.name,
        url=reconciliation.url,
        complete=reconciliation.complete,
        items=reconciliation.totals.items,
        size_bytes=reconciliation.totals.size_bytes,
        dispositions=reconciliation.dispositions,
        reasons=reconciliation.reasons,
        gaps=reconciliation.gaps,
        enumerations=reconciliation.summary.enumerations,
    )
