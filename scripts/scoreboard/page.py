"""The page about reliability, from the rounds that were run: it claims nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from scripts.scoreboard.causes import Cause, CauseKind
from scripts.scoreboard.rounds import Round, reached
from scripts.scoreboard.rows import ROWS, Row

_NONE = "-"
_HEAD = """# Reliability, counted

`make scoreboard` writes this page. It runs what takes long, round by round, and counts.
A figure stands here only where it was run: *done* is what the rounds counted, *target* is what they are to reach.
A case counts once it was checked and is right. A case that fails does not count. The others of its round do.
A case that several rounds repeat counts in each of them.
[What failed](#what-failed) names each failure and its cause.
A round names the commit on which it ran. Where a rebase came later, the history has that change under another name.

[`reliability.jsonl`](reliability.jsonl) has a line for each round, and any checkout goes on from there.
Commit it with this page. Its lines of before 2026-11-29 19:55 were written anew from an older page:
sums are as counted, figures of a single round are means.

```text
make scoreboard ARGS="--minutes 30"                   # the rows that are furthest from their target, for half an hour
make scoreboard ARGS="--rows tampers --minutes 5"     # one row, also past its target
make scoreboard ARGS="--rows kills --rounds 3"        # its next three rounds
make scoreboard ARGS="--page"                         # write the page anew, run nothing
```

[How it is tested](explanation/testing.md) explains the kinds of tests.
[Guarantees](explanation/guarantees.md) says what rests on them.
"""


_CAUSES = """Each cause is of one kind, and is kept in [`reliability-causes.toml`](reliability-causes.toml).

- **product**: moveout was wrong.
- **test**: the test or one of its tools was wrong.
- **load**: the test waited too short a time for a machine that did other work.
- **not established**: nobody can say why.

*Seen again* means that the round was repeated on that commit. Else the cause is the one that the mending change names.
"""
_BUSY = 1.0
"""From this load average on, something else was at work."""


def page(rounds: Sequence[Round], causes: Mapping[str, Cause]) -> str:
    """Return the page in Markdown."""
    return "\n".join([_HEAD, *_board(rounds, causes), *_failures(rounds, causes), *_commands(rounds)]) + "\n"


def _board(rounds: Sequence[Round], causes: Mapping[str, Cause]) -> Iterator[str]:
    yield "## The board\n"
    yield "| row | what is promised | how it is tested | done | target | rounds with a failure | last run |"
    yield "|---|---|---|---|---|---|---|"
    for row in ROWS:
        of_row = _of(row, rounds)
        done = f"**{reached(row, rounds):,}** {row.unit}"
        totals = Counter[str]()
        for one in of_row:
            totals.update(one.counts)
        done += "".join(f", {totals[name]:,} {name}" for name in row.beside if totals[name])
        failed = [one for one in of_row if one.failures]
        kinds = Counter(_kind_words(one, causes) for one in failed)
        last = f"{of_row[-1].at[:10]}, `{of_row[-1].commit}`" if of_row else "never"
        tried = f"{len(failed)} of {len(of_row)}" if of_row else _NONE
        tried += ": " * bool(kinds) + ", ".join(f"{kinds[words]} {words}" for words in sorted(kinds))
        yield f"| {row.name} | {row.promise} | {row.how} | {done} | {row.target:,} | {tried} | {last} |"
    yield ""


def _kind_words(failed: Round, causes: Mapping[str, Cause]) -> str:
    cause = causes.get(failed.name)
    return f"{cause.kind}{' (mended)' * bool(cause.mended)}" if cause else CauseKind.UNKNOWN


def _failures(rounds: Sequence[Round], causes: Mapping[str, Cause]) -> Iterator[str]:
    """Every round that failed, the newest first, with its cause, and how often its step has passed since."""
    yield "## What failed\n"
    failed = [(number, one) for number, one in enumerate(rounds) if one.failures]
    if not failed:
        yield "Nothing, in " + (f"{len(rounds)} rounds." if rounds else "no round.") + "\n"
        return
    yield _CAUSES
    yield "| when | commit | row | what failed | cause | since then |"
    yield "|---|---|---|---|---|---|"
    for number, one in reversed(failed):
        what = "; ".join(_failures_of_tests(one.failures))
        cause = causes[one.name].words if one.name in causes else f"**{CauseKind.UNKNOWN}**"
        when = one.at + (f"; {_load(one)}" if one.load else "")
        since = _since(one, rounds[number + 1 :])
        yield f"| {when} | `{one.commit}` | {one.row}: {one.step} | {what} | {cause} | {since} |"
    yield ""


def _failures_of_tests(failures: Sequence[str]) -> Iterator[str]:
    """What failed, with its reason, for a cell of a table. A test's cases stand together."""
    cases: dict[str, str] = {}
    for failure in failures:
        name, _, reason = failure.replace("`", "'").replace("|", "\\|").partition(" - ")
        test, bracket, case = name.partition("[")
        words = f" `{bracket}{case}`" * bool(bracket) + f": `{reason}`" * bool(reason)
        cases[test] = f"{cases[test]},{words}" if test in cases else words
    return (f"`{test}`{words}" for test, words in cases.items())


def _load(done: Round) -> str:
    """What else the machine did."""
    if done.load is None:
        return "not recorded"
    before, after = done.load
    return f"{'quiet' if before < _BUSY else 'busy'}: load {before} before, {after} at the end"


def _since(failed: Round, later: Sequence[Round]) -> str:
    """How often the step has passed since; where the row has no such step any more, how often the row has."""
    of_row = [one for one in later if one.row == failed.row]
    is_there = any(step.name == failed.step for row in ROWS if row.name == failed.row for step in row.steps)
    again = [one for one in of_row if one.step == failed.step or not is_there]
    passed = sum(not one.failures for one in again)
    if not again:
        return "not run again"
    return f"{passed} of {len(again)} rounds " + (
        "passed" if is_there else "of the steps that replaced it passed"
    )


def _commands(rounds: Sequence[Round]) -> Iterator[str]:
    """Each step with the command that repeats a round of it."""
    yield "## The command of each step\n"
    yield "The seed of a run is random. It is printed, and `MOVEOUT_SEED` repeats it."
    yield "Of generated tables, one that differs is printed itself, as small as it can be made.\n"
    for row in ROWS:
        yield f"### {row.name}\n"
        yield "| step | rounds | done | seconds a round |"
        yield "|---|---|---|---|"
        for step in row.steps:
            of_step = [one for one in _of(row, rounds) if one.step == step.name]
            done = sum(one.counts.get(row.unit, 0) for one in of_step)
            seconds = f"{sum(one.seconds for one in of_step) / len(of_step):.0f}" if of_step else _NONE
            yield f"| {step.name} | {len(of_step)} | {done:,} | {seconds} |"
        yield "\n```text"
        yield from (step.command for step in row.steps)
        yield "```\n"
        yield from _comparisons(row, rounds)


def _comparisons(row: Row, rounds: Sequence[Round]) -> Iterator[str]:
    """The newest comparisons of each step with other tools, if the row has any."""
    if not any(one.lines for one in _of(row, rounds)):
        return
    yield "The newest comparisons are quick ones: one turn, little data, also on a busy machine."
    yield "[Measurements](internals/benchmarks.md) tells of longer ones.\n"
    yield "| step | result | when | commit | what else the machine did |"
    yield "|---|---|---|---|---|"
    for step in row.steps:
        with_lines = [one for one in _of(row, rounds) if one.step == step.name and one.lines]
        for one in with_lines[-1:]:
            for line in one.lines:
                yield f"| {step.name} | {line} | {one.at} | `{one.commit}` | {_load(one)} |"
        if not with_lines:
            yield f"| {step.name} | not recorded | {_NONE} | {_NONE} | {_NONE} |"
    yield ""


def _of(row: Row, rounds: Sequence[Round]) -> list[Round]:
    return [one for one in rounds if one.row == row.name]
