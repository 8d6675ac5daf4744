"""``moveout cutover``: the switch from the old databases to the new ones, proved, and taken back by ``--undo``."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.bundle.findings import Finding
from migrate.bundle.lease import Lease
from migrate.case.model import Case
from migrate.changes.apply import Mark
from migrate.cli import app
from migrate.cli.common.dry_run import WouldDo
from migrate.cli.common.findings import draw_findings
from migrate.cli.common.options import CaseFile, HoldOptions, Yes
from migrate.cli.common.session import Session, export_workers
from migrate.cli.common.signing_keys import SigningOptions
from migrate.cli.common.sources import destinations_of, expanded, load_case
from migrate.cli.common.terminal import Console, Text
from migrate.cli.common.verb import verb
from migrate.cli.follow import endpoints_of
from migrate.cli.moves.cutover_buckets import BucketOptions, CutoverBuckets, cutover_buckets
from migrate.custody.log.events import record_if_allowed
from migrate.custody.signing.keys import Signer
from migrate.custody.source_holds import source_hold, undo_file
from migrate.errors import (
    OK,
    DamageError,
    IncompleteError,
    MoveoutError,
    NotEqualError,
    UsageError,
)
from migrate.follow.all_cutovers import AllCutovers
from migrate.follow.cutover import retried
from migrate.follow.cutover_record import (
    CutoverRecord,
    ProvenBucket,
    ProvenSource,
    read_record,
    remove_record,
    write_record,
    written_since,
)
from migrate.follow.delta import sources_to_follow
from migrate.follow.followed import FollowedSource
from migrate.follow.handover import cutover_lease
from migrate.follow.held_sources import HeldSources, SwitchedSource, open_holds
from migrate.number_text import bytes_words, duration_words, things
from migrate.runtime.cancellation import Cancelled
from migrate.storage.api import Store

_NAMED_TABLES = 5
_REASON = "cutover"
_NOT_HELD = (
    "! nothing holds the old databases: what is written there from now on is not in the new ones;"
    " moveout hold source makes them read-only"
)


class Switched(Struct, frozen=True):
    """What a cutover came to. ``file`` is the undo file of the hold, "" where moveout holds nothing. Where both sides
    differ, nothing was switched, and what moveout held is released. ``is_now``: this run has switched.
    ``case_option`` names the case file, for the way back.
    """

    record: CutoverRecord
    file: str
    notes: Sequence[str] = ()
    is_now: bool = True
    case_option: str = ""

    @property
    def is_switched(self) -> bool:
        """Whether both sides of every source are equal."""
        are_equal = not any(source.differences for source in self.record.sources)
        return are_equal and not any(bucket.problem for bucket in self.record.buckets)

    @property
    def exit_code(self) -> int:
        """Return 6 where something differs, 3 where the new side lacks tables or other objects."""
        if not self.is_switched:
            return DamageError.exit_code
        is_missing = any(source.missing or source.carried.missing for source in self.record.sources)
        return IncompleteError.exit_code if is_missing else OK

    def as_json(self) -> dict[str, Any]:
        """Return the record."""
        return {"switched": self.is_switched, "undo": self.file or None, "notes": [*self.notes]} | as_dict(
            self.record
        )

    def draw(self, console: Console) -> None:
        """Print what was compared, how long nothing could be written, and where the seconds went."""
        for source in self.record.sources:
            _draw_source(console, source)
        for bucket in self.record.buckets:
            _draw_bucket(console, bucket)
        for note in self.notes:
            console.print(Text(f"! {note}", style="yellow"))
        if not self.is_switched:
            console.print(
                Text("NOT SWITCHED: both sides differ; the old side is in use as before", style="bold red")
            )
            console.print(
                "→ moveout resync reads a table again, where its log is followed; then give moveout follow again\n"
                "→ where delta passes are taken, moveout follow --overwrite replaces what others have written at the"
                " new side"
            )
            return
        what = "nothing could be written" if self.file else "nothing was written"
        stood_still = duration_words(self.record.downtime_seconds)
        when = "Switched" if self.is_now else "Nothing was done now: this was switched before,"
        console.print(f"{when} at {self.record.switched_at}: {what} for {stood_still}")
        if self.is_now and not self.file:
            console.print(Text(_NOT_HELD, style="yellow"))
        undo = " ".join(filter(None, ("moveout cutover", self.case_option, "--undo")))
        console.print(f"→ let the application use the new databases; {undo} goes back to the old ones")


def _draw_source(console: Console, source: ProvenSource) -> None:
    stages = ", ".join(f"{name} {duration_words(seconds)}" for name, seconds in source.seconds.items())
    equal = len(source.tables) - len({finding.key for finding in source.differences} & source.tables.keys())
    console.print(
        Text.assemble(
            (source.name, "bold"),
            f"  {things(equal, 'table')} with {things(source.rows, 'row')} equal on both sides, up to {source.end}",
        )
    )
    _draw_comparison(console, source)
    carried = ", ".join(
        things(count, kind.removesuffix("s")) for kind, count in source.carried.counts.items() if count
    )
    if carried:
        console.print(Text(f"  carried outside of the log: {carried}", style="dim"))
    console.print(Text(f"  {stages}", style="dim"))
    for name in source.missing:
        console.print(Text(f"  ! {name} is MISSING at the new side: the restore left it out", style="yellow"))
    for thing in source.carried.missing:
        console.print(Text(f"  ! {thing} is MISSING at the new side", style="yellow"))
    for note in source.carried.notes:
        console.print(Text(f"  ! {note}", style="yellow"))
    if source.differences:
        draw_findings(console, source.differences)


def _draw_comparison(console: Console, source: ProvenSource) -> None:
    """Print what was compared before the hold, and what had to be read whole under it."""
    if source.compared_early:
        early = things(len(source.compared_early), "table")
        rows = sum(source.compared_by_key.values())
        words = f"  compared before the hold: {early}; under it the rows that were written to since"
        console.print(Text(f"{words}: {things(rows, 'row')}", style="dim"))
    by_reason: dict[str, list[str]] = {}
    for name, reason in source.read_whole.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        shown = ", ".join(names[:_NAMED_TABLES]) + (", …" if names[_NAMED_TABLES:] else "")
        console.print(Text(f"  read whole under the hold: {shown}: {reason}", style="dim"))


def _draw_bucket(console: Console, bucket: ProvenBucket) -> None:
    if bucket.problem:
        console.print(Text.assemble((bucket.name, "bold"), "  ", (f"! {bucket.problem}", "yellow")))
        return
    size = bytes_words(bucket.size_bytes)
    words = f"  {things(bucket.objects, 'object')}, {size}, equal on both sides"
    console.print(Text.assemble((bucket.name, "bold"), words))
    console.print(Text(f"  sync and compare {duration_words(bucket.seconds)}", style="dim"))


class TakenBack(Struct, frozen=True):
    """A cutover that was undone. ``written``: by source the tables of the new side that were written to since.
    ``still_held``: why some old databases could not be released; then the switch is not undone yet.
    """

    switched_at: str
    written: Mapping[str, Sequence[Finding]]
    undone: Sequence[str]
    notes: Sequence[str] = ()
    still_held: Mapping[str, MoveoutError] = {}
    hints: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """Return the code of why a database is still held; 3 where something could not be read, or is at the new side
        only.
        """
        for error in self.still_held.values():
            return error.exit_code
        return IncompleteError.exit_code if self.notes or any(self.written.values()) else OK

    def as_json(self) -> dict[str, Any]:
        """Return what was written at the new side since, and what was undone."""
        written = {
            name: [as_dict(finding) for finding in findings] for name, findings in self.written.items()
        }
        return {
            "switched_at": self.switched_at,
            "written_since": written,
            "undone": [*self.undone],
            "still_held": {name: str(error) for name, error in self.still_held.items()},
        }

    def draw(self, console: Console) -> None:
        """Print both."""
        for change in self.undone:
            console.print(Text(f"  done: {change}"))
        for name, findings in self.written.items():
            if findings:
                console.print(
                    Text(f"{name}: written at the new side since {self.switched_at}:", style="bold")
                )
                draw_findings(console, findings)
            else:
                console.print(f"{name}: nothing was written at the new side since {self.switched_at}")
        for note in (*self.notes, *self.hints):
            console.print(Text(f"! {note}", style="yellow"))
        for name, error in self.still_held.items():
            console.print(Text(f"! {name} is STILL HELD: {error}", style="bold red"))
        if self.still_held:
            console.print(
                "→ the same command again, once that is mended; the other old databases are released"
            )
        else:
            console.print("The old side may be written to again")
        if any(self.written.values()):
            console.print(
                "→ the old side lacks what was written at the new one: bring it over before it is used"
            )


@verb(
    app,
    "cutover",
    workers=True,
    examples=("cutover -c moveout.toml --hold", "cutover -c moveout.toml --undo"),
)
def cutover_command(
    session: Session,
    *,
    options: HoldOptions,
    undo: Annotated[
        bool,
        typer.Option(
            "--undo",
            help="Go back: release the old databases, and name the tables of the new ones that were written to.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and hold nothing.")
    ] = False,
    bucket_options: BucketOptions,
    signing: SigningOptions,
    case: CaseFile = None,
    yes: Yes = False,
) -> Switched | TakenBack | WouldDo:
    """Switch to the new databases, if both sides are equal.

    A running moveout follow ends by itself. Both sides are compared while the old databases are in use. Then these
    are held, their last changes are applied, and tables that were written to are compared again. If all are equal,
    the switch is recorded; otherwise nothing is switched, and the old databases are released. Buckets of the case
    are synced and compared, too.
    """
    loaded = load_case(case)
    if loaded is None or loaded.bundle is None:
        raise UsageError("no case file is named", next_step="give -c moveout.toml, with a [bundle] location")
    signers = signing.load(loaded)
    if undo:
        return _undo(session, loaded, options.file, signers)
    if (before := switched_before(session, loaded, options, signers)) is not None:
        return before
    buckets = cutover_buckets(session, loaded, bucket_options, signers)
    if dry_run:
        return _foreseen(session, loaded, buckets, options)
    return run_cutover(session, loaded, buckets, options, yes=yes)


def switched_before(
    session: Session, case: Case, options: HoldOptions, signers: Sequence[Signer]
) -> Switched | None:
    """Return the switch that an earlier cutover has made, if any. One that died then has not told the custody log."""
    assert case.bundle is not None
    session.facts["switched"] = None
    store = session.store(case.bundle)
    record = read_record(store)
    session.facts["switched"] = record is not None
    if record is None:
        return None
    file = str(options.file) if options.file.exists() else ""
    notes = _write_custody_log(store, signers, record)
    if options.hold and not file:
        notes.append(
            "the switch was made before, so --hold has held nothing now;"
            " moveout hold source makes the old databases read-only"
        )
    return Switched(record, file, notes, is_now=False, case_option=case.option)


def run_cutover(
    session: Session, case: Case, buckets: CutoverBuckets, options: HoldOptions, *, yes: bool
) -> Switched:
    """Switch the followed databases and the buckets of a case. Raises ``NotEqualError`` where something cannot be
    brought over before the switch: ``IncompleteError`` would mean that the switch was made, with gaps.
    """
    store, followed = _followed(session, case)
    stands_still = threading.Event()
    with _not_switched(), ExitStack() as stack:
        hold = _confirmed_hold(session, followed, options, yes=yes) if options.hold else None
        endpoints = endpoints_of(followed)
        stack.enter_context(
            session.waiting_for_silent(*endpoints, may_end=False, is_limited=stands_still.is_set)
        )
        lease = stack.enter_context(cutover_lease(store, session.progress))
        cutovers = stack.enter_context(_cutovers_of(session, store, followed))
        cutovers.take_over(is_held=options.file.exists())
        if not options.compare_all:
            cutovers.compare_early()
        buckets.catch_up()
        cutovers.catch_up()
        if hold is None:
            cutovers.wait_until_quiet()
            stands_still.set()
            return replace(_switch(session, cutovers, buckets, None, lease), case_option=case.option)
        try:
            reopened = hold.reopened  # after hours, say
            hold = retried(lambda: stack.enter_context(reopened(followed)), session.cancellation)
            stands_still.set()
            return replace(_switch(session, cutovers, buckets, hold, lease), case_option=case.option)
        except BaseException as error:
            if isinstance(error, MoveoutError) and session.facts.get("switched") is False:
                with suppress(MoveoutError):  # the next lines say that they are held
                    hold.release_after_error(
                        followed, session.cancellation, lambda words: session.err.print(Text(words))
                    )
            if options.file.exists():
                session.facts["undo"] = str(options.file)
                words = (
                    "the switch was made" if session.facts.get("switched") else "the old databases are held"
                )
                session.err.print(
                    Text(
                        f"{words}; moveout cutover {case.option} --undo --undo-file {options.file} releases them"
                    )
                )
            raise


@contextmanager
def _not_switched() -> Iterator[None]:
    try:
        yield
    except IncompleteError as error:
        raise NotEqualError(str(error), next_step=error.next_step) from error


def _confirmed_hold(
    session: Session,
    followed: Sequence[SwitchedSource],
    options: HoldOptions,
    *,
    yes: bool,
) -> HeldSources:
    """Say what the hold changes, and ask. Raises ``UsageError`` where the answer is no."""
    with open_holds(followed, whole_server=options.whole_server) as holds:
        known = undo_file.read(options.file) or undo_file.new(_REASON)
        plan = source_hold.planned(options.file, holds, known)
        for name, change in source_hold.pending(holds, plan):
            session.err.print(Text(f"  {name}: {change.says}"))
    if not (yes or session.confirm("Hold the old databases by these changes, and switch?")):
        raise UsageError("nothing was changed")
    return HeldSources(options.file, holds, plan)


def _followed(session: Session, case: Case) -> tuple[Store, list[SwitchedSource]]:
    """Return where the changes of a case lie, and its followed sources."""
    assert case.bundle is not None
    store = session.store(case.bundle)
    sources = expanded(session, case.sources, case, case.bundle, ask=False)
    destinations = destinations_of(case.bundle, case.destinations, case)
    return store, sources_to_follow(store, sources, destinations, copies=session.copies(case))


def _cutovers_of(session: Session, store: Store, followed: Sequence[SwitchedSource]) -> closing[AllCutovers]:
    workers = session.workers(default=export_workers())
    return closing(AllCutovers(followed, store, workers, session.progress, session.cancellation))


def _switch(
    session: Session, cutovers: AllCutovers, buckets: CutoverBuckets, hold: HeldSources | None, lease: Lease
) -> Switched:
    """Hold, prove, and write the record where all is equal; else release."""
    begun, held_at = time.monotonic(), datetime.now(UTC)
    if hold:
        hold.place()
    proven, proven_buckets = _proven(session, cutovers, buckets)
    record = CutoverRecord(
        held_at.isoformat(timespec="milliseconds"),
        datetime.now(UTC).isoformat(timespec="milliseconds"),
        time.monotonic() - begun,
        proven,
        proven_buckets,
    )
    switched = Switched(record, str(hold.file) if hold else "")
    if switched.is_switched:
        if hold:
            hold.require_still(cutovers.sources)
        cutovers.each(lambda cutover: cutover.followed.activate())
        lease.check()
        session.facts["switched"] = None  # not known, where the location does not answer
        write_record(cutovers.store, record, lease)
        session.facts["switched"] = True
        return replace(switched, notes=_write_custody_log(cutovers.store, buckets.signers, record))
    if hold:
        hold.release()
    return replace(switched, file="")


def _proven(
    session: Session, cutovers: AllCutovers, buckets: CutoverBuckets
) -> tuple[list[ProvenSource], list[ProvenBucket]]:
    """Prove databases and buckets at once; the first error ends both."""
    over = session.cancellation.child()
    ended_with_them = replace(buckets, session=replace(session, cancellation=over))
    with ThreadPoolExecutor(1) as pool:
        proving = pool.submit(cutovers.each, lambda cutover: cutover.prove())
        proving.add_done_callback(lambda done: over.cancel() if done.exception() else None)
        try:
            proven_buckets = ended_with_them.prove()
        except Cancelled:
            proving.result()
            raise
        except BaseException:
            cutovers.cancel()
            raise
        return proving.result(), proven_buckets


def _write_custody_log(store: Store, signers: Sequence[Signer], record: CutoverRecord) -> list[str]:
    """Append the switch to the custody log, unless it is there; return why it could not be."""
    details = {
        "at": record.switched_at,
        "sources": [
            {"name": source.name, "end": source.end, "rows": source.rows} for source in record.sources
        ],
        "buckets": [{"name": bucket.name, "objects": bucket.objects} for bucket in record.buckets],
        "downtime": record.downtime_seconds,
    }
    notes: list[str] = []
    record_if_allowed(store, signers, "switched", details, notes.append, once=True)
    return notes


def _undo(session: Session, case: Case, file: Path, signers: Sequence[Signer]) -> TakenBack:
    """Release the old side, and say what the new one has since. Where an old database cannot be released, this is done
    for the others, and the record of the switch stays. Raises why, where that is so of all.
    """
    store, followed = _followed(session, case)
    record = read_record(store)
    if record is None and not file.exists():
        raise UsageError(
            "nothing was switched, and nothing is held", next_step="moveout cutover --hold switches"
        )
    with session.waiting_for_silent(*endpoints_of(followed), may_end=False, is_limited=lambda: True):
        undone, still_held = _release(followed, file)
        released = [source for source in followed if source.name not in still_held]
        written, notes = _written_since(session, released, record)
    if still_held:
        return TakenBack(record.switched_at if record else "", written, undone, notes, still_held)
    details = {
        "at": record.switched_at if record else "",
        "written": {name: [str(finding) for finding in findings] for name, findings in written.items()},
    }
    hints: list[str] = []
    record_if_allowed(store, signers, "switched back", details, hints.append, once=record is not None)
    remove_record(store)
    if record and record.buckets:
        names = ", ".join(bucket.name for bucket in record.buckets)
        hints.append(f"what the new side of {names} has since: moveout sync {case.option} --dry-run names it")
    return TakenBack(record.switched_at if record else "", written, undone, notes, hints=hints)


def _release(followed: Sequence[SwitchedSource], file: Path) -> tuple[list[str], dict[str, MoveoutError]]:
    """Release the old databases, each by itself; return what was done, and why others are still held. Raises the first
    error where all are.
    """
    known = undo_file.read(file)
    held = [source for source in followed if known is not None and source.name in known.sources]
    undone: list[str] = []
    still_held: dict[str, MoveoutError] = {}
    for source in held:
        try:
            with open_holds([source]) as holds:
                left = undo_file.read(file)
                assert left is not None, "this source is still in it"
                undone += [
                    change.undo_says for _, change in source_hold.undoable(file, holds, left, force=False)
                ]
                source_hold.take_back(file, holds, left, force=False)
        except MoveoutError as error:
            still_held[source.name] = error
    if still_held and len(still_held) == len(followed):
        raise next(iter(still_held.values()))
    return undone, still_held


def _written_since(
    session: Session, followed: Sequence[SwitchedSource], record: CutoverRecord | None
) -> tuple[dict[str, Sequence[Finding]], list[str]]:
    """Stop what runs at the new side by itself. Return by source the tables of the new side that were written to since
    the switch, and notes about those new databases that do not answer: one goes back because of them.
    """
    workers = session.workers(default=export_workers())
    written: dict[str, Sequence[Finding]] = {}
    notes = []
    for source in followed:
        try:
            source.deactivate()
            if record is None:
                continue
            written[source.name] = written_since(record, source.name, source.destination, workers=workers)
        except MoveoutError as error:
            notes.append(
                f"what the new side of {source.name} has since could not be read, and its events run on: {error}"
                if source.destination.engine.deactivation
                else f"what the new side of {source.name} has since could not be read: {error}"
            )
    return written, notes


def _foreseen(session: Session, case: Case, buckets: CutoverBuckets, options: HoldOptions) -> WouldDo:
    """Return what the cutover would do. A source that no follow is at work on is brought up to now."""
    store, followed = _followed(session, case)
    with _not_switched(), _cutovers_of(session, store, followed) as cutovers:
        at_work = cutovers.catch_up_unless_followed()
    actions = []
    with open_holds(followed if options.hold else (), whole_server=options.whole_server) as holds:
        for name, hold in holds.items():
            actions += [f"would hold {name}: {change.says}" for change in source_hold.permitted_changes(hold)]
    for source, is_followed in zip(followed, at_work, strict=True):
        if is_followed:
            actions.append(f"would take {source.name} over from the moveout follow that is at work")
        if isinstance(source, FollowedSource) and (mark := source.applied_mark()) is not None:
            actions += _would_lack(source, mark)
        actions.append(f"would compare {source.name}: {source.source.shown} with {source.destination.shown}")
    return WouldDo(store.location, [*actions, *buckets.foreseen()])


def _would_lack(source: FollowedSource, mark: Mark) -> list[str]:
    """Return what the destination would lack after the switch."""
    without = f"would switch {source.name} without"
    names = ", ".join(mark.skipped)
    tables = [f"{without} {names}, unless they are made at the new side before"] if names else []
    gaps = source.definition_gaps(mark.skipped)
    return tables + [f"{without} {thing}, unless it is made at the new side before" for thing in gaps]
