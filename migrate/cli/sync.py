"""``moveout sync``: buckets and databases are copied to other ones, and kept in step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct, field
from msgspec.structs import replace

from exporters.selection import Selection
from migrate.case.model import Case, Endpoint
from migrate.case.selection import from_words
from migrate.cli import app
from migrate.cli.common.dry_run import DryRun, WouldDo, problems_of
from migrate.cli.common.options import CaseFile, Create, Delete, HoldOptions, Overwrite, SelectionOptions, Yes
from migrate.cli.common.session import Answer, Session, export_workers
from migrate.cli.common.signing_keys import SigningOptions
from migrate.cli.common.source_words import parse_pairs
from migrate.cli.common.sources import load_case, with_known_secrets
from migrate.cli.common.summary_lines import SourceFailure, SummaryLine, draw_summary, failures_code
from migrate.cli.common.terminal import Console, Heading
from migrate.cli.common.verb import verb
from migrate.cli.moves.bucket_sync import Synced, make_bucket, run_sync
from migrate.custody.signing.keys import Signer
from migrate.engines import registry
from migrate.errors import OK, DamageError, IncompleteError, MoveoutError, UsageError
from migrate.number_text import count_words, things
from migrate.storage.registry import location_below
from migrate.sync.bucket_pairs import BucketPair, pairs_in, pairs_of
from migrate.sync.bucket_settings import SettingsPolicy
from migrate.sync.run import SyncOptions

if TYPE_CHECKING:
    from migrate.cli.moves.database_sync import DatabaseSync


class SyncedBuckets(Struct, frozen=True):
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
                console.print(Heading(name))
                answer.draw(console)
        console.print(Heading("summary"))
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


class _HowToSync(Struct, frozen=True):
    """The options that say what a sync may do."""

    delete: Delete = False
    overwrite: Overwrite = False
    recheck: Annotated[
        bool,
        typer.Option(
            "--recheck",
            help="Ask for every object on both sides, because listings do not show changed tags or locks.",
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
        SettingsPolicy,
        typer.Option(
            "--settings",
            help="Bucket settings: write those that the destination has not set, replace its own, too, "
            "or leave all of them alone.",
        ),
    ] = SettingsPolicy.WRITE
    dry_run: DryRun = False

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


class _DatabaseOptions(Struct, frozen=True):
    """The options of databases."""

    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            metavar="DIR",
            help="Databases only: the working folder. It needs as much room as an export (default: in"
            " ~/.local/state/moveout/sync).",
        ),
    ] = None
    hold: HoldOptions = field(default_factory=HoldOptions)
    yes: Yes = False


@verb(
    app,
    "sync",
    workers=True,
    bwlimit=True,
    examples=(
        'sync "s3://media?profile=old" "s3://media?profile=new" --dry-run',
        'sync "s3://media?profile=old" "s3://new?profile=new" --min-size 1M',
        'sync "s3://media?profile=old" "s3://new?profile=new" --history',
        'sync "s3://*?profile=old" "s3://*?profile=new"',
        "sync -c moveout.toml --cutover",
        "sync postgresql://me@old/app postgresql://me@new/app --cutover",
    ),
)
def sync_command(
    session: Session,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]URL [NAME=]URL",
            help="From which bucket or database to which: s3://media?profile=old s3://media?profile=new. All of"
            " an account: 's3://*?profile=old' 's3://*?profile=new'.",
        ),
    ] = None,
    *,
    case: CaseFile = None,
    create: Create = False,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="LOCATION",
            help="Where to keep record and report (default: below .moveout-sync/ in the destination bucket); of"
            " several buckets in a folder each.",
        ),
    ] = None,
    how: _HowToSync,
    selection: SelectionOptions,
    signing: SigningOptions,
    databases: _DatabaseOptions,
) -> Answer:
    """Copy a bucket or a database; repeated, only what has changed.

    If it was interrupted, repeat the command to continue. Nothing is removed without --delete. Of a whole account,
    or with a case file and no URLs, each bucket is copied by itself. A database is copied through a working folder,
    then its changes are applied; --cutover makes the switch.
    """
    loaded = load_case(case)
    if (ends := _database_pair(pairs or [], loaded, how, databases)) is not None:
        return _sync_database(session, ends, how, databases, signing.load(loaded), create=create)
    options = how.options(from_words(selection.words()))
    signers = signing.load(loaded)
    chosen = _chosen(session, pairs or [], loaded)

    def synced(pair: BucketPair, own_record: str | None) -> Synced | WouldDo:
        would_make = make_bucket(session, pair, options, create=create)
        return would_make or run_sync(session, pair, options, loaded, signers, record=own_record)

    if len(pairs or []) == 2 and len(chosen) == 1:
        return synced(chosen[0], record)
    answers: dict[str, Synced | WouldDo] = {}
    failures: list[SourceFailure] = []
    for pair in chosen:
        try:
            answers[pair.name] = synced(pair, record and location_below(record, pair.name))
        except MoveoutError as exc:
            session.progress.end(stopped=True)
            session.progress.note_error(f"{pair.name} could not be synced", exc)
            failures.append(SourceFailure(pair.name, pair.source.shown, exc))
    return SyncedBuckets(answers, failures, session.is_detailed(len(chosen)))


def _sync_database(
    session: Session,
    ends: tuple[str, Endpoint, Endpoint],
    how: _HowToSync,
    options: _DatabaseOptions,
    signers: Sequence[Signer],
    *,
    create: bool,
) -> Answer:
    from migrate.cli.moves.database_sync import DatabaseSync, sync_database  # noqa: PLC0415  buckets need none of it

    asked = DatabaseSync(*ends, options.work, create=create, cutover=how.cutover)
    if how.dry_run:
        return _would_sync(asked)
    return sync_database(session, asked, options.hold, signers, yes=options.yes)


def _would_sync(asked: DatabaseSync) -> WouldDo:
    """Look at both databases, and write nothing."""
    from migrate.doctor.run import MoveEndpoints, blocking_error, examine_all, with_locations  # noqa: PLC0415  as above

    source, destination = replace(asked.source, follow=True), replace(asked.destination, create=asked.create)
    move = MoveEndpoints({asked.name: source}, {asked.name: destination}, {}, export_workers())
    bundle = Endpoint(str(asked.folder / "bundle"))
    locations = [bundle] if asked.folder.exists() else []
    examined = with_locations(examine_all(move).examined, move.destinations, locations)
    errors = [error for entry in examined if (error := blocking_error(entry, create=asked.create))]
    problems = problems_of(examined)
    code = errors[0].exit_code if errors else IncompleteError.exit_code if problems else OK
    actions = [
        f"would bring {source.shown} to {destination.shown}, through {asked.folder}",
        "would follow its changes until nothing is behind" + (", then switch" if asked.cutover else ""),
    ]
    return WouldDo(destination.shown, actions, problems, code)


def _database_pair(
    words: Sequence[str], case: Case | None, how: _HowToSync, options: _DatabaseOptions
) -> tuple[str, Endpoint, Endpoint] | None:
    """Return the name, source and destination of a database that is to be synced; None where buckets are. Raises
    ``UsageError`` where both sides are not of one kind, and for an option that databases do not have.
    """
    ends = [end for word in words for end in with_known_secrets(parse_pairs([word]), case).items()]
    engines = [registry.find(endpoint.url) for _, endpoint in ends]
    if len(ends) != 2 or not any(engine is not None and engine.url_names != "bucket" for engine in engines):
        if options != _DatabaseOptions():
            raise UsageError(
                "--work, --hold, --undo-file and --yes are for databases", next_step="leave them out"
            )
        return None
    (name, source), (_, destination) = ends
    if engines[0] != engines[1]:
        raise UsageError(
            f"{source.shown} and {destination.shown} are not of one kind", next_step="give two of one kind"
        )
    if replace(how, cutover=False, dry_run=False) != _HowToSync():
        raise UsageError(
            "a sync of a database takes --cutover and --dry-run only", next_step="leave the others out"
        )
    return name, source, destination


def _chosen(session: Session, words: Sequence[str], case: Case | None) -> list[BucketPair]:
    """Return the syncs that the command line asks for, else those of the case."""
    if not words and case is not None:
        pairs, others = pairs_in(case, session.progress)
        if others:
            session.progress.note(f"not synced, for they are no buckets: {', '.join(others)}")
        return pairs
    ends = [end for word in words for end in with_known_secrets(parse_pairs([word]), case).items()]
    if len(ends) != 2:
        raise UsageError(
            f"sync takes two buckets, or two databases; {len(ends)} given",
            next_step="moveout sync 's3://BUCKET?profile=OLD' 's3://BUCKET?profile=NEW'",
        )
    (name, source), (_, destination) = ends
    return pairs_of(name, source, destination, session.progress, case)
