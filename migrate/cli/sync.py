"""``moveout sync``: buckets are copied to other ones, one object to one object, and kept in step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from exporters.selection import EVERYTHING, Selection
from migrate.case.model import Case
from migrate.case.selection import from_words
from migrate.cli import app
from migrate.cli.common.dry_run import WouldDo
from migrate.cli.common.options import CaseFile, Create, SelectionOptions
from migrate.cli.common.session import Session, verb
from migrate.cli.common.signing_keys import SigningOptions
from migrate.cli.common.source_summary import SourceFailure, SummaryLine, draw_summary, failures_code
from migrate.cli.common.sources import known_secrets, load_case, parse_pairs
from migrate.custody.signing.bundle_signatures import sign_file
from migrate.custody.signing.keys import Signer
from migrate.errors import OK, DamageError, MoveoutError, UsageError
from migrate.number_text import bytes_words, count_words, duration_words, things
from migrate.storage.registry import location_below, open_location
from migrate.sync import SyncOptions, SyncOutcome, sync
from migrate.sync.bucket_pairs import BucketPair, pairs_in, pairs_of
from migrate.sync.bucket_settings import REMOVED, WRITTEN, Wish
from migrate.sync.open_buckets import (
    clear_versions,
    make_destination,
    open_sides,
    record_url,
)
from migrate.sync.report import PROOF

_WORKERS = 4
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync came to, and how long it took."""

    outcome: SyncOutcome
    seconds: float

    @property
    def exit_code(self) -> int:
        """6 where something did not arrive as it was, 3 where something is missing or unproven."""
        return self.outcome.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return counts, bytes, gaps, what was removed, and the proof."""
        return self.outcome.as_json() | {"seconds": self.seconds}

    def draw(self, console: Console) -> None:
        """Print what was copied, what was not, and what is proven."""
        outcome = self.outcome
        if outcome.planned is not None:
            _draw_plan(console, outcome)
            return
        console.print(
            f"{things(outcome.copied, outcome.noun)} copied ({bytes_words(outcome.copied_bytes)}"
            f" in {duration_words(self.seconds)}); {count_words(outcome.same + outcome.adopted)} were there already",
        )
        if outcome.amended:
            console.print(
                f"{count_words(outcome.amended)} were there with other tags, locks or ACL, which were changed"
            )
        if outcome.excluded:
            console.print(f"{count_words(outcome.excluded)} were not wanted, or deleted meanwhile")
        for gap in outcome.gaps[:_SHOWN]:
            console.print(Text(f"  {gap.disposition}: {gap.item}: {gap.reason}", style="yellow"))
        if len(outcome.gaps) > _SHOWN:
            console.print(f"  and {len(outcome.gaps) - _SHOWN:,} more (gaps.parquet has all)")
        for line in [*outcome.damaged[:_SHOWN], *outcome.reasons]:
            console.print(Text(f"  ! {line}", style="bold red"))
        _draw_settings(console, outcome)
        _draw_removed(console, outcome)
        console.print(Text(f"The report and the record: {outcome.record}", style="dim"))
        _draw_verdict(console, outcome)

    def summary(self, name: str) -> SummaryLine:
        """Return its line among those of several syncs."""
        outcome = self.outcome
        if outcome.planned is not None:
            count = outcome.planned["copy"]["count"]
            return SummaryLine(name, "yes", f"{things(count, outcome.noun)} would be copied")
        there = outcome.same + outcome.adopted
        happened = f"{things(outcome.copied, outcome.noun)} copied, {count_words(there)} were there already"
        if outcome.proof is not None:
            happened += f"; equal at {outcome.proof.moment}"
        if outcome.complete:
            return SummaryLine(name, "yes", happened)
        gaps = [f"{gap.item}: {gap.reason}" for gap in outcome.gaps if gap.disposition == "failed"]
        problem = [*outcome.damaged, *gaps, *outcome.reasons, outcome.unproven][0]
        word = "differs" if outcome.damaged else "in part"
        failed = f"; {count_words(outcome.failed)} failed" if outcome.failed else ""
        next_step = f"the report at {outcome.record} says all; then run the same command again"
        return SummaryLine(name, word, f"{happened}{failed}; {problem}", next_step)


@dataclass(frozen=True, slots=True)
class SyncedBuckets:
    """What the syncs of several buckets came to, by source; one that failed did not stop the others."""

    answers: Mapping[str, Synced | WouldDo]
    failures: Sequence[SourceFailure]
    detailed: bool

    @property
    def exit_code(self) -> int:
        """6 where something did not arrive as it was, 3 where something is missing or unproven; where nothing was
        synced, the code of the worst error.
        """
        codes = {answer.exit_code for answer in self.answers.values()}
        codes.add(failures_code(self.failures, others=bool(self.answers)))
        return DamageError.exit_code if DamageError.exit_code in codes else max(codes)

    def as_json(self) -> dict[str, Any]:
        """Return the result of each sync, and a line about each."""
        return {
            "buckets": {name: answer.as_json() for name, answer in self.answers.items()},
            "failed": [failure.as_json() for failure in self.failures],
            "summary": [line.as_json() for line in self.summary()],
        }

    def summary(self) -> Sequence[SummaryLine]:
        """Return what became of each bucket."""
        lines = [
            answer.summary(name)
            if isinstance(answer, Synced)
            else SummaryLine(name, "yes", "; ".join(answer.actions))
            for name, answer in self.answers.items()
        ]
        return [*lines, *(failure.summary("not synced") for failure in self.failures)]

    def draw(self, console: Console) -> None:
        """Print what there is to say of each bucket, and a table of all."""
        for name, answer in self.answers.items():
            if isinstance(answer, Synced) and (self.detailed or answer.exit_code != OK):
                console.print(Rule(name, align="left"))
                answer.draw(console)
        console.print(Rule("summary", align="left"))
        draw_summary(console, self.summary())
        whole = sum(answer.exit_code == OK for answer in self.answers.values())
        total = len(self.answers) + len(self.failures)
        console.print(f"{count_words(whole)} of {things(total, 'bucket')} {self._verb()}")
        if self.exit_code != OK:
            console.print("→ once the reasons are gone, run the same command again; what is done stays done")

    def _verb(self) -> str:
        planned = any(
            isinstance(answer, WouldDo) or answer.outcome.planned is not None
            for answer in self.answers.values()
        )
        return "looked at; nothing was touched" if planned else "synced"


def _draw_plan(console: Console, outcome: SyncOutcome) -> None:
    headings = {
        "stuck": "cannot come to their location at the destination",
        "copy": "would be copied",
        "look": "are at the destination already and would be looked at",
        "extra": "are only at the destination",
        "excluded": "are not wanted",
        "settings": "settings of the bucket would be written or removed",
    }
    console.print(
        f"{things(outcome.listed, outcome.noun)} at the source, {count_words(outcome.same)} the same already"
    )
    for kind, heading in headings.items():
        planned_group = (outcome.planned or {})[kind]
        if planned_group["count"]:
            console.print(f"{count_words(planned_group['count'])} {heading}:")
            for key in planned_group["first"]:
                console.print(Text(f"  {key}"))
    console.print("Nothing was touched.")


def _draw_settings(console: Console, outcome: SyncOutcome) -> None:
    for change in (WRITTEN, REMOVED):
        if names := sorted(name for name, result in outcome.settings.items() if result == change):
            console.print(f"Settings of the bucket {change}: {', '.join(names)}")
    for name, result in sorted(outcome.settings.items()):
        if result not in {WRITTEN, REMOVED}:
            console.print(Text(f"  the bucket's {name}: {result}", style="yellow"))


def _draw_removed(console: Console, outcome: SyncOutcome) -> None:
    for removed_object in outcome.removed[:_SHOWN]:
        console.print(
            Text(
                f"  removed at the destination: {removed_object.key} ({bytes_words(removed_object.size_bytes)})"
            )
        )
    if outcome.deleted > _SHOWN:
        console.print(f"  and {outcome.deleted - _SHOWN:,} more (deleted/ has all)")
    left = outcome.extra - outcome.deleted
    if left > 0:
        console.print(f"Only at the destination, and stay there: {things(left, outcome.noun)}")
        for key in outcome.extras[:5]:
            console.print(Text(f"  {key}", style="dim"))


def _draw_verdict(console: Console, outcome: SyncOutcome) -> None:
    if outcome.proof is not None:
        console.print(
            f"Equal at {outcome.proof.moment}: {things(outcome.proof.objects, outcome.noun)},"
            f" {bytes_words(outcome.proof.size_bytes)}, on both sides"
        )
    elif outcome.unproven:
        console.print(Text(f"NOT PROVEN: {outcome.unproven}", style="bold red"))
    elif not outcome.complete:
        console.print(
            "→ once the reasons above are gone, run the same command again; what is done stays done"
        )


@dataclass(frozen=True, slots=True)
class _HowToSync:
    """The options that say what a sync may do."""

    delete: Annotated[
        bool,
        typer.Option("--delete", help="Remove at the destination what the source does not have; says what."),
    ] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace objects of the destination that no sync has written.")
    ] = False
    recheck: Annotated[
        bool,
        typer.Option(
            "--recheck", help="Look at every object on both sides: changed tags show in no listing."
        ),
    ] = False
    cutover: Annotated[
        bool, typer.Option("--cutover", help="At the end, prove that both sides are equal at one moment.")
    ] = False
    history: Annotated[
        bool,
        typer.Option(
            "--history", help="Copy every version and delete marker, oldest first, not only what is current."
        ),
    ] = False
    settings: Annotated[
        Wish,
        typer.Option(
            "--settings",
            help="Settings of the bucket: write those that the destination has not set itself, replace its own, too, "
            "or leave all of them alone.",
        ),
    ] = Wish.WRITE
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False

    def options(self, selection: Selection) -> SyncOptions:
        """Return them as ``sync`` takes them."""
        return SyncOptions(
            selection,
            delete=self.delete,
            overwrite=self.overwrite,
            recheck=self.recheck,
            cutover=self.cutover,
            dry_run=self.dry_run,
            settings=self.settings,
            history=self.history,
        )


_AS_USUAL, _ALL, _NO_KEYS = _HowToSync(), SelectionOptions(), SigningOptions()


@verb(
    app,
    "sync",
    workers=True,
    bwlimit=True,
    examples=(
        'sync "old=s3://media?profile=old" "new=s3://media?profile=new" --dry-run',
        'sync "old=s3://media?profile=old" "new=s3://media?profile=new" --exclude "tmp/**"',
        'sync "old=s3://media?profile=old" "new=s3://media?profile=new" --history --cutover',
        'sync "s3://*?profile=old" "s3://*?profile=new"',
        "sync -c moveout.toml --cutover",
    ),
)
def sync_command(
    session: Session,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=URL NAME=URL",
            help="From which bucket to which: old=s3://media?profile=old new=s3://media?profile=new. All of an account:"
            " 's3://*?profile=old' 's3://*?profile=new'.",
        ),
    ] = None,
    *,
    case: CaseFile = None,
    create: Create = False,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="LOCATION",
            help="Where the record and the report lie (default: below .moveout-sync/ in the destination bucket); of"
            " several buckets in a folder each.",
        ),
    ] = None,
    how: _HowToSync = _AS_USUAL,
    selection: SelectionOptions = _ALL,
    signing: SigningOptions = _NO_KEYS,
) -> Synced | SyncedBuckets | WouldDo:
    """Copy a bucket to a bucket; again: only what has changed.

    One to one, object by object. The same command again goes on where an earlier run stopped. Nothing is removed unless
    told. Of a whole account, or with a case file and no URLs, each bucket is a sync of its own.
    """
    loaded = load_case(case)
    options = how.options(from_words(selection.words()))
    signers = signing.load(loaded)
    chosen = _chosen(session, pairs or [], loaded)
    if len(pairs or []) == 2 and len(chosen) == 1:
        return run_sync(
            session, chosen[0], options, record=record, case=loaded, create=create, signers=signers
        )
    answers: dict[str, Synced | WouldDo] = {}
    failures: list[SourceFailure] = []
    for pair in chosen:
        own_record = record and location_below(record, pair.name)
        try:
            answers[pair.name] = run_sync(
                session, pair, options, record=own_record, case=loaded, create=create, signers=signers
            )
        except MoveoutError as exc:
            session.progress.end()
            session.progress.note(f"{pair.name} could not be synced: {exc}")
            failures.append(SourceFailure(pair.name, pair.source.shown, exc))
    return SyncedBuckets(answers, failures, session.is_detailed(len(chosen)))


def run_sync(
    session: Session,
    pair: BucketPair,
    options: SyncOptions,
    *,
    record: str | None = None,
    case: Case | None = None,
    create: bool = False,
    signers: Sequence[Signer] = (),
) -> Synced | WouldDo:
    """Open both buckets and the record, and copy; a proof is signed by every key. A selection of the case's source
    holds where none is given. ``create``: make the destination's bucket where it is missing.
    """
    if pair.error is not None:
        raise pair.error
    source, destination = pair.source, pair.destination
    assert destination is not None
    started = time.monotonic()
    if create or destination.create:
        made = make_destination(source, destination, dry_run=options.dry_run)
        if made and options.dry_run:
            return WouldDo(destination.shown, [made])
        if made:
            session.progress.note(f"{pair.name}: {made}")
    selection = source.selection if options.selection == EVERYTHING else options.selection
    cancellation = session.cancellation.child()
    sides = open_sides(pair.name, source, destination, selection, cancellation)
    secrets = None if record else destination.reveal()
    store = open_location(
        record_url(sides, record), secrets=secrets, note=session.progress.note, cancellation=cancellation
    )
    outcome = sync(
        sides,
        store,
        replace(options, selection=selection, apart=record is not None, may_be_empty=source.may_be_empty),
        workers=session.workers(default=_WORKERS, case=case.workers if case else None),
        progress=session.progress,
        throttle=session.throttle(case.bwlimit if case else None),
    )
    if outcome.proof is not None:
        for signer in signers:
            sign_file(store, PROOF, signer)
    if record is None and (failure := clear_versions(sides)):
        session.progress.note(failure)
    return Synced(outcome, time.monotonic() - started)


def _chosen(session: Session, words: Sequence[str], case: Case | None) -> list[BucketPair]:
    """Return the syncs that the command line asks for, else those of the case."""
    if not words and case is not None:
        pairs, others = pairs_in(case, session.progress)
        if others:
            session.progress.note(f"not synced, for they are no buckets: {', '.join(others)}")
        return pairs
    ends = [end for word in words for end in known_secrets(parse_pairs([word]), case).items()]
    if len(ends) != 2:
        raise UsageError(
            f"sync takes two buckets; {len(ends)} given",
            next_step="moveout sync old=s3://BUCKET?profile=OLD new=s3://BUCKET?profile=NEW",
        )
    (name, source), (_, destination) = ends
    return pairs_of(name, source, destination, session.progress, case)
