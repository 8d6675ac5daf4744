"""The steps of a whole move, each a command of its own. Finished ones are skipped; a failed one stops only what needs
it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from datetime import UTC, datetime
from enum import Enum

from msgspec.structs import replace

from migrate.bundle import bundle_json, layout
from migrate.bundle.bundle_json import BundleInfo
from migrate.bundle.export_state import OtherSourcesError
from migrate.bundle.findings import Finding, only_extra
from migrate.case.model import Case, Endpoint
from migrate.case.overlaps import left_out_on_purpose
from migrate.cli.common.findings import EXTRA_STEP
from migrate.cli.common.session import Answer, Session
from migrate.cli.common.signing_keys import SigningOptions
from migrate.cli.common.sources import destinations_in, expanded
from migrate.cli.common.summary_lines import LEFT_OUT, SummaryLine, left_out_line
from migrate.cli.common.terminal import Heading
from migrate.cli.doctor import Diagnosis, DoctorOptions, run_doctor
from migrate.cli.export import Exported, run_export
from migrate.cli.follow import Followed
from migrate.cli.moves.followed_move import FollowedMove
from migrate.cli.moves.move_summary import (
    COLUMNS,
    EXAMINATION,
    FORECAST,
    CommandStep,
    FailedStep,
    MoveResult,
    MoveSummary,
)
from migrate.cli.plan import Planned, PlanOptions, run_plan
from migrate.cli.progress.announcements import StatusPage, announced
from migrate.cli.restore import Restored, RestoreOptions, run_restore
from migrate.cli.transfer import run_transfer
from migrate.cli.verify import REPAIR_STEP, Verified, VerifyOptions, run_verify
from migrate.discover.expand import Destinations
from migrate.discover.left_behind import unlisted_servers
from migrate.doctor.run import blocking_error
from migrate.engines import registry
from migrate.errors import (
    OK,
    DamageError,
    GoneError,
    IncompleteError,
    MoveoutError,
    NotAllowedError,
    UnreachableError,
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
from migrate.storage.registry import open_location
from migrate.verify.run import Level

_FOLLOW = "follow"
_EXTRA_FILES = "extra files"
"""What stands for a verification that has no other findings: nothing of the source is changed or missing."""
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
    move = _Move(
        session,
        whole_case,
        destinations,
        bundle,
        absent,
        options=options,
        followed=followed,
        keeps_bundle=keeps_bundle,
    )
    session.meter.open("run", move.stages())
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
    seal = _seal(complete)
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


def _seal(location: Endpoint) -> BundleInfo | None:
    """Return the sealed bundle at a location. None also where the location fails or is damaged: the step that needs it
    reports that.
    """
    try:
        return bundle_json.read_sealed(open_location(location.url, secrets=location.reveal()))
    except (UnreachableError, NotAllowedError, GoneError, DamageError):
        return None


def _sealed(location: Endpoint) -> SealState:
    seal = _seal(location)
    if seal is None:
        return SealState.NOT
    return SealState.COMPLETE if seal.complete else SealState.INCOMPLETE


class _Move:
    """The steps of one run. A step that fails stops only the steps that need its result."""

    def __init__(
        self,
        session: Session,
        case: Case,
        destinations: Destinations,
        bundle: Endpoint,
        absent: Sequence[SummaryLine],
        *,
        options: RestoreOptions,
        followed: FollowedMove,
        keeps_bundle: bool,
    ) -> None:
        self._session, self._case, self._bundle, self._options = session, case, bundle, options
        self._absent = {line.source: line for line in absent}
        self._followed = followed
        self._keeps_bundle = keeps_bundle
        self._ahead = followed.with_later_changes()
        switched = self._ahead if followed.record is not None else set()
        self._to_restore = {name: url for name, url in case.destinations.items() if name not in switched}
        self._restored: Mapping[str, Endpoint] = {}
        self._up_before: set[str] = set()
        """What an earlier run has restored, and what is not compared with the bundle any more."""
        self._unfilled = destinations.unfilled
        self._signers = SigningOptions().load(case)
        self._last = bundle
        self._is_sent = False
        self._copy_problem = ""
        """That the bundle is not where it is transferred to, or cannot be read there."""
        self._copy_error: MoveoutError | None = None
        self._left_at: datetime | None = None
        """When this run has sent the last byte; None where it sent nothing."""
        self._forecast: LiveForecast | None = None
        self._order: Sequence[str] = ()
        self._finished: list[CommandStep] = []

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
        return MoveResult(self._case.name, tuple(self._finished), self._summary())

    def _as_printed(self, answer: Answer) -> Answer:
        """Return an answer as it is printed: without what other steps or the summary print as well. A sync of one
        database does not print what else its server holds: that does not belong to its case.
        """
        if isinstance(answer, Exported):
            return replace(answer, left_behind=None, followed=(), compared=())
        if isinstance(answer, Planned) and not self._keeps_bundle:
            return replace(answer, left_behind=None)
        return answer

    def stages(self) -> list[str]:
        """Return the names of all steps that the move may take."""
        transfer = ["transfer"] if self._case.transfer_to else []
        restore = ["restore", "compare"] if self._to_restore else []
        follow = [_FOLLOW] if self._followed.names else []
        return [EXAMINATION, FORECAST, "export", *transfer, "verify", *restore, *follow]

    def _steps(self) -> Generator[tuple[str, Callable[[], Answer | None]]]:
        """Yield the commands of the move. A complete bundle is not exported again: the source may be gone by now."""
        session, case, destination = self._session, self._case, self._case.transfer_to
        away = destination is not None and _sealed(destination) is SealState.COMPLETE
        here = SealState.COMPLETE if away else _sealed(self._bundle)
        if here is SealState.NOT:
            examined = DoctorOptions(unfilled=self._unfilled)
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
        self._up_before = self._to_restore.keys() & self._followed.restored_before(
            by_marks=not self._keeps_bundle
        )
        is_read = self._keeps_bundle or self._up_before != self._to_restore.keys()
        with self._followed.captured() if is_read else nullcontext():
            yield from self._after_export(destination, away=away, is_read=is_read)
        if self._followed.record is not None:
            yield _FOLLOW, lambda: None
        elif names := [name for name in self._followed.names if name in self._restored]:
            yield _FOLLOW, lambda: self._followed.follow(names)

    def _refuse_blocked_destinations(self) -> None:
        """Raise the error of a destination that cannot be restored to. Nobody keeps the bundle, so there is no reason
        to export without it.
        """
        answer = self._finished[-1].answer
        examined = answer.examinations.examined if isinstance(answer, Diagnosis) else ()
        for entry in examined:
            destination = self._case.destinations.get(entry.name) if entry.kind == "destination" else None
            if destination and (error := blocking_error(entry, create=destination.create)) is not None:
                raise error

    def _after_export(
        self, destination: Endpoint | None, *, away: bool, is_read: bool
    ) -> Generator[tuple[str, Callable[[], Answer | None]]]:
        """Yield the commands from the transfer to the comparison. ``is_read``: somebody still needs the bundle."""
        session, case, options = self._session, self._case, self._options
        if destination is not None:
            yield "transfer", lambda: None if away else self._transfer(destination)
            if away or self._finished[-1].exit_code in {OK, IncompleteError.exit_code}:
                self._last, self._is_sent = destination, True
            else:
                self._set_copy_problem(f"The bundle could not be sent to {destination.shown}")
        yield "verify", lambda: self._verify() if is_read else None
        copy_fails = self._is_sent and isinstance(self._finished[-1].answer, FailedStep)
        if copy_fails and _sealed(self._bundle) is not SealState.NOT:
            self._set_copy_problem(f"The bundle at {self._last.shown} could not be read")
            session.progress.note(f"The bundle at {self._bundle.shown} is used instead")
            self._last = self._bundle
            yield "verify", self._verify
        last = self._last
        if not self._to_restore:
            return
        before = {name: url for name, url in self._to_restore.items() if name in self._up_before}
        missing = {name: url for name, url in self._to_restore.items() if name not in before}
        yield (
            "restore",
            lambda: (
                run_restore(session, last, missing, case, options, signers=self._signers) if missing else None
            ),
        )
        self._restored = before | _without_failed(missing, self._finished[-1].answer)
        # A follow may be at work elsewhere, so what has changed is asked again.
        self._ahead |= before.keys() | self._followed.with_later_changes()
        equal = self._equal()
        compared = {
            name: url for name, url in self._restored.items() if name not in self._ahead | equal.keys()
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
        answer = self._finished[-1].answer
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
            self._last,
            Level.FULL,
            {},
            self._case,
            VerifyOptions(keys=self._signers, values=self._keeps_bundle),
        )

    def _equal(self) -> Mapping[str, SummaryLine]:
        """Return a line for each source that needs no comparison: its restore has just read all of it back."""
        restored = [step.answer for step in self._finished if isinstance(step.answer, Restored)]
        return {line.source: line for line in restored[-1].comparisons()} if restored else {}

    def _set_copy_problem(self, problem: str) -> None:
        """Keep a problem of the copy, with the error of the last step."""
        answer = self._finished[-1].answer
        self._copy_problem = problem
        self._copy_error = answer.error if isinstance(answer, FailedStep) else None

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
        self._finished.append(CommandStep(name, answer))
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
        exports = [step.answer for step in self._finished if step.name == "export"]
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
        self._left_at = datetime.now(UTC)
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
        self._left_at = datetime.now(UTC)
        return answer

    def _summary(self) -> MoveSummary:
        """Return what the steps came to."""
        case = self._case
        exported, restored = list(case.sources), list(self._to_restore)
        sources = [*exported, *self._absent]
        expected = {
            "exported": sources,
            "verified": exported,
            "restored": restored,
            "compared": [name for name in restored if name not in self._ahead],
            "followed": self._followed.names,
        }
        answers = {step.name: step.answer for step in self._finished}
        stages = self._stages(answers)
        stages["exported"] = {**stages["exported"], **self._absent}
        up, followed = answers.get("restore"), answers.get(_FOLLOW)
        there = "verify" in answers
        seal = _seal(self._last) if there else None
        for left_out in seal.left_out if seal else ():
            for stage in COLUMNS:
                stages[stage] = {**stages.get(stage, {}), left_out.name: left_out_line(left_out.name)}
        all_out = there and all(
            line.word in {"yes", LEFT_OUT, _EXTRA_FILES}
            for stage in ("exported", "verified")
            for line in stages.get(stage, {}).values()
        )
        sent = case.transfer_to is None or (self._is_sent and not self._copy_problem)
        return MoveSummary(
            sources,
            expected,
            stages,
            location=self._last.shown if there else "",
            only_copy=not self._is_sent or bool(self._copy_problem),
            copy_problem=self._copy_problem,
            copy_error=self._copy_error,
            deadline=case.deadline,
            out_at=self._out_at(seal) if all_out and sent else None,
            up_at=datetime.now(UTC) if _all_up(stages, expected) else None,
            was_up_before=isinstance(up, Restored) and up.changed_nothing,
            now=datetime.now(UTC),
            unfilled=self._unfilled,
            left_behind=seal.left_behind if seal else None,
            case_option=case.option,
            read_at=self._read_at(seal) if seal else None,
            later_commands=self._later_commands(stages),
            unlisted=unlisted_servers(case, seal.left_behind if seal else None),
            follow_sentence=self._followed.sentence(followed if isinstance(followed, Followed) else None),
        )

    def _read_at(self, seal: BundleInfo) -> datetime | None:
        """Return since when nothing brings what is written at some sources: since the export, or their last delta pass;
        None where all are followed.
        """
        passes = dict[str, datetime]()
        with suppress(MoveoutError):
            passes = self._followed.delta_passes()
        begun = datetime.fromisoformat(seal.begun or seal.created)
        return min((passes.get(name, begun) for name in self._unfollowed()), default=None)

    def _unfollowed(self) -> Sequence[str]:
        """Return the sources whose later writes nothing brings; none once a switch was made."""
        if self._followed.record is not None:
            return []
        return [name for name in self._case.sources if name not in self._followed.names]

    def _later_commands(self, stages: Mapping[str, Mapping[str, SummaryLine]]) -> Sequence[str]:
        """Return the commands that bring what such sources have written since, where they are up."""
        restored = stages.get("restored", {})
        up = [name for name in self._unfollowed() if name in restored and restored[name].word != "no"]
        are_buckets = {registry.holds_objects(self._case.sources[name].url) for name in up}
        option = self._case.option
        return [
            *([f"moveout follow {option} --delta --until-caught-up"] if False in are_buckets else []),
            *([f"moveout sync {option} --overwrite"] if True in are_buckets else []),
        ]

    def _stages(self, answers: Mapping[str, Answer | None]) -> dict[str, Mapping[str, SummaryLine]]:
        """Return what became of each source at each stage."""
        sources, restored = list(self._case.sources), list(self._to_restore)
        stages: dict[str, Mapping[str, SummaryLine]] = {
            "exported": _exported_lines(sources, answers.get("export")),
        }
        if "verify" in answers and answers["verify"] is None:
            stages["verified"] = {name: SummaryLine(name, "yes", "verified before") for name in sources}
        elif isinstance(verified := answers.get("verify"), Verified):
            stages["verified"] = _verified_lines(stages["exported"], verified)
        elif isinstance(verified, FailedStep):
            stages["verified"] = verified.lines(sources, "not verified")
        up_before = {name: SummaryLine(name, "yes", "restored before") for name in self._up_before}
        if isinstance(up := answers.get("restore"), Restored):
            up_before |= {line.source: line for line in up.summary()}
        elif isinstance(up, FailedStep):
            up_before = {**up.lines(restored, "not restored"), **up_before}
        stages["restored"] = up_before
        by_restore = self._equal()
        if isinstance(compared := answers.get("compare"), Verified):
            by_restore = {**{line.source: line for line in compared.comparisons()}, **by_restore}
        elif isinstance(compared, FailedStep):
            by_restore = {**compared.lines(restored, "not compared"), **by_restore}
        stages["compared"] = by_restore
        if isinstance(followed := answers.get(_FOLLOW), FailedStep):
            stages["followed"] = followed.lines(self._followed.names, "not followed")
        else:
            stages["followed"] = self._followed.lines(followed if isinstance(followed, Followed) else None)
        return stages

    def _out_at(self, seal: BundleInfo | None) -> datetime | None:
        """Return when everything lay where it was verified: when this run had sent it, or when the last file was
        written there by an earlier run.
        """
        if self._left_at is not None or seal is None:
            return self._left_at
        return open_location(self._last.url, secrets=self._last.reveal()).stat(layout.TAG_MANIFEST).modified


def _all_up(stages: Mapping[str, Mapping[str, SummaryLine]], expected: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether all that should come up is up, and was compared without a difference."""
    lines = [
        stages.get(stage, {}).get(source) for stage in ("restored", "compared") for source in expected[stage]
    ]
    return bool(lines) and all(line is not None and line.word in {"yes", LEFT_OUT} for line in lines)


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


def _exported_lines(sources: Sequence[str], answer: Answer | None) -> Mapping[str, SummaryLine]:
    if answer is None:
        return {source: SummaryLine(source, "yes", "exported before") for source in sources}
    if isinstance(answer, Exported):
        return {line.source: line for line in answer.summary()}
    assert isinstance(answer, FailedStep)
    return answer.lines(sources, "the export stopped")


def _verified_lines(exported: Mapping[str, SummaryLine], verified: Verified) -> Mapping[str, SummaryLine]:
    """Return a line for each source. Damage to what belongs to no source is damage to all of them."""
    findings = [*verified.outcome.findings, *verified.signed.findings]
    prefixes = {source: layout.source_file(source, "") for source in exported}
    general = [finding for finding in findings if not finding.key.startswith(tuple(prefixes.values()))]
    lines = {}
    for source, prefix in prefixes.items():
        own = [finding for finding in findings if finding.key.startswith(prefix)]
        nothing = exported[source].word == "no"
        lines[source] = exported[source] if nothing else _verified_line(source, [*own, *general])
    return lines


def _verified_line(source: str, damage: Sequence[Finding]) -> SummaryLine:
    if not damage:
        return SummaryLine(source, "yes", "verified")
    if only_extra(damage):
        happened = f"whole, but a file that is no part of it lies there: {damage[0]}"
        return SummaryLine(source, _EXTRA_FILES, happened, EXTRA_STEP)
    return SummaryLine(source, "damaged", f"damaged in the bundle: {damage[0]}", REPAIR_STEP)
