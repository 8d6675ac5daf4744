"""What the steps of a whole move came to: how far it is, and its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from msgspec import Struct, field

from migrate.bundle import bundle_json, layout
from migrate.bundle.bundle_json import BundleInfo
from migrate.bundle.findings import Finding, only_extra
from migrate.bundle.left_behind import LeftBehind
from migrate.case.model import Case, Endpoint
from migrate.cli.common.findings import EXTRA_STEP
from migrate.cli.common.session import Answer
from migrate.cli.common.summary_lines import LEFT_OUT, SummaryLine, left_out_line
from migrate.cli.follow import Followed
from migrate.cli.moves.followed_move import FollowedMove
from migrate.cli.moves.move_summary import COLUMNS, CommandStep, FailedStep, MoveSummary
from migrate.cli.restore import Restored
from migrate.cli.summaries.export_summary import Exported
from migrate.cli.verify import REPAIR_STEP, Verified
from migrate.discover.left_behind import still_unlisted, unlisted_servers
from migrate.engines import registry
from migrate.errors import DamageError, GoneError, MoveoutError, NotAllowedError, UnreachableError
from migrate.storage.registry import open_location

FOLLOW = "follow"
_EXTRA_FILES = "extra files"
"""What stands for a verification that has no other findings: nothing of the source is changed or missing."""


class MoveState(Struct):
    """How far a move is. Its steps fill this in, one after the other. ``case``: with a source for all that its patterns
    mean. ``absent``: lines of the sources that the complete bundle lacks. ``unfilled``: by old server, the sources that
    come up nowhere. ``to_restore``: the destinations that are restored, by source. ``bundle``: where the steps read the
    bundle from, which changes with the transfer.
    """

    case: Case
    bundle: Endpoint
    to_restore: Mapping[str, Endpoint]
    ahead: set[str]
    """The sources whose destinations have changes that the bundle lacks."""
    absent: Mapping[str, SummaryLine] = field(default_factory=dict)
    unfilled: Mapping[str, Sequence[str]] = field(default_factory=dict)
    finished: list[CommandStep] = field(default_factory=list)
    restored: Mapping[str, Endpoint] = field(default_factory=dict)
    """The destinations that are up, by source."""
    up_before: set[str] = field(default_factory=set)
    """What an earlier run has restored, and what is not compared with the bundle any more."""
    is_sent: bool = False
    """Whether the bundle lies where it is transferred to."""
    copy_problem: str = ""
    """That the bundle is not where it is transferred to, or cannot be read there."""
    copy_error: MoveoutError | None = None
    """Why."""
    left_at: datetime | None = None
    """When this run has sent the last byte; None where it sent nothing."""

    @property
    def last_answer(self) -> Answer | None:
        """The answer of the last step; None where an earlier run has done it."""
        return self.finished[-1].answer

    def add_copy_problem(self, problem: str) -> None:
        """Keep a problem of the copy, with the error of the last step."""
        self.copy_problem = problem
        self.copy_error = self.last_answer.error if isinstance(self.last_answer, FailedStep) else None


def read_seal(location: Endpoint) -> BundleInfo | None:
    """Return the sealed bundle at a location. None also where the location fails or is damaged: the step that needs it
    reports that.
    """
    try:
        return bundle_json.read_sealed(open_location(location.url, secrets=location.reveal()))
    except (UnreachableError, NotAllowedError, GoneError, DamageError):
        return None


def summary_of(state: MoveState, followed: FollowedMove) -> MoveSummary:
    """Return what the steps came to. Raises errors of the location from which everything has left."""
    case = state.case
    exported, restored = list(case.sources), list(state.to_restore)
    expected = {
        "exported": [*exported, *state.absent],
        "verified": exported,
        "restored": restored,
        "compared": [name for name in restored if name not in state.ahead],
        "followed": followed.names,
    }
    answers = {step.name: step.answer for step in state.finished}
    is_there = "verify" in answers
    seal = read_seal(state.bundle) if is_there else None
    lines = _lines_by_stage(state, answers, followed)
    for left_out in seal.left_out if seal else ():
        for stage in COLUMNS:
            lines[stage] = {**lines[stage], left_out.name: left_out_line(left_out.name)}
    is_sent = case.transfer_to is None or (state.is_sent and not state.copy_problem)
    up, follow = answers.get("restore"), answers.get(FOLLOW)
    left_behind = still_unlisted(case, _left_behind(answers.get("export"), seal)) if seal else None
    return MoveSummary(
        expected["exported"],
        expected,
        lines,
        location=state.bundle.shown if is_there else "",
        only_copy=not state.is_sent or bool(state.copy_problem),
        copy_problem=state.copy_problem,
        copy_error=state.copy_error,
        deadline=case.deadline,
        out_at=_out_at(state, seal) if is_there and is_sent and _all_out(lines) else None,
        up_at=datetime.now(UTC) if _all_up(lines, expected) else None,
        was_up_before=isinstance(up, Restored) and up.changed_nothing,
        now=datetime.now(UTC),
        unfilled=_without(
            state.unfilled, [name for name, line in state.absent.items() if line.word == LEFT_OUT]
        ),
        left_behind=left_behind,
        case_option=case.option,
        read_at=_read_at(case, followed, seal) if seal else None,
        later_commands=_later_commands(case, followed, lines["restored"]),
        unlisted=unlisted_servers(case, left_behind),
        follow_sentence=followed.sentence(follow if isinstance(follow, Followed) else None),
    )


def _left_behind(exported: Answer | None, seal: BundleInfo) -> LeftBehind | None:
    """Return what stays on the servers, by the export of this run, else by the bundle."""
    return exported.outcome.left_behind if isinstance(exported, Exported) else seal.left_behind


def _without(unfilled: Mapping[str, Sequence[str]], left_out: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the sources that come up nowhere, by server, without those that are ``left_out`` on purpose."""
    rest = {server: [name for name in names if name not in left_out] for server, names in unfilled.items()}
    return {server: names for server, names in rest.items() if names}


def _lines_by_stage(
    state: MoveState, answers: Mapping[str, Answer | None], followed: FollowedMove
) -> dict[str, Mapping[str, SummaryLine]]:
    """Return what became of each source, for each column of the summary."""
    exported = _exported_lines([*state.case.sources], answers.get("export"))
    return {
        "exported": {**exported, **state.absent},
        "verified": _verified_lines([*state.case.sources], exported, answers),
        "restored": _restored_lines(state, answers.get("restore")),
        "compared": _compared_lines(state, answers.get("compare")),
        "followed": _followed_lines(followed, answers.get(FOLLOW)),
    }


def _exported_lines(sources: Sequence[str], answer: Answer | None) -> Mapping[str, SummaryLine]:
    if answer is None:
        return {source: SummaryLine(source, "yes", "exported before") for source in sources}
    if isinstance(answer, Exported):
        return {line.source: line for line in answer.summary()}
    assert isinstance(answer, FailedStep)
    return answer.lines(sources, "the export stopped")


def _verified_lines(
    sources: Sequence[str], exported: Mapping[str, SummaryLine], answers: Mapping[str, Answer | None]
) -> Mapping[str, SummaryLine]:
    if "verify" not in answers:
        return {}
    answer = answers["verify"]
    if answer is None:
        return {name: SummaryLine(name, "yes", "verified before") for name in sources}
    if isinstance(answer, Verified):
        return _lines_of_findings(exported, answer)
    assert isinstance(answer, FailedStep)
    return answer.lines(sources, "not verified")


def _lines_of_findings(exported: Mapping[str, SummaryLine], verified: Verified) -> Mapping[str, SummaryLine]:
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


def _restored_lines(state: MoveState, answer: Answer | None) -> Mapping[str, SummaryLine]:
    before = {name: SummaryLine(name, "yes", "restored before") for name in state.up_before}
    if isinstance(answer, Restored):
        return {**before, **{line.source: line for line in answer.summary()}}
    if isinstance(answer, FailedStep):
        return {**answer.lines([*state.to_restore], "not restored"), **before}
    return before


def _compared_lines(state: MoveState, answer: Answer | None) -> Mapping[str, SummaryLine]:
    """Return a line for each source that was compared, by this step or by its restore."""
    by_restore = compared_by_restore(state)
    if isinstance(answer, Verified):
        return {**{line.source: line for line in answer.comparisons()}, **by_restore}
    if isinstance(answer, FailedStep):
        return {**answer.lines([*state.to_restore], "not compared"), **by_restore}
    return by_restore


def compared_by_restore(state: MoveState) -> Mapping[str, SummaryLine]:
    """Return a line for each source that needs no comparison: its restore has just read all of it back."""
    restored = [step.answer for step in state.finished if isinstance(step.answer, Restored)]
    return {line.source: line for line in restored[-1].comparisons()} if restored else {}


def _followed_lines(followed: FollowedMove, answer: Answer | None) -> Mapping[str, SummaryLine]:
    if isinstance(answer, FailedStep):
        return answer.lines(followed.names, "not followed")
    return followed.lines(answer if isinstance(answer, Followed) else None)


def _all_out(lines: Mapping[str, Mapping[str, SummaryLine]]) -> bool:
    """Tell whether each source is exported and verified, or left out on purpose."""
    return all(
        line.word in {"yes", LEFT_OUT, _EXTRA_FILES}
        for stage in ("exported", "verified")
        for line in lines[stage].values()
    )


def _all_up(lines: Mapping[str, Mapping[str, SummaryLine]], expected: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether all that should come up is up, and was compared without a difference."""
    hoped = [lines[stage].get(source) for stage in ("restored", "compared") for source in expected[stage]]
    return bool(hoped) and all(line is not None and line.word in {"yes", LEFT_OUT} for line in hoped)


def _out_at(state: MoveState, seal: BundleInfo | None) -> datetime | None:
    """Return when everything lay where it was verified: when this run had sent it, or when the last file was written
    there by an earlier run.
    """
    if state.left_at is not None or seal is None:
        return state.left_at
    store = open_location(state.bundle.url, secrets=state.bundle.reveal())
    return store.stat(layout.TAG_MANIFEST).modified


def _read_at(case: Case, followed: FollowedMove, seal: BundleInfo) -> datetime | None:
    """Return since when nothing brings what is written at some sources: since the export, or their last delta pass;
    None where all are followed.
    """
    passes = dict[str, datetime]()
    with suppress(MoveoutError):
        passes = followed.delta_passes()
    begun = datetime.fromisoformat(seal.begun or seal.created)
    return min((passes.get(name, begun) for name in _unfollowed(case, followed)), default=None)


def _unfollowed(case: Case, followed: FollowedMove) -> Sequence[str]:
    """Return the sources whose later writes nothing brings; none once a switch was made."""
    if followed.record is not None:
        return []
    return [name for name in case.sources if name not in followed.names]


def _later_commands(case: Case, followed: FollowedMove, restored: Mapping[str, SummaryLine]) -> Sequence[str]:
    """Return the commands that bring what such sources have written since, where they are up."""
    up = [name for name in _unfollowed(case, followed) if name in restored and restored[name].word != "no"]
    are_buckets = {registry.holds_objects(case.sources[name].url) for name in up}
    return [
        *([f"moveout follow {case.option} --delta --until-caught-up"] if False in are_buckets else []),
        *([f"moveout sync {case.option} --overwrite"] if True in are_buckets else []),
    ]
