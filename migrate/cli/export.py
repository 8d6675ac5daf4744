"""``moveout export``: sources become a sealed bundle."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct, field
from msgspec.structs import replace

from exporters.errors import SourceError
from exporters.limits import Limits, Note
from migrate.bundle.bundle_json import CaseInfo
from migrate.bundle.export_state import LocationKind, OtherSourcesError, SourceName, look, read_state
from migrate.bundle.lease import clear_dead
from migrate.bundle.left_behind import LeftBehind
from migrate.case.limits import gently, parse_limits
from migrate.case.model import Case, Endpoint
from migrate.case.overlaps import overlaps, within_destinations
from migrate.case.secrets import redact
from migrate.case.selection import from_words
from migrate.changes.change_logs import FollowRequest, followable
from migrate.cli import app
from migrate.cli.common.cluster_options import ClusterOptions, machines, rate_limiter_of
from migrate.cli.common.dry_run import DryRun, WouldDo
from migrate.cli.common.options import (
    AllowEmpty,
    CaseFile,
    CurrentOnly,
    Inventory,
    SelectionOptions,
    SourcePairs,
    case_words,
    with_inventories,
)
from migrate.cli.common.session import Session, export_workers
from migrate.cli.common.signing_keys import SigningOptions, custody_of
from migrate.cli.common.source_words import export_to_last
from migrate.cli.common.sources import (
    chosen_sources,
    expanded,
    load_case,
    named_as_begun,
    open_sources,
    recorded_sources,
    typed_sources,
    with_empty_allowed,
    with_follow,
    with_selection,
)
from migrate.cli.common.verb import verb
from migrate.cli.progress.announcements import StatusPage, announced
from migrate.cli.progress.progress_reports import reported
from migrate.cli.summaries.export_summary import Exported
from migrate.errors import OK, IncompleteError, UsageError
from migrate.export.outcome import ExportOptions
from migrate.export.preflight import left_out_of
from migrate.export.run import already_sealed, export
from migrate.export.seal_time import SealTime, seal_time_before
from migrate.number_text import bytes_words, things
from migrate.quantities import parse_size
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.api import MultipartStore, Store
from migrate.storage.rate_limit import SMALL_BYTES, RateLimiter
from migrate.storage.registry import open_location

if TYPE_CHECKING:
    from migrate.custody.signing.bundle_signatures import SignatureFile
    from migrate.custody.signing.keys import Signer


def run_export(
    session: Session,
    endpoints: Mapping[str, Endpoint],
    location: Endpoint,
    case: Case | None,
    options: ExportOptions,
    *,
    signers: Sequence[Signer],
    scheduler: str | None,
) -> Exported:
    """Export the sources to the location; the sealed bundle is signed by every key. With a ``scheduler`` its workers do
    what they can.
    """
    note = session.progress.note
    with (
        machines(session, scheduler, case) as cluster_machines,
        reported(session, "export", location, case, endpoints),
        session.waiting_for_silent(*endpoints.values(), is_too_late=lambda: options.seal_time.is_over),
    ):
        started = time.monotonic()
        rate_limiter = rate_limiter_of(session, cluster_machines, case)
        open_store = _store_opener(session, location, case, rate_limiter)
        cancellation = session.cancellation.child()
        store = open_store(cancellation)
        seen = look(store)
        endpoints = _without_dropped(store, endpoints, options, note, seen[0])
        options = replace(
            options,
            may_be_empty=frozenset(name for name, endpoint in endpoints.items() if endpoint.may_be_empty),
            follow=_change_logs(endpoints, note),
            open_unit_store=open_store,
            rate_limiter=rate_limiter,
            is_seen=True,
        )
        names = [SourceName(name, endpoint.shown) for name, endpoint in endpoints.items()]
        outcome = already_sealed(names, store, seen)
        if outcome is not None:
            clear_dead(store)
            if options.follow:
                _require_bases(store, options.follow)
        else:
            limits = options.limits or (case.limits if case else Limits())
            limits = replace(limits, deadline=case.deadline if case else None)
            unlisted: Mapping[str, Endpoint] = {}
            if case is not None:
                options, unlisted = _with_case(session, case, location, endpoints, options)
            if cluster_machines is not None:
                from migrate.cluster.export_tasks import ExportCluster  # noqa: PLC0415  see ``cluster_options``

                cluster = ExportCluster(cluster_machines, location, endpoints, limits)
                options = replace(options, open_pool=cluster.open_pool)
            workers = session.workers(case, default=export_workers())
            progress = session.progress
            with open_sources(
                {**endpoints, **unlisted}, limits=limits, progress=progress, cancellation=cancellation
            ) as sources:
                outcome = export(
                    sources,
                    store,
                    workers=workers,
                    progress=progress,
                    options=options,
                    cancellation=cancellation,
                )
        signed = _signed(store, signers, case)
        followed_names, compared_names = _kept_up(store) if options.follow else ((), ())
        return Exported(
            outcome,
            time.monotonic() - started,
            signed,
            outcome.left_behind,
            _unlisted(case, outcome.left_behind),
            session.is_detailed(len(outcome.sources)),
            followed=followed_names,
            compared=compared_names,
            case_option=case.option if case else "",
        )


def _store_opener(
    session: Session, location: Endpoint, case: Case | None, rate_limiter: RateLimiter | None
) -> Callable[[CancellationToken], MultipartStore]:
    """Return what opens the location; waiting for it ends with the token that it is given."""
    deadline = case.deadline if case else None
    return lambda token: session.open(
        location, rate_limiter, at_once_bytes=SMALL_BYTES, deadline=deadline, cancellation=token
    )


def _unlisted(case: Case | None, stays: LeftBehind | None) -> Sequence[str]:
    if case is None:
        return ()
    from migrate.discover.left_behind import unlisted_servers  # noqa: PLC0415  for a case

    return unlisted_servers(case, stays)


def _with_case(
    session: Session,
    case: Case,
    location: Endpoint,
    endpoints: Mapping[str, Endpoint],
    options: ExportOptions,
) -> tuple[ExportOptions, Mapping[str, Endpoint]]:
    """Return the options with what the bundle says of its case, and of what stays on the case's servers; and a source
    for each server of which nothing leaves, because it could not be listed.
    """
    from migrate.discover import left_behind  # noqa: PLC0415  it asks whole servers, for a case

    answers = left_behind.ask_case_servers(case, session.progress, session.listed)
    stays = left_behind.find_left_behind(case, endpoints, answers)
    deadline = f"{case.deadline.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if case.deadline else ""
    unlisted: Mapping[str, Endpoint] = {}
    # A bundle elsewhere may be of some sources only.
    if case.bundle is not None and case.bundle.url == location.url:
        recorded = [source.url for source in recorded_sources(location)]
        unlisted = left_behind.unlisted_sources(case, endpoints, answers, recorded)
    return replace(options, left_behind=stays, case=CaseInfo(case.name, deadline)), unlisted


def _signed(store: Store, signers: Sequence[Signer], case: Case | None) -> Sequence[SignatureFile]:
    """Sign the sealed bundle with every key; see ``sealed_by``."""
    if not signers:
        return ()
    from migrate.cli.custody.sign import sealed_by  # noqa: PLC0415  few exports are signed

    return sealed_by(store, signers, custody_of(case).timestamp)


def _kept_up(store: Store) -> tuple[list[str], list[str]]:
    """Return the sources of a sealed bundle whose later changes are kept, and those that delta passes compare."""
    from migrate.changes.delta_record import recorded_deltas  # noqa: PLC0415  few exports are followed
    from migrate.follow.followed import recorded_bases  # noqa: PLC0415

    return [base.source for base in recorded_bases(store)], [
        record.source for record in recorded_deltas(store)
    ]


def _change_logs(endpoints: Mapping[str, Endpoint], note: Note) -> Mapping[str, FollowRequest]:
    """Return how those sources are followed that are to be. Raises ``UsageError`` where none of them can be."""
    asked = {name: endpoint for name, endpoint in endpoints.items() if endpoint.follow}
    requests = followable(asked)
    for name in asked.keys() - requests.keys():
        note(f"! {name} has no log that could be followed: what it writes after its snapshot stays behind")
    if asked and not requests:
        raise UsageError(
            "none of the sources has a log of its changes that could be followed",
            next_step="leave --follow out (follow in the case file); buckets are kept up by moveout sync",
        )
    return requests


def _require_bases(store: Store, names: Collection[str]) -> None:
    """Raise ``UsageError`` where a bundle was sealed, and one of these sources exported without a base."""
    if without_base := sorted(set(names).difference(*_kept_up(store))):
        raise UsageError(
            f"{without_base[0]} was exported to {store.location} without --follow, so its later changes are not"
            " known",
            next_step="export to another location with --follow",
        )


def _without_dropped(
    store: Store, endpoints: Mapping[str, Endpoint], options: ExportOptions, note: Note, kind: LocationKind
) -> Mapping[str, Endpoint]:
    """Return the sources but for those that are taken out of the bundle now, or were before. ``kind``: what lies at the
    location. Raises ``UsageError`` for the name of one that was never in it.
    """
    left_out = {source.name for source in left_out_of(store, kind)}
    state = read_state(store) if options.dropped else None
    there = {source.name for source in state.sources} if state is not None else set()
    for name in options.dropped:
        if name not in there | left_out:
            raise UsageError(
                f"there is no source {name!r} at {store.location} that could be dropped",
                next_step="a complete bundle does not change; of an incomplete one, moveout status names the sources",
            )
    for name in sorted(left_out & endpoints.keys()):
        note(f"{name} was left out of this bundle on purpose; it is not exported")
    return {
        name: endpoint
        for name, endpoint in endpoints.items()
        if name not in left_out and name not in options.dropped
    }


class _ProofOptions(Struct, frozen=True):
    """The options that say how strictly is read, or that nothing is."""

    prove: Annotated[
        bool,
        typer.Option(
            "--prove",
            help="Read all rows back from the Parquet files, and compare them with what the source sent.",
        ),
    ] = False
    dry_run: DryRun = False
    strict_snapshot: Annotated[
        bool,
        typer.Option(
            "--strict-snapshot",
            help="Use one snapshot for everything: after an interruption, read everything again under a new one.",
        ),
    ] = False


class _SourceOptions(Struct, frozen=True):
    """The options that say what is in a bundle."""

    allow_empty: AllowEmpty = False
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Keep what databases write after the snapshot, next to the bundle, for moveout follow.",
        ),
    ] = False
    retain: Annotated[
        str | None,
        typer.Option(
            "--retain",
            metavar="SIZE",
            help="With --follow: the most log that a server may keep. Above it, following ends.",
        ),
    ] = None
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="NAME", help="Remove this source from the bundle; may be repeated."),
    ] = None


class _ExportSelection(Struct, frozen=True):
    """The options that select parts of a source."""

    current_only: CurrentOnly = False
    items: SelectionOptions = field(default_factory=SelectionOptions)


class _LimitOptions(Struct, frozen=True):
    """The options that spare a source."""

    gentle: Annotated[
        bool,
        typer.Option(
            "--gentle",
            help="Spare source databases: short statements, pauses that follow their load, three connections. Takes"
            " longer, and holds the snapshot as long.",
        ),
    ] = False
    max_connections: Annotated[
        int | None,
        typer.Option(
            "--max-connections",
            min=2,
            metavar="N",
            help="Open at most so many connections to a source database.",
        ),
    ] = None
    statement_timeout: Annotated[
        str | None,
        typer.Option(
            "--statement-timeout",
            metavar="TIME",
            help="End statements on the source that take longer: 30m, 2h.",
        ),
    ] = None
    lock_timeout: Annotated[
        str | None,
        typer.Option("--lock-timeout", metavar="TIME", help="How long to wait for a lock (default: 60s)."),
    ] = None
    archived: Annotated[
        str | None,
        typer.Option(
            "--archived",
            metavar="TIER",
            help="Retrieve archived objects: bulk, standard, expedited, auto (cheapest in time), no (default: auto).",
        ),
    ] = None

    def parse(self, base: Limits | None) -> Limits:
        """Return the limits; what is not given is that of ``base``."""
        limits = parse_limits(
            self.max_connections, self.statement_timeout, self.lock_timeout, self.archived, base=base
        )
        return gently(limits) if self.gentle else limits


@verb(
    app,
    "export",
    workers=True,
    bwlimit=True,
    examples=(
        'export postgresql://me@old/app "s3://media?profile=old" --to bundle',
        "export -c moveout.toml --bwlimit 20M",
    ),
)
def export_command(
    session: Session,
    pairs: SourcePairs = None,
    *,
    case: CaseFile = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="LOCATION",
            help="Where to write the bundle: a directory or s3://bucket/prefix?profile=NAME.",
        ),
    ] = None,
    sources: _SourceOptions,
    signing: SigningOptions,
    selection: _ExportSelection,
    inventory: Inventory = None,
    proof: _ProofOptions,
    limits: _LimitOptions,
    cluster: ClusterOptions,
    status_page: StatusPage = None,
) -> Exported | WouldDo:
    """Write and seal a bundle of the sources.

    If it was interrupted, repeat the command to continue, on any machine.
    """
    loaded = load_case(case)
    location = Endpoint(to) if to else (loaded.bundle if loaded else None)
    if location is None:
        meant = export_to_last(pairs or [])
        raise UsageError(
            "no location for the bundle is named",
            next_step=meant
            or ("add" if pairs or loaded else "moveout export URL …")
            + " --to DIRECTORY or --to s3://BUCKET/PREFIX, or "
            + (case_words() if loaded is None else f"[bundle] location to {loaded.file}"),
        )
    typed = named_as_begun(session, typed_sources(pairs or [], loaded), location)
    endpoints = expanded(session, chosen_sources(typed, loaded), loaded, location)
    endpoints = with_inventories(endpoints, inventory or [])
    endpoints = with_empty_allowed(endpoints) if sources.allow_empty else endpoints
    if sources.follow:
        endpoints = with_follow(endpoints, parse_size(sources.retain) if sources.retain else None)
    words = {"current_only": selection.current_only, **selection.items.words()}
    endpoints = with_selection(endpoints, from_words(words))
    options = ExportOptions(
        prove=proof.prove,
        strict_snapshot=proof.strict_snapshot,
        dropped=frozenset(sources.drop or ()),
        seal_time=seal_time_before(loaded.deadline, loaded.reserve_seconds) if loaded else SealTime(),
        limits=limits.parse(loaded.limits if loaded else None),
    )
    transfer_to = loaded.transfer_to if loaded else None
    for sentence in (
        *overlaps(endpoints, location, transfer_to),
        *within_destinations(loaded.destinations if loaded else {}, (location, transfer_to)),
    ):
        session.progress.note(f"! {sentence}")
    with _naming_the_whole(loaded):
        if proof.dry_run:
            return _would_export(session, endpoints, location, options.limits)
        signers = signing.load(loaded)
        exported = announced(
            session,
            loaded,
            status_page,
            lambda: run_export(
                session,
                endpoints,
                location,
                loaded,
                options,
                signers=signers,
                scheduler=cluster.scheduler,
            ),
        )
    return replace(exported, next_steps=_next_steps(to, loaded))


def _next_steps(typed: str | None, case: Case | None) -> Sequence[str]:
    """Return what to do with a complete bundle at the location that was typed, or at the case's."""
    if typed:
        where = shlex.quote(redact(typed))
        ends, up = f"{where} LOCATION", f"{where} URL …"
    else:
        assert case is not None
        assert case.bundle is not None, "else there is no location"
        where = case.option
        ends = where if case.transfer_to else f"{shlex.quote(case.bundle.shown)} LOCATION"
        up = where if case.destinations else f"{where} URL …"
    return [
        f"check every byte: moveout verify {where}",
        f"copy it to another host: moveout transfer {ends}",
        f"bring it up there: moveout restore {up}",
    ]


@contextmanager
def _naming_the_whole(case: Case | None) -> Iterator[None]:
    """Where some sources of a case are exported to the bundle of all, let the error name the export of all."""
    try:
        yield
    except OtherSourcesError as exc:
        if case is not None and exc.unnamed and case.sources.keys() >= {*exc.unnamed}:
            exc.next_step = (
                f"moveout export {case.option} exports all of the case, and reads only what is missing; --to LOCATION"
                " gives these a bundle of their own"
            )
        raise


def _would_export(
    session: Session,
    endpoints: Mapping[str, Endpoint],
    location: Endpoint,
    limits: Limits | None,
) -> WouldDo:
    """Look at the sources and at the location, and write nothing."""
    store = open_location(location.url, secrets=location.reveal())
    names = [SourceName(name, endpoint.shown) for name, endpoint in endpoints.items()]
    if already_sealed(names, store) is not None:
        return WouldDo(
            store.location, [f"the complete bundle lies at {store.location}: nothing is to be done"]
        )
    begun = read_state(store) is not None
    actions, problems, codes = [], [], []
    with open_sources(endpoints, limits=limits, progress=session.progress) as sources:
        for source in sources:
            try:
                seen = source.survey()
            except SourceError as exc:
                problems.append(f"{source.name} cannot be read: {exc} → {exc.next_step}")
                codes.append(exc.exit_code)
                continue
            items = things(sum(item.items for item in seen.items), "item")
            size = bytes_words(sum(item.size_bytes for item in seen.items))
            about = "" if all(item.exact for item in seen.items) else "about "
            actions.append(f"would export {source.name}: {about}{items}, {size} of {source.url}")
            named = f"{source.name}: "
            problems += [named + warning.removeprefix(named) for warning in seen.warnings]
    actions.append(f"would {'go on with' if begun else 'begin'} the bundle at {store.location}")
    failed = max(codes, default=OK) if len(codes) == len(endpoints) else IncompleteError.exit_code
    return WouldDo(store.location, actions, problems, failed if codes else OK)
