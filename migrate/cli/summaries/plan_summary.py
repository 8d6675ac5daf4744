"""What ``moveout plan`` shows: on a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

from msgspec import Struct
from rich.console import JustifyMethod

from exporters.api import SurveyItem
from exporters.structs import as_dict
from migrate.bundle.left_behind import LeftBehind
from migrate.cli.common.rich_terminal import make_table
from migrate.cli.common.summary_lines import SourceFailure, draw_left_behind
from migrate.cli.common.terminal import Console, Text, plain
from migrate.doctor.run import DestinationPlan
from migrate.errors import OK, DeadlineError, IncompleteError, NoSpaceError
from migrate.number_text import (
    bytes_words,
    count_words,
    duration_words,
    list_words,
    local_moment_words,
    moment_words,
    things,
)
from migrate.plan.forecast import Forecast, Interval, StageForecast
from migrate.plan.move_order import MoveOrder
from migrate.plan.stage_work import StageWork
from migrate.plan.survey import LocationRates, SourcePlan
from migrate.plan.what_if import Alternative

_Row = tuple[str | Text, ...]
_WIDE = 74
"""From this width on the tables have all columns."""
_SHOWN_ITEMS = 12
_SHOWN_WARNINGS = 20
_SHOWN_NAMES = 5
_MOST_SURE = 0.95
BUNDLE_LOCATION, TRANSFER_LOCATION = "the location of the bundle", "the location of [transfer]"
_VERDICT_STYLES: Mapping[str, str] = {
    "in time": "bold green",
    "tight": "bold yellow",
    "unknown": "bold yellow",
    "late": "bold red",
}


class BundleRoom(Struct, frozen=True):
    """The disk where the bundle is to lie: how much is free, how much the bundle takes about, and at most."""

    free_bytes: int
    expected_bytes: int
    most_bytes: int

    @property
    def is_too_small(self) -> bool:
        """Whether not even the expected bundle fits."""
        return self.free_bytes < self.expected_bytes


class Planned(Struct, frozen=True):
    """The plan as shown and as JSON. ``works`` is the work that was forecast."""

    sources: Sequence[SourcePlan]
    works: Sequence[StageWork]
    forecast: Forecast
    bundle_rates: LocationRates | None
    destination_rates: LocationRates | None
    destinations: Sequence[DestinationPlan] = ()
    room: BundleRoom | None = None
    """None where the location does not say how much is free."""
    unread: Sequence[SourceFailure] = ()
    untried: Sequence[SourceFailure] = ()
    """The locations that could not be tried, by what they are for."""
    left_behind: LeftBehind | None = None
    unlisted: Sequence[str] = ()
    """Servers of the case of which nothing leaves, because they could not be listed."""
    case_option: str = ""
    """The option that names the case file, for the next commands; "" where there is none."""
    alternative: Alternative | None = None
    overlaps: Sequence[str] = ()
    """Sources that share data, and a bundle that lies where it should not."""
    detailed: bool = True
    """Whether it tells the tables of each source, and the stages of each."""
    order: MoveOrder | None = None
    """The order in which sources should leave, where that matters: not everything fits, or the case file ranks them."""

    @property
    def exit_code(self) -> int:
        """8 where the bundle will not fit, 9 where the deadline will be missed, 3 where something was not surveyed."""
        if self.room is not None and self.room.is_too_small:
            return NoSpaceError.exit_code
        if self.forecast.verdict == "late":
            return DeadlineError.exit_code
        return IncompleteError.exit_code if self.unread or self.untried or self.unlisted else OK

    def as_json(self) -> dict[str, Any]:
        """Return everything that was found and measured; sizes in bytes, rates per second."""
        return {
            "sources": [
                as_dict(source) | {"items": source.items, "size_bytes": source.size_bytes}
                for source in self.sources
            ],
            "unread": [source.as_json() for source in self.unread],
            "untried": [location.as_json() for location in self.untried],
            "left_behind": self.left_behind.as_json() if self.left_behind else None,
            "unlisted": list(self.unlisted),
            "bytes_per_second": {
                "bundle": _rates(self.bundle_rates),
                "destination": _rates(self.destination_rates),
            },
            "bundle_room": None if self.room is None else as_dict(self.room),
            "forecast": forecast_json(self.forecast),
            "what_if": None if self.alternative is None else as_dict(self.alternative),
            "overlaps": list(self.overlaps),
            "order": None if self.order is None else as_dict(self.order),
            "restores": [as_dict(destination) for destination in self.destinations],
        }

    def draw(self, console: Console) -> None:
        """Print what is there, then the stages and the verdict."""
        if self.detailed:
            for source in self.sources:
                _draw_source(console, source)
        else:
            _draw_sources(console, self.sources)
        for unread in self.unread:
            _draw_unread(console, unread)
        if self.detailed:
            for destination in self.destinations:
                _draw_destination(console, destination)
        else:
            _draw_destinations(console, self.destinations)
        for sentence in self.overlaps:
            console.print(Text.assemble(("! ", "yellow"), sentence))
        _draw_rates(console, self)
        draw_forecast(console, self.forecast, detailed=self.detailed)
        if self.alternative is not None:
            _draw_alternative(console, self.alternative, self.forecast.seconds_left)
        if self.order is not None and (self.forecast.seconds_left or 0.0) > 0:
            _draw_order(console, self.order)
        if self.room is not None:
            _draw_room(console, self.room)
        draw_left_behind(
            console,
            self.left_behind,
            (unread.error for unread in self.unread),
            self.case_option,
            self.unlisted,
        )


def _rates(rates: LocationRates | None) -> dict[str, float] | None:
    return None if rates is None else as_dict(rates)


def forecast_json(shown: Forecast) -> dict[str, Any]:
    """Return a forecast with its verdict and the moments that it names."""
    return as_dict(shown) | {
        "verdict": shown.verdict,
        "seconds_left": shown.seconds_left,
        "left_at": {"p50": shown.moment(shown.leaves.p50), "p90": shown.moment(shown.leaves.p90)},
        "ended_at": {"p50": shown.moment(shown.ends.p50), "p90": shown.moment(shown.ends.p90)},
    }


def _draw_sources(console: Console, sources: Sequence[SourcePlan]) -> None:
    """Print a row for each source, then what they warn of, once where several say the same."""
    rows: list[_Row] = []
    for source in sources:
        warning_count = len(source.survey.warnings)
        about = "" if all(item.exact for item in source.survey.items) else "~"
        rows.append(
            (
                Text(source.name),
                source.kind,
                about + count_words(source.items),
                about + bytes_words(source.size_bytes),
                Text(count_words(warning_count) if warning_count else "", "yellow"),
            )
        )
    items, size_bytes = sum(s.items for s in sources), sum(s.size_bytes for s in sources)
    total = Text(things(len(sources), "source"), "bold")
    rows.append((total, "", count_words(items), bytes_words(size_bytes), ""))
    _draw_table(
        console,
        {"source": "left", "kind": "left", "items": "right", "size": "right", "warnings": "right"},
        {"kind", "warnings"},
        rows,
    )
    _draw_warnings(console, {source.name: source.survey.warnings for source in sources})
    console.print("  (tables and buckets of each source: -v, or --json)", style="dim")


def _draw_unread(console: Console, unread: SourceFailure) -> None:
    console.print(Text.assemble((unread.source, "bold"), f"  {unread.url}  not in this plan"))
    _draw_failure(console, unread)


def _draw_failure(console: Console, failure: SourceFailure, words: str = "") -> None:
    console.print(Text.assemble(("! ", "yellow"), words + console.errors.of(failure.error)))
    if next_step := console.errors.next_step(failure.error):
        console.print(f"  → {next_step}")


def _draw_destination(console: Console, destination: DestinationPlan) -> None:
    console.print(Text.assemble((destination.source, "bold"), f"  → {destination.url}"))
    for warning in destination.warnings or ("takes all that was seen",):
        console.print(Text.assemble(("! " if destination.warnings else "  ", "yellow"), warning))


def _draw_destinations(console: Console, destinations: Sequence[DestinationPlan]) -> None:
    whole = [destination for destination in destinations if not destination.warnings]
    if whole:
        console.print(f"{things(len(whole), 'destination')} can take all that was seen")
    _draw_warnings(console, {f"→ {d.source}": d.warnings for d in destinations if d.warnings})


def _draw_warnings(console: Console, warnings: Mapping[str, Sequence[str]]) -> None:
    """Print the warnings of sources; what several say is printed once, with their names."""
    names: dict[str, list[str]] = {}
    for name, texts in warnings.items():
        for text in dict.fromkeys(texts):
            names.setdefault(text.removeprefix(f"{name.removeprefix('→ ')}: "), []).append(name)
    for text, named in list(names.items())[:_SHOWN_WARNINGS]:
        label = f"{list_words(named, _SHOWN_NAMES)}: "
        console.print(Text.assemble(("! ", "yellow"), (label, "bold"), text))
    if len(names) > _SHOWN_WARNINGS:
        rest = f"and {things(len(names) - _SHOWN_WARNINGS, 'other warning')} (all with -v or --json)"
        console.print(Text.assemble(("! ", "yellow"), rest))


def _draw_source(console: Console, source: SourcePlan) -> None:
    console.print(Text.assemble((source.name, "bold"), f"  {source.url}  {source.survey.server}"))
    table = make_table(what="left", items="right", size="right")
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
    lines = (Text.assemble(("! ", "yellow"), warning) for warning in warnings)
    console.print_first(lines, len(warnings), _SHOWN_WARNINGS, before="! ")


def _item_row(item: SurveyItem) -> tuple[Text, str, str]:
    about = "" if item.exact else "~"
    return Text(plain(item.name)), about + count_words(item.items), about + bytes_words(item.size_bytes)


def _draw_rates(console: Console, planned: Planned) -> None:
    for location in planned.untried:
        _draw_failure(console, location, f"{location.source} could not be tried: ")
    for source in planned.sources if planned.detailed else ():
        if source.estimate:
            rate = source.estimate
            rates = f"{count_words(round(rate.items_rate))} items/s, {bytes_words(rate.bytes_rate)}/s"
            console.print(f"{source.name} was read for a moment at {rates}")
    for name, measured in (
        (BUNDLE_LOCATION, planned.bundle_rates),
        (TRANSFER_LOCATION, planned.destination_rates),
    ):
        if measured:
            rates = f"takes {bytes_words(measured.write)}/s and gives {bytes_words(measured.read)}/s"
            console.print(f"{name} {rates}")


def _draw_alternative(console: Console, alternative: Alternative, seconds_left: float | None) -> None:
    means = things(alternative.means.workers, "worker")
    if alternative.means.link_rate is not None:
        means += f" and a link of {bytes_words(alternative.means.link_rate)}/s"
    leaves = alternative.leaves
    console.print(
        f"With {means}: all has left in {duration_words(leaves.p50)} (P50), {duration_words(leaves.p90)} (P90)"
    )
    least = alternative.needed
    if least is None or seconds_left is None:
        return
    link = f"a link of at least {bytes_words(least.link_rate)}/s"
    link_rate = alternative.means.link_rate
    if seconds_left <= 0:
        console.print("The deadline has passed: no means are enough")
    elif least.workers is None and link_rate is not None and link_rate >= least.link_rate:
        console.print(
            "No number of workers is enough: even with this link each source takes too long to begin"
        )
    elif least.workers is None:
        console.print(f"No number of workers is enough with this link: it takes {link}, and more to be sure")
    else:
        enough = things(least.workers, "worker")
        console.print(f"To have left by the deadline at P90 it takes {enough} and {link}")


def _draw_order(console: Console, order: MoveOrder) -> None:
    console.print(f"Order: {', '.join(order.names)}")
    for name, left in (("P50", order.left_at_p50), ("P90", order.left_at_p90)):
        console.print(Text(f"  left behind at {name}: {', '.join(left) or 'nothing'}"))
    value = f"{order.expected_value:.3g} of {order.total_value:.3g}"
    console.print(f"  expected value by the deadline: {value} (priority and value of a source: case file)")


def _draw_room(console: Console, room: BundleRoom) -> None:
    free = f"the bundle's location has {bytes_words(room.free_bytes)} free"
    expected, most = bytes_words(room.expected_bytes), bytes_words(room.most_bytes)
    if room.is_too_small:
        sentence = f"{free}, and the bundle takes about {expected}: make room, or name another location"
        console.print(Text.assemble(("TOO LITTLE DISK", "bold red"), f": {sentence}"))
    elif room.free_bytes < room.most_bytes:
        console.print(
            Text.assemble(("! ", "yellow"), f"{free}; the bundle takes about {expected}, at most {most}")
        )


def _draw_stages(console: Console, shown: Forecast, stages: Sequence[StageForecast]) -> None:
    """Print the stages as a table. Where there is little room, what the times come from is below it."""
    has_sources = any(stage.source for stage in stages)
    columns: dict[str, JustifyMethod] = (
        {"stage": "left", "source": "left"} if has_sources else {"stage": "left"}
    )

    def row(words: str | Text, source: str, seconds: Interval, why: str) -> _Row:
        named = [Text(source)] if has_sources else []
        return words, *named, duration_words(seconds.p50), duration_words(seconds.p90), why

    whole = [row(Text("all has left", "bold"), "", shown.leaves, "if started now")]
    if shown.ends != shown.leaves:
        whole.append(row(Text("all is done", "bold"), "", shown.ends, ""))
    _draw_table(
        console,
        columns | {"P50": "right", "P90": "right", "basis": "left"},
        {"basis"},
        [row(stage.stage, stage.source or "all", stage.seconds, stage.why) for stage in stages],
        whole,
    )
    if console.width < _WIDE:
        bases: dict[str, list[str]] = {}
        for stage in stages:
            bases.setdefault(stage.why, []).append(f"{stage.stage} {stage.source}".rstrip())
        for why, named in bases.items():
            console.print(Text(f"{list_words(named)}: {why}", "dim"))


def _draw_table(
    console: Console,
    columns: Mapping[str, JustifyMethod],
    dispensable: Collection[str],
    *sections: Sequence[_Row],
) -> None:
    """Print a table of sections of rows. Where there is little room, it has no ``dispensable`` columns."""
    is_shown = [console.width >= _WIDE or title not in dispensable for title in columns]
    table = make_table(**dict(compress(columns.items(), is_shown)))
    for rows in sections:
        table.add_section()
        for row in rows:
            table.add_row(*compress(row, is_shown))
    console.print(table)


def draw_forecast(console: Console, shown: Forecast, *, detailed: bool) -> None:
    """Print the stages with their intervals, the whole, and the verdict on the deadline. ``detailed``: by source."""
    _draw_stages(console, shown, shown.stages if detailed else shown.whole_stages)
    leaves = shown.leaves
    console.print("P50: as likely sooner as later; P90: sooner nine times out of ten", style="dim")
    moments = _both(moment_words(shown.moment(seconds)) for seconds in (leaves.p50, leaves.p90))
    console.print(f"All {'that was counted ' if shown.not_counted else ''}has left by {moments}")
    if shown.deadline is None or shown.seconds_left is None or shown.probability is None:
        console.print(
            "No deadline is given, so none is checked. Add --deadline 30h, or deadline = … to the case file.",
            style="dim",
        )
        return
    style = _VERDICT_STYLES[shown.verdict]
    margins = _both(_margin(shown.seconds_left - seconds) for seconds in (leaves.p50, leaves.p90))
    likely = f"{probability_words(shown.probability)} likely to be met"
    deadline = f": deadline {local_moment_words(shown.deadline)}"
    if shown.verdict == "unknown":
        names = ", ".join(shown.not_counted)
        console.print(Text.assemble((shown.verdict.upper(), style), f"{deadline}; not counted: {names}"))
        console.print(f"  all else: {likely}, {margins}")
        console.print("→ the lines of each say why, and what to do; then plan again", style="dim")
        return
    console.print(Text.assemble((shown.verdict.upper(), style), f"{deadline}, {likely}"))
    console.print(f"  {margins}")
    if shown.seconds_left <= 0:
        console.print(
            "→ the deadline has passed: no means are enough; correct it, if it is wrong", style="dim"
        )
    elif leaves.p90 > shown.seconds_left:
        console.print("→ --what-if workers=8,link=10Gbit says what it would take", style="dim")


def _both(words: Iterable[str]) -> str:
    """Return the words for P50 and for P90, once where they are the same."""
    p50, p90 = words
    return f"{p50} (P50 and P90)" if p50 == p90 else f"{p50} (P50), {p90} (P90)"


def _margin(seconds: float) -> str:
    return f"{duration_words(abs(seconds))} {'too late' if seconds < 0 else 'to spare'}"


def probability_words(probability: float) -> str:
    """Return a probability in per cent; extremes are not distinguished, because few moves were recorded."""
    if probability > _MOST_SURE:
        return f"over {_MOST_SURE:.0%}"
    return f"under {1 - _MOST_SURE:.0%}" if probability < 1 - _MOST_SURE else f"{probability:.0%}"
