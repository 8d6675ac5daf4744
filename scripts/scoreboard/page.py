"""The page about reliability, from the rounds that were run: it claims nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from scripts.scoreboard.rounds import Round, reached
from scripts.scoreboard.rows import ROWS, Row

_NONE = "-"
_HEAD = """# Reliability, counted

`make scoreboard` writes this page. It runs what takes long, round by round, and counts.
A figure stands here only where it was run: *done* is what the rounds counted, *target* is what they are to reach.
A case counts once it was checked and is right. A case that fails does not count. The others of its round do.
A case that several rounds repeat counts in each of them.
[What failed](#what-failed) names each failure.
A round names the commit on which it ran. Where a rebase came later, the history has that change under another name.

```text
make scoreboard ARGS="--minutes 30"                   # the rows that are furthest from their target, for half an hour
make scoreboard ARGS="--rows tampers --minutes 5"     # one row, also past its target
make scoreboard ARGS="--rows kills --rounds 3"        # its next three rounds
make scoreboard ARGS="--page"                         # write the page anew, run nothing
```

[How it is tested](explanation/testing.md) explains the kinds of tests.
[Guarantees](explanation/guarantees.md) says what rests on them.
"""


def page(rounds: Sequence[Round]) -> str:
    """Return the page in Markdown."""
    return "\n".join([_HEAD, *_board(rounds), *_failures(rounds), *_commands(rounds)]) + "\n"


def _board(rounds: Sequence[Round]) -> Iterator[str]:
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
        failed = sum(bool(one.failures) for one in of_row)
        last = f"{of_row[-1].at[:10]}, `{of_row[-1].commit}`" if of_row else "never"
        tried = f"{failed} of {len(of_row)}" if of_row else _NONE
        yield f"| {row.name} | {row.promise} | {row.how} | {done} | {row.target:,} | {tried} | {last} |"
    yield ""


def _failures(rounds: Sequence[Round]) -> Iterator[str]:
    """Every round that failed, the newest first, with how often its step has passed since."""
    yield "## What failed\n"
    failed = [(number, one) for number, one in enumerate(rounds) if one.failures]
    if not failed:
        yield "Nothing, in " + (f"{len(rounds)} rounds." if rounds else "no round.") + "\n"
        return
    yield "| when | commit | row | what | since then |"
    yield "|---|---|---|---|---|"
    for number, one in reversed(failed):
        what = "; ".join(f"`{name}`" for name in one.failures)
        since = _since(one, rounds[number + 1 :])
        yield f"| {one.at} | `{one.commit}` | {one.row}: {one.step} | {what} | {since} |"
    yield ""


def _since(failed: Round, later: Sequence[Round]) -> str:
    """How often the step has passed since; where the row has no such step any more, how often the row has."""
    of_row = _of(next(row for row in ROWS if row.name == failed.row), later)
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
        last = next((one for one in reversed(_of(row, rounds)) if one.lines), None)
        if last:
            yield f"The newest comparison ({last.at}, `{last.commit}`):\n\n```text"
            yield from last.lines
            yield "```\n"


def _of(row: Row, rounds: Sequence[Round]) -> list[Round]:
    return [one for one in rounds if one.row == row.name]
