"""One bucket synced to another one, and what is printed of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from exporters.selection import EVERYTHING
from migrate.case.model import Case
from migrate.cli.common.dry_run import WouldDo
from migrate.cli.common.session import Session
from migrate.cli.common.summary_lines import SummaryLine, draw_gaps
from migrate.cli.common.terminal import Console, Text, plain
from migrate.custody.signing.bundle_signatures import sign_file
from migrate.custody.signing.keys import Signer
from migrate.number_text import bytes_words, count_words, duration_words, things
from migrate.storage.registry import open_location
from migrate.sync.bucket_pairs import BucketPair
from migrate.sync.open_buckets import clear_versions, make_destination, open_sides, record_url
from migrate.sync.outcome import SETTING_REMOVED, SETTING_WRITTEN, SyncOutcome
from migrate.sync.report import PROOF
from migrate.sync.run import SyncOptions, sync

_WORKERS = 4
_SHOWN = 20
_NOT_COMPARED = "by the listings, which do not show tags, ACLs and locks: --recheck compares these, too"


class Synced(Struct, frozen=True):
    """What a sync came to, and how long it took. ``rechecked``: tags, ACLs and locks were compared, too."""

    outcome: SyncOutcome
    seconds: float
    rechecked: bool = False

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
            console.print(f"{count_words(outcome.excluded)} were not selected, or deleted meanwhile")
        draw_gaps(console, outcome.gaps, len(outcome.gaps), 2, "gaps.parquet of the report")
        for line in [*outcome.damaged[:_SHOWN], *outcome.reasons]:
            console.print(Text(f"  ! {line}", style="bold red"))
        _draw_settings(console, outcome)
        _draw_removed(console, outcome)
        console.print(Text(f"The report and the record: {outcome.record}", style="dim"))
        _draw_verdict(console, outcome)
        if outcome.proof is not None and not self.rechecked:
            console.print(f"  {_NOT_COMPARED}", style="dim")

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
        if (left := outcome.extra - outcome.deleted) > 0 and not outcome.unproven:
            happened += f"; {things(left, outcome.noun)} only at the destination: --delete removes them"
        if outcome.other_settings:
            happened += f"; settings that are not as at the source: {', '.join(outcome.other_settings)}"
        if outcome.complete:
            return SummaryLine(name, "yes", happened)
        gaps = [f"{gap.item}: {gap.reason}" for gap in outcome.gaps if gap.disposition == "failed"]
        problem = [*outcome.damaged, *gaps, *outcome.reasons, outcome.unproven][0]
        word = "differs" if outcome.damaged else "in part"
        failed = f"; {count_words(outcome.failed)} failed" if outcome.failed else ""
        next_step = f"the report at {outcome.record} says all; then run the same command again"
        return SummaryLine(name, word, f"{happened}{failed}; {problem}", next_step)


def _draw_plan(console: Console, outcome: SyncOutcome) -> None:
    planned = outcome.planned or {}
    headings = {
        "stuck": "cannot be written at the destination",
        "copy": "would be copied",
        "look": "would be looked at: the destination has the key already",
        "extra": f"only at the destination, would {'be removed' if planned['removes'] else 'stay'}",
        "excluded": "not selected",
        "settings": "of the bucket's settings would be written or removed",
    }
    console.print(
        f"{things(outcome.listed, outcome.noun)} at the source, {count_words(outcome.same)} the same already"
    )
    for kind, heading in headings.items():
        planned_group = planned[kind]
        if planned_group["count"]:
            console.print(f"{count_words(planned_group['count'])} {heading}:")
            for key in planned_group["first"]:
                console.print(Text(f"  {plain(key)}"), wrap=False)
            if more := planned_group["count"] - len(planned_group["first"]):
                console.print(f"  and {count_words(more)} more")
    console.print("Nothing was touched.")


def _draw_settings(console: Console, outcome: SyncOutcome) -> None:
    for change in (SETTING_WRITTEN, SETTING_REMOVED):
        if names := sorted(name for name, result in outcome.settings.items() if result == change):
            console.print(f"Settings of the bucket {change}: {', '.join(names)}")
    for name, reason in outcome.other_settings.items():
        console.print(Text(f"  the bucket's {name}: {reason}", style="yellow"))


def _draw_removed(console: Console, outcome: SyncOutcome) -> None:
    for removed_object in outcome.removed[:_SHOWN]:
        console.print(
            Text(
                f"  removed at the destination: {plain(removed_object.key)}"
                f" ({bytes_words(removed_object.size_bytes)})"
            )
        )
    if outcome.deleted > _SHOWN:
        console.print(f"  and {outcome.deleted - _SHOWN:,} more (deleted/ has all)")
    left = outcome.extra - outcome.deleted
    if left > 0:
        console.print(f"Only at the destination, and stay there: {things(left, outcome.noun)}")
        for key in outcome.extras[:5]:
            console.print(Text(f"  {plain(key)}", style="dim"), wrap=False)


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


def make_bucket(session: Session, pair: BucketPair, options: SyncOptions, *, create: bool) -> WouldDo | None:
    """Make the bucket of the destination where it is missing and may be made. A dry run returns what it would make."""
    source, destination = pair.source, pair.ready_destination()
    if not create and not destination.create:
        return None
    made = make_destination(source, destination, history=options.history, dry_run=options.dry_run)
    if made and options.dry_run:
        return WouldDo(destination.shown, [made])
    if made:
        session.progress.note(f"{pair.name}: {made}")
    return None


def run_sync(
    session: Session,
    pair: BucketPair,
    options: SyncOptions,
    case: Case | None,
    signers: Sequence[Signer],
    *,
    record: str | None = None,
) -> Synced:
    """Open both buckets and the record, and copy. Every key signs the proof, if there is one. Without a selection in
    the options, that of the case's source holds. Raises the error of a pair that cannot begin.
    """
    source, destination = pair.source, pair.ready_destination()
    started = time.monotonic()
    selection = source.selection if options.selection == EVERYTHING else options.selection
    cancellation = session.cancellation.child()
    sides = open_sides(pair.name, source, destination, selection, cancellation, note=session.progress.note)
    secrets = None if record else destination.reveal()
    store = open_location(
        record_url(sides, record),
        secrets=secrets,
        note=session.progress.note,
        cancellation=cancellation,
        part_of="" if record else sides.destination.url,
    )
    outcome = sync(
        sides,
        store,
        replace(options, selection=selection, apart=record is not None, may_be_empty=source.may_be_empty),
        workers=session.workers(case, default=_WORKERS),
        progress=session.progress,
        rate_limiter=session.rate_limiter(case),
    )
    if outcome.proof is not None:
        for signer in signers:
            sign_file(store, PROOF, signer)
    if record is None and (failure := clear_versions(sides)):
        session.progress.note(failure)
    return Synced(outcome, time.monotonic() - started, options.recheck)
