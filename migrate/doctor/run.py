"""Runs the examinations of all sources, destinations and locations at once, each for a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.doctor import SEVERITIES, Examination, Examine, ExamineRequest, Finding, Fix
from exporters.engine import load_part
from exporters.errors import SourceUnreachableError
from migrate.case.model import Endpoint
from migrate.case.overlaps import names_same
from migrate.case.secrets import hide_url_passwords
from migrate.case.server_url import bare_server
from migrate.discover.servers import ask_servers, shown_names
from migrate.doctor import location
from migrate.doctor.hold_rights import hold_findings
from migrate.errors import (
    OK,
    GoneError,
    IncompleteError,
    MoveoutError,
    NoSpaceError,
    NotAllowedError,
    NotEmptyError,
    UnreachableError,
    UsageError,
)
from migrate.number_text import list_words
from migrate.plan.survey import SourcePlan
from migrate.progress.progress_file import local_store
from migrate.runtime.progress import Progress, Silent
from migrate.storage.api import Store
from migrate.storage.registry import open_location

Kind = Literal["source", "destination", "location", "deadline"]
EXAMINE_SECONDS = 45.0
"""What has not answered by then is called unreachable."""
_AT_ONCE = 32
_CONTENTS = "contents"
"""The check that finds a destination occupied."""
_RESTORED = "An earlier restore of this bundle filled it. The same restore adds only what is missing."
_BLOCKING_ERRORS: Mapping[str, type[MoveoutError]] = {
    "destination": GoneError,
    "address": UsageError,
    _CONTENTS: NotEmptyError,
    "room": NoSpaceError,
}
"""By check, what a destination that takes nothing is reported as. All others are refused rights."""
_CONSEQUENCES: Mapping[str, str] = {
    "source": "Nothing of it leaves.",
    "destination": "Nothing of it comes up.",
    "location": "No bundle can lie there.",
}


class Examined(Struct, frozen=True):
    """One source, destination or location, and what was seen of it. ``name`` is that of the source."""

    kind: Kind
    name: str
    url: str
    examination: Examination

    @property
    def worst(self) -> str:
        """The worst severity of the findings, empty where there are none."""
        severities = {finding.severity for finding in self.examination.findings}
        return next((severity for severity in SEVERITIES if severity in severities), "")


class Examinations(Struct, frozen=True):
    """All of them, in the order of the case."""

    examined: Sequence[Examined]

    @property
    def exit_code(self) -> int:
        """The code of the first thing that cannot be examined at all, or 3 where something will be missing."""
        errors = [entry.examination.error for entry in self.examined if entry.examination.error is not None]
        if errors:
            return errors[0].exit_code
        return (
            IncompleteError.exit_code
            if any(entry.worst in {"blocks", "loses"} for entry in self.examined)
            else OK
        )


class MoveEndpoints(Struct, frozen=True):
    """What is to be examined. ``deadline_is_local``: it was written without a time zone. ``unfilled``: sources that
    come up nowhere yet, by the URL of their server. ``without_sources``: servers of which the case takes nothing.
    ``case_option`` names the case file.
    """

    sources: Mapping[str, Endpoint]
    destinations: Mapping[str, Endpoint]
    locations: Mapping[str, Endpoint]
    workers: int
    deadline: datetime | None = None
    deadline_is_local: bool = False
    unfilled: Mapping[str, Sequence[str]] = field(default_factory=dict)
    without_sources: Sequence[Endpoint] = ()
    case_option: str = ""


def examine_all(
    move: MoveEndpoints, *, seconds: float = EXAMINE_SECONDS, progress: Progress | None = None
) -> Examinations:
    """Examine sources at once; then destinations and locations, which depend on what the sources need."""
    progress = progress or Silent()
    count = sum(map(len, (move.sources, move.without_sources, move.destinations, move.locations)))
    progress.begin("doctor", items=count, size_bytes=0)
    sources = _at_once(
        [
            ("source", name, endpoint, _examine_source(endpoint, move))
            for name, endpoint in move.sources.items()
        ]
        + [
            ("source", bare_server(server.shown), server, _examine_server(server, move.case_option))
            for server in move.without_sources
        ],
        seconds,
        progress,
    )
    needs = {entry.name: entry.examination.needs for entry in sources}
    sizes = [entry.examination.size_bytes for entry in sources if entry.examination.size_bytes is not None]
    total = sum(sizes) if sizes else None
    others = _at_once(
        [
            ("destination", name, endpoint, _examine_destination(name, endpoint, needs.get(name, {}), move))
            for name, endpoint in move.destinations.items()
        ]
        + [
            ("location", name, endpoint, _examine_location(endpoint, total))
            for name, endpoint in move.locations.items()
        ],
        seconds,
        progress,
    )
    progress.end()
    destinations = [_not_the_source(entry, move) for entry in others if entry.kind == "destination"]
    locations = [entry for entry in others if entry.kind == "location"]
    destinations = with_locations(destinations, move.destinations, move.locations.values())
    return Examinations(
        [*sources, *destinations, *_unfilled_destinations(move), *locations, *_examine_deadline(move)]
    )


def blocking_error(entry: Examined, *, create: bool) -> MoveoutError | None:
    """Return why nothing comes up at a destination; None where nothing stands in the way. ``create``: the restore may
    make it.
    """
    examination = entry.examination
    blocking = [finding for finding in examination.findings if finding.severity == "blocks"]
    if examination.error is not None or not blocking:
        return examination.error
    finding = blocking[0]
    error = _BLOCKING_ERRORS.get(finding.check, NotAllowedError)
    step = " ".join(finding.fix.text.split()) if finding.fix else ""
    if error is GoneError and not create:
        step = f"add --create, and moveout makes it as the source was; or make it yourself: {step}"
    return error(f"the destination of {entry.name}: {finding.named_problem}", next_step=step)


def with_locations(
    examined: Sequence[Examined], destinations: Mapping[str, Endpoint], locations: Collection[Endpoint]
) -> list[Examined]:
    """Return examinations of ``destinations`` with what the locations of a bundle say about them: one that overlaps
    with a location is refused, and one that a restore from there filled is not taken for occupied by others.
    """
    apart = [
        _apart_from(entry, destinations[entry.name], locations) if entry.kind == "destination" else entry
        for entry in examined
    ]
    return _with_restored(apart, locations)


def _apart_from(entry: Examined, destination: Endpoint, locations: Iterable[Endpoint]) -> Examined:
    """Return the examination of a destination, with a finding where it overlaps with a location. What is written to
    the location meanwhile is listed at the destination, too, and says nothing.
    """
    if urlsplit(destination.url).scheme != "s3":
        return entry
    from migrate.restore.objects.existing import overlap  # noqa: PLC0415  it imports botocore

    problem = next(filter(None, (overlap(destination, location) for location in locations)), "")
    if not problem:
        return entry
    fix = Fix("advice", "name another bucket, or two prefixes of which none lies in the other")
    consequence = "A restore refuses to mix objects with the files of the bundle."
    refusal = Finding("blocks", "address", entry.url, problem, consequence, fix)
    others = [finding for finding in entry.examination.findings if finding.check != _CONTENTS]
    return replace(entry, examination=replace(entry.examination, findings=[refusal, *others]))


def _with_restored(examined: Sequence[Examined], locations: Iterable[Endpoint]) -> list[Examined]:
    """Return examinations that take no destination for occupied by others that a restore of these locations filled.
    Locations are read only where a destination is occupied.
    """
    if not any(map(_is_occupied, examined)):
        return list(examined)
    from migrate.restore.restore_records import IN_PART, read_restore_records  # noqa: PLC0415  it imports Arrow

    stores: list[Store] = []
    for endpoint in locations:
        with suppress(MoveoutError):  # its own examination says it
            stores += open_location(endpoint.url, secrets=endpoint.reveal()), local_store(endpoint.url)
    records = read_restore_records(stores)
    filled = {
        (record.source, record.destination)
        for record in records
        if record.is_up or (record.result == IN_PART and not record.only)
    }
    return [
        _restored(entry) if _is_occupied(entry) and (entry.name, entry.url) in filled else entry
        for entry in examined
    ]


def _is_occupied(entry: Examined) -> bool:
    findings = entry.examination.findings if entry.kind == "destination" else ()
    return any(finding.check == _CONTENTS for finding in findings)


def _restored(entry: Examined) -> Examined:
    findings = [
        replace(finding, severity="info", consequence=_RESTORED, fix=None)
        if finding.check == _CONTENTS
        else finding
        for finding in entry.examination.findings
    ]
    return replace(entry, examination=replace(entry.examination, findings=findings))


_Job = tuple[Kind, str, Endpoint, Callable[[], Examination]]


def _at_once(jobs: Sequence[_Job], seconds: float, progress: Progress) -> list[Examined]:
    """Run jobs in threads of their own. One that does not end in time is left behind, and called unreachable."""
    results: dict[int, Examination] = {}
    threads, turns, given_up = [], threading.Semaphore(_AT_ONCE), threading.Event()
    for number, (_, _, _, work) in enumerate(jobs):

        def run(number: int = number, work: Callable[[], Examination] = work) -> None:
            with turns:
                results[number] = _guarded(work)
            if not given_up.is_set():
                progress.advance(items=1)

        thread = threading.Thread(target=run, name=f"doctor-{number}", daemon=True)
        thread.start()
        threads.append(thread)
    end = datetime.now(UTC) + timedelta(seconds=seconds * (1 + len(jobs) // _AT_ONCE))
    for thread in threads:
        thread.join(max(0.0, (end - datetime.now(UTC)).total_seconds()))
    given_up.set()
    late = UnreachableError(
        f"no answer within {seconds:.0f} s", next_step="look at the server and the network"
    )
    return [
        Examined(
            kind,
            name,
            endpoint.shown,
            _with_reason(results.get(number, Examination(error=late)), kind, endpoint),
        )
        for number, (kind, name, endpoint, _) in enumerate(jobs)
    ]


def _guarded(work: Callable[[], Examination]) -> Examination:
    """Do the work; an error is a result. A defect of one examination must not hide the others."""
    try:
        return work()
    except MoveoutError as exc:
        return Examination(error=exc)
    except Exception as exc:
        step = "this is a defect of moveout; please report it"
        return Examination(
            error=MoveoutError(hide_url_passwords(f"{type(exc).__name__}: {exc}"), next_step=step)
        )


def _with_reason(examination: Examination, kind: Kind, endpoint: Endpoint) -> Examination:
    """Return an examination that failed as a whole with a finding that says why."""
    error = examination.error
    if error is None or examination.findings:
        return examination
    advice = Fix("advice", error.next_step) if error.next_step else None
    name = endpoint.shown
    if isinstance(error, SourceUnreachableError) and error.is_of_url:
        name = bare_server(name)  # it is true of all databases of the server, and is printed once
    problem = f"{name}: {error.reason}" if error.is_of_url else error.reason
    finding = Finding("blocks", error.code, name, problem, _CONSEQUENCES[kind], advice)
    return replace(examination, findings=[finding])


def _examine_source(endpoint: Endpoint, move: MoveEndpoints) -> Callable[[], Examination]:
    def examine() -> Examination:
        examination = _examine(endpoint, endpoint.engine.doctor, move, {}, follow=endpoint.follow)
        return replace(examination, findings=[*examination.findings, *hold_findings(endpoint)])

    return examine


def _examine_server(server: Endpoint, case_option: str) -> Callable[[], Examination]:
    """Return what lists a server of which the case takes nothing. An empty one is none to speak of."""

    def examine() -> Examination:
        (answer,) = ask_servers([server], Silent(), names_only=True)
        if answer.discovery is None or not answer.discovery.sources:
            return Examination(error=answer.error)
        problem = f"nothing of it is in the case: it holds {shown_names(answer.discovery.sources)}"
        fix = Fix(
            "advice", f"moveout discover {case_option} adds it; [[left_out]] leaves it behind, with a reason"
        )
        return Examination(
            {}, [Finding("info", "source", server.shown, problem, _CONSEQUENCES["source"], fix)]
        )

    return examine


def _examine_destination(
    name: str, endpoint: Endpoint, needs: Mapping[str, Any], move: MoveEndpoints
) -> Callable[[], Examination]:
    return lambda: _examine(
        endpoint,
        endpoint.engine.destination_doctor,
        move,
        needs,
        follow=name in move.sources and move.sources[name].follow,
    )


def _examine(
    endpoint: Endpoint, doctor: str, move: MoveEndpoints, needs: Mapping[str, Any], *, follow: bool
) -> Examination:
    """Let the engine examine an endpoint. Raises ``MoveoutError`` where it cannot be asked at all."""
    if endpoint.error is not None:
        raise endpoint.error
    if not doctor:
        problem = "moveout's engine for it examines nothing"
        return Examination(
            {}, [Finding("info", "engine", endpoint.shown, problem, "Nothing is known about it.")]
        )
    examine = cast("Examine", load_part(doctor))
    return examine(
        ExamineRequest(
            endpoint.url,
            endpoint.reveal(),
            endpoint.selection,
            move.workers,
            move.deadline,
            needs,
            create=endpoint.create,
            follow=follow,
            may_be_empty=endpoint.may_be_empty,
        )
    )


def _examine_location(endpoint: Endpoint, size_bytes: int | None) -> Callable[[], Examination]:
    return lambda: location.examine(endpoint, size_bytes)


def _not_the_source(entry: Examined, move: MoveEndpoints) -> Examined:
    """Return the examination of a destination, with a finding where it is a source itself."""
    url = move.destinations[entry.name].url
    same = next((name for name, source in move.sources.items() if names_same(url, source.url)), None)
    if same is None:
        return entry
    fix = Fix("advice", "write the address of the new server")
    problem = f"it is the source {same} itself"
    finding = Finding("blocks", "address", entry.url, problem, "Nothing comes up anywhere else.", fix)
    return replace(entry, examination=replace(entry.examination, findings=[finding]))


def _unfilled_destinations(move: MoveEndpoints) -> list[Examined]:
    """Return a finding for each server whose sources come up nowhere yet."""
    step = 'write the address of the new server into its [[destination]]: to = "…"'
    examined = []
    for server, names in move.unfilled.items():
        problem = f"the case file does not say where these come up: {', '.join(names)}"
        finding = Finding(
            "loses", "destination", server, problem, "They do not come up.", Fix("advice", step)
        )
        examined.append(Examined("destination", list_words(names, 1), server, Examination({}, [finding])))
    return examined


def _examine_deadline(move: MoveEndpoints) -> list[Examined]:
    deadline = move.deadline
    if deadline is None:
        return []
    findings = []
    here = deadline.astimezone()
    shown = f"{deadline.astimezone(UTC):%Y-%m-%d %H:%M UTC}"
    if deadline <= datetime.now(UTC):
        advice = Fix("advice", "correct the deadline in the case file")
        problem = f"it has passed: {shown}"
        findings.append(
            Finding("info", "deadline", "deadline", problem, "All forecasts say that it is late.", advice)
        )
    if move.deadline_is_local:
        problem = f"it names no time zone, and is taken as this machine's ({here:%Z}): {shown}"
        fix = Fix("advice", f"write deadline = {deadline.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
        consequence = "In another time zone the old host shuts the door hours earlier or later."
        findings.append(Finding("info", "deadline", "deadline", problem, consequence, fix))
    return [
        Examined("deadline", "deadline", shown, Examination({"here": f"{here:%Y-%m-%d %H:%M %Z}"}, findings))
    ]


class DestinationPlan(Struct, frozen=True):
    """A destination that a source is to be restored to. ``warnings`` are sentences: what it will not take, or that it
    does not exist yet.
    """

    source: str
    url: str
    warnings: tuple[str, ...]


def check_destinations(
    sources: Sequence[SourcePlan],
    destinations: Mapping[str, Endpoint],
    examined: Sequence[Examined] | None,
    locations: Collection[Endpoint],
) -> list[DestinationPlan]:
    """Return what the destinations of sources will not take. ``examined``: what was seen of them just before; if None,
    they are examined. ``locations``: those of the bundle, whose restores may have filled them.
    """
    chosen = {source.name: source for source in sources if source.name in destinations}
    if examined is None:
        alone = MoveEndpoints({}, {}, {}, workers=1)
        jobs: list[_Job] = []
        for name, source in chosen.items():
            needs = {"features": source.survey.features}
            examine = _examine_destination(name, destinations[name], needs, alone)
            jobs.append(("destination", name, destinations[name], examine))
        examined = with_locations(_at_once(jobs, EXAMINE_SECONDS, Silent()), destinations, locations)
    return [
        DestinationPlan(entry.name, entry.url, _warnings(entry.examination.findings))
        for entry in examined
        if entry.kind == "destination" and entry.name in chosen
    ]


def _warnings(findings: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(_warning(finding) for finding in findings if finding.severity in {"blocks", "loses"})


def _warning(finding: Finding) -> str:
    problem = finding.named_problem
    fix = f" → {finding.fix.text}" if finding.fix and "\n" not in finding.fix.text else ""
    return f"{problem}{'' if problem.endswith(('.', '?')) else '.'} {finding.consequence}{fix}"
