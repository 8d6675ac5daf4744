"""``moveout verify``: whether a bundle is whole, and whether what lives somewhere is the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct

from exporters.structs import as_dict
from migrate.bundle import bundle_json
from migrate.bundle.export_state import now
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_comparison import TableDigest
from migrate.case.model import Case, Endpoint
from migrate.cli import app
from migrate.cli.common.findings import EXTRA_STEP, INCOMPLETE, SHOWN, draw_findings
from migrate.cli.common.options import CaseFileHere, LocationWord, case_here, location_and_sources
from migrate.cli.common.session import TRANSFER_WORKERS, Session
from migrate.cli.common.signatures import CheckedSignatures, check_signatures
from migrate.cli.common.signing_keys import Signers, SigningOptions, load_trust
from migrate.cli.common.sources import (
    check_kinds,
    given_destinations,
    load_case,
    named_destinations,
    with_known_secrets,
    without_left_out,
)
from migrate.cli.common.summary_lines import SourceFailure, SummaryLine, failures_code, lost_words
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.cli.progress.progress_reports import reported
from migrate.custody.log.events import record_if_allowed
from migrate.custody.signing.keys import Signer
from migrate.engines import registry
from migrate.errors import OK, DamageError, IncompleteError, MoveoutError, UsageError
from migrate.number_text import bytes_words, count_words, duration_words, things
from migrate.repair.live_repair import repair_from_source
from migrate.repair.repair import TableRepair
from migrate.restore.source_restore import finished_restores, missing_from, require_content
from migrate.storage.api import MultipartStore
from migrate.verify.compare import ComparisonRequest, compare_source
from migrate.verify.row_repair import repair_from_bundle
from migrate.verify.run import Level, VerifyOutcome, verify

_CHECKED = {
    Level.QUICK: "names and sizes",
    Level.COMPLETE: "names and sizes of all that lies there",
    Level.FULL: "every byte hashed",
}
_INCOMPLETE = (
    "These could not be compared, or are filled by the server itself: a materialized view by REFRESH, an extension's"
    " table by the extension. Only the bundle has the rows that the source had."
)

_UNFINISHED = "These rows have not come yet, or cannot be compared before the restore has ended."
UNFINISHED_STEP = "give the same moveout restore again, which brings the rest; then verify again"

REPAIR_STEP = (
    "moveout transfer --recheck from a whole copy replaces damaged files; where there is none, export again to another"
    " location"
)


_EXTRA = (
    "No file of the bundle is changed or missing, and moveout does not read these. But bagit.py refuses a bundle with"
    " files that its manifest does not name, and who reads a whole directory, as DuckDB does with *.parquet, reads them"
    " as part of the bundle."
)


class Repair(Struct, frozen=True):
    """What ``--repair`` is to do. ``sources``: the live sources whose rows are taken, by name; of others the bundle's
    are.
    """

    sources: Mapping[str, Endpoint]
    dry_run: bool


class Compared(Struct, frozen=True):
    """One source of the bundle next to a live one."""

    source: str
    url: str
    findings: Sequence[Finding]
    tables: Sequence[TableDigest] = ()
    left_out: Sequence[str] = ()
    """What the restore left out, as the destination still records, and what the bundle lacks."""
    repaired: Sequence[TableRepair] = ()
    """What differed before, and was repaired; with ``--dry-run`` what would be."""
    dry_run: bool = False
    unfinished: bool = False
    """Whether a restore into it was interrupted, and has not gone on."""

    @property
    def agrees(self) -> bool:
        """Whether nothing differs, and nothing is missing."""
        return not self.findings and not self.left_out

    def summary(self) -> SummaryLine:
        """Return its line in a table of sources."""
        different = [finding for finding in self.findings if not finding.incomplete]
        if different:
            happened = f"differs from {self.url}: {different[0]}"
            return SummaryLine(self.source, "differs", happened, "moveout verify --against shows the rows")
        if self.findings or self.left_out:
            missing = [*self.left_out, *map(str, self.findings)]
            happened = f"agrees with {self.url}, but for {things(len(missing), 'item')}: {missing[0]}"
            step = UNFINISHED_STEP if self.unfinished else "moveout verify --against names all of them"
            return SummaryLine(self.source, "in part", happened, step)
        return SummaryLine(self.source, "yes", f"agrees with {self.url}")

    def as_json(self) -> dict[str, Any]:
        """Return all findings, with the rows that differ, and the digests of all tables."""
        findings = [finding.as_json() for finding in self.findings]
        tables = [as_dict(table) for table in self.tables]
        return {
            "source": self.source,
            "url": self.url,
            "findings": findings,
            "left_out": [*self.left_out],
            "tables": tables,
            "repaired": [as_dict(table) for table in self.repaired],
        }

    def draw(self, console: Console) -> None:
        """Print what was repaired, what differs, and what is known to be missing."""
        _draw_repairs(console, self.source, self.repaired, dry_run=self.dry_run)
        if not all(finding.incomplete for finding in self.findings):
            console.print(f"{self.source} differs from {self.url}")
        elif self.left_out:
            many = count_words(len(self.left_out))
            console.print(f"{self.source} and {self.url} agree, but for what was left out ({many}):")
        elif self.findings:
            console.print(f"{self.source} and {self.url} agree: all rows but these")
        else:
            all_items = "all objects" if registry.holds_objects(self.url) else "all rows"
            console.print(f"{self.source} and {self.url} agree: {all_items}")
        lines = (Text(f"  ! left out: {plain(entry)}", style="yellow") for entry in self.left_out)
        console.print_first(lines, len(self.left_out), SHOWN)
        if self.findings:
            if all(finding.incomplete for finding in self.findings):
                console.print(f"! {_UNFINISHED if self.unfinished else _INCOMPLETE}", style="yellow")
            draw_findings(console, self.findings)
        if self.unfinished:
            console.print(f"→ {UNFINISHED_STEP}")


class Verified(Struct, frozen=True):
    """What was checked and what was found."""

    location: str
    level: Level
    outcome: VerifyOutcome
    compared: Sequence[Compared]
    seconds: float
    signed: CheckedSignatures
    at: str
    """When it ended: UTC, ISO 8601."""
    complete: bool = True
    """Whether the bundle says of itself that it is."""
    failures: Sequence[SourceFailure] = ()
    """Sources that could not be compared."""
    detailed: bool = True
    """Whether it tells of each source, or only where something differs."""
    lost: Mapping[str, int] = {}
    """The properties that the bundle could not represent, and of how many items; only where all of it was read."""

    @property
    def exit_code(self) -> int:
        """Return 6 with any finding that shows damage. Return 3 with others (a REFRESH has filled a materialized view
        anew, a table could not be compared, or its rows come when a restore goes on), where something was left out,
        and where the bundle itself is incomplete.
        """
        compared = [finding for comparison in self.compared for finding in comparison.findings]
        if (
            self.outcome.findings
            or self.signed.findings
            or not all(finding.incomplete for finding in compared)
        ):
            return DamageError.exit_code
        if self.failures:
            return failures_code(self.failures, others=bool(self.compared))
        left_out = compared or any(comparison.left_out for comparison in self.compared)
        return IncompleteError.exit_code if left_out or not self.complete else OK

    def comparisons(self) -> Sequence[SummaryLine]:
        """Return what became of the comparison of each source."""
        failed = [failure.summary("not compared") for failure in self.failures]
        return [*(comparison.summary() for comparison in self.compared), *failed]

    def log_details(self) -> dict[str, Any]:
        """Return what the custody log says of it."""
        findings = [
            *self.outcome.findings,
            *self.signed.findings,
            *(f for comparison in self.compared for f in comparison.findings),
        ]
        details: dict[str, Any] = {
            "level": self.level.value,
            "files": self.outcome.files,
            "findings": len(findings),
        }
        details |= {"first": str(findings[0])} if findings else {}
        left_out = sum(len(comparison.left_out) for comparison in self.compared)
        details |= {"left_out": left_out} if left_out else {}
        failed = {failure.source: str(failure.error) for failure in self.failures}
        details |= {"failed": failed} if failed else {}
        repaired = {
            comparison.source: sum(table.rows for table in comparison.repaired)
            for comparison in self.compared
            if comparison.repaired and not comparison.dry_run
        }
        details |= {"repaired_rows": repaired} if repaired else {}
        against = {comparison.source: comparison.url for comparison in self.compared}
        return details | ({"against": against} if against else {})

    def as_json(self) -> dict[str, Any]:
        """Return all findings."""
        return {
            "location": self.location,
            "at": self.at,
            "level": self.level.value,
            "complete": self.complete,
            "seconds": self.seconds,
            **as_dict(self.outcome),
            "lost": dict(self.lost),
            "findings": [finding.as_json() for finding in self.outcome.findings],
            "compared": [comparison.as_json() for comparison in self.compared],
            "failed": [failure.as_json() for failure in self.failures],
            "signatures": self.signed.as_json(),
        }

    def draw(self, console: Console) -> None:
        """Print what holds and what does not."""
        size = f"{things(self.outcome.files, 'file')}, {bytes_words(self.outcome.size_bytes)}"
        checked = f"{size}, {_CHECKED[self.level]}"
        if not self.outcome.is_whole:
            console.print(f"The bundle at {self.location} is damaged ({checked})")
            draw_findings(console, self.outcome.findings)
            console.print(f"→ {REPAIR_STEP}")
        else:
            state = "has all its files" if self.level is Level.QUICK else "is whole"
            but = ", but other files lie there, too" if self.outcome.findings else ""
            console.print(f"The bundle at {self.location} {state}: {checked}{but}")
            if self.outcome.findings:
                draw_findings(console, self.outcome.findings)
                console.print(f"! {_EXTRA}", style="yellow")
                console.print(f"→ {EXTRA_STEP}; then verify again")
            if not self.complete:
                console.print(f"! {INCOMPLETE}", style="yellow")
            if self.lost:
                console.print(Text(f"Could not be represented: {lost_words(self.lost)}", style="dim"))
        self.signed.draw(console)
        for comparison in self.compared:
            if self.detailed or not comparison.agrees:
                comparison.draw(console)
        if self.compared and not self.detailed:
            agreeing = sum(comparison.agrees for comparison in self.compared)
            total = things(len(self.compared) + len(self.failures), "source")
            console.print(
                f"{count_words(agreeing)} of {total} compared now agree: all rows of databases, all objects of"
                " buckets"
            )
        for failure in self.failures:
            console.print(f"{failure.source} could not be compared with {failure.url}")
            console.print(Text(f"  ! {plain(console.errors.of(failure.error))}", style="yellow"))
            if next_step := console.errors.next_step(failure.error):
                console.print(f"  → {next_step}")
        console.print(f"Checked in {duration_words(self.seconds)}")


def _draw_repairs(console: Console, source: str, tables: Sequence[TableRepair], *, dry_run: bool) -> None:
    """Print what was repaired of each table, or would be."""
    if not tables:
        return
    rows = sum(table.rows for table in tables)
    done = "would be repaired" if dry_run else "were repaired"
    console.print(f"{source}: {things(rows, 'row')} in {things(len(tables), 'table')} {done}")
    lines = (
        Text(f"  {plain(table.table)}: {table.words}", style="yellow" if table.reason else "")
        for table in tables
    )
    console.print_first(lines, len(tables), SHOWN)


class VerifyOptions(Struct, frozen=True):
    """How a bundle is verified. ``signers``: a file of keys that are trusted, instead of the case's. ``keys`` sign an
    entry of the custody log. ``timestamp_ca``: the certificates of authorities that are trusted. ``values``: see
    ``verify``.
    """

    signers: Path | None = None
    keys: Sequence[Signer] = ()
    timestamp_ca: Path | None = None
    repair: Repair | None = None
    values: bool = True


def run_verify(
    session: Session,
    location: Endpoint,
    level: Level,
    against: Mapping[str, Endpoint],
    case: Case | None,
    options: VerifyOptions | None = None,
) -> Verified:
    """Verify the bundle at a location and its signatures, then compare its sources with live ones; what was found goes
    into the custody log where there is a key to sign with.
    """
    options = options or VerifyOptions()
    repair = options.repair
    compared_endpoints = [*against.values(), *(repair.sources.values() if repair else ())]
    with (
        reported(session, "verify", location, case, against),
        session.waiting_for_silent(*compared_endpoints),
    ):
        trust = load_trust(options.signers, case)
        store = session.store(location, case)
        workers = session.workers(case, default=TRANSFER_WORKERS)
        started = time.monotonic()
        outcome = verify(store, level, workers=workers, progress=session.progress, values=options.values)
        reader = _readable(store) if against else None
        compared, failures = (
            _Comparer(session, reader, workers, level is Level.FULL, repair).compare_all(against)
            if reader is not None
            else ([], [])
        )
        deep = level is Level.FULL and outcome.is_whole
        signed = check_signatures(store, trust, deep=deep, timestamp_ca=options.timestamp_ca)
        sealed = bundle_json.read_sealed(store) if outcome.is_whole else None
        verified = Verified(
            location=store.location,
            level=level,
            outcome=outcome,
            compared=compared,
            seconds=time.monotonic() - started,
            signed=signed,
            at=now(),
            complete=sealed is None or sealed.complete,
            failures=failures,
            detailed=session.is_detailed(len(against)),
            lost=_lost(store) if deep else {},
        )
        note = session.progress.note
        record_if_allowed(store, options.keys, "verified", verified.log_details(), note)
        return verified


def _lost(store: MultipartStore) -> dict[str, int]:
    """Return of how many items each property is lost, the most frequent first."""
    return dict(Counter(loss.property for _, loss in BundleReader(store).losses()).most_common())


def _readable(store: MultipartStore) -> BundleReader | None:
    """Return the reader of a bundle; None where its own lists are damaged, which the check of it has reported."""
    try:
        return BundleReader(store)
    except DamageError:
        return None


class _Comparer(Struct, frozen=True):
    """Compares sources of a bundle with live ones, and repairs these, where that is asked for. ``read_all``: reads
    every byte, where less would do.
    """

    session: Session
    reader: BundleReader
    workers: int
    read_all: bool
    repair: Repair | None

    def compare_all(self, against: Mapping[str, Endpoint]) -> tuple[list[Compared], list[SourceFailure]]:
        """Return what was compared, and what could not be: it does not stop the others."""
        compared: list[Compared] = []
        failures: list[SourceFailure] = []
        progress = self.session.progress
        against = without_left_out(self.reader, against, progress.note)
        check_kinds(self.reader, against)
        for name, endpoint in against.items():
            try:
                compared.append(self._compare(name, endpoint))
            except MoveoutError as exc:
                progress.end(stopped=True)
                if len(against) > 1:  # else the command ends with this error
                    progress.note_error(f"{name} could not be compared", exc)
                failures.append(SourceFailure(name, endpoint.shown, exc))
        return compared, failures

    def _compare(self, name: str, endpoint: Endpoint) -> Compared:
        repair, progress, cancellation = self.repair, self.session.progress, self.session.cancellation
        if repair is not None and name in repair.sources:
            return self._compare_with_source(name, repair.sources[name], endpoint, dry_run=repair.dry_run)
        require_content(self.reader, name)
        records = finished_restores(self.reader, name, endpoint.url, secrets=endpoint.reveal())
        unfinished = not all(record.finished for record in records)
        request = ComparisonRequest(
            self.reader,
            name,
            endpoint.url,
            self.workers,
            progress,
            endpoint.reveal(),
            read_all=self.read_all,
            unfinished=unfinished,
            accepted=[record.accepts for record in records],
            cancellation=cancellation,
        )
        comparison = compare_source(request)
        repaired: Sequence[TableRepair] = ()
        differing = {finding.key for finding in comparison.findings if not finding.incomplete}
        labels = differing if repair is not None else ()
        if labels and not endpoint.engine.row_repair:
            progress.note(f"! {name} is not repaired: moveout sync copies objects that differ")
        elif repair is not None and labels:
            progress.note(f"{name}: repairing {things(len(labels), 'table')}")
            repaired = repair_from_bundle(
                self.reader, name, endpoint, labels, dry_run=repair.dry_run, cancellation=cancellation
            )
            if not repair.dry_run:
                comparison = compare_source(request)
        return Compared(
            name,
            endpoint.shown,
            comparison.findings,
            comparison.digests,
            missing_from(self.reader, name, records),
            repaired,
            dry_run=repair is not None and repair.dry_run,
            unfinished=unfinished,
        )

    def _compare_with_source(
        self, name: str, source: Endpoint, endpoint: Endpoint, *, dry_run: bool
    ) -> Compared:
        """Compare the rows of a live source with those of a destination; unless ``dry_run``, repair them and compare
        what differed again.
        """
        cancellation = self.session.cancellation
        self.session.progress.note(
            f"{name}: comparing the rows of {source.shown} with those of {endpoint.shown}"
        )
        repaired = repair_from_source(source, endpoint, dry_run=dry_run, cancellation=cancellation).tables
        left = repaired
        if repaired and not dry_run:
            names = {table.table for table in repaired}
            left = repair_from_source(
                source, endpoint, dry_run=True, cancellation=cancellation, chosen=names.__contains__
            ).tables
        findings = [Finding(table.table, table.words) for table in left]
        return Compared(name, endpoint.shown, findings, repaired=repaired, dry_run=dry_run)


def _repair_options(
    location: Endpoint,
    against: Mapping[str, Endpoint],
    from_words: Sequence[str],
    case: Case | None,
    *,
    repair: bool,
    dry_run: bool,
) -> Repair | None:
    """Return what is to be repaired, None for nothing. Raises ``UsageError`` for options that do not go together."""
    if not repair:
        if from_words or dry_run:
            raise UsageError(
                "--from and --dry-run go with --repair", next_step="add --repair, or leave them out"
            )
        return None
    if not against:
        raise UsageError("--repair needs to know what to repair", next_step="add --against URL")
    sources = with_known_secrets(named_destinations(location, from_words), case)
    if others := sources.keys() - against.keys():
        name = min(others)
        raise UsageError(
            f"--from names {name}, which --against does not", next_step=f"add --against {name}=URL"
        )
    return Repair(sources, dry_run)


@verb(
    app,
    "verify",
    workers=True,
    bwlimit=True,
    examples=(
        "verify bundle",
        "verify bundle --level full --against postgresql://me@new/app",
        "verify bundle --against postgresql://me@new/app --repair",
    ),
)
def verify_command(
    session: Session,
    words: LocationWord = None,
    *,
    case: CaseFileHere = None,
    level: Annotated[
        Level | None,
        typer.Option(
            help="quick: names, sizes; complete: all there, nothing extra; full: every byte (default: full; with"
            " --against quick)."
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]URL", help="Compare with a live database or bucket; may be repeated."),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Make rows that differ equal to the bundle's, then compare again."),
    ] = False,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="[NAME=]URL",
            help="With --repair: take the rows from a live source; may be repeated.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --repair: count what would be written, and write nothing.")
    ] = False,
    signers: Signers = None,
    timestamp_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Root certificates (PEM) of timestamp authorities that you trust."),
    ] = None,
    signing: SigningOptions,
) -> Verified:
    """Check a bundle, or compare it with live databases and buckets.

    Without --against it hashes every byte. With --against it compares the rows of databases and the objects of buckets,
    after a quick check of the bundle. With --repair it makes rows that differ equal; objects are repaired by
    moveout sync.
    """
    loaded = load_case(case_here(case, [*(words or []), *(against or [])]))
    location, source_words = location_and_sources(words, loaded)
    pairs = given_destinations(location, [*(against or []), *source_words], loaded)
    level = level or (Level.QUICK if pairs else Level.FULL)
    keys = signing.load(loaded)
    verified = run_verify(
        session,
        location,
        level,
        pairs,
        loaded,
        VerifyOptions(
            signers,
            keys,
            timestamp_ca,
            _repair_options(location, pairs, from_ or [], loaded, repair=repair, dry_run=dry_run),
        ),
    )
    if len(pairs) == len(verified.failures) == 1 and not verified.outcome.findings:
        raise verified.failures[0].error
    return verified
