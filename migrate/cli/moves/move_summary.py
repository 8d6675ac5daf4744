"""What a whole move came to: its steps, what became of each source at each stage, and the sentences that sum it up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from migrate.bundle.left_behind import LeftBehind
from migrate.cli.common.session import Answer
from migrate.cli.common.summary_lines import (
    LEFT_OUT,
    SummaryLine,
    SummaryRow,
    draw_rows,
    left_behind_lines,
)
from migrate.cli.common.terminal import Console, ErrorWords, Heading, Text
from migrate.errors import (
    OK,
    DamageError,
    IncompleteError,
    MoveoutError,
)
from migrate.number_text import all_things, duration_words, list_words, local_moment_words, things

COLUMNS = ("exported", "verified", "restored", "compared", "followed")
_ALWAYS_SHOWN = COLUMNS[:4]
_NOT_EXPECTED = "-"
"""What stands for a stage that the case does not ask for."""
_WORDS = {"no": "not"}
_SHOWN = 5


class MoveSummary(Struct, frozen=True):
    """What became of each source of a move. ``stages``: lines by stage and source. ``expected``: the sources of each
    stage. ``location``: where the bundle lies that was verified, "" where there is none; ``only_copy``: nobody has sent
    it to another location. ``out_at``: when everything lay there; ``up_at``: when everything was up and compared; None
    where something is missing. All times have zones.
    """

    sources: Sequence[str]
    expected: Mapping[str, Sequence[str]]
    stages: Mapping[str, Mapping[str, SummaryLine]] = field(default_factory=dict)
    location: str = ""
    only_copy: bool = False
    deadline: datetime | None = None
    out_at: datetime | None = None
    up_at: datetime | None = None
    was_up_before: bool = False
    """Whether an earlier run had restored everything, so that it was only compared again."""
    now: datetime | None = None
    unfilled: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By old server, the sources that come up nowhere: the case file has no address of the new server."""
    left_behind: LeftBehind | None = None
    unlisted: Sequence[str] = ()
    """Servers of the case of which nothing is out: they could not be listed."""
    copy_problem: str = ""
    """That the bundle is not where it is transferred to, or cannot be read there."""
    copy_error: MoveoutError | None = None
    """Why."""
    read_at: datetime | None = None
    """Since when the sources of the bundle were read; None where what they have written since follows."""
    later_commands: Sequence[str] = ()
    """The commands that bring what the sources have written since."""
    follow_sentence: str = ""
    """What became of the followed sources, and what to type next; "" where none is followed."""
    case_option: str = ""
    """The option that names the case file, for the next commands."""

    @property
    def _columns(self) -> Sequence[str]:
        return COLUMNS if self.expected.get("followed") else _ALWAYS_SHOWN

    def rows(self) -> list[SummaryRow]:
        """Return a row for each source, the titles first; its next step is that of the first stage that did not
        succeed.
        """
        rows = [SummaryRow(("source", *self._columns, ""))]
        for source in self.sources:
            cells = [self._word(stage, source) for stage in self._columns]
            problem = self._problem(source)
            what, error = (problem.what, problem.error) if problem else ("", None)
            rows.append(SummaryRow((source, *cells, what), self._next_step(source), error))
        return rows

    def as_json(self) -> list[dict[str, Any]]:
        """Return an object for each source."""
        return [
            {
                "source": source,
                **{stage: self._word(stage, source) for stage in self._columns},
                "problem": problem.happened if (problem := self._problem(source)) else "",
                "next_step": self._next_step(source),
            }
            for source in self.sources
        ]

    def sentences(self, errors: ErrorWords) -> Iterator[str]:
        """Yield what is out, what is verified, what is up, where the bundle lies, and whether the deadline was met.
        ``errors``: how they are printed.
        """
        yield self._of_stage("exported", "Out", "Nothing is out.")
        if self.location:
            yield self._of_stage("verified", "Verified", "Nothing is verified.")
        yield from self._sentences_of_destinations()
        for server, names in self.unfilled.items():
            yield (
                f"Not brought up: {_names(names)}. The case file does not say where {server} comes up again: write"
                ' the new address into its [[destination]], to = "…", and run the same command again.'
            )
        printed = (problem.error for problem in map(self._problem, self.sources) if problem and problem.error)
        seen, step = left_behind_lines(self.left_behind, printed, errors, self.case_option, self.unlisted)
        yield from seen
        if seen:
            yield f"→ {step}"
        if self.copy_problem:
            yield (
                errors.behind(self.copy_problem, self.copy_error)
                if self.copy_error
                else f"{self.copy_problem}."
            )
            if self.copy_error and self.copy_error.next_step:
                yield f"→ {self.copy_error.next_step}"
        if self.location and self.only_copy:
            only = "The only bundle that was verified" if self.copy_problem else "The only bundle"
            yield (
                f"{only} lies at {self.location}. If that is on the old host, it goes with it: transfer it"
                " to another location."
            )
        elif self.location:
            yield f"The bundle lies at {self.location}."
        if self.deadline is not None:
            yield self._of_deadline(self.deadline)
            if self.up_at is not None:
                yield self._up_sentence(self.deadline, self.up_at)
        yield from self._sentences_of_later_writes()

    def _sentences_of_later_writes(self) -> Iterator[str]:
        if self.read_at is None:
            return
        read_at = local_moment_words(self.read_at)
        followed = self.expected.get("followed", ())
        others = [name for name in self.expected["exported"] if name not in followed]
        where = _names(others) if followed and others else "the sources"
        yield f"What was written at {where} since {read_at} may be missing: they were read from then on."
        if self.later_commands:
            yield f"→ stop what writes there, then bring that, too: {'; '.join(self.later_commands)}"
            effects = {
                "follow": "a table that was written to there stops the follow",
                "sync": "sync --overwrite replaces objects that were written there",
            }
            verbs = [command.split()[1] for command in self.later_commands]
            yield f"Do that before the new side is in use: {', and '.join(effects[verb] for verb in verbs)}."

    def _sentences_of_destinations(self) -> Iterator[str]:
        if self.expected["restored"]:
            yield self._of_stage("restored", "Up on the new host", "Nothing is up on the new host.")
        ahead = [name for name in self.expected["restored"] if name not in self.expected["compared"]]
        if ahead:
            yield f"Later changes were applied to {_names(ahead)}: not compared with the bundle any more."
        if self.expected["compared"]:
            nothing = "Nothing else was compared." if ahead else "Nothing was compared."
            yield self._of_stage("compared", "Compared row by row", nothing)
        if self.follow_sentence:
            yield self._of_stage("followed", "Followed", "Nothing is followed.")
            yield self.follow_sentence

    @property
    def all_out(self) -> bool:
        """Whether each source is out, or was left out on purpose, and each server could be listed."""
        return not self.unlisted and all(
            self._word("exported", source) in {"yes", LEFT_OUT} for source in self.expected["exported"]
        )

    def _word(self, stage: str, source: str) -> str:
        if source not in self.expected[stage]:
            return _NOT_EXPECTED
        line = self.stages.get(stage, {}).get(source)
        return line.word if line else "no"

    def _problem(self, source: str) -> SummaryLine | None:
        lines = (self.stages.get(stage, {}).get(source) for stage in self._columns)
        return next((line for line in lines if line is not None and line.word != "yes"), None)

    def _next_step(self, source: str) -> str:
        problem = self._problem(source)
        if problem is not None:
            return problem.next_step
        missing = any(self._word(stage, source) == "no" for stage in self._columns)
        return "run the same command again" if missing else ""

    def _of_stage(self, stage: str, done: str, nothing: str) -> str:
        expected = self.expected[stage]
        by_word: dict[str, list[str]] = {}
        for source in expected:
            by_word.setdefault(self._word(stage, source), []).append(source)
        whole = by_word.pop("yes", [])
        if not whole and set(by_word) <= {"no"}:
            return nothing
        if len(whole) == len(expected):
            return f"{done}: {expected[0] if len(expected) == 1 else all_things(len(expected), 'source')}."
        rest = [f"{_WORDS.get(word, word)}: {_names(names)}" for word, names in by_word.items()]
        return f"{done}: {len(whole)} of {things(len(expected), 'source')}; {'; '.join(rest)}."

    def _of_deadline(self, deadline: datetime) -> str:
        moment = self.out_at or self.now
        assert moment is not None
        until = local_moment_words(deadline)
        left = (deadline - moment).total_seconds()
        if self.out_at is not None:
            words = duration_words(abs(left))
            if left < 0:
                return f"The deadline {until} was missed by {words}: only then everything lay there."
            where = ", if that is not on the old host" if self.only_copy else ""
            return f"The deadline {until} was met, with {words} to spare{where}."
        missing = "not everything is out"
        if self.copy_problem:
            missing = "no copy of the bundle is verified"
        elif self.all_out:
            missing = "not everything is verified"
        if left >= 0:
            return f"The deadline {until} is in {duration_words(left)}; {missing} yet."
        return f"The deadline {until} passed {duration_words(-left)} ago; {missing}."

    def _up_sentence(self, deadline: datetime, up_at: datetime) -> str:
        left = (deadline - up_at).total_seconds()
        when = f"{duration_words(abs(left))} {'before' if left >= 0 else 'after'} the deadline"
        subject = "Everything" if self.all_out else "All that is out"
        if self.was_up_before and len(self.expected["compared"]) < len(self.expected["restored"]):
            return f"{subject} was up before this run."  # such as what was switched: it is written to by now
        if self.was_up_before:
            return f"{subject} was up before this run, and was compared again {when}."
        return f"{subject} was up and compared {when}."


def _names(names: Sequence[str]) -> str:
    return list_words(names, _SHOWN)


EXAMINATION, FORECAST = "doctor", "plan"
"""These two steps only look. What they find neither stops the move nor decides its exit code."""


class FailedStep(Struct, frozen=True):
    """A step that ended with an error; the move continues with what there is."""

    error: MoveoutError

    @property
    def exit_code(self) -> int:
        """The error's."""
        return self.error.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return the error's fields."""
        return {"code": self.error.code, "message": str(self.error), "next": self.error.next_step}

    def lines(self, sources: Sequence[str], happened: str) -> Mapping[str, SummaryLine]:
        """Return a line for each source: what happened, the error, and what to do."""
        errors = dict.fromkeys(sources, self.error) | dict(self.error.causes)
        return {
            source: SummaryLine(
                source,
                "no",
                happened,
                errors[source].next_step or "run the same command again",
                errors[source],
            )
            for source in sources
        }

    def draw(self, console: Console) -> None:
        """Print the error and the next step."""
        console.print(Text(console.errors.of(self.error), style="yellow"))
        if next_step := console.errors.next_step(self.error):
            console.print(Text(f"→ {next_step}"))


class CommandStep(Struct, frozen=True):
    """One command of the move, and its answer; None where an earlier run has done it."""

    name: str
    answer: Answer | None

    @property
    def exit_code(self) -> int:
        """The command's."""
        return self.answer.exit_code if self.answer else OK


class MoveResult(Struct, frozen=True):
    """The result of a whole move: its steps, and the summary of its sources."""

    case: str
    steps: tuple[CommandStep, ...]
    summary: MoveSummary

    @property
    def exit_code(self) -> int:
        """Return 0 where all is out, verified and up; 6 where something is damaged or differs, 3 where something is
        missing, and the error's code where nothing could be exported.
        """
        steps = [step for step in self.steps if step.name not in {EXAMINATION, FORECAST}]
        last = {step.name: step.exit_code for step in steps}
        codes = {name: code for name, code in last.items() if code}
        if not codes:
            summary = self.summary
            lacks = summary.unfilled or summary.copy_problem or not summary.all_out
            return IncompleteError.exit_code if lacks else OK
        if not self.summary.location:
            return next(iter(codes.values()))
        return DamageError.exit_code if DamageError.exit_code in codes.values() else IncompleteError.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return each step's result, and each source's."""
        steps = [
            {
                "step": step.name,
                "exit_code": step.exit_code,
                "result": step.answer.as_json() if step.answer else None,
            }
            for step in self.steps
        ]
        return {
            "case": self.case,
            "steps": steps,
            "summary": self.summary.as_json(),
            "sentences": list(self.summary.sentences(ErrorWords())),
        }

    def draw(self, console: Console) -> None:
        """Print the result of the move, with all reasons: the steps were printed when they ended, maybe hours ago."""
        console.errors = ErrorWords()
        console.print(Heading("summary"))
        draw_rows(console, self.summary.rows())
        console.print()
        for sentence in self.summary.sentences(console.errors):
            console.print(sentence)
        if self.exit_code != OK:
            console.print("→ once the reasons are gone, run the same command again; what is done stays done")
