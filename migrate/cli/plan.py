"""``moveout plan``: what is there, how fast, and is it in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporters.api import Source, SurveyItem
from exporters.errors import SourceError
from migrate.case.model import Case, Endpoint, parse_deadline
from migrate.cli import app
from migrate.cli.common.options import CaseFile
from migrate.cli.common.session import Session, export_workers, verb
from migrate.cli.common.source_summary import SourceFailure
from migrate.cli.common.sources import choose, load_case, open_sources, parse_pairs
from migrate.errors import OK, DeadlineError, IncompleteError, NoSpaceError
from migrate.export.lost_source import no_source_error
from migrate.number_text import bytes_words, count_words, duration_words, moment_words
from migrate.plan import Forecast, SourcePlan, forecast, measure_write, survey
from migrate.plan.destination_checks import DestinationPlan, check_destinations
from migrate.storage.registry import free_bytes, open_location

_SHOWN_ITEMS = 12
_SHOWN_WARNINGS = 20


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan as shown and as JSON."""

    sources: Sequence[SourcePlan]
    forecast: Forecast
    location_rate: float | None
    destination_rate: float | None
    destinations: Sequence[DestinationPlan] = ()
    location_free: int | None = None
    """Bytes of room where the bundle is to lie, where that is a directory."""
    unread: Sequence[SourceFailure] = ()

    @property
    def exit_code(self) -> int:
        """Return 9 where the deadline will be missed, else 3 where a source could not be surveyed."""
        if self.forecast.verdict == "late":
            return DeadlineError.exit_code
        return IncompleteError.exit_code if self.unread else OK

    def as_json(self) -> dict[str, Any]:
        """Return everything that was found and measured; sizes in bytes, rates per second."""
        return {
            "sources": [
                asdict(source) | {"items": source.items, "size_bytes": source.size_bytes}
                for source in self.sources
            ],
            "unread": [source.as_json() for source in self.unread],
            "write_bytes_per_second": {"bundle": self.location_rate, "destination": self.destination_rate},
            "bundle_free_bytes": self.location_free,
            "forecast": asdict(self.forecast),
            "restores": [asdict(destination) for destination in self.destinations],
        }

    def draw(self, console: Console) -> None:
        """Print a table per source, then the stages and the verdict."""
        for source in self.sources:
            _draw_source(console, source)
        for unread in self.unread:
            console.print(Text.assemble((unread.source, "bold"), f"  {unread.url}  not in this plan"))
            console.print(Text.assemble(("! ", "yellow"), str(unread.error)))
            if unread.error.next_step:
                console.print(f"  → {unread.error.next_step}")
        for destination in self.destinations:
            console.print(Text.assemble((destination.source, "bold"), f"  → {destination.url}"))
            for warning in destination.warnings or ("takes all that was seen",):
                console.print(Text.assemble(("! " if destination.warnings else "  ", "yellow"), warning))
        _draw_forecast(console, self)


def _draw_source(console: Console, source: SourcePlan) -> None:
    console.print(Text.assemble((source.name, "bold"), f"  {source.url}  {source.survey.server}"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("what")
    table.add_column("items", justify="right")
    table.add_column("size", justify="right")
    largest = sorted(source.survey.items, key=lambda item: (-item.size_bytes, item.name))
    for item in largest[:_SHOWN_ITEMS]:
        table.add_row(*_item_row(item))
    if len(largest) > _SHOWN_ITEMS:
        rest = largest[_SHOWN_ITEMS:]
        rows, size = sum(item.items for item in rest), sum(item.size_bytes for item in rest)
        table.add_row(f"and {len(rest)} more", count_words(rows), bytes_words(size), style="dim")
    table.add_row(Text("in all", "bold"), count_words(source.items), bytes_words(source.size_bytes))
    console.print(table)
    warnings = source.survey.warnings
    for warning in warnings[:_SHOWN_WARNINGS]:
        console.print(Text.assemble(("! ", "yellow"), warning))

    if len(warnings) > _SHOWN_WARNINGS:
        console.print(
            Text.assemble(("! ", "yellow"), f"and {len(warnings) - _SHOWN_WARNINGS:,} more (all with --json)")
        )


def _item_row(item: SurveyItem) -> tuple[Text, str, str]:
    about = "" if item.exact else "~"
    return Text(item.name), about + count_words(item.items), about + bytes_words(item.size_bytes)


def _draw_forecast(console: Console, planned: Planned) -> None:
    forecast_shown = planned.forecast
    for source in planned.sources:
        if source.estimate:
            rate = source.estimate
            rates = f"{count_words(round(rate.items_rate))} items/s, {bytes_words(rate.bytes_rate)}/s"
            console.print(f"{source.name} was read for a moment at {rates}")
    for name, write in (("bundle's", planned.location_rate), ("destination's", planned.destination_rate)):
        if write:
            console.print(f"the {name} location takes {bytes_words(write)}/s")
    leaving = sum(source.size_bytes for source in planned.sources)
    if planned.location_free is not None and planned.location_free < leaving:
        free = bytes_words(planned.location_free)
        sentence = f"the bundle's location has {free} free, and {bytes_words(leaving)} leave"
        console.print(Text.assemble(("! ", "yellow"), f"{sentence}: make room, or name another location"))
    for stage in forecast_shown.stages:
        console.print(f"{stage.name:<24}{duration_words(stage.seconds):>14}   {stage.why}")
    earliest = "at the earliest " if forecast_shown.at_least else ""
    ready = f"ready {moment_words(forecast_shown.ready)} {earliest}if started now"
    console.print(f"{'in all':<24}{duration_words(forecast_shown.seconds):>14}   {ready}")
    if forecast_shown.deadline is None or forecast_shown.margin_seconds is None:
        console.print(
            "No deadline is given; --deadline 30h, or deadline in the case file, is checked against.",
            style="dim",
        )
        return
    style = {"in time": "bold green", "tight": "bold yellow", "late": "bold red"}[forecast_shown.verdict]
    side = "too late" if forecast_shown.margin_seconds < 0 else "to spare"
    margin = f"{duration_words(abs(forecast_shown.margin_seconds))} {side}"
    console.print(
        Text.assemble(
            (forecast_shown.verdict.upper(), style),
            f": deadline {moment_words(forecast_shown.deadline)}, {margin}",
        )
    )


def run_plan(
    session: Session, endpoints: Mapping[str, Endpoint], case: Case | None, until: datetime | None
) -> Planned:
    """Survey the sources, measure the locations, and forecast. A source that cannot be read is named in the plan; its
    error is raised where there is no other.
    """
    workers = session.workers(default=export_workers(), case=case.workers if case else None)
    throttle = session.throttle(case.bwlimit if case else None)
    limits = case.limits if case else None
    with open_sources(endpoints, limits=limits, note=session.progress.note) as sources:
        source_plans, unread = _survey(sources, workers)
    locations = (case.bundle, case.transfer_to) if case else (None, None)
    bundle, destination = (_write_rate(p) if p else None for p in locations)
    verdict = forecast(
        source_plans,
        location_rate=bundle,
        destination_rate=destination,
        limit_rate=throttle.bytes_per_second if throttle else None,
        now=datetime.now(UTC),
        deadline=until,
        unread=bool(unread),
    )
    free = free_bytes(locations[0].url, secrets=locations[0].reveal()) if locations[0] else None
    return Planned(
        source_plans,
        verdict,
        bundle,
        destination,
        list(check_destinations(source_plans, case.destinations if case else {})),
        free,
        unread,
    )


def _survey(sources: Sequence[Source], workers: int) -> tuple[list[SourcePlan], list[SourceFailure]]:
    """Return the plans of sources, and the sources that cannot be read. Raises an error where that is all of them."""
    source_plans, unread, errors = [], [], []
    for source in sources:
        try:
            source_plans.append(survey(source, workers=workers))
        except SourceError as exc:
            errors.append((source.name, exc))
            unread.append(SourceFailure(source.name, source.url, exc))
    if not source_plans:
        raise no_source_error(errors)
    return source_plans, unread


def _write_rate(location: Endpoint) -> float | None:
    """Return what the location takes a second; None for a directory so full that it could not be tried."""
    try:
        return measure_write(open_location(location.url, secrets=location.reveal()))
    except NoSpaceError:
        if free_bytes(location.url, secrets=location.reveal()) is None:
            raise
        return None


@verb(
    app,
    "plan",
    workers=True,
    bwlimit=True,
    examples=(
        'plan app=postgresql://me@old/app "media=s3://media?profile=old" --deadline 30h',
        "plan -c moveout.toml",
    ),
)
def plan_command(
    session: Session,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=URL …",
            help="What leaves: app=postgresql://me@host/db media=s3://media?profile=old.",
        ),
    ] = None,
    case: CaseFile = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="T", help="A moment, or 30h, 90m, 2d from now.")
    ] = None,
) -> Planned:
    """Forecast the move.

    Say what is there, how fast it can leave (measured now), and whether it makes it by the deadline.
    """
    loaded = load_case(case)
    until = parse_deadline(deadline) if deadline else (loaded.deadline if loaded else None)
    return run_plan(session, choose(parse_pairs(pairs or []), loaded), loaded, until)
