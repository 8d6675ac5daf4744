"""``moveout plan``: what is there, how fast, and is it in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from msgspec import Struct
from msgspec.structs import replace

from exporters.api import Source
from exporters.connections.silent_servers import silence
from exporters.errors import SourceError, SourceSilentError
from migrate.case.deadline import parse_deadline
from migrate.case.model import Case, Endpoint
from migrate.case.overlaps import overlaps
from migrate.cli import app
from migrate.cli.common.options import CaseFileHere, SourcePairs, case_here
from migrate.cli.common.session import Session, export_workers
from migrate.cli.common.sources import (
    chosen_sources,
    destinations_in,
    expanded,
    load_case,
    open_sources,
    typed_sources,
)
from migrate.cli.common.summary_lines import SourceFailure
from migrate.cli.common.verb import verb
from migrate.cli.summaries.plan_summary import BUNDLE_LOCATION, TRANSFER_LOCATION, BundleRoom, Planned
from migrate.discover.left_behind import ask_case_servers, find_left_behind, unlisted_servers
from migrate.discover.servers import ServerAnswer, servers_of
from migrate.doctor.run import DestinationPlan, Examined, check_destinations
from migrate.engines import registry
from migrate.errors import MoveoutError, NoSpaceError, UsageError
from migrate.export.open_sources import no_source_error
from migrate.plan.cost_model import reference
from migrate.plan.forecast import MoveTimes, ReferenceClass, forecast
from migrate.plan.move_order import order_of_move
from migrate.plan.move_works import MoveRoute, move_works
from migrate.plan.run_history import read_history
from migrate.plan.survey import LocationRates, SourcePlan, measure_location, survey
from migrate.plan.what_if import WhatIf, alternative
from migrate.runtime.progress import Progress, SourceTask
from migrate.storage.registry import free_bytes, open_location


class PlanOptions(Struct, frozen=True):
    """What a plan is made for. ``to``: where the bundle lies, instead of the case's location. ``what_if``: other means
    that are tried on paper. ``examined``: what an examination just before the plan saw; None where there was none.
    ``sampled_from_seconds``: sources whose export takes less by the model are not read for the forecast, and where all
    are such, no location is tried.
    """

    deadline: datetime | None = None
    to: Endpoint | None = None
    what_if: WhatIf | None = None
    examined: Sequence[Examined] | None = None
    sampled_from_seconds: float = 0.0


def run_plan(
    session: Session, endpoints: Mapping[str, Endpoint], case: Case | None, options: PlanOptions
) -> Planned:
    """Survey the sources, measure the locations, and forecast. A source that cannot be read is named in the plan; its
    error is raised where there is no other.
    """
    rate_limiter = session.rate_limiter(case)
    session.meter.expect(endpoints)
    bundle = options.to or (case.bundle if case else None)
    destination = case.transfer_to if case else None
    named = {BUNDLE_LOCATION: bundle, TRANSFER_LOCATION: destination}
    locations = {name: location for name, location in named.items() if location}
    seen = _look(session, endpoints, case, options, locations)
    route = MoveRoute(
        bundle=seen.rates.get(BUNDLE_LOCATION),
        destination=seen.rates.get(TRANSFER_LOCATION),
        limit_rate=rate_limiter.bytes_per_second if rate_limiter else None,
        transfers=destination is not None,
        verifies=case is not None and case.bundle is not None,
        restored=case.destinations if case else {},
        compared=[source.name for source in seen.sources if registry.holds_objects(source.kind)],
    )
    works = move_works(seen.sources, route)
    known = ReferenceClass.of(reference(), read_history())
    now = datetime.now(UTC)
    left_behind = (
        find_left_behind(case, endpoints, seen.answers) if case and seen.answers is not None else None
    )
    unlisted = unlisted_servers(case, left_behind) if case else []
    shown = forecast(
        works,
        known,
        now=now,
        deadline=options.deadline,
        not_counted=[
            *(failure.source for failure in seen.unread),
            *(source.name for source in seen.sources if source.survey.goes_on),
            *unlisted,
        ],
    )
    return Planned(
        sources=seen.sources,
        works=works,
        forecast=shown,
        bundle_rates=route.bundle,
        destination_rates=route.destination,
        destinations=seen.destinations,
        room=seen.room,
        unread=seen.unread,
        untried=seen.untried,
        left_behind=left_behind,
        unlisted=unlisted,
        case_option=case.option if case else "",
        alternative=alternative(options.what_if, seen.sources, route, known, shown.seconds_left)
        if options.what_if
        else None,
        overlaps=list(overlaps(endpoints, bundle, destination)),
        detailed=session.is_detailed(len(endpoints)),
        order=order_of_move(
            shown,
            MoveTimes(known, works),
            {name: endpoint.rank for name, endpoint in endpoints.items()},
            case.reserve_seconds if case else None,
        ),
    )


class _Surveyed(Struct, frozen=True):
    """What sources, destinations, locations and servers have shown. ``unread`` and ``untried``: sources and locations
    that could not be looked at. ``rates``: of locations, by their names; ``answers``: of the case's servers, None
    without a case.
    """

    sources: Sequence[SourcePlan]
    unread: Sequence[SourceFailure]
    answers: Sequence[ServerAnswer] | None
    destinations: Sequence[DestinationPlan]
    rates: Mapping[str, LocationRates | None]
    untried: Sequence[SourceFailure]
    room: BundleRoom | None


def _look(
    session: Session,
    endpoints: Mapping[str, Endpoint],
    case: Case | None,
    options: PlanOptions,
    locations: Mapping[str, Endpoint],
) -> _Surveyed:
    """Survey the sources, ask the case's servers, examine the destinations, and measure the locations."""
    destinations = case.destinations if case else {}
    servers = servers_of(case) if case else []
    looked_at = [*endpoints.values(), *destinations.values(), *locations.values(), *servers]
    limits = case.limits if case else None
    workers = session.workers(case, default=export_workers())
    with session.going_on_without_silent(*looked_at):
        with open_sources(endpoints, limits=limits, progress=session.progress) as sources:
            source_plans, unread = _survey(sources, workers, session.progress, options.sampled_from_seconds)
        answers = ask_case_servers(case, session.progress, session.listed) if case else None
        checked = check_destinations(source_plans, destinations, options.examined, [*locations.values()])
        is_sampled = not options.sampled_from_seconds or any(source.estimate for source in source_plans)
        rates, untried = _measure(locations if is_sampled else {}, session.progress)
        bundle = locations.get(BUNDLE_LOCATION)
        is_there = not any(location.source == BUNDLE_LOCATION for location in untried)
        room = _room(bundle, source_plans) if bundle and is_there else None
    return _Surveyed(source_plans, unread, answers, checked, rates, untried, room)


def _survey(
    sources: Sequence[Source], workers: int, progress: Progress, sampled_from_seconds: float
) -> tuple[list[SourcePlan], list[SourceFailure]]:
    """Return the plans of sources, and the sources that cannot be read. Raises an error where that is all of them."""
    source_plans, unread, errors = [], [], []
    for source in sources:
        progress.begin(f"survey {source.name}", items=0, size_bytes=0, of=SourceTask(source.name))
        try:
            source_plans.append(survey(source, workers=workers, sampled_from_seconds=sampled_from_seconds))
        except SourceError as exc:
            error = exc if isinstance(exc, SourceSilentError) else silence(source.url) or exc
            errors.append((source.name, error))
            unread.append(SourceFailure(source.name, source.url, error))
        progress.end()
    if not source_plans:
        raise no_source_error(errors)
    return source_plans, unread


_RETRY_SECONDS = 10.0
"""How long a location is tried again that is only measured."""


def _measure(
    locations: Mapping[str, Endpoint], progress: Progress
) -> tuple[dict[str, LocationRates | None], list[SourceFailure]]:
    """Return how fast locations are, by their names, and those that could not be tried."""
    rates: dict[str, LocationRates | None] = {}
    untried = []
    for name, location in locations.items():
        progress.begin(f"measure {location.shown}", items=0, size_bytes=0)
        try:
            rates[name] = _location_rates(location)
        except (UsageError, NoSpaceError):
            raise
        except MoveoutError as exc:
            untried.append(SourceFailure(name, location.shown, exc))
        progress.end()
    return rates, untried


def _location_rates(location: Endpoint) -> LocationRates | None:
    """Return how fast a location is; None for a directory so full that it could not be tried."""
    try:
        return measure_location(
            open_location(location.url, secrets=location.reveal(), retry_seconds=_RETRY_SECONDS)
        )
    except NoSpaceError:
        if free_bytes(location.url, secrets=location.reveal()) is None:
            raise
        return None


def _room(location: Endpoint, sources: Sequence[SourcePlan]) -> BundleRoom | None:
    free = free_bytes(location.url, secrets=location.reveal())
    if free is None:
        return None
    expected = sum(source.bundle_bytes for source in sources)
    return BundleRoom(free, expected, max(expected, sum(source.size_bytes for source in sources)))


@verb(
    app,
    "plan",
    workers=True,
    bwlimit=True,
    examples=(
        'plan postgresql://me@old/app "s3://media?profile=old" --deadline 30h',
        "plan -c moveout.toml",
        "plan postgresql://me@old/app --to /mnt/disk/bundle",
    ),
)
def plan_command(
    session: Session,
    pairs: SourcePairs = None,
    *,
    case: CaseFileHere = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="T", help="A time, or 30h, 90m, 2d from now.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="LOCATION",
            help="Where the bundle will be written: measures its speed, and whether there is room.",
        ),
    ] = None,
    what_if: Annotated[
        str | None,
        typer.Option(
            "--what-if",
            metavar="MEANS",
            help="Forecast with other means: workers=8,link=10Gbit. Also says what would be enough.",
        ),
    ] = None,
) -> Planned:
    """Forecast how long the move takes.

    Lists the sources, measures them for a moment, and says how long each stage takes and how likely the deadline is
    met.
    """
    loaded = load_case(case_here(case, pairs))
    until = parse_deadline(deadline) if deadline else (loaded.deadline if loaded else None)
    means = WhatIf.parse(what_if) if what_if else None
    options = PlanOptions(until, Endpoint(to) if to else None, means)
    endpoints = expanded(session, chosen_sources(typed_sources(pairs or [], loaded), loaded), loaded)
    if loaded is not None:
        loaded = replace(loaded, destinations=destinations_in(loaded, endpoints).endpoints)
    return run_plan(session, endpoints, loaded, options)
