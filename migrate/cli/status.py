"""``moveout status``: how far things are, by the locations alone."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.bundle import layout
from migrate.case.model import Case, Endpoint
from migrate.case.overlaps import left_out_on_purpose
from migrate.case.server_url import is_pattern
from migrate.changes.delta_record import DeltaRecord, recorded_deltas
from migrate.cli import app
from migrate.cli.common.options import CaseFileHere, case_here, one_location
from migrate.cli.common.session import BEGIN_ANEW, Session
from migrate.cli.common.sources import load_case
from migrate.cli.common.summary_lines import draw_gaps, left_out_line
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.cli.progress.destination_status import (
    DestinationStatus,
    destination_statuses,
    draw_destinations,
    headline,
)
from migrate.cli.progress.progress_view import (
    LEAST_COLUMNS,
    LINE_SECONDS,
    draw_state,
    stamped,
    state_line,
)
from migrate.cli.progress.status_page_file import shown_state
from migrate.errors import OK, BusyError, IncompleteError, MoveoutError, UsageError
from migrate.export.status import ExportStatus, SourceStatus, export_status
from migrate.follow.cutover_record import read_record
from migrate.follow.status import FollowStatus, WaitingChanges, follow_status
from migrate.number_text import (
    bytes_words,
    duration_words,
    local_moment_words,
    moment_words,
    things,
)
from migrate.progress.progress_file import ProgressReport, local_store, read_reports
from migrate.report.status_page import ShownRun, capital, status_page
from migrate.restore.restore_records import RestoreRecord, newest, read_restore_records
from migrate.storage.api import Store, exists
from migrate.storage.registry import open_location
from migrate.transfer.destination import TransferStatus, transfer_status

_SHOWN_REASONS, _PAGE_GAPS = 10, 100
_WATCH_SECONDS = 2.0
_ENDED_SECONDS = 15.0
"""How long nothing is at work when a watch ends: between two stages of a run nothing is for a moment."""
_ADD_MISSING = "once the reasons are gone, run the same export again: it adds what is missing"
_STATES = {
    "empty": "nothing is there yet; moveout export or moveout transfer brings a bundle, if the URL is right",
    "exporting": "an export is running",
    "stopped": "an export was stopped; run the same export again to go on: what is done stays done",
    "incomplete": "a sealed bundle, INCOMPLETE: see the gaps",
    "complete": "a sealed bundle, complete",
}


class LocationStatus(Struct, frozen=True):
    """A location and what is going on there: a transfer to it, or an export; or why nobody can say. ``reports``:
    what commands at work there say of themselves. ``followed``: how far the changes of its sources are;
    ``deltas``: how far delta passes are. ``restores``: what the restores of its bundle came to. ``switched``: when the
    switch was made, "" where it was not. ``erasing``: that an erasure was begun which has not ended, and ``next_step``
    what finishes it.
    """

    location: str
    reports: Sequence[ProgressReport] = ()
    transfer: TransferStatus | None = None
    export: ExportStatus | None = None
    error: str = ""
    followed: Sequence[FollowStatus] = ()
    deltas: Sequence[DeltaRecord] = ()
    restores: Sequence[RestoreRecord] = ()
    switched: str = ""
    erasing: str = ""
    next_step: str = ""


class Status(Struct, frozen=True):
    """The state of all locations that were asked for, the case's deadline, and what is up on the new host. ``absent``:
    sources of the case that its sealed bundle lacks; ``unlisted``: servers of the case of which nothing is in its
    sealed bundle, because nobody could list them.
    """

    locations: Sequence[LocationStatus]
    deadline: datetime | None = None
    destinations: Sequence[DestinationStatus] = ()
    absent: Sequence[str] = ()
    case_option: str = ""
    unlisted: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """Return 3 where a bundle is sealed as incomplete, a restore left something out or failed, changes of a
        source are lost, or not written, or a source of the case, or all of a server of it, is in no bundle.
        """
        incomplete = any(
            (location.export is not None and location.export.state == "incomplete")
            or any(followed.lost for followed in location.followed)
            or any(record.unequal for record in location.deltas)
            for location in self.locations
        )
        refused = any(destination.is_refused for destination in self.destinations)
        return IncompleteError.exit_code if incomplete or refused or self.absent or self.unlisted else OK

    @property
    def sources(self) -> Sequence[str]:
        """The sources that the bundles have."""
        exports = [location.export for location in self.locations if location.export]
        return list(dict.fromkeys(source.name for export in exports for source in export.sources))

    @property
    def alive(self) -> Sequence[ProgressReport]:
        """What commands say that are at work."""
        return [report for location in self.locations for report in location.reports if report.alive]

    def as_json(self) -> dict[str, Any]:
        """Return everything that is known."""
        until = self.deadline.isoformat() if self.deadline else None
        locations = [
            {name: value for name, value in as_dict(location).items() if name != "restores"}
            | {"reports": [report.as_json() for report in location.reports]}
            | {
                "deltas": [
                    as_dict(replace(record, defined=None)) | {"states": len(record.states)}
                    for record in location.deltas
                ]
            }
            for location in self.locations
        ]
        destinations = [destination.as_json() for destination in self.destinations]
        return {
            "deadline": until,
            "locations": locations,
            "destinations": destinations,
            "absent": list(self.absent),
            "unlisted": list(self.unlisted),
        }

    def draw(self, console: Console) -> None:
        """Print the time that is left, a paragraph per location, and what is up."""
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
                _draw_export(console, location, self.case_option)
            if location.erasing:
                console.print(f"  {location.erasing}")
                console.print(f"  → {location.next_step}")
            _draw_changes(console, location, self.case_option)
        if self.absent:
            console.print(Text(f"  ! {_absent_words(self)}", style="yellow"))
        for server in self.unlisted:
            console.print(Text(f"  ! {_unlisted_words(server, self.case_option)}", style="yellow"))
        draw_destinations(console, self.destinations, self.sources, by_case=bool(self.case_option))


def _absent_words(status: Status) -> str:
    names = ", ".join(status.absent)
    run = f"moveout run {status.case_option}"
    states = {location.export.state for location in status.locations if location.export}
    if "complete" in states:
        return (
            f"in the case, and not in this bundle: {names}. It was sealed complete before;"
            f" {run} says how they leave"
        )
    return f"in the case, and not in this bundle yet: {names}; {run} adds them"


def _unlisted_words(server: str, case_option: str) -> str:
    return (
        f"NOTHING of {plain(server)} is out: what it holds could not be listed when the bundle was sealed;"
        f" moveout discover {case_option} asks it again"
    )


def _moment(text: str) -> str:
    """Return a moment of a record as it is printed: the text itself, where that is none."""
    try:
        return moment_words(datetime.fromisoformat(text))
    except ValueError:
        return text


def _switched_words(switched: str, case_option: str) -> str:
    at = _moment(switched)
    undo = " ".join(filter(None, ("moveout cutover", case_option, "--undo")))
    return f"the switch was made at {at}; {undo} goes back to the old databases"


def _delta_words(record: DeltaRecord) -> str:
    """Return how far delta passes of a source are, in one line."""
    if not record.passes:
        return f"{record.source} waits for moveout follow: no delta pass is done yet"
    at = _moment(record.at)
    return (
        f"{record.source} is kept up by delta passes: pass {record.passes} at {at} wrote"
        f" {things(record.rows, 'row')} in {duration_words(record.seconds)}, having compared"
        f" {things(record.tables_read, 'table')}"
    )


def _draw_changes(console: Console, location: LocationStatus, case_option: str) -> None:
    """Print how far changes after the snapshots are."""
    if location.switched:
        console.print(Text(f"  {_switched_words(location.switched, case_option)}"))
    for followed in location.followed:
        _draw_followed(console, followed, "" if location.switched else _follow_step(followed, case_option))
    for record in location.deltas:
        console.print(Text(f"  {_delta_words(record)}"))
        for table in record.unequal:
            console.print(Text(f"    ! {table}", style="yellow"))


def _draw_followed(console: Console, followed: FollowStatus, step: str) -> None:
    console.print(Text(f"  {_followed_words(followed)}"))
    if followed.problem:
        console.print(Text(f"    ! {followed.problem}", style="yellow"))
    if step:
        console.print(f"    → {step}")


def _follow_step(followed: FollowStatus, case_option: str) -> str:
    """Return what to type where nobody captures the changes of a source, "" where somebody does, or they are lost."""
    if followed.lost or followed.is_read:
        return ""
    if not case_option:
        return "moveout status -c CASE asks its server how far behind that is; moveout follow -c CASE goes on"
    return f"moveout follow {case_option} goes on"


def _followed_words(followed: FollowStatus) -> str:
    """Return how far the changes of a source are, in one line."""
    segments = things(followed.segments, "segment")
    words = [
        f"{followed.source} is followed from {followed.base}",
        f"captured up to {followed.captured}, {segments}, {bytes_words(followed.size_bytes)}",
    ]
    if followed.lag_bytes is not None:
        age = f", for {duration_words(followed.lag_seconds)}" if followed.lag_seconds else ""
        behind = f"{bytes_words(followed.lag_bytes)} of the log are not captured{age}"
        words.append(behind if followed.lag_bytes else "all of the log is captured")
    if followed.retained_bytes is not None:
        reading = "it is being captured" if followed.is_read else "moveout follow is NOT running"
        words.append(f"{reading}, the server keeps {bytes_words(followed.retained_bytes)} of its log")
    words += [followed.detour] if followed.detour else []
    if followed.applied:
        words += [f"applied up to {followed.applied}", _waiting_words(followed.waiting)]
        if followed.waiting and followed.is_read is False:
            words.append("moveout follow applies it, or says why it stopped")
        words += _cutover_words(followed.cutover_seconds)
    if followed.skipped:
        words.append(f"not followed, since the restore left them out: {', '.join(followed.skipped)}")
    if followed.undefined:
        words.append(f"NOT at the destination: {', '.join(followed.undefined)}")
    return "; ".join(words)


def _cutover_words(seconds: float | None) -> list[str]:
    if seconds is None:
        return []
    when = f"in about {duration_words(seconds)}, at the speed of now" if seconds else "now"
    return [f"moveout cutover can begin {when}"]


def _waiting_words(waiting: WaitingChanges | None) -> str:
    if waiting is None:
        return "all that is captured is applied"
    changes = f"about {things(waiting.changes, 'change')}"
    if not waiting.is_counted:
        changes = f"more than {things(waiting.changes, 'change')}"
    age = "" if waiting.lag_seconds is None else f", for {duration_words(waiting.lag_seconds)}"
    return f"{changes}, {bytes_words(waiting.lag_bytes)} of the log, wait to be applied{age}"


def _draw_deadline(console: Console, until: datetime) -> None:
    style = "bold red" if until <= datetime.now(UTC) else ""
    console.print(Text.assemble(f"deadline {local_moment_words(until)}: ", (_time_left(until), style)))


def _time_left(until: datetime) -> str:
    left = (until - datetime.now(UTC)).total_seconds()
    return f"{duration_words(left)} left" if left > 0 else f"{duration_words(-left)} over"


def _who(report: ProgressReport) -> str:
    return f"{report.state.command} on {report.process.host}, process {report.process.pid}"


def _draw_report(console: Console, report: ProgressReport) -> None:
    """Print what a command says of itself, and whether it still lives."""
    state, age = report.state, duration_words(report.age_seconds)
    name = _who(report)
    if report.alive:
        console.print(f"  {name}, is at work; last sign of life {age} ago")
        for line in draw_state(replace(state, deadline=""), max(LEAST_COLUMNS, console.width) - 4):
            console.print(Text.assemble("    ", line))
        return
    share = "" if state.fraction is None else f" at {state.fraction:.0%}"
    if state.ended:
        console.print(Text(f"  {name}, ended {age} ago{share}: {state.ended}"))
    else:
        console.print(f"  {name}, died{share}: last sign of life {age} ago")
    kept = state.command not in BEGIN_ANEW
    step = (
        "what is done stays done; run the same command again to go on"
        if kept
        else f"run {state.command} again"
    )
    console.print(f"  → {step}")


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
        f"  {share}: {things(transfer_status.files_done, 'file')}, {bytes_words(transfer_status.bytes_done)} done;"
        f" {things(transfer_status.files_left, 'file')}, {bytes_words(transfer_status.bytes_left)} left",
    )
    console.print(f"  {state}")


def _state_words(export_status: ExportStatus, case_option: str) -> str:
    words = _STATES[export_status.state]
    if export_status.state == "empty" and case_option:
        return f"{words.partition(';')[0]}; moveout run {case_option} brings a bundle"
    return words


def _draw_export(console: Console, location: LocationStatus, case_option: str) -> None:
    export_status, with_holder = location.export, not location.reports
    assert export_status is not None
    words = _state_words(export_status, case_option)
    if export_status.state == "stopped" and not with_holder:  # the report of its command says the rest
        words = words.partition(";")[0]
    console.print(f"  {words}" + (f" ({export_status.bundle_id})" if export_status.bundle_id else ""))
    if with_holder and export_status.holder and export_status.state == "exporting":
        age = (
            f", last sign of life {duration_words(export_status.heartbeat_seconds)} ago"
            if export_status.heartbeat_seconds
            else ""
        )
        console.print(f"  {export_status.holder}{age}")
    for source in export_status.sources:
        _draw_source(console, source)
    for name in export_status.left_out:
        console.print(Text(f"  {name}  {left_out_line(name).happened}"))
    if export_status.state == "incomplete":
        console.print(f"  → {_ADD_MISSING}")


def _lacking_first(sources: Sequence[SourceStatus]) -> Sequence[SourceStatus]:
    """Return sources in their order, those first of which something is missing: a page with many is long."""
    return sorted(sources, key=lambda source: not (source.gaps_total or source.reasons))


def _source_words(source: SourceStatus) -> str:
    about = "" if source.exact else "~"
    done = source.done
    words = f"{source.name}  {about}{things(done.items, 'item')}, {about}{bytes_words(done.size_bytes)}"
    if source.gaps_total:
        words += f", {things(source.gaps_total, 'gap')}"
    if source.finished:
        return words
    words += " committed"
    if source.planned:
        qualifier = "" if source.whole else "at least "
        items = f"{things(source.planned.items, 'item')}, " if source.planned.items else ""
        words += f" of {qualifier}{items}{bytes_words(source.planned.size_bytes)}"
    return words


def _draw_source(console: Console, source: SourceStatus) -> None:
    words = _source_words(source).removeprefix(source.name)
    console.print(Text.assemble("  ", (source.name, "bold"), words))
    for reason in source.reasons[:_SHOWN_REASONS]:
        console.print(Text(f"    ! {reason}", style="yellow"))
    draw_gaps(console, source.gaps, source.gaps_total, 4)


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
                lambda status: show(lambda console: status.draw(Console(console))),
                _WATCH_SECONDS,
            )
    else:
        _watch_until_ended(session, locations, case, functools.partial(_print_state, session), LINE_SECONDS)


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


def page_of(status: Status, case: str) -> bytes:
    """Return the status as a page."""
    runs = [run for location in status.locations for run in _shown(location, status.case_option)]
    if status.absent:
        words = _absent_words(status)
        runs.append(ShownRun("", capital(words), good=False))
    runs += [
        ShownRun("", _unlisted_words(server, status.case_option), good=False) for server in status.unlisted
    ]
    if any(destination.record for destination in status.destinations):
        runs.append(_shown_destinations(status))
    until = status.deadline
    deadline = f"Deadline {moment_words(until)}: {_time_left(until)}." if until else ""
    return status_page(f"{case}: status" if case else "moveout status", runs, deadline=deadline)


def _shown_destinations(status: Status) -> ShownRun:
    destinations = status.destinations
    words = headline(destinations, status.sources, by_case=bool(status.case_option))
    return ShownRun(
        "",
        capital(words),
        good=all(destination.is_up for destination in destinations),
        sources=[f"{destination.source}: {destination.words()[0]}" for destination in destinations],
    )


def _shown(location: LocationStatus, case_option: str) -> Iterator[ShownRun]:
    title = location.location
    for report in location.reports:
        detail = f"{_who(report)}; last sign of life {duration_words(report.age_seconds)} ago"
        if report.state.ended:
            detail += f"; ended: {report.state.ended}"
        yield shown_state(report.state, alive=report.alive, title=title, detail=detail)
        title = ""
    if location.error:
        yield ShownRun(title, "Not known", good=False, detail=location.error)
    if location.transfer:
        left = bytes_words(location.transfer.bytes_left)
        yield ShownRun(title, f"A transfer is under way, {left} left", good=True)
    if location.export:
        export = location.export
        gaps = [(source.name, gap.item, gap.reason) for source in export.sources for gap in source.gaps]
        headline = _state_words(export, case_option)
        yield ShownRun(
            title,
            capital(headline),
            good=export.state not in {"stopped", "incomplete"},
            detail=_ADD_MISSING if export.state == "incomplete" else "",
            sources=[
                *(_source_words(source).replace("  ", ": ", 1) for source in _lacking_first(export.sources)),
                *(f"{source.name}: {reason}" for source in export.sources for reason in source.reasons),
                *(f"{name}: {left_out_line(name).happened}" for name in export.left_out),
            ],
            gaps=gaps[:_PAGE_GAPS],
        )
    if location.switched:
        yield ShownRun("", capital(_switched_words(location.switched, case_option)), good=True)
    for followed in location.followed:
        yield ShownRun("", _followed_words(followed), good=not followed.lost, detail=followed.problem)
    if location.deltas:
        lines = [
            (_delta_words(record), *(f"{record.source}: {table}" for table in record.unequal))
            for record in location.deltas
        ]
        headline = f"{things(len(location.deltas), 'source')} kept up by delta passes"
        good = not any(record.unequal for record in location.deltas)
        yield ShownRun("", headline, good=good, sources=[*chain.from_iterable(lines)])
