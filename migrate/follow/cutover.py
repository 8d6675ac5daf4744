"""The cutover: the source is held, all that it wrote arrives, both sides are compared, and a record says so.

No state is kept on the way. What was done is what the source, the segments and the destination say; so a cutover that
died anywhere is gone on with by the same command, or taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from exporters.engine import live_reader_of, load_part
from exporters.errors import SourceGoneError, SourceUnreachableError
from exporters.row_digest import RowsDigest, to_hex
from migrate.bundle import canonical_json, layout
from migrate.bundle.findings import Finding
from migrate.case.model import Endpoint
from migrate.changes.apply import Applying, Mark
from migrate.changes.capture import Capture, resume_position
from migrate.changes.remainder import Carried, CarryRemainder, RemainderRequest
from migrate.engines import registry
from migrate.errors import AlreadyExistsError, BusyError, DamageError, GoneError, IncompleteError
from migrate.follow.followed import FollowedSource
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import Store

_CONTENTION_SECONDS, _AGAIN_SECONDS = 10.0, 0.5
RECORD = f"{layout.CHANGES}cutover.json"
VERSION = 1
Digests = Mapping[tuple[str, str], RowsDigest]


@dataclass(frozen=True, slots=True)
class ProvenSource:
    """One source at the cutover. ``end``: up to which position of its log all was applied, as the server writes it.
    ``differences``: the tables whose rows are not the same on both sides. ``tables``: rows and digest of each table by
    its name. ``seconds`` of each stage. ``missing``: the tables that the restore left out, and that
    are still not at the destination.
    """

    name: str
    end: str
    carried: Carried
    differences: Sequence[Finding]
    tables: Mapping[str, Sequence[Any]]
    seconds: Mapping[str, float]
    missing: Sequence[str] = ()

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

    def catch_up(self) -> Mark:
        """Capture and apply what the source has written until now; return what the destination has then. Raises errors
        of both servers and of the location.
        """
        return self._drain()[0]

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
            source_digests, destination_digests, findings = read_digests(
                followed.source, followed.destination, workers=self.workers
            )
        with stages.timed("drain"):
            if self._drain()[0].place != mark.place:
                raise written_meanwhile(followed.name)
        only_at_source = source_digests.keys() - destination_digests.keys()
        missing = [name for name in only_at_source if _label(name) in mark.skipped]
        compared = {name: digest for name, digest in source_digests.items() if name not in missing}
        return ProvenSource(
            followed.name,
            end,
            carried,
            [*findings, *differences(compared, destination_digests)],
            as_recorded(compared),
            stages.seconds,
            sorted(map(_label, missing)),
        )

    def activate(self) -> None:
        """Let the destination act by itself: no changes are applied any more."""
        self.followed.activate()

    def _drain(self) -> tuple[Mark, str]:
        """Capture and apply up to where the source's log ends now; return the mark, and that position as text. A follow
        that has just begun may be in the way for a moment.
        """
        waited = 0.0
        while True:
            try:
                return self._drain_once()
            except (BusyError, AlreadyExistsError, SourceGoneError, SourceUnreachableError):
                if waited >= _CONTENTION_SECONDS:
                    raise
            self.cancellation.wait(_AGAIN_SECONDS)
            self.cancellation.check()
            waited += _AGAIN_SECONDS

    def _drain_once(self) -> tuple[Mark, str]:
        followed = self.followed
        folder = followed.folder(self.store)
        folder.require_begun()
        log = followed.open_log()
        end = log.state(followed.log).end
        with log.stream(followed.log, resume_position(folder, followed.base)) as stream:
            Capture(folder).run(stream, self.cancellation, until=lambda position: position >= end)
        self.cancellation.check()
        last = folder.last()
        with closing(followed.open_writer()) as writer:
            applying = Applying(folder, writer)
            mark = applying.run(self.cancellation, until=lambda at: last is None or at.place >= last.boundary)
        self.cancellation.check()
        return mark, log.show(end)


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


def read_digests(
    source: Endpoint, destination: Endpoint, *, workers: int
) -> tuple[Digests, Digests, list[Finding]]:
    """Return the digests of both sides' tables, and why one could not be read. Both are read at once."""
    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(_live_digests, side, workers) for side in (source, destination)]
        source_read, destination_read = (future.result() for future in reading)
    findings = [
        Finding(_label(name), f"could not be read at the {side}: {reason}")
        for side, (_, unread) in (("source", source_read), ("destination", destination_read))
        for name, reason in unread.items()
    ]
    return source_read[0], destination_read[0], findings


def written_meanwhile(source: str) -> IncompleteError:
    """Return the error for a source that does not keep still."""
    return IncompleteError(
        f"{source} was written to while it was compared",
        next_step="stop what writes there, or let moveout hold it: --hold; then give the command again",
    )


def differences(source_digests: Digests, destination_digests: Digests) -> list[Finding]:
    """Return the tables whose rows are not the same on both sides."""
    findings = []
    for name in sorted(source_digests.keys() | destination_digests.keys()):
        source, destination = source_digests.get(name), destination_digests.get(name)
        if source == destination:
            continue
        if source is None or destination is None:
            side = "source" if source is None else "destination"
            findings.append(Finding(_label(name), f"is not at the {side}"))
        elif source.rows != destination.rows:
            findings.append(Finding(_label(name), "has other rows", str(source.rows), str(destination.rows)))
        else:
            findings.append(
                Finding(_label(name), "has other values", to_hex(source.digest), to_hex(destination.digest))
            )
    return findings


def written_since(record: CutoverRecord, name: str, destination: Endpoint, *, workers: int) -> list[Finding]:
    """Return the tables of the destination that are no longer as at the cutover."""
    proven = next((source for source in record.sources if source.name == name), None)
    if proven is None:
        return []
    digests, _ = _live_digests(destination, workers)
    return [
        Finding(table, "was written to since", str(proven.tables.get(table, [0])[0]), str(rows))
        for table, (rows, digest) in sorted(as_recorded(digests).items())
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


def _live_digests(endpoint: Endpoint, workers: int) -> tuple[Digests, Mapping[tuple[str, str], str]]:
    """Return the digests of a database's tables as of one moment, and why others could not be read."""
    unread: dict[tuple[str, str], str] = {}
    reader = live_reader_of(registry.engine_for(endpoint.url, endpoint.shown))
    digests = reader.live_tables(
        endpoint.url,
        secrets=endpoint.reveal(),
        workers=workers,
        advance=lambda _rows, _size: None,
        unread=unread,
    )
    return digests, unread


def as_recorded(digests: Digests) -> dict[str, tuple[int, str]]:
    """Return rows and digest of each table as a record has them."""
    return {_label(name): (digest.rows, to_hex(digest.digest)) for name, digest in digests.items()}


def _label(name: tuple[str, str]) -> str:
    """Return the name of a table; engines without schemas have "" for that."""
    return ".".join(filter(None, name))
