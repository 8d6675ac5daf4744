"""``moveout status``: how far things are, told from the locations alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from migrate.case.model import Case, Endpoint
from migrate.cli import app
from migrate.cli.common.options import CaseFile, one_location, sort_words
from migrate.cli.common.progress_view import LEAST_COLUMNS, draw_state
from migrate.cli.common.session import Session, verb
from migrate.cli.common.sources import load_case
from migrate.errors import OK, MoveoutError
from migrate.export import ExportStatus, SourceStatus, export_status
from migrate.number_text import bytes_words, count_words, duration_words, moment_words
from migrate.progress.progress_file import ProgressReport, local_store, read_reports
from migrate.storage.registry import open_location
from migrate.transfer import TransferStatus, transfer_status

_SHOWN_GAPS = 10


@dataclass(frozen=True, slots=True)
class LocationStatus:
    """A location and what is going on there: a transfer to it, or an export; or why that cannot be told. ``reports``:
    what commands at work there say of themselves.
    """

    location: str
    reports: Sequence[ProgressReport] = ()
    transfer: TransferStatus | None = None
    export: ExportStatus | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of all locations that were asked for, and the case's deadline."""

    locations: Sequence[LocationStatus]
    deadline: datetime | None = None
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return everything that is known."""
        until = self.deadline.isoformat() if self.deadline else None
        locations = [
            asdict(location) | {"reports": [report.as_json() for report in location.reports]}
            for location in self.locations
        ]
        return {"deadline": until, "locations": locations}

    def draw(self, console: Console) -> None:
        """Print the time that is left, and a paragraph per location."""
        if self.deadline:
            _draw_deadline(console, self.deadline)
        for location in self.locations:
            console.print(Text(location.location, style="bold"))
            if location.error:
                console.print(f"  {location.error}")
            for report in location.reports:
                _draw_report(console, report)
            if location.transfer:
                _draw_transfer(console, location.transfer)
            if location.export:
                _draw_export(console, location.export, with_holder=not location.reports)


def _draw_deadline(console: Console, until: datetime) -> None:
    left = (until - datetime.now(UTC)).total_seconds()
    deadline_text = (
        (f"{duration_words(left)} left", "") if left > 0 else (f"{duration_words(-left)} over", "bold red")
    )
    console.print(Text.assemble(f"deadline {moment_words(until)}: ", deadline_text))


def _draw_report(console: Console, report: ProgressReport) -> None:
    """Print what a command says of itself, and whether it still lives."""
    state, age = report.state, duration_words(report.age_seconds)
    name = f"{state.command} on {report.process.host}, process {report.process.pid}"
    if report.alive:
        console.print(f"  {name}, is at work; last sign of life {age} ago")
        for line in draw_state(replace(state, deadline=""), max(LEAST_COLUMNS, console.width) - 4):
            console.print(Text.assemble("    ", line))
        return
    share = "" if state.fraction is None else f" at {state.fraction:.0%}"
    if state.ended:
        console.print(Text(f"  {name}, ended{share} {age} ago: {state.ended}"))
    else:
        console.print(f"  {name}, died{share}: last sign of life {age} ago")
    console.print("  what is done stays done; run the same command again to go on")


def _draw_transfer(console: Console, transfer_status: TransferStatus) -> None:
    total = transfer_status.bytes_done + transfer_status.bytes_left
    share = f"{transfer_status.bytes_done / total:.0%}" if total else "-"
    state = (
        f"running: {transfer_status.holder}"
        if transfer_status.holder
        else "nobody is at work; run the same transfer again to go on"
    )
    console.print(f"  transfer of {transfer_status.id} from {transfer_status.origin}")
    console.print(
        f"  {share}: {count_words(transfer_status.files_done)} files, {bytes_words(transfer_status.bytes_done)} done;"
        f" {count_words(transfer_status.files_left)} files, {bytes_words(transfer_status.bytes_left)} left",
    )
    console.print(f"  {state}")


def _draw_export(console: Console, export_status: ExportStatus, *, with_holder: bool) -> None:
    state_texts = {
        "empty": "nothing is there yet",
        "exporting": "an export is running",
        "stopped": "an export was stopped; run the same export again to go on",
        "incomplete": "a sealed bundle, INCOMPLETE: see the gaps",
        "complete": "a sealed bundle, complete",
    }
    console.print(
        f"  {state_texts[export_status.state]}"
        + (f" ({export_status.bundle_id})" if export_status.bundle_id else "")
    )
    if with_holder and export_status.holder and export_status.state == "exporting":
        age = (
            f", last sign of life {duration_words(export_status.heartbeat_seconds)} ago"
            if export_status.heartbeat_seconds
            else ""
        )
        console.print(f"  {export_status.holder}{age}")
    for source in export_status.sources:
        _draw_source(console, source)


def _draw_source(console: Console, source: SourceStatus) -> None:
    about = "" if source.exact else "~"
    progress_text = (
        f"{about}{count_words(source.done.items)} items, {about}{bytes_words(source.done.size_bytes)}"
    )
    planned = ""
    if source.planned and not source.finished:
        qualifier = "" if source.whole else "at least "
        items = f"{count_words(source.planned.items)} items, " if source.planned.items else ""
        planned = f" of {qualifier}{items}{bytes_words(source.planned.size_bytes)}"
    committed = "" if source.finished else " committed"
    console.print(Text.assemble("  ", (source.name, "bold"), f"  {progress_text}{committed}{planned}"))
    for gap in source.gaps[:_SHOWN_GAPS]:
        console.print(Text(f"    {gap.disposition}: {gap.item}: {gap.reason}"))
    if (gaps_not_shown := source.gaps_total - min(len(source.gaps), _SHOWN_GAPS)) > 0:
        console.print(f"    and {count_words(gaps_not_shown)} more")


@verb(
    app,
    "status",
    examples=(
        "status bundle",
        "status -c moveout.toml",
    ),
)
def status_command(
    _session: Session,
    words: Annotated[list[str] | None, typer.Argument(metavar="LOCATION", help="Where to look.")] = None,
    case: CaseFile = None,
) -> Status:
    """Say what is done and what is left.

    Told from the location alone: also while another process works on it, and after a crash.
    """
    loaded = load_case(case)
    locations = _locations(words or [], loaded)
    statuses = [_look(endpoint, alone=len(locations) == 1) for endpoint in locations]
    return Status(statuses, loaded.deadline if loaded else None)


def _locations(words: Sequence[str], case: Case | None) -> list[Endpoint]:
    if words or case is None:
        return [one_location(sort_words(words), None, "location")]
    named = [location for location in (case.bundle, case.transfer_to) if location is not None]
    return named or [one_location(sort_words([]), None, "location")]


def _look(endpoint: Endpoint, *, alone: bool) -> LocationStatus:
    """Ask one location. With several, one that cannot be asked does not hide the others."""
    try:
        store = open_location(endpoint.url, secrets=endpoint.reveal())
        reports = read_reports([store, local_store(endpoint.url)])
        transfer = transfer_status(store)
        return LocationStatus(store.location, reports, transfer, None if transfer else export_status(store))
    except MoveoutError as exc:
        if alone:
            raise
        return LocationStatus(endpoint.shown, error=str(exc))
