"""``moveout status``: how far things are, told from the locations alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from migrate.case.model import Case, Endpoint
from migrate.cli import app
from migrate.cli.common.options import CaseFile, one_location, sort_words
from migrate.cli.common.session import Session, verb
from migrate.cli.common.sources import load_case
from migrate.errors import OK, MoveoutError
from migrate.export import ExportStatus, SourceStatus, export_status
from migrate.number_text import bytes_words, count_words, duration_words, moment_words
from migrate.storage.registry import open_location
from migrate.transfer import TransferStatus, transfer_status

_SHOWN_GAPS = 10


@dataclass(frozen=True, slots=True)
class LocationStatus:
    """A location and what is going on there: a transfer to it, or an export; or why that cannot be told."""

    location: str
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
        return {"deadline": until, "locations": [asdict(location) for location in self.locations]}

    def draw(self, console: Console) -> None:
        """Print the time that is left, and a paragraph per location."""
        if self.deadline:
            _draw_deadline(console, self.deadline)
        for location in self.locations:
            console.print(Text(location.location, style="bold"))
            if location.error:
                console.print(f"  {location.error}")
            if location.transfer:
                _draw_transfer(console, location.transfer)
            if location.export:
                _draw_export(console, location.export)


def _draw_deadline(console: Console, until: datetime) -> None:
    left = (until - datetime.now(UTC)).total_seconds()
    deadline_text = (
        (f"{duration_words(left)} left", "") if left > 0 else (f"{duration_words(-left)} over", "bold red")
    )
    console.print(Text.assemble(f"deadline {moment_words(until)}: ", deadline_text))


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


def _draw_export(console: Console, export_status: ExportStatus) -> None:
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
    if export_status.holder and export_status.state == "exporting":
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
    rate = f"; {bytes_words(source.bytes_rate)}/s" if source.bytes_rate and not source.finished else ""
    console.print(Text.assemble("  ", (source.name, "bold"), f"  {progress_text}{planned}{rate}"))
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
        transfer = transfer_status(store)
        return LocationStatus(store.location, transfer, None if transfer else export_status(store))
    except MoveoutError as exc:
        if alone:
            raise
        return LocationStatus(endpoint.shown, error=str(exc))
