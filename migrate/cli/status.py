"""``moveout status``: how far things are, by the locations alone."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from migrate.bundle import layout
from migrate.case.model import Case, Endpoint
from migrate.case.overlaps import left_out_on_purpose
from migrate.case.server_url import is_pattern
from migrate.changes.delta_record import recorded_deltas
from migrate.cli import app
from migrate.cli.common.options import CaseFileHere, case_here, one_location
from migrate.cli.common.session import Session
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.cli.progress.destination_status import destination_statuses
from migrate.cli.progress.progress_view import LINE_SECONDS, stamped, state_line
from migrate.cli.progress.status_view import LocationStatus, Status, page_of
from migrate.errors import BusyError, MoveoutError, UsageError
from migrate.export.status import ExportStatus, export_status
from migrate.follow.cutover_record import read_record
from migrate.follow.status import follow_status
from migrate.progress.progress_file import ProgressReport, local_store, read_reports
from migrate.restore.restore_records import RestoreRecord, newest, read_restore_records
from migrate.storage.api import Store, exists
from migrate.storage.registry import open_location
from migrate.transfer.destination import transfer_status

_WATCH_SECONDS = 2.0
_ENDED_SECONDS = 15.0
"""How long nothing is at work when a watch ends: between two stages of a run nothing is for a moment."""
_NOTHING_AT_WORK = "Nothing is at work there now. Ctrl-C ends the watch."


@verb(
    app,
    "status",
    examples=(
        "status bundle",
        "status -c moveout.toml --watch",
        "status -c moveout.toml --serve 127.0.0.1:8080",
    ),
)
def status_command(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOCATION|CASE", help="Where to look: the bundle, or a case file with its locations."
        ),
    ] = None,
    case: CaseFileHere = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until the work ends, or Ctrl-C.")] = False,
    serve: Annotated[
        str | None,
        typer.Option("--serve", metavar="HOST:PORT", help="Serve a web page until Ctrl-C."),
    ] = None,
) -> Status:
    """Say what is done and what is left.

    Needs only the location. Works while another process writes there, and after a crash.
    """
    words = words or []
    if case is None and len(words) == 1 and Path(words[0]).is_file():
        case, words = Path(words[0]), []
    loaded = load_case(case_here(case, words))
    locations = _locations(words, loaded)
    if serve is not None:
        _serve(session, locations, loaded, serve)
    if watch:
        if session.json:
            raise UsageError("--watch and --json exclude each other", next_step="leave one of them out")
        _watch(session, locations, loaded)
    return _status(session, locations, loaded)


def _status(
    session: Session, locations: Sequence[Endpoint], case: Case | None, *, quick: bool = False
) -> Status:
    asked = [*case.sources.values(), *case.destinations.values()] if case else []
    with session.going_on_without_silent(*asked, *locations):
        statuses = [_look(endpoint, case, alone=len(locations) == 1, quick=quick) for endpoint in locations]
    exports = [status.export for status in statuses if status.export is not None]
    records = newest(record for status in statuses for record in status.restores)
    destinations = destination_statuses(case, exports, records)
    return Status(
        statuses,
        case.deadline if case else None,
        destinations,
        _absent(case, exports),
        case.option if case else "",
        _unlisted(case, exports) if case else (),
    )


def _absent(case: Case | None, exports: Sequence[ExportStatus]) -> Sequence[str]:
    """Return the sources of a case that its sealed bundle lacks: it was sealed before they came into the case."""
    if case is None or not any(export.state in {"complete", "incomplete"} for export in exports):
        return []
    present = {source.name for export in exports for source in export.sources}
    present.update(name for export in exports for name in export.left_out)
    return [
        name
        for name, source in case.sources.items()
        if not (name in present or is_pattern(source.url) or left_out_on_purpose(case, source))
    ]


def _unlisted(case: Case, exports: Sequence[ExportStatus]) -> Sequence[str]:
    """Return the servers of a case of which nothing is in its sealed bundle, because nobody could list them."""
    left_behind = next((export.left_behind for export in exports if export.left_behind), None)
    if left_behind is None or not left_behind.servers:
        return []
    from migrate.discover.left_behind import unlisted_servers  # noqa: PLC0415  few need it

    return unlisted_servers(case, left_behind)


def _locations(words: Sequence[str], case: Case | None) -> list[Endpoint]:
    if words or case is None:
        return [one_location(words, None)]
    named = [location for location in (case.bundle, case.transfer_to) if location is not None]
    return named or [one_location([], None)]


def _look(endpoint: Endpoint, case: Case | None, *, alone: bool, quick: bool) -> LocationStatus:
    """Ask one location. With several, one that cannot be asked does not hide the others. ``quick``: where a command is
    at work, only what it says of itself is read.
    """
    try:
        store = open_location(endpoint.url, secrets=endpoint.reveal())
        stores = [store, local_store(endpoint.url)]
        reports = read_reports(stores)
        if quick and any(report.alive for report in reports):
            return LocationStatus(store.location, reports)
        transfer = transfer_status(store)
        if transfer:
            return LocationStatus(store.location, reports, transfer)
        if (erasing := _unfinished_erasure(store, case)) is not None:
            return LocationStatus(store.location, reports, erasing=str(erasing), next_step=erasing.next_step)
        followed = follow_status(store, case.sources if case else {}, case.destinations if case else {})
        record = read_record(store)
        if record is not None:
            followed = [replace(status, cutover_seconds=None) for status in followed]
        deltas = list(recorded_deltas(store))
        export, restores = export_status(store), read_restore_records(stores)
        return LocationStatus(
            store.location,
            [report for report in reports if not _is_overtaken(report, export, restores)],
            export=export,
            followed=followed,
            deltas=deltas,
            restores=restores,
            switched=record.switched_at if record else "",
        )
    except MoveoutError as exc:
        if alone and not quick:
            raise
        return LocationStatus(endpoint.shown, error=str(exc))


def _is_overtaken(report: ProgressReport, export: ExportStatus, restores: Sequence[RestoreRecord]) -> bool:
    """Tell whether another run, maybe on another machine, has done since what a dead one had left."""
    if report.alive:
        return False
    if report.state.command in {"export", "transfer"}:
        return export.state == "complete"
    last = (datetime.now(UTC) - timedelta(seconds=report.age_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    up = {record.source for record in restores if record.is_up and record.at > last}
    return report.state.command == "restore" and bool(up) and up.issuperset(report.state.sources)


def _unfinished_erasure(store: Store, case: Case | None) -> BusyError | None:
    """Return the error by which a transfer is refused where an erasure has not ended, by the case's list of signers;
    None where there is none. Raises ``GoneError`` where one has ended.
    """
    if exists(store, layout.TAG_MANIFEST) or not exists(store, layout.CUSTODY_LOG):
        return None
    from migrate.cli.common.signing_keys import load_trust  # noqa: PLC0415  only where a log lies without its bundle
    from migrate.custody import erase  # noqa: PLC0415  as above

    try:
        erase.count_begun(store, load_trust(None, case))
    except BusyError as exc:
        return exc
    if (gone := erase.erased_before(store)) is not None:
        raise gone
    return None


def _watch(session: Session, locations: Sequence[Endpoint], case: Case | None) -> None:
    """Show the status until what is at work has ended. On a terminal it is a view, elsewhere a line now and then."""
    if session.out.is_terminal:
        from migrate.cli.common.rich_terminal import live_view  # noqa: PLC0415  20 ms, and only a terminal shows it

        with live_view(session.out.rich, plain) as show:
            _watch_until_ended(
                session,
                locations,
                case,
                lambda status: show(functools.partial(_draw_watched, status)),
                _WATCH_SECONDS,
            )
    else:
        if not _status(session, locations, case, quick=True).alive:
            session.err.print(_NOTHING_AT_WORK)
        _watch_until_ended(session, locations, case, functools.partial(_print_state, session), LINE_SECONDS)


def _draw_watched(status: Status, console: Any) -> None:
    status.draw(Console(console))
    if not status.alive:
        Console(console).print(_NOTHING_AT_WORK)


def _print_state(session: Session, status: Status) -> None:
    for report in status.alive:
        session.out.print(Text(stamped(state_line(report.state))))


def _watch_until_ended(
    session: Session,
    locations: Sequence[Endpoint],
    case: Case | None,
    show: Callable[[Status], None],
    seconds: float,
) -> None:
    ended_at: float | None = None
    while True:
        status = _status(session, locations, case, quick=True)
        show(status)
        if status.alive:
            ended_at = time.monotonic()
        elif ended_at is not None and time.monotonic() - ended_at > _ENDED_SECONDS:
            return
        session.cancellation.wait(seconds)


def _serve(session: Session, locations: Sequence[Endpoint], case: Case | None, address_text: str) -> None:
    from migrate.cli.progress.status_server import (  # noqa: PLC0415  11 ms, for the HTTP server
        StatusServer,
        is_local,
        parse_address,
    )

    address = parse_address(address_text)

    def answers() -> tuple[bytes, dict[str, Any]]:
        try:
            status = _status(session, locations, case)
        except MoveoutError as exc:
            until = case.deadline if case else None
            status = Status([LocationStatus(locations[0].shown, error=str(exc))], until)
        return page_of(status, case.name if case else ""), status.as_json()

    server = StatusServer(address, answers)
    session.meter.note(f"the status page is at {server.url}; Ctrl-C ends it")
    if not is_local(address[0]):
        session.meter.note("everybody who reaches this address can read it")
    server.serve()
