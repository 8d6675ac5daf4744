"""Databases moved as one bundle; the restore is given again, and further restores are killed: all report the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scripts.outsiders.program import Killed, Outcome, Program
from scripts.outsiders.suite import Context, SuiteRow


@dataclass(frozen=True, slots=True)
class Case:
    """A database to move. ``name`` is that of its source in the bundle."""

    name: str
    source_url: str
    destination_url: str
    make_empty: Callable[[], None]
    judge: Callable[[SuiteRow, Outcome, Outcome], None]
    """Compare both sides after an export and a restore, and write into the row what differs."""


def move_repeatedly(
    context: Context, program: Program, cases: Sequence[Case], *, variant: str, kills: int
) -> list[SuiteRow]:
    """Move the cases, give their restore again, and then restore ``kills`` times with a kill at a random moment. The
    first copies and the last ones are compared with the source; moveout itself compares the rows of each.
    """
    chance = context.random(f"kills of {variant}")
    exported = program.run("export", *(f"{case.name}={case.source_url}" for case in cases), "--to", "bundle")
    if not exported.finished:
        return [SuiteRow(f"{variant}: export", errors=[exported.failure])]
    restore = ["bundle", *(f"{case.name}={case.destination_url}" for case in cases), "--report-to", "account"]

    def make_empty() -> None:
        for case in cases:
            case.make_empty()

    def killed() -> Outcome:
        make_empty()
        command = Killed(["restore", *restore], first.seconds, begin_anew=make_empty)
        outcomes = program.run_killed(command, kills=1, chance=chance)
        for move in moves if not outcomes.met else ():
            move.row.errors.append("no kill of the restore met a run")
        return outcomes.last

    make_empty()
    first = program.run("restore", *restore)
    moves = [_Repeated(case, SuiteRow(f"{case.name}, {variant}"), exported, first) for case in cases]
    restores = [lambda: program.run("restore", *restore), *[killed] * kills]
    for move in moves:
        move.judge(first)
    for number, run in enumerate(restores, start=1):
        restored = run()
        for move in moves:
            move.expect_the_same(restored)
            if number == len(restores):
                move.judge(restored)
    return [move.row for move in moves]


_SHOWN = 700
"""Characters of two reports that differ, from a bit before their first difference on."""


@dataclass(frozen=True, slots=True)
class _Repeated:
    """One case, what its first restore reported, and what all of its restores show."""

    case: Case
    row: SuiteRow
    exported: Outcome
    first: Outcome

    def expect_the_same(self, restored: Outcome) -> None:
        """Add an error where another restore reports otherwise than the first one."""
        essence, expected = restored.of(self.case.name).essence, self.first.of(self.case.name).essence
        if essence != expected:
            pairs = enumerate(zip(expected, essence, strict=False))
            differs = next((place for place, (old, new) in pairs if old != new), 0)
            start = max(0, differs - _SHOWN // 3)
            shown = " / ".join(text[start : start + _SHOWN] for text in (expected, essence))
            self.row.errors.append(f"the restore reports otherwise: … {shown}")

    def judge(self, restored: Outcome) -> None:
        """Add how a restore failed, or compare both sides; what an earlier one showed is not added again."""
        name, row = self.case.name, self.row
        if failure := restored.failure_of(name):
            row.errors.append(failure)
            return
        judged = SuiteRow(row.variant)
        self.case.judge(judged, self.exported.of(name), restored.of(name))
        row.equal = min(judged.equal, row.equal) if row.moved else judged.equal
        row.moved = judged.moved
        for lines, more in ((row.losses, judged.losses), (row.unreported, judged.unreported)):
            lines += [line for line in more if line not in lines]
