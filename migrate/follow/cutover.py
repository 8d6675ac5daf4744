"""The cutover: the source is held, all that it wrote arrives, both sides are compared, and a record says so.

No state is kept on the way. What was done is what the source, the segments and the destination say; so a cutover that
died anywhere is gone on with by the same command, or taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar, cast

from exporters.engine import load_part
from exporters.errors import SourceGoneError, SourceUnreachableError
from migrate.bundle import canonical_json, layout
from migrate.bundle.findings import Finding
from migrate.case.model import Endpoint
from migrate.changes.apply import Applying, Mark
from migrate.changes.capture import Capture, resume_position
from migrate.changes.remainder import Carried, CarryRemainder, RemainderRequest
from migrate.engines import registry
from migrate.errors import AlreadyExistsError, BusyError, DamageError, GoneError, IncompleteError
from migrate.follow.followed import FollowedSource
from migrate.follow.table_digests import (
    Digests,
    EarlyComparison,
    TableName,
    as_recorded,
    differences,
    read_counters,
    read_digests,
    recorded_digests,
    table_label,
)
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import Store

_CONTENTION_SECONDS, _AGAIN_SECONDS = 10.0, 0.5
_CAPTURE_SECONDS = 5.0
"""So often changes are captured while both sides are compared before the hold."""
RECORD = f"{layout.CHANGES}cutover.json"
VERSION = 1
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ProvenSource:
    """One source at the cutover. ``end``: up to which position of its log all was applied, as the server writes it.
    ``differences``: the tables whose rows are not the same on both sides. ``tables``: rows and digest of each table by
    its name. ``seconds`` of each stage. ``missing``: the tables that the restore left out, and that are still not at
    the destination. ``compared_early``: the tables that were compared before the hold; the log and both servers say
    that nothing was written to them since.
    """

    name: str
    end: str
    carried: Carried
    differences: Sequence[Finding]
    tables: Mapping[str, Sequence[Any]]
    seconds: Mapping[str, float]
    missing: Sequence[str] = ()
    compared_early: Sequence[str] = ()

    @property
    def rows(self) -> int:
        """How many rows were compared and are equal."""
        different = {finding.key for finding in self.differences}
        return sum(rows for name, (rows, _) in self.tables.items() if name not in different)


@dataclass(frozen=True, slots=True)
class ProvenBucket:
    """One bucket at the cutover. ``objects`` with ``size_bytes`` are equal on both sides. ``problem``: why they are
    not, or were not proved to be; "" where they are. ``seconds``: of the sync and the comparison.
    """

    name: str
    objects: int
    size_bytes: int
    problem: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CutoverRecord:
    """What says that the switch was made. Times in UTC, ISO 8601, by the clock of the machine with the command;
    ``downtime_seconds`` lie between them.
    """

    held_at: str
    switched_at: str
    downtime_seconds: float
    sources: Sequence[ProvenSource]
    buckets: Sequence[ProvenBucket] = ()


@dataclass(slots=True)
class Cutover:
    """The cutover of one source. ``report`` hears which stage begins."""

    followed: FollowedSource
    store: Store
    cancellation: CancellationToken
    workers: int = 2
    report: Callable[[str], None] = lambda _: None
    _early: EarlyComparison | None = None
    _touched: set[TableName] = field(default_factory=set)

    def catch_up(self) -> Mark:
        """Capture and apply what the source has written until now; return what the destination has then. Raises errors
        of both servers and of the location.
        """
        return self._drain()[0]

    def compare_early(self) -> None:
        """Compare both sides while the source is in use. Of what is equal and is not written to any more nothing is
        read again under the hold. Meanwhile changes are captured, and not applied. Raises errors of both servers and of
        the location.
        """
        self.report("compare before the hold")
        self._drain()
        self._touched.clear()
        source, destination = self.followed.source, self.followed.destination
        counters = read_counters(source, destination)
        reading_token = self.cancellation.child()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(
                read_digests, source, destination, workers=self.workers, check=reading_token.check
            )
            try:
                while not wait([reading], timeout=_CAPTURE_SECONDS).done:
                    self._retried(self._capture)
            except BaseException:
                reading_token.cancel()
                raise
        source_digests, destination_digests, _ = reading.result()
        equal = {
            name: digest for name, digest in source_digests.items() if destination_digests.get(name) == digest
        }
        self._early = EarlyComparison(equal, counters)

    def prove(self) -> ProvenSource:
        """Bring over all that the held source has, and compare. Raises ``IncompleteError`` where the source was written
        to meanwhile, and errors of both servers and of the location.
        """
        followed, stages = self.followed, Stages(self.report)
        with stages.timed("drain"):
            mark, end = self._drain()
        with stages.timed("carry over what the log lacks"):
            carried = carry_remainder(
                followed.source,
                followed.destination,
                log=followed.log,
                workers=self.workers,
                skipped=mark.skipped,
            )
        with stages.timed("compare"):
            early = self._still_equal(mark)
            source_digests, destination_digests, findings = read_digests(
                followed.source, followed.destination, workers=self.workers, without=early.keys()
            )
        with stages.timed("drain"):
            if self._drain()[0].place != mark.place:
                raise written_meanwhile(followed.name)
        only_at_source = source_digests.keys() - destination_digests.keys()
        missing = [name for name in only_at_source if table_label(name) in mark.skipped]
        compared = {name: digest for name, digest in source_digests.items() if name not in missing}
        return ProvenSource(
            followed.name,
            end,
            carried,
            [*findings, *differences(compared, destination_digests)],
            as_recorded({**compared, **early}),
            stages.seconds,
            sorted(map(table_label, missing)),
            sorted(map(table_label, early)),
        )

    def activate(self) -> None:
        """Let the destination act by itself: no changes are applied any more."""
        self.followed.activate()

    def _still_equal(self, mark: Mark) -> Digests:
        """Return the tables that were equal before the hold, and to which nothing was written since: so say the log,
        in which all of their changes are, and both servers.
        """
        if self._early is None:
            return {}
        followed = self.followed
        logged = followed.open_log().logged_tables(followed.log)
        unwritten = self._early.unwritten(read_counters(followed.source, followed.destination))
        return {
            name: digest
            for name, digest in unwritten.items()
            if name in logged and name not in self._touched and table_label(name) not in mark.skipped
        }

    def _drain(self) -> tuple[Mark, str]:
        """Capture and apply up to where the source's log ends now; return the mark, and that position as text."""
        return self._retried(self._drain_once)

    def _retried(self, step: Callable[[], Result]) -> Result:
        """Do a step. A follow that has just begun may be in the way for a moment."""
        waited = 0.0
        while True:
            try:
                return step()
            except (BusyError, AlreadyExistsError, SourceGoneError, SourceUnreachableError):
                if waited >= _CONTENTION_SECONDS:
                    raise
            self.cancellation.wait(_AGAIN_SECONDS)
            self.cancellation.check()
            waited += _AGAIN_SECONDS

    def _drain_once(self) -> tuple[Mark, str]:
        end = self._capture()
        folder = self.followed.folder(self.store)
        last = folder.last()
        with closing(self.followed.open_writer()) as writer:
            try:
                mark = Applying(folder, writer).run(
                    self.cancellation, until=lambda at: last is None or at.place >= last.boundary
                )
            finally:
                self._touched |= writer.touched
        self.cancellation.check()
        return mark, end

    def _capture(self) -> str:
        """Capture up to where the source's log ends now; return that position as text."""
        followed = self.followed
        folder = followed.folder(self.store)
        folder.require_begun()
        log = followed.open_log()
        end = log.state(followed.log).end
        with log.stream(followed.log, resume_position(folder, followed.base)) as stream:
            Capture(folder).run(stream, self.cancellation, until=lambda position: position >= end)
        self.cancellation.check()
        return log.show(end)


@dataclass(slots=True)
class Stages:
    """How many seconds each stage of a cutover took. ``report`` hears which one begins."""

    report: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Report a stage, and add its time to what was measured of it."""
        self.report(name)
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun


def carry_remainder(
    source: Endpoint,
    destination: Endpoint,
    *,
    log: Mapping[str, Any] | None,
    workers: int,
    skipped: Sequence[str] = (),
) -> Carried:
    """Bring over what the log does not carry. For ``log`` and ``skipped`` see ``RemainderRequest``. Raises
    ``UsageError`` where the destination's engine does not do that, and errors of both servers.
    """
    engine = registry.engine_for(destination.url, destination.shown)
    carry = cast("CarryRemainder", load_part(registry.require(engine, engine.remainder, "followed")))
    return carry(
        RemainderRequest(
            source.url, source.reveal(), destination.url, destination.reveal(), log, workers, skipped
        )
    )


def written_meanwhile(source: str) -> IncompleteError:
    """Return the error for a source that does not keep still."""
    return IncompleteError(
        f"{source} was written to while it was compared",
        next_step="stop what writes there, or let moveout hold it: --hold; then give the command again",
    )


def written_since(record: CutoverRecord, name: str, destination: Endpoint, *, workers: int) -> list[Finding]:
    """Return the tables of the destination that are no longer as at the cutover."""
    proven = next((source for source in record.sources if source.name == name), None)
    if proven is None:
        return []
    return [
        Finding(table, "was written to since", str(proven.tables.get(table, [0])[0]), str(rows))
        for table, (rows, digest) in sorted(recorded_digests(destination, workers=workers).items())
        if list(proven.tables.get(table, ())) != [rows, digest]
    ]


def write_record(store: Store, record: CutoverRecord) -> None:
    """Write the record; the switch is made when this returns."""
    store.put(RECORD, canonical_json.encode_pretty({"version": VERSION, **asdict(record)}))


def read_record(store: Store) -> CutoverRecord | None:
    """Return the record, None where no switch was made. Raises ``DamageError``."""
    try:
        value = canonical_json.decode(store.read(RECORD), RECORD, version=VERSION)
    except GoneError:
        return None
    try:
        sources = [
            ProvenSource(
                source["name"],
                source["end"],
                Carried(**source["carried"]),
                [Finding(**finding) for finding in source["differences"]],
                source["tables"],
                source["seconds"],
                source.get("missing", ()),
                source.get("compared_early", ()),
            )
            for source in value["sources"]
        ]
        buckets = [ProvenBucket(**bucket) for bucket in value.get("buckets", ())]
        return CutoverRecord(
            value["held_at"], value["switched_at"], value["downtime_seconds"], sources, buckets
        )
    except (KeyError, TypeError) as exc:
        raise DamageError(RECORD, expected="a record of a cutover", found=f"something else ({exc})") from exc


def remove_record(store: Store) -> None:
    """Remove the record: the switch was taken back."""
    store.delete(RECORD)
