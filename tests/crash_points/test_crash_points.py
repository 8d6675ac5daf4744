"""A command may die at each durable step, before it and after it; given again, it ends as if nothing had happened.

In the long run, the step between the first and the last of a name is drawn: MOVEOUT_SEED repeats it.
MOVEOUT_CRASH_POINTS limits the run to so many steps of each command, which are drawn, too.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from migrate.cli import VERBS, main
from migrate.runtime.crash_points import CRASH_AT, CRASH_LOG
from tests.crash_points.custody_moves import CUSTODY_MOVES
from tests.crash_points.follow_moves import FOLLOW_MOVES
from tests.crash_points.moves import TABLE_AND_OBJECT_MOVES, Move
from tests.export.victims import import_once, run
from tests.tools.tally import count

MOVES = TABLE_AND_OBJECT_MOVES | CUSTODY_MOVES | FOLLOW_MOVES
SERVERS = {
    "postgres": ("postgres",), "mariadb": ("mariadb",), "bucket": ("minio",), "sync": ("minio",), "minio": ("minio",),
    "mariadbs": ("followed_mariadb", "mariadb"),
}  # fmt: skip
"""The servers that a move needs, by the last word of its name."""
LEAN, FEW = ("export-sqlite", "transfer", "restore-postgres"), 2
"""The moves that the default run tries, at so many points each."""
MANY = int(os.environ.get("MOVEOUT_CRASH_POINTS", sys.maxsize))

import_once(
    __name__,
    "migrate.engines.mysql",
    "migrate.engines.postgres",
    "migrate.engines.s3",
    "migrate.engines.sqlite",
    "migrate.report.template_cache",
    *(f"migrate.cli.{module}" for module, _ in VERBS.values()),
)


def chosen(names: list[str], most: int, seed: str | None) -> list[str]:
    """Return at most so many points to die at, in their order: of each name its first, its last and a drawn time.
    Without a seed it is the middle one and the points lie evenly, so they are the same each time.
    """
    totals, passed, points, draw = Counter(names), Counter[str](), list[str](), random.Random(seed)
    between = {name: (total + 1) // 2 for name, total in totals.items()}
    if seed is not None:
        between = {name: draw.randint(1, totals[name]) for name in sorted(totals)}
    for name in names:
        passed[name] += 1
        if passed[name] in {1, between[name], totals[name]}:
            points.append(f"{name}:{passed[name]}")
    if seed is not None:
        return [points[place] for place in sorted(draw.sample(range(len(points)), min(most, len(points))))]
    step = max(1, len(points) // most)
    return points[step // 2 :: step]


def execute(words: list[str], log: str) -> None:
    """Run a command in the process of a victim; what it says goes to a file."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["moveout", *words]
    sys.exit(main())


def ended(move: Move, monkeypatch: pytest.MonkeyPatch, **environment: str) -> int:
    """Give the command once, and return its exit code: negative where a signal ended it."""
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        victim = run(execute, move.words, str(move.directory / "output"))
        victim.join()
    assert victim.exitcode is not None
    return victim.exitcode


@pytest.mark.parametrize(
    ("name", "is_long"),
    [
        *(pytest.param(name, False, id=f"few-{name}") for name in LEAN),
        *(pytest.param(name, True, id=f"all-{name}", marks=pytest.mark.torture) for name in MOVES),
    ],
)
@pytest.mark.timeout(3600)
def test_ends_at_each_durable_step_and_the_same_command_finishes(
    request, monkeypatch, tmp_path, name, is_long
):
    """The points are those that an undisturbed run passes; its outcome is the one that every other run has."""
    fixtures = SERVERS.get(name.rpartition("-")[2], ())
    move = MOVES[name](tmp_path, {fixture: request.getfixturevalue(fixture) for fixture in fixtures})
    move.begin(0)
    log = tmp_path / "points"
    assert ended(move, monkeypatch, **{CRASH_LOG: str(log)}) in move.end_codes, said(move)
    expected = move.outcome()
    seed, most = None, FEW
    if is_long:
        drawn = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
        sys.stderr.write(f"\n{name} (MOVEOUT_SEED={drawn})\n")
        seed, most = f"{drawn}/{name}", MANY
    tried = chosen(log.read_text().split(), most, seed)
    assert len(tried) >= min(FEW, most) >= 1, "MOVEOUT_CRASH_POINTS is at least 1"
    killed = 0
    for number, point in enumerate(tried, 1):
        move.begin(number)
        code = ended(move, monkeypatch, **{CRASH_AT: point})
        assert code in {-signal.SIGKILL, *move.end_codes}, (point, said(move))
        is_killed = code == -signal.SIGKILL
        killed += is_killed
        assert ended(move, monkeypatch) in move.end_codes, (point, said(move))
        assert move.outcome() == expected, point
        count("kills", int(is_killed))
    # What goes by the clock (a lease, the progress, what is committed together) comes less often in a faster run.
    assert killed >= 0.75 * len(tried) - 1, (killed, len(tried))


def said(move: Move) -> str:
    return Path(move.directory / "output").read_text()
