"""``moveout restore``: databases and buckets are brought up from a bundle."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit

import typer
from msgspec import Struct
from msgspec.structs import replace

from migrate.bundle.export_state import now
from migrate.bundle.reader import BundleReader
from migrate.case.model import Case, Endpoint
from migrate.cli import app
from migrate.cli.common.cluster_options import ClusterOptions, machines, rate_limiter_of
from migrate.cli.common.dry_run import DryRun, WouldDo, problems_of
from migrate.cli.common.options import CaseFile, Create, LocationAndDestinations, location_and_sources
from migrate.cli.common.session import TRANSFER_WORKERS, Session, export_workers
from migrate.cli.common.signing_keys import SigningOptions
from migrate.cli.common.sources import (
    check_kinds,
    chosen_destinations,
    load_case,
    without_left_out,
)
from migrate.cli.common.summary_lines import SourceFailure, SummaryLine, draw_summary, failures_code
from migrate.cli.common.terminal import Console, Text
from migrate.cli.common.verb import verb
from migrate.cli.progress.announcements import StatusPage, announced
from migrate.cli.progress.progress_reports import reported, restore_records
from migrate.errors import OK, DamageError, IncompleteError, MoveoutError, NotEmptyError, UsageError
from migrate.number_text import bytes_words, count_words, duration_words, list_words, things
from migrate.progress.progress_file import local_store
from migrate.restore.common.api import RestoreOutcome, RestoreRequest
from migrate.restore.restore_records import IN_PART, UP, RestoreRecord, read_restore_records
from migrate.restore.source_restore import restore_source
from migrate.storage.api import MultipartStore, Store
from migrate.storage.registry import open_location

if TYPE_CHECKING:
    from migrate.cluster.machines import Machines
    from migrate.custody.signing.keys import Signer

_NAMED = 4
_SHOWN = 20
_NOT_RESTORED = "not restored"
_MERGED = ("contents", "address")
"""The checks of ``doctor`` that ``--merge`` goes past: what a destination holds, and where the bundle lies."""
_NOTED = "noted at"
REPORTS = "moveout-restored"
"""The directory of reports, one for each bundle, by default."""


class Restored(Struct, frozen=True):
    """What was restored, and where. ``failures``: what could not be restored at all."""

    location: str
    destinations: Mapping[str, str]
    outcomes: Sequence[RestoreOutcome]
    seconds: float
    bundle: str
    at: str
    """When it ended: UTC, ISO 8601."""
    failures: Sequence[SourceFailure] = ()
    detailed: bool = True
    """Whether it tells of each source, or only where something is to be said."""

    @property
    def exit_code(self) -> int:
        """Return 6 where something is not as it was, 3 where something is missing; where nothing was restored, the
        code of the worst error.
        """
        if any(outcome.findings for outcome in self.outcomes):
            return DamageError.exit_code
        if self.failures:
            return failures_code(self.failures, others=bool(self.outcomes))
        return IncompleteError.exit_code if any(outcome.left_out for outcome in self.outcomes) else OK

    @property
    def changed_nothing(self) -> bool:
        """Whether all of it was there already."""
        return all(map(_changed_nothing, self.outcomes))

    def comparisons(self) -> Sequence[SummaryLine]:
        """Return a line for each source that was read back whole, and is equal."""
        return [
            SummaryLine(outcome.source, "yes", f"agrees with {self.destinations[outcome.source]}")
            for outcome in self.outcomes
            if outcome.is_equal
        ]

    def log_details(self, only: Sequence[str]) -> dict[str, Any]:
        """Return what the custody log says of it. ``only``: what was chosen of the sources."""
        details: dict[str, Any] = {
            "to": {outcome.source: self.destinations[outcome.source] for outcome in self.outcomes},
            "findings": sum(len(outcome.findings) for outcome in self.outcomes),
        }
        failed = {failure.source: str(failure.error) for failure in self.failures}
        return details | ({"failed": failed} if failed else {}) | ({"only": list(only)} if only else {})

    def as_json(self) -> dict[str, Any]:
        """Return counts, bytes and findings by source."""
        return {
            "location": self.location,
            "bundle": self.bundle,
            "at": self.at,
            "seconds": self.seconds,
            "restored": [
                outcome.as_json() | {"url": self.destinations[outcome.source], "equal": outcome.is_equal}
                for outcome in self.outcomes
            ],
            "failed": [failure.as_json() for failure in self.failures],
            "summary": [line.as_json() for line in self.summary()],
        }

    def summary(self) -> Sequence[SummaryLine]:
        """Return what became of each source."""
        failed = [failure.summary(_NOT_RESTORED) for failure in self.failures]
        return [*map(_summary_line, self.outcomes), *failed]

    def draw(self, console: Console) -> None:
        """Print what was restored, the differences, and what could not be restored."""
        for outcome in self.outcomes:
            if self.detailed or not _is_whole(outcome):
                self._draw_outcome(console, outcome)
        if self.outcomes and not self.detailed:
            whole = sum(line.word == "yes" for line in self.summary())
            items = things(sum(outcome.items + outcome.computed_items for outcome in self.outcomes), "item")
            size = bytes_words(sum(outcome.size_bytes for outcome in self.outcomes))
            total = things(len(self.outcomes) + len(self.failures), "source")
            skipped = sum(outcome.skipped_items for outcome in self.outcomes)
            there = f" ({count_words(skipped)} were there already)" if skipped else ""
            console.print(f"{count_words(whole)} of {total} restored: {items}{there}, {size}")
            if lost := _lost_by_sources(self.outcomes):
                console.print(Text(lost, style="dim"))
        if self.outcomes:
            console.print(f"Restored in {duration_words(self.seconds)}")
        if self.exit_code != OK:
            draw_summary(console, self.summary())

    def _draw_outcome(self, console: Console, outcome: RestoreOutcome) -> None:
        skipped = (
            f" ({count_words(outcome.skipped_items)} were there already)" if outcome.skipped_items else ""
        )
        computed = (
            f" and {count_words(outcome.computed_items)} computed (materialized views)"
            if outcome.computed_items
            else ""
        )
        console.print(
            f"{outcome.source}: {count_words(outcome.items)} restored{skipped}{computed},"
            f" {bytes_words(outcome.size_bytes)}"
            f" → {self.destinations[outcome.source]}"
        )
        if outcome.lost and outcome.report and self.detailed:
            console.print(
                Text(
                    f"  not as at the source: {_lost_words(outcome)}; see {outcome.report}/losses.parquet",
                    style="dim",
                )
            )
        for note in (*outcome.routine, *outcome.notes):
            console.print(Text(f"  {note}", style="dim"))
        left_out = [f"left out: {entry}" for entry in outcome.left_out]
        for lines in (outcome.findings, left_out):
            console.print_first((Text(f"  ! {line}", style="yellow") for line in lines), len(lines), _SHOWN)


def _changed_nothing(outcome: RestoreOutcome) -> bool:
    return outcome.skipped_items == outcome.items and not outcome.size_bytes


def _lost_words(outcome: RestoreOutcome) -> str:
    """Return the names of lost properties, and how many more there are."""
    return list_words(outcome.lost, _NAMED)


def _is_whole(outcome: RestoreOutcome) -> bool:
    """Tell whether there is nothing to say but that it was restored, and what was lost of many sources alike."""
    return not (outcome.findings or outcome.left_out or outcome.notes)


def _lost_by_sources(outcomes: Iterable[RestoreOutcome]) -> str:
    """Return the properties that sources lost, each with their number, and where the ledgers are; "" without any."""
    reported = [outcome for outcome in outcomes if outcome.lost and outcome.report]
    counts = Counter(lost for outcome in reported for lost in outcome.lost).most_common()
    named = list_words([f"{lost} ({count})" for lost, count in counts], _NAMED)
    where = reported[0].report.rpartition("/")[0] if reported else ""
    return f"Not as at the source: {named}; see losses.parquet of each source in {where}" if reported else ""


def _summary_line(outcome: RestoreOutcome) -> SummaryLine:
    restored = things(outcome.items + outcome.computed_items, "item")
    if outcome.findings:
        next_step = "see the lines above; moveout verify says whether the bundle is damaged"
        happened = f"restored, {restored}, not as it was: {_first_of(outcome.findings)}"
        return SummaryLine(outcome.source, "differs", happened, next_step)
    if outcome.left_out:
        happened = f"restored, {restored}, without: {_first_of(outcome.left_out)}"
        return SummaryLine(outcome.source, "in part", happened, _step_after(outcome.left_out))
    return SummaryLine(outcome.source, "yes", f"restored: {restored}")


def _step_after(left_out: Sequence[str]) -> str:
    """Return what to do about what was left out, by its kinds."""
    lacking = [sentence for sentence in left_out if sentence.startswith("the bundle ")]
    views = [sentence for sentence in left_out if sentence.startswith("materialized view ")]
    steps = ["export again, then restore again"] if lacking else []
    if len(lacking) + len(views) < len(left_out):
        steps.append("mend what the destination refused, then restore again")
    if views:
        steps.append("rows of a materialized view: nothing, if it is refreshed anyway")
    return "; ".join(steps)


def _first_of(sentences: Sequence[str]) -> str:
    return sentences[0] + (f"; and {len(sentences) - 1:,} more" if len(sentences) > 1 else "")


def _last_records(job: _Job, stores: Sequence[Store]) -> Mapping[str, RestoreRecord]:
    """Return the records of the last restores of the bundle's sources to their destinations, by source."""
    asked_for = {(job.reader.info.id, name, endpoint.shown) for name, endpoint in job.destinations.items()}
    records = read_restore_records(stores)
    return {
        record.source: record
        for record in records
        if (record.bundle, record.source, record.destination) in asked_for
    }


def _earlier_notes(record: RestoreRecord | None, known: Sequence[str] = ()) -> list[str]:
    """Return what a restore noted that is over, each note with its time, but for those ``known``. Where it left
    something out, the destination keeps its notes; else nothing does.
    """
    if record is None or record.result == IN_PART:
        return []
    return [
        note if note.startswith(_NOTED) else f"{_NOTED} {record.at}: {note}"
        for note in record.notes
        if note not in known
    ]


class RestoreOptions(Struct, frozen=True):
    """How to restore. ``report_to``, ``snowball`` and ``create``: see the options. ``scheduler``: of the cluster that
    writes.
    """

    merge: bool = False
    only: Sequence[str] = ()
    report_to: str | None = None
    snowball: bool = False
    scheduler: str | None = None
    create: bool = False


def run_restore(
    session: Session,
    location: Endpoint,
    destinations: Mapping[str, Endpoint],
    case: Case | None,
    options: RestoreOptions,
    *,
    signers: Sequence[Signer],
) -> Restored:
    """Bring the named sources up from the bundle at a location; the custody log says so where there is a key. A source
    that cannot be restored does not stop the others. The bandwidth limit holds for what is read of the bundle, by all
    workers of a cluster together.
    """
    with (
        machines(session, options.scheduler, case) as cluster_machines,
        reported(session, "restore", location, case, destinations),
        session.waiting_for_silent(*destinations.values()),
    ):
        store = session.open(location, rate_limiter_of(session, cluster_machines, case))
        started = time.monotonic()
        reader = BundleReader(store)
        destinations = without_left_out(reader, destinations, session.progress.note)
        check_kinds(reader, destinations)
        report_store = open_location(
            options.report_to or f"{REPORTS}/{reader.info.id}",
            note=session.progress.note,
            cancellation=session.cancellation,
        )
        job = _Job(session, location, destinations, case, options, reader, report_store, cluster_machines)
        outcomes, failures = _restore_all(job, _last_records(job, [store, local_store(location.url)]))
        restored = Restored(
            location=store.location,
            destinations={name: endpoint.shown for name, endpoint in destinations.items()},
            outcomes=outcomes,
            seconds=time.monotonic() - started,
            bundle=reader.info.id,
            at=now(),
            failures=failures,
            detailed=session.is_detailed(len(destinations)),
        )
        if signers:
            from migrate.custody.log.events import record_if_allowed  # noqa: PLC0415  see ``signing_keys``

            details = restored.log_details(options.only)
            record_if_allowed(store, signers, "restored", details, session.progress.note)
        return restored


class _Job(Struct, frozen=True):
    """What the restores of all sources of a bundle share. ``cluster_machines``: those that write, None without a
    cluster.
    """

    session: Session
    location: Endpoint
    destinations: Mapping[str, Endpoint]
    case: Case | None
    options: RestoreOptions
    reader: BundleReader
    report_store: MultipartStore
    cluster_machines: Machines | None


def _restore_all(
    job: _Job, last_records: Mapping[str, RestoreRecord]
) -> tuple[list[RestoreOutcome], list[SourceFailure]]:
    """Restore each source, and again those that may need others. Record what each restore came to."""
    outcomes: dict[str, RestoreOutcome] = {}
    firsts: dict[str, RestoreOutcome] = {}
    failures: list[SourceFailure] = []
    records = restore_records(job.session, job.location)
    for name, endpoint in _in_turn(job.destinations, outcomes):
        last, request = last_records.get(name), _request(job, name, endpoint)
        try:
            if not job.options.merge:
                _refuse_overlap(endpoint, job.location)
            outcome = restore_source(request, create=job.options.create or endpoint.create)
            earlier = _earlier_notes(last, outcome.notes) if _changed_nothing(outcome) else []
            outcome = replace(outcome, routine=(*outcome.routine, *earlier))
            outcomes[name] = _together(firsts.setdefault(name, outcome), outcome)
            record = _record(job, name, _summary_line(outcomes[name]), [*outcome.notes, *earlier])
            if record.only and record.result == UP and last and last.is_up:
                record = last  # a part was restored of what is up
        except MoveoutError as exc:
            job.session.progress.end(stopped=True)
            was_up = (
                last if isinstance(exc, UsageError) and last and last.is_up else None
            )  # nothing was touched
            _add_steps(job, name, exc, was_up)
            if len(job.destinations) > 1:  # else the command ends with this error
                job.session.progress.note_error(f"{name} could not be restored", exc)
            failures.append(SourceFailure(name, endpoint.shown, exc))
            record = was_up or _record(job, name, failures[-1].summary(_NOT_RESTORED), _earlier_notes(last))
        records.write(record)
    return [*outcomes.values()], failures


def _request(job: _Job, name: str, endpoint: Endpoint) -> RestoreRequest:
    session = job.session
    return RestoreRequest(
        job.reader,
        name,
        endpoint.url,
        _workers(session, endpoint, job.case),
        session.progress,
        endpoint.reveal(),
        merge=job.options.merge,
        only=job.options.only,
        report=job.report_store,
        open_pool=_open_pool(job, name, endpoint),
        cancellation=session.cancellation,
        pack_small_objects=job.options.snowball,
        others=_others(job.destinations, name),
    )


def _record(job: _Job, name: str, line: SummaryLine, notes: Sequence[str]) -> RestoreRecord:
    return RestoreRecord(
        bundle=job.reader.info.id,
        source=name,
        destination=job.destinations[name].shown,
        at=now(),
        result=line.word,
        happened=line.happened,
        next_step=line.next_step,
        only=", ".join(job.options.only),
        notes=notes,
    )


def _add_steps(job: _Job, name: str, error: MoveoutError, was_up: RestoreRecord | None) -> None:
    """Let the error of a destination that is not empty say what else can be done. ``was_up``: the restore after which
    it was as in the bundle.
    """
    endpoint = job.destinations[name]
    if isinstance(error, NotEmptyError) and endpoint.engine.row_repair and not job.options.only:
        error.next_step += _step_where_filled(job.reader.store.location, name, endpoint)
    if was_up is not None and isinstance(error, NotEmptyError):
        used = f"nothing, if the application uses it by now: it was up at {was_up.at}"
        error.next_step = f"{used}. Else {error.next_step}"


def _refuse_overlap(destination: Endpoint, location: Endpoint) -> None:
    """Raise ``UsageError`` for a destination bucket in which the bundle lies, or that lies in the bundle."""
    if destination.engine.url_names != "bucket":
        return
    from migrate.restore.objects.existing import overlap  # noqa: PLC0415  it imports botocore

    if problem := overlap(destination, location):
        raise UsageError(
            f"{destination.shown}: {problem}",
            next_step="name another bucket or prefix; or --merge, which leaves the files of the bundle as they are",
        )


def _step_where_filled(location: str, name: str, endpoint: Endpoint) -> str:
    """Return what else to do about a database that is not empty: it may be in use since it was restored."""
    against = shlex.quote(f"{name}={endpoint.shown}")
    return (
        f". If a restore has filled it, moveout verify {shlex.quote(location)} --against {against} names what"
        " differs by now, and --repair makes the rows equal again"
    )


def _in_turn(
    destinations: Mapping[str, Endpoint], outcomes: Mapping[str, RestoreOutcome]
) -> Iterator[tuple[str, Endpoint]]:
    """Yield the sources in turn, and again those of which something was left out that may need others, as long as that
    brings something.
    """
    yield from destinations.items()
    before: Mapping[str, RestoreOutcome] | None = None
    while before is None or any(
        len(outcomes[name].left_out) < len(outcome.left_out) for name, outcome in before.items()
    ):
        before = {
            name: outcome
            for name, outcome in outcomes.items()
            if outcome.needs_others and not outcome.findings
        }
        for name in before:
            yield name, destinations[name]


def _others(destinations: Mapping[str, Endpoint], name: str) -> list[str]:
    """Return the further databases of the same server that are restored."""
    own = urlsplit(destinations[name].url)
    urls = [urlsplit(endpoint.url) for other, endpoint in destinations.items() if other != name]
    return [
        unquote(url.path.removeprefix("/"))
        for url in urls
        if (url.scheme, url.hostname, url.port) == (own.scheme, own.hostname, own.port)
    ]


def _together(first: RestoreOutcome, again: RestoreOutcome) -> RestoreOutcome:
    """Return one outcome of a source that was restored, and tried again when others were there."""
    if first is again:
        return first
    return replace(
        again,
        size_bytes=first.size_bytes + again.size_bytes,
        skipped_items=first.skipped_items,
        notes=(*first.notes, *(again.notes if again.left_out else ())),
        routine=first.routine,
    )


def _workers(session: Session, endpoint: Endpoint, case: Case | None) -> int:
    default = TRANSFER_WORKERS if endpoint.engine.contents == "objects" else export_workers()
    return session.workers(case, default=default)


def _open_pool(job: _Job, name: str, endpoint: Endpoint) -> Any:
    """Return what makes the pool of a cluster for a restore; None, and a note, where one machine restores it."""
    if not job.cluster_machines:
        return None
    from migrate.cluster.restore_tasks import open_pool_of  # noqa: PLC0415  see ``cli.common.cluster_options``

    open_pool = open_pool_of(job.cluster_machines, job.location, endpoint)
    if open_pool is None:
        job.session.progress.note(f"{name} can only be restored by one machine: this one does it")
    return open_pool


@verb(
    app,
    "restore",
    workers=True,
    bwlimit=True,
    examples=(
        'restore bundle postgresql://me@new/app "s3://media?profile=new"',
        "restore bundle postgresql://me@new/app --only schema",
    ),
)
def restore_command(
    session: Session,
    words: LocationAndDestinations = None,
    *,
    case: CaseFile = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Restore into a database or bucket that is not empty.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="Restore only a part of databases: schema, data, or a table; may be repeated.",
        ),
    ] = None,
    create: Create = False,
    signing: SigningOptions,
    report_to: Annotated[
        str | None,
        typer.Option(
            "--report-to",
            metavar="LOCATION",
            help=f"Where to write reports on restored buckets (default: {REPORTS}/ID).",
        ),
    ] = None,
    snowball: Annotated[
        bool,
        typer.Option(
            "--snowball",
            help="MinIO only: send many small objects in one request. They keep their times, but get no checksums.",
        ),
    ] = False,
    cluster: ClusterOptions,
    status_page: StatusPage = None,
    dry_run: DryRun = False,
) -> Restored | WouldDo:
    """Restore databases and buckets from a bundle.

    If it was interrupted, repeat the command to continue.
    """
    loaded = load_case(case)
    location, source_words = location_and_sources(words, loaded)
    destinations = chosen_destinations(location, source_words, loaded)
    if dry_run:
        return _would_restore(session, location, destinations, create=create, merge=merge)
    options = RestoreOptions(merge, only or (), report_to, snowball, cluster.scheduler, create)
    signers = signing.load(loaded)
    restored = announced(
        session,
        loaded,
        status_page,
        lambda: run_restore(session, location, destinations, loaded, options, signers=signers),
    )
    if len(destinations) == len(restored.failures) == 1:
        raise restored.failures[0].error
    return restored


def _would_restore(
    session: Session, location: Endpoint, destinations: Mapping[str, Endpoint], *, create: bool, merge: bool
) -> WouldDo:
    """Look at the bundle and at the destinations, and write nothing."""
    from migrate.doctor.run import (  # noqa: PLC0415  it imports a forecast, and only this asks
        MoveEndpoints,
        examine_all,
        with_locations,
    )

    store = session.store(location)
    reader = BundleReader(store)
    check_kinds(reader, destinations)
    rows = [row for row in reader.catalog() if row.source in destinations]
    actions = []
    destinations = {
        name: replace(endpoint, create=create or endpoint.create) for name, endpoint in destinations.items()
    }
    for name, endpoint in destinations.items():
        own = [row for row in rows if row.source == name]
        items = things(sum(row.items for row in own), "item")
        size = bytes_words(sum(row.size_bytes for row in own))
        made = ", which is made where it is missing" if endpoint.create else ""
        actions.append(f"would restore {name}: {items}, {size} to {endpoint.shown}{made}")
    examinations = examine_all(MoveEndpoints({}, destinations, {}, export_workers()))
    examined = with_locations(examinations.examined, destinations, [location])
    problems = problems_of(examined, _MERGED if merge else ())
    return WouldDo(store.location, actions, problems, IncompleteError.exit_code if problems else OK)
