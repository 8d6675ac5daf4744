"""``moveout transfer``: a bundle is moved to another location."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer
from msgspec import Struct

from exporters.structs import as_dict
from migrate.bundle import bundle_json
from migrate.case.model import Case, Endpoint
from migrate.case.overlaps import within_destinations
from migrate.case.secrets import redact
from migrate.cli import app
from migrate.cli.common.cluster_options import ClusterOptions, machines, rate_limiter_of
from migrate.cli.common.findings import EXTRA_STEP, INCOMPLETE, draw_findings
from migrate.cli.common.options import CaseFile, case_words
from migrate.cli.common.session import TRANSFER_WORKERS, Session
from migrate.cli.common.signing_keys import SigningOptions, load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console
from migrate.cli.common.verb import verb
from migrate.cli.progress.announcements import StatusPage, announced
from migrate.cli.progress.progress_reports import reported
from migrate.custody import erase
from migrate.custody.log.events import record_transfer
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.bundle_signatures import root_of
from migrate.custody.signing.keys import Signer
from migrate.errors import BusyError, IncompleteError, NotAllowedError, UsageError
from migrate.number_text import bytes_words, duration_words, moment_words, things
from migrate.storage.api import Store
from migrate.transfer.counters import TransferOutcome
from migrate.transfer.run import OpenPool, transfer


class Transferred(Struct, frozen=True):
    """A bundle at its new location."""

    origin: str
    destination: str
    outcome: TransferOutcome
    complete: bool = True
    """Whether the bundle says of itself that it is."""
    rechecked: bool = False
    """Whether what lay at the destination was hashed, too."""

    @property
    def exit_code(self) -> int:
        """Return 6 where the origin is damaged or has files of others, 3 where the bundle is incomplete."""
        if self.complete or self.outcome.exit_code:
            return self.outcome.exit_code
        return IncompleteError.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return counts, bytes, seconds and findings."""
        ends = {"origin": self.origin, "destination": self.destination}
        return {**ends, "complete": self.complete, **as_dict(self.outcome)}

    def draw(self, console: Console) -> None:
        """Print what moved and what was there already."""
        outcome = self.outcome
        rate = (
            f", {bytes_words(outcome.bytes_moved / outcome.seconds)}/s"
            if outcome.bytes_moved and outcome.seconds
            else ""
        )
        console.print(
            f"{things(outcome.files_moved, 'file')} moved"
            f" ({bytes_words(outcome.bytes_moved)} in {duration_words(outcome.seconds)}{rate})",
        )
        if outcome.files_skipped or outcome.bytes_skipped:
            console.print(
                f"{things(outcome.files_skipped, 'file')} lay there already;"
                f" {bytes_words(outcome.bytes_skipped)} not sent again",
            )
        if not outcome.is_whole:
            draw_findings(console, outcome.findings)
            console.print("→ repair these files at the origin, then run the same command again")
        else:
            hashed = "every file was hashed on the way"
            if outcome.files_skipped and not self.rechecked:
                hashed = (
                    "what was moved was hashed on the way, the rest taken by its size (--recheck hashes it)"
                )
            console.print(f"The bundle lies whole at {self.destination}; {hashed}")
            if not self.complete:
                console.print(f"! {INCOMPLETE}", style="yellow")
            if outcome.findings:
                draw_findings(console, outcome.findings)
                console.print(f"→ at the origin, {EXTRA_STEP}")


def run_transfer(
    session: Session,
    origin: Endpoint,
    destination: Endpoint,
    case: Case | None,
    *,
    recheck: bool,
    signers: Sequence[Signer],
    scheduler: str | None,
) -> Transferred:
    """Move the bundle and its custody log. The bandwidth limit holds for the destination's side, and for all workers
    of the ``scheduler`` together.
    """
    with (
        machines(session, scheduler, case) as cluster_machines,
        reported(session, "transfer", destination, case),
    ):
        cancellation = session.cancellation.child()
        deadline = case.deadline if case else None
        source = session.open(origin, deadline=deadline, cancellation=cancellation)
        rate_limiter = rate_limiter_of(session, cluster_machines, case)
        destination_store = session.open(
            destination, rate_limiter, deadline=deadline, cancellation=cancellation
        )
        workers = session.workers(case, default=TRANSFER_WORKERS)
        open_pool: OpenPool | None = None
        if cluster_machines is not None:
            from migrate.cluster.transfer_tasks import PARTS_AT_ONCE, TransferCluster  # noqa: PLC0415  see ``cluster_options``

            parts_at_once = session.workers(case, default=PARTS_AT_ONCE)
            open_pool = TransferCluster(cluster_machines, origin, destination, parts_at_once).open_pool
        trust = load_trust(None, case)
        erasures = erase.count_begun(destination_store, trust)
        if erasures:
            _refuse_old_grants(source, destination_store, trust)
        outcome = transfer(
            source,
            destination_store,
            workers=workers,
            progress=session.progress,
            recheck=recheck,
            open_pool=open_pool,
            cancellation=cancellation,
        )
        if erase.count_begun(destination_store, trust) != erasures:
            raise BusyError(
                f"an erasure was begun at {destination_store.location} meanwhile",
                next_step="wait until it has ended, then run the same command again",
            )
        with ThreadPoolExecutor(1, thread_name_prefix="moveout-sealed") as threads:
            reading = threads.submit(bundle_json.read_sealed, source)
            if outcome.is_whole:
                details = {"files": outcome.files_moved + outcome.files_skipped}
                why = record_transfer(source, destination_store, signers[0] if signers else None, details)
                if why:
                    session.progress.note(why)
        sealed = reading.result()
        complete = sealed is None or sealed.complete
        return Transferred(source.location, destination_store.location, outcome, complete, recheck)


def _refuse_old_grants(source: Store, destination: Store, trust: Trust | None) -> None:
    """Raise ``NotAllowedError`` where somebody may still read the location by a grant of another bundle, which was
    erased there. With ``trust`` no grant has ended by the word of a key that its list does not count.
    """
    from migrate.custody import grants  # noqa: PLC0415  its accounts need MinIO's SDK

    if open_grants := grants.outlasting(destination, root_of(source), trust):
        last = max(open_grants, key=lambda grant: grant.end)
        raise NotAllowedError(
            f"the grant to {last.name!r} at {destination.location} is open until {moment_words(last.end)}: it is of"
            " another bundle, which was erased there, and would read this one",
            next_step=f"moveout grant revoke {shlex.quote(destination.location)} --to {last.name} --key FILE; where"
            " that cannot end it, name another location",
        )


@verb(
    app,
    "transfer",
    workers=True,
    bwlimit=True,
    examples=(
        'transfer bundle "s3://evacuated/app?profile=new"',
        "transfer -c moveout.toml",
    ),
)
def transfer_command(
    session: Session,
    locations: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOCATION LOCATION",
            help="From where, to where: a directory or s3://bucket/prefix?profile=NAME.",
        ),
    ] = None,
    *,
    case: CaseFile = None,
    recheck: Annotated[
        bool,
        typer.Option(
            "--recheck",
            help="Hash all files at the destination, and replace those that differ."
            " Else a file of the right size there counts as moved.",
        ),
    ] = False,
    signing: SigningOptions,
    cluster: ClusterOptions,
    status_page: StatusPage = None,
) -> Transferred:
    """Copy a sealed bundle to another location.

    If it was interrupted, repeat the command to continue. A file that is there already, by its size, is not copied.
    """
    loaded = load_case(case)
    origin, destination = _ends(locations or [], loaded)
    for sentence in within_destinations(loaded.destinations if loaded else {}, (destination,)):
        session.progress.note(f"! {sentence}")
    signers = signing.load(loaded)
    scheduler = cluster.scheduler
    return announced(
        session,
        loaded,
        status_page,
        lambda: run_transfer(
            session, origin, destination, loaded, recheck=recheck, signers=signers, scheduler=scheduler
        ),
    )


def _ends(locations: Sequence[str], case: Case | None) -> tuple[Endpoint, Endpoint]:
    if len(locations) == 2:
        return Endpoint(locations[0]), Endpoint(locations[1])
    if locations:
        raise UsageError(
            f"transfer takes two locations; {len(locations)} given",
            next_step=f"moveout transfer {shlex.quote(redact(locations[0]))} LOCATION, a directory or"
            " 's3://BUCKET/PREFIX?profile=NAME'",
        )
    if case is None:
        raise UsageError(
            "no locations are named",
            next_step=f"moveout transfer FROM TO, or {case_words()}, with [bundle] and [transfer]",
        )
    if case.bundle is None or case.transfer_to is None:
        lacking = "bundle" if case.bundle is None else "transfer"
        raise UsageError(
            f"{case.file} has no [{lacking}]",
            next_step=f'write into it [{lacking}] location = "…", or: moveout transfer FROM TO',
        )
    return case.bundle, case.transfer_to
