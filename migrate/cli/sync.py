"""``moveout sync``: a bucket is copied to another one, one object to one object, and kept in step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from exporters.selection import EVERYTHING, Selection
from migrate.case.model import Case, Endpoint
from migrate.case.selection import from_words
from migrate.cli import app
from migrate.cli.common.options import (
    CaseFile,
    SelectionOptions,
)
from migrate.cli.common.session import Session, verb
from migrate.cli.common.signing_keys import SigningOptions
from migrate.cli.common.sources import known_secrets, load_case, parse_pairs
from migrate.custody.signing.bundle_signatures import sign_file
from migrate.custody.signing.keys import Signer
from migrate.errors import UsageError
from migrate.number_text import bytes_words, count_words, duration_words
from migrate.storage.registry import open_location
from migrate.sync import SyncOptions, SyncOutcome, sync
from migrate.sync.bucket_settings import REMOVED, WRITTEN, Wish
from migrate.sync.open_buckets import clear_versions, open_sides, record_url
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
            f"{count_words(outcome.copied)} {outcome.noun} copied ({bytes_words(outcome.copied_bytes)}"
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
        f"{count_words(outcome.listed)} {outcome.noun} at the source, {count_words(outcome.same)} the same already"
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
        console.print(f"{count_words(left)} {outcome.noun} are only at the destination, and stay there:")
        for key in outcome.extras[:5]:
            console.print(Text(f"  {key}", style="dim"))


def _draw_verdict(console: Console, outcome: SyncOutcome) -> None:
    if outcome.proof is not None:
        console.print(
            f"Equal at {outcome.proof.moment}: {count_words(outcome.proof.objects)} {outcome.noun},"
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
    ),
)
def sync_command(
    session: Session,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=URL NAME=URL",
            help="From which bucket to which: old=s3://media?profile=old new=s3://media?profile=new.",
        ),
    ] = None,
    *,
    case: CaseFile = None,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="LOCATION",
            help="Where the record and the report lie (default: below .moveout-sync/ in the destination bucket).",
        ),
    ] = None,
    how: _HowToSync = _AS_USUAL,
    selection: SelectionOptions = _ALL,
    signing: SigningOptions = _NO_KEYS,
) -> Synced:
    """Copy a bucket to a bucket; again: only what has changed.

    One to one, object by object. The same command again goes on where an earlier run stopped. Nothing is removed unless
    told.
    """
    loaded = load_case(case)
    ends = _ends(pairs or [], loaded)
    options = how.options(from_words(selection.words()))
    signers = signing.load(loaded)
    return run_sync(session, ends, options, record=record, case=loaded, signers=signers)


def run_sync(
    session: Session,
    ends: Sequence[tuple[str, Endpoint]],
    options: SyncOptions,
    *,
    record: str | None = None,
    case: Case | None = None,
    signers: Sequence[Signer] = (),
) -> Synced:
    """Open both buckets and the record, and copy; a proof is signed by every key. A selection of the case's source
    holds where none is given.
    """
    started = time.monotonic()
    (name, source), (_, destination) = ends
    selection = source.selection if options.selection == EVERYTHING else options.selection
    cancellation = session.cancellation.child()
    sides = open_sides(name, source, destination, selection, cancellation)
    secrets = None if record else destination.reveal()
    store = open_location(
        record_url(sides, record), secrets=secrets, note=session.progress.note, cancellation=cancellation
    )
    outcome = sync(
        sides,
        store,
        replace(options, selection=selection, apart=record is not None),
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


def _ends(words: Sequence[str], case: Case | None) -> list[tuple[str, Endpoint]]:
    pairs = [pair for word in words for pair in known_secrets(parse_pairs([word]), case).items()]
    if len(pairs) != 2:
        raise UsageError(
            f"sync takes two buckets; {len(pairs)} given",
            next_step="moveout sync old=s3://BUCKET?profile=OLD new=s3://BUCKET?profile=NEW",
        )
    return pairs
