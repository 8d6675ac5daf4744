"""What ``moveout status`` shows: on a terminal, as JSON, and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from exporters.structs import as_dict
from migrate.changes.delta_record import DeltaRecord
from migrate.cli.common.session import BEGIN_ANEW
from migrate.cli.common.summary_lines import draw_gaps, left_out_line
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.progress.destination_status import DestinationStatus, draw_destinations, headline
from migrate.cli.progress.progress_view import LEAST_COLUMNS, draw_state
from migrate.cli.progress.status_page_file import shown_state
from migrate.errors import OK, IncompleteError
from migrate.export.status import ExportStatus, SourceStatus
from migrate.follow.status import FollowStatus, WaitingChanges
from migrate.number_text import bytes_words, duration_words, local_moment_words, moment_words, things
from migrate.progress.progress_file import ProgressReport
from migrate.report.status_page import ShownRun, capital, status_page
from migrate.restore.restore_records import RestoreRecord
from migrate.transfer.destination import TransferStatus

_SHOWN_REASONS, _PAGE_GAPS = 10, 100
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
