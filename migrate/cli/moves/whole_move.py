"""The steps of a whole move, each a command of its own. Finished ones are skipped; a failed one stops only what needs
it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from enum import Enum

from msgspec.structs import replace

from migrate.bundle.export_state import OtherSourcesError
from migrate.case.model import Case, Endpoint
from migrate.case.overlaps import left_out_on_purpose
from migrate.cli.common.session import Answer, Session
from migrate.cli.common.signing_keys import SigningOptions
from migrate.cli.common.sources import destinations_in, expanded
from migrate.cli.common.summary_lines import LEFT_OUT, SummaryLine
from migrate.cli.common.terminal import Heading
from migrate.cli.doctor import Diagnosis, DoctorOptions, run_doctor
from migrate.cli.export import run_export
from migrate.cli.moves.followed_move import FollowedMove
from migrate.cli.moves.move_outcome import FOLLOW, MoveState, compared_by_restore, read_seal, summary_of
from migrate.cli.moves.move_summary import (
    EXAMINATION,
    FORECAST,
    CommandStep,
    FailedStep,
    MoveResult,
)
from migrate.cli.plan import PlanOptions, run_plan
from migrate.cli.progress.announcements import StatusPage, announced
from migrate.cli.restore import Restored, RestoreOptions, run_restore
from migrate.cli.summaries.export_summary import Exported
from migrate.cli.summaries.plan_summary import Planned
from migrate.cli.transfer import run_transfer
from migrate.cli.verify import Verified, VerifyOptions, run_verify
from migrate.discover.expand import Destinations
from migrate.doctor.run import blocking_error
from migrate.errors import (
    OK,
    IncompleteError,
    MoveoutError,
    UsageError,
)
from migrate.export.outcome import ExportOptions
from migrate.export.seal_time import SealTime, SealTimeError, seal_time_before
from migrate.plan.cost_model import reference
from migrate.plan.forecast import Forecast, ReferenceClass
from migrate.plan.live_forecast import LiveForecast
from migrate.plan.run_history import add_run, read_history
from migrate.plan.stage_work import STAGES
from migrate.progress.state import COUNTED
from migrate.verify.run import Level

_SHORT_WORDS: Mapping[str, str] = {"unreachable": "not reachable", "not-allowed": "not allowed"}
"""By code, what stands for an error that was explained."""
_SAMPLED_FROM_SECONDS = 300.0
"""Without a deadline nothing is decided by the forecast: a sample that reads much of a small source is not worth it."""


class SealState(Enum):
    """Whether a sealed bundle lies at a location."""

    NOT = "not"
    INCOMPLETE = "incomplete"
    COMPLETE = "complete"


def run_case(
    session: Session,
    case: Case,
    options: RestoreOptions,
    *,
    status_page: StatusPage = None,
    keeps_following: bool = False,
    keeps_bundle: bool = True,
) -> MoveResult:
    """Do the whole move of a case with a bundle. ``keeps_bundle``: it is for keeping, so its values are verified by
    themselves, also where all is up.
    """
    bundle = case.bundle
    assert bundle is not None
    complete = next((p for p in (case.transfer_to, bundle) if p and _sealed(p) is SealState.COMPLETE), None)
    whole_case, destinations = _with_whole_servers(session, case, complete, bundle)
    whole_case, absent = _without_absent(whole_case, complete) if complete else (whole_case, ())
    if options.create:
        made = {name: replace(endpoint, create=True) for name, endpoint in whole_case.destinations.items()}
        whole_case = replace(whole_case, destinations=made)
    followed = FollowedMove(session, bundle, whole_case, keeps_following=keeps_following)
    ahead = followed.with_later_changes()
    switched = ahead if followed.record is not None else set()
    state = MoveState(
        whole_case,
        bundle,
        {name: url for name, url in whole_case.destinations.items() if name not in switched},
        ahead,
        absent={line.source: line for line in absent},
        unfilled=destinations.unfilled,
    )
    move = _Move(session, bundle, options, state, followed, keeps_bundle=keeps_bundle)
    session.meter.open("run", move.step_names())
    return announced(session, case, status_page, move.do_all)


def _refer_to(session: Session, step: str, answer: Answer) -> None:
    """From now on print a short reference for each error of a server that this step has printed in full."""
    for error in _errors_of(answer):
        what = _SHORT_WORDS.get(error.code, "")
        for console in (session.out, session.err) if error.is_of_url and what else ():
            console.errors.refer(error, f"{what} (see {step} above)")


def _errors_of(answer: Answer) -> Iterator[MoveoutError]:
    """Yield the errors for which sources or destinations were left out of a step."""
    if isinstance(answer, Diagnosis):
        yield from (each.examination.error for each in answer.examinations.examined if each.examination.error)
    elif isinstance(answer, Planned):
        yield from (failure.error for failure in answer.unread)
    elif isinstance(answer, Exported):
        yield from (source.error for source in answer.outcome.broken)
    elif isinstance(answer, Restored | Verified):
        yield from (failure.error for failure in answer.failures)
    elif isinstance(answer, FailedStep):
        yield from (answer.error, *(cause for _, cause in answer.error.causes))


def _with_whole_servers(
    session: Session, case: Case, complete: Endpoint | None, bundle: Endpoint
) -> tuple[Case, Destinations]:
    """Return the case with a source for all that its patterns mean, and where they come up. Once all is out, what the
    ``complete`` bundle holds is meant: the servers may be gone by now.
    """
    sources = expanded(session, case.sources, case, complete or bundle, ask=complete is None)
    destinations = destinations_in(case, sources)
    return replace(case, sources=sources, destinations=destinations.endpoints), destinations


def _without_absent(case: Case, complete: Endpoint) -> tuple[Case, Sequence[SummaryLine]]:
    """Return the case without the sources that a complete bundle lacks, and a line for each of these. They came into
    the case after the seal, and a complete bundle takes no more sources. Raises ``UsageError`` where it has none of
    them.
    """
    seal = read_seal(complete)
    present = {*case.sources}
    if seal is not None:
        present = {source.name for source in seal.sources} | {source.name for source in seal.left_out}
    sources = {name: source for name, source in case.sources.items() if name in present}
    if not sources:
        raise UsageError(
            f"the bundle at {complete.shown} is complete, and has no source of this case;"
            f" it has: {', '.join(sorted(present))}",
            next_step="name another [bundle] location in the case file",
        )
    destinations = {name: to for name, to in case.destinations.items() if name in sources}
    lines = [
        _absent_line(case, name, complete) for name, source in case.sources.items() if name not in sources
    ]
    return replace(case, sources=sources, destinations=destinations), lines


def _absent_line(case: Case, name: str, complete: Endpoint) -> SummaryLine:
    """Return the line of a source that the complete bundle lacks: left out where the case says so, else what to do."""
    source, to = case.sources[name], case.destinations.get(name)
    if left_out := left_out_on_purpose(case, source):
        return SummaryLine(name, LEFT_OUT, f"left out: {left_out.reason}")
    own = shlex.quote(_sibling(complete.shown, name))
    commands = [f"moveout export {case.option} {shlex.quote(f'{name}={source.shown}')} --to {own}"]
    if to:
        commands.append(f"moveout restore {case.option} {own} {shlex.quote(f'{name}={to.shown}')} --create")
    lines = [
        "[[left_out]]",
        f"url = {json.dumps(source.shown)}",
        f"reason = {json.dumps(f'in a bundle of its own at {own}')}",
    ]
    words = " ".join(shlex.quote(line) for line in lines)
    commands.append(f"printf '%s\\n' '' {words} >> {shlex.quote(case.file)}")
    return SummaryLine(
        name,
        "no",
        f"not exported: the bundle at {complete.shown} was sealed complete without it",
        f"export it to a location of its own, and note that in the case file: {' && '.join(commands)}",
    )


def _sibling(location: str, name: str) -> str:
    """Return another location next to one; a word for it where that is a whole bucket."""
    path, mark, options = location.partition("?")
    has_folder = "/" in path.rstrip("/").partition("://")[2] or "://" not in path
    return f"{path.rstrip('/')}-{name}{mark}{options}" if has_folder else "LOCATION"


def _sealed(location: Endpoint) -> SealState:
    seal = read_seal(location)
    if seal is None:
        return SealState.NOT
    return SealState.COMPLETE if seal.complete else SealState.INCOMPLETE


class _Move:
    """The steps of one run. A step that fails stops only the steps that need its result."""

    def __init__(
        self,
        session: Session,
        bundle: Endpoint,
        options: RestoreOptions,
        state: MoveState,
        followed: FollowedMove,
        *,
        keeps_bundle: bool,
    ) -> None:
        self._session, self._bundle, self._options = session, bundle, options
        self._state, self._case, self._followed = state, state.case, followed
        self._keeps_bundle = keeps_bundle
        self._signers = SigningOptions().load(self._case)
        self._forecast: LiveForecast | None = None
        self._order: Sequence[str] = ()

    def do_all(self) -> MoveResult:
        """Do all steps, and print each when it ends."""
        session = self._session
        try:
            with closing(self._steps()) as steps:
                for name, work in steps:
                    session.err.print(Heading(name))
                    answer = self._do_step(name, work)
                    if answer is None:
                        session.err.print("done before")
                    elif not session.json:
                        self._as_printed(answer).draw(session.out)
                        _refer_to(session, name, answer)
        finally:
            add_run(self._forecast.records() if self._forecast else [])
        summary = summary_of(self._state, self._followed)
        return MoveResult(self._case.name, tuple(self._state.finished), summary)

    def _as_printed(self, answer: Answer) -> Answer:
        """Return an answer as it is printed: without what other steps or the summary print as well. A sync of one
        database does not print what else its server holds: that does not belong to its case.
        """
        if isinstance(answer, Exported):
            return replace(answer, left_behind=None, followed=(), compared=())
        if isinstance(answer, Planned) and not self._keeps_bundle:
            return replace(answer, left_behind=None)
        return answer

    def step_names(self) -> list[str]:
        """Return the names of all steps that the move may take."""
        transfer = ["transfer"] if self._case.transfer_to else []
        restore = ["restore", "compare"] if self._state.to_restore else []
        follow = [FOLLOW] if self._followed.names else []
        return [EXAMINATION, FORECAST, "export", *transfer, "verify", *restore, *follow]

    def _steps(self) -> Generator[tuple[str, Callable[[], Answer | None]]]:
        """Yield the commands of the move. A complete bundle is not exported again: the source may be gone by now."""
        session, case, destination = self._session, self._case, self._case.transfer_to
        away = destination is not None and _sealed(destination) is SealState.COMPLETE
        here = SealState.COMPLETE if away else _sealed(self._bundle)
        if here is SealState.NOT:
            examined = DoctorOptions(unfilled=self._state.unfilled)
            yield EXAMINATION, lambda: run_doctor(session, case.sources, case, examined, only_findings=True)
            if not self._keeps_bundle:
                self._refuse_blocked_destinations()
            yield FORECAST, lambda: run_plan(session, case.sources, case, self._plan_options())
        seal_time = seal_time_before(case.deadline, case.reserve_seconds)
        yield "export", lambda: None if here is SealState.COMPLETE else self._export(seal_time)
        if self._stopped_early and destination is not None and _sealed(self._bundle) is not SealState.NOT:
            yield "transfer", lambda: self._transfer(destination)
        if self._stopped_early:
            session.progress.note("What was not read in time before the deadline is read now")
            yield "export", lambda: self._export(SealTime())
        if not away and _sealed(self._bundle) is SealState.NOT:
            return
        self._state.up_before = self._state.to_restore.keys() & self._followed.restored_before(
            by_marks=not self._keeps_bundle
        )
        is_read = self._keeps_bundle or self._state.up_before != self._state.to_restore.keys()
        with self._followed.captured() if is_read else nullcontext():
            yield from self._after_export(destination, away=away, is_read=is_read)
        if self._followed.record is not None:
            yield FOLLOW, lambda: None
        elif names := [name for name in self._followed.names if name in self._state.restored]:
            yield FOLLOW, lambda: self._followed.follow(names)

    def _refuse_blocked_destinations(self) -> None:
        """Raise the error of a destination that cannot be restored to. Nobody keeps the bundle, so there is no reason
        to export without it.
        """
        answer = self._state.last_answer
        examined = answer.examinations.examined if isinstance(answer, Diagnosis) else ()
        for entry in examined:
            destination = self._case.destinations.get(entry.name) if entry.kind == "destination" else None
            if destination and (error := blocking_error(entry, create=destination.create)) is not None:
                raise error

    def _after_export(
        self, destination: Endpoint | None, *, away: bool, is_read: bool
    ) -> Generator[tuple[str, Callable[[], Answer | None]]]:
        """Yield the commands from the transfer to the comparison. ``is_read``: somebody still needs the bundle."""
        session, case, options, state = self._session, self._case, self._options, self._state
        if destination is not None:
            yield "transfer", lambda: None if away else self._transfer(destination)
            if away or state.finished[-1].exit_code in {OK, IncompleteError.exit_code}:
                state.bundle, state.is_sent = destination, True
            else:
                state.add_copy_problem(f"The bundle could not be sent to {destination.shown}")
        yield "verify", lambda: self._verify() if is_read else None
        copy_fails = state.is_sent and isinstance(state.last_answer, FailedStep)
        if copy_fails and _sealed(self._bundle) is not SealState.NOT:
            state.add_copy_problem(f"The bundle at {state.bundle.shown} could not be read")
            session.progress.note(f"The bundle at {self._bundle.shown} is used instead")
            state.bundle = self._bundle
            yield "verify", self._verify
        last = state.bundle
        if not state.to_restore:
            return
        before = {name: url for name, url in state.to_restore.items() if name in state.up_before}
        missing = {name: url for name, url in state.to_restore.items() if name not in before}
        yield (
            "restore",
            lambda: (
                run_restore(session, last, missing, case, options, signers=self._signers) if missing else None
            ),
        )
        state.restored = before | _without_failed(missing, state.last_answer)
        # A follow may be at work elsewhere, so what has changed is asked again.
        state.ahead |= before.keys() | self._followed.with_later_changes()
        equal = compared_by_restore(state)
        compared = {
            name: url for name, url in state.restored.items() if name not in state.ahead | equal.keys()
        }
        if compared:
            yield (
                "compare",
                lambda: run_verify(
                    session, last, Level.QUICK, compared, case, VerifyOptions(keys=self._signers)
                ),
            )

    def _plan_options(self) -> PlanOptions:
        """Return the options of the plan. It takes over what the examination has found out about the destinations."""
        answer = self._state.last_answer
        examined = answer.examinations.examined if isinstance(answer, Diagnosis) else None
        deadline = self._case.deadline
        return PlanOptions(
            deadline,
            examined=examined,
            sampled_from_seconds=0.0 if deadline else _SAMPLED_FROM_SECONDS,
        )

    def _verify(self) -> Answer:
        return run_verify(
            self._session,
            self._state.bundle,
            Level.FULL,
            {},
            self._case,
            VerifyOptions(keys=self._signers, values=self._keeps_bundle),
        )

    def _do_step(self, name: str, work: Callable[[], Answer | None]) -> Answer | None:
        """Do one step, and return its answer. Raises ``UsageError`` of the steps before and during the export: then the
        request is wrong. An error of a later step is its answer.
        """
        self._session.meter.enter_stage(name)
        stage = next((stage for stage in STAGES if stage == name), None)
        if self._forecast is not None and stage is not None:
            self._forecast.enter(stage)
        try:
            answer = work()
        except MoveoutError as exc:
            if isinstance(exc, UsageError) and name in {EXAMINATION, FORECAST, "export"}:
                raise
            answer = FailedStep(exc)
        self._session.meter.close()
        if self._forecast is not None:
            self._forecast.leave(whole=answer is not None and answer.exit_code == OK)
        if isinstance(answer, Planned):
            self._follow_plan(answer)
        self._state.finished.append(CommandStep(name, answer))
        return answer

    def _follow_plan(self, plan: Planned) -> None:
        """Export in the plan's order from now on, and renew its forecast by what the steps take."""
        self._order = plan.order.names if plan.order else ()
        self._forecast = LiveForecast(
            self._session.progress,
            plan.works,
            ReferenceClass.of(reference(), read_history()),
            deadline=self._case.deadline,
            not_counted=plan.forecast.not_counted,
            on_renewed=self._show_forecast,
        )
        sizes = {source.name: (source.items, source.size_bytes) for source in plan.sources}
        self._session.meter.size_sources(sizes)
        self._session.meter.weigh_stages(_stage_seconds(plan.forecast))
        self._session.progress = self._forecast

    def _show_forecast(self, forecast: Forecast) -> None:
        """Show by when all has left, or once it has, by when all is up."""
        what, interval = ("left", forecast.leaves) if forecast.leaves.p90 > 0 else ("up", forecast.ends)
        what = f"{COUNTED}{what}" if forecast.not_counted else what
        self._session.meter.forecast(what, forecast.moment(interval.p50), forecast.moment(interval.p90))

    @property
    def _stopped_early(self) -> bool:
        """Whether the last step is an export that was stopped for the reserve, or its transfer."""
        exports = [step.answer for step in self._state.finished if step.name == "export"]
        answer = exports[-1] if exports else None
        if isinstance(answer, FailedStep):
            return isinstance(answer.error, SealTimeError)
        return isinstance(answer, Exported) and answer.outcome.stopped_early

    def _export(self, seal_time: SealTime) -> Answer:
        """Export in the plan's order. The first export uses the lists of the servers that the plan has just asked for;
        a later one asks again.
        """
        ordered = [name for name in self._order if name in self._case.sources]
        names = [*ordered, *(name for name in self._case.sources if name not in ordered)]
        try:
            answer = run_export(
                self._session,
                {name: self._case.sources[name] for name in names},
                self._bundle,
                self._case,
                ExportOptions(seal_time=seal_time),
                signers=self._signers,
                scheduler=self._options.scheduler,
            )
        except OtherSourcesError as exc:  # it was no export that was typed
            exc.name_command(f"moveout export {self._case.option}")
            raise
        self._session.listed.clear()
        self._state.left_at = datetime.now(UTC)
        return answer

    def _transfer(self, destination: Endpoint) -> Answer:
        answer = run_transfer(
            self._session,
            self._bundle,
            destination,
            self._case,
            recheck=False,
            signers=self._signers,
            scheduler=self._options.scheduler,
        )
        self._state.left_at = datetime.now(UTC)
        return answer


def _stage_seconds(forecast: Forecast) -> dict[str, float]:
    """Return how long each stage takes by the forecast: no time where it has nothing to do."""
    seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    for stage in forecast.stages:
        seconds[stage.stage] += stage.seconds.p50
    return seconds


def _without_failed(destinations: Mapping[str, Endpoint], restored: Answer | None) -> dict[str, Endpoint]:
    """Return the destinations whose restore came to its end: the others are known to lack something."""
    if not isinstance(restored, Restored):
        return {}
    failed = {failure.source for failure in restored.failures}
    return {name: endpoint for name, endpoint in destinations.items() if name not in failed}
