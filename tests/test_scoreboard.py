"""The scoreboard counts what commands say, keeps it between calls, and claims nothing else."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from _pytest.mark.expression import Expression

from scripts.scoreboard import __main__ as scoreboard
from scripts.scoreboard import rounds as scoreboard_rounds
from scripts.scoreboard.causes import Cause, CauseKind, read_causes
from scripts.scoreboard.page import page
from scripts.scoreboard.rounds import (
    CAUSES,
    CHECKOUT,
    PAGE,
    RECORD,
    Round,
    add_round,
    next_step,
    read_rounds,
    run_step,
)
from scripts.scoreboard.rows import (
    ROWS,
    Output,
    Row,
    Step,
    of_bench,
    of_forecasts,
    of_long_tests,
    of_outsiders,
    of_pytest,
)
from tests.conftest import LONG_TESTS, pytest_runtest_logreport
from tests.tools import tally

SUITES = """
suite                                              moved       equal    reported  unreported      errors
odd-keys                                             120         100          20           0           0
mint                                         SKIPPED: no checkout
mariadb-suite                                         40          38           0           2           1  (skipped)
"""


FAILED = """
==================================== ERRORS ====================================
__________________ ERROR at setup of test_b[mysql-0] ___________________
E   OSError: no space
=================================== FAILURES ===================================
_________________________________ test_a[c d] __________________________________
>       assert follow.poll() is None, log
E       AssertionError: follow has ended
E         with a second line
________________________________ TestC.test_d __________________________________
tests/a.py:7: Failed
----------------------------- Captured stderr call -----------------------------
=========================== short test summary info ============================
FAILED tests/a.py::test_a[c d] - AssertionError: fol...
FAILED tests/a.py::TestC::test_d
ERROR tests/a.py::test_b[mysql-0] - OSError
"""


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where logs go: not among those of the person who runs this test."""
    monkeypatch.setattr(scoreboard, "LOGS", tmp_path / "logs")
    return tmp_path / "logs"


def row_of(script: str, target: int = 20) -> Row:
    return Row("tampers", "promise", "how", "tampers", target, (Step("one", ("sh", "-c", script)),))


def one_round(row: str, step: str, *, counts: dict[str, int], failures: tuple[str, ...] = ()) -> Round:
    return Round(row, step, "2026-01-02 03:04", "abc1234", 5.0, counts, failures)


def test_output_of_pytest_is_counted(tmp_path: Path) -> None:
    row = row_of(
        "echo 'counted: kills of servers=2, tampers=12'; echo 'FAILED tests/a.py::test_b[c d] - why'; exit 1"
    )
    done = run_step(row, row.steps[0], tmp_path / "log")
    assert done.counts == {"kills of servers": 2, "tampers": 12}
    assert done.failures == ("tests/a.py::test_b[c d]",)
    assert done.load is not None
    assert (tmp_path / "log").exists()


def test_a_failure_is_kept_with_its_reason() -> None:
    assert of_pytest(FAILED).failures == (
        "tests/a.py::test_a[c d] - AssertionError: follow has ended",
        "tests/a.py::TestC::test_d",
        "tests/a.py::test_b[mysql-0] - OSError: no space",
    )


def test_what_is_checked_later_counts_only_where_the_test_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counter[str]()
    monkeypatch.setattr(tally, "_COUNTED", counted)

    def end(when: Literal["setup", "call", "teardown"], outcome: Literal["passed", "failed"]) -> None:
        pytest_runtest_logreport(pytest.TestReport("test", ("file", 1, "test"), {}, outcome, None, when))

    tally.count("disk faults")
    for when, outcome, kills in (
        ("call", "failed", 1),
        ("setup", "failed", 1),
        ("setup", "passed", 2),
        ("call", "passed", 1),
    ):
        tally.count_if_passed("kills", kills)
        end(when, outcome)
    end("call", "passed")
    assert counted == {"disk faults": 1, "kills": 3}


@pytest.mark.parametrize(("script", "what"), [("exit 3", "ended with 3"), ("true", "nothing was counted")])
def test_a_command_that_counts_nothing_has_failed(script: str, what: str, tmp_path: Path) -> None:
    row = row_of(script)
    (failure,) = run_step(row, row.steps[0], tmp_path / "log").failures
    assert what in failure


def test_output_of_other_programs_is_counted() -> None:
    found = of_outsiders(SUITES)
    assert found.counts == {"outsiders' cases": 158, "arrived equal": 138, "differences that were named": 20}
    assert found.failures == ("mariadb-suite: 2 differences not named, 1 errors",)
    assert of_forecasts("forecasts: 6 moves, 3 within P50, 5 within P90\n").counts["within P90"] == 5
    assert of_long_tests(f"{FAILED}==== 2 failed, 31 passed, 4 skipped in 61.20s (0:01:01) ====\n") == Output(
        Counter({"long tests": 31}), of_pytest(FAILED).failures
    )
    assert of_bench("1 s\nmoveout : rclone = 2.70 x the objects a second\n").counts == {"comparisons": 1}


def test_later_calls_go_on_until_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoreboard, "ROWS", (row_of("echo counted: tampers=12"),))
    words = ["--record", str(tmp_path / "record"), "--to", str(tmp_path / "page.md")]
    assert scoreboard.main([*words, "--page"]) == 0
    assert read_rounds(tmp_path / "record") == []
    assert scoreboard.main([*words, "--minutes", "5"]) == 0
    assert scoreboard.main([*words, "--minutes", "5"]) == 0
    assert [done.counts["tampers"] for done in read_rounds(tmp_path / "record")] == [12, 12]
    assert "**24** tampers" in (tmp_path / "page.md").read_text()


def test_a_row_that_is_named_runs_past_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoreboard, "ROWS", (row_of("echo counted: tampers=12", target=12),))
    words = ["--record", str(tmp_path / "record"), "--to", str(tmp_path / "page.md"), "--rows", "tampers"]
    assert scoreboard.main([*words, "--rounds", "3"]) == 0
    assert len(read_rounds(tmp_path / "record")) == 3
    assert scoreboard.main([*words, "--minutes", "0"]) == 0
    assert len(read_rounds(tmp_path / "record")) == 3


def test_a_row_that_fails_is_not_tried_again_in_the_same_call(
    tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scoreboard, "ROWS", (row_of("exit 1"),))
    words = ["--record", str(tmp_path / "record"), "--to", str(tmp_path / "page.md"), "--minutes", "5"]
    assert scoreboard.main(words) == 1
    assert len(read_rounds(tmp_path / "record")) == 1
    assert "FAILED the command ended with 1" in capsys.readouterr().out
    assert len(list(logs.iterdir())) == 1


def test_the_page_claims_only_what_ran(tmp_path: Path) -> None:
    empty = page([], {})
    assert len(re.findall(r"\*\*0\*\* .* \| - \| never \|", empty)) == len(ROWS)
    assert "Nothing, in no round." in empty
    add_round(
        tmp_path / "record", one_round("tampers", "any file", counts={"tampers": 1990}, failures=("tests/x",))
    )
    done = one_round("tampers", "any file", counts={"tampers": 2000})
    add_round(tmp_path / "record", done)
    assert read_rounds(tmp_path / "record")[-1] == done
    assert "failures" not in (tmp_path / "record").read_text().splitlines()[-1]
    text = page(read_rounds(tmp_path / "record"), {})
    assert "| **3,990** tampers | 10,000 | 1 of 2: 1 not established | 2026-01-02, `abc1234` |" in text
    assert "| tampers: any file | `tests/x` | **not established** | 1 of 1 rounds passed |" in text
    add_round(
        tmp_path / "record", one_round("tampers", "as it was", counts={}, failures=("a", "b", "c", "d"))
    )
    add_round(tmp_path / "record", one_round("tampers", "any file", counts={"tampers": 2000}))
    text = page(read_rounds(tmp_path / "record"), {})
    assert (
        "| `a`; `b`; `c`; `d` | **not established** | 1 of 1 rounds of the steps that replaced it passed |"
        in text
    )
    assert len(re.findall(r"\*\*0\*\* ", text)) == len(ROWS) - 1


def test_a_line_that_is_none_of_a_round_is_named(tmp_path: Path) -> None:
    """As where two checkouts were merged by hand."""
    add_round(tmp_path / "record", one_round("tampers", "any file", counts={}))
    with (tmp_path / "record").open("a") as file:
        file.write("<<<<<<< HEAD\n")
    with pytest.raises(SystemExit, match="record, line 2 is not the line of a round"):
        read_rounds(tmp_path / "record")


def test_a_row_that_is_no_more_stays_among_the_failures() -> None:
    text = page([one_round("whales", "any", counts={}, failures=("a",))], {})
    assert "| whales: any | `a` | **not established** | not run again |" in text


def test_the_page_says_why_a_round_failed() -> None:
    why = ("tests/x - AssertionError: `a` | b", "tests/z::test[a]", "tests/z::test[b] - E: c")
    rounds = [one_round("tampers", "any file", counts={}, failures=why)]
    causes = {
        rounds[0].name: Cause(
            [rounds[0].name], CauseKind.PRODUCT, "A name was missing.", "def5678", "tests/y"
        )
    }
    text = page(rounds, causes)
    assert "| 1 of 1: 1 product (mended) |" in text
    assert (
        "| `tests/x`: `AssertionError: 'a' \\| b`; `tests/z::test` `[a]`, `[b]`: `E: c`"
        " | **product**: A name was missing. Mended by `def5678`. Test: `tests/y`. | not run again |"
    ) in text


def test_comparisons_say_what_was_compared_when_and_what_else_the_machine_did() -> None:
    row = next(row for row in ROWS if row.name == "speeds")
    first, second = row.steps[:2]
    older = Round(row.name, first.name, "2026-01-01", "abc", 1.0, {}, lines=("moveout : rclone = 9.00 x",))
    newer = msgspec.structs.replace(
        older, at="2026-01-02", lines=("moveout : rclone = 2.00 x",), load=(0.2, 3.1)
    )
    other = msgspec.structs.replace(newer, step=second.name, load=(5.1, 6.0))
    text = page([older, newer, other], {})
    said = "moveout : rclone = 2.00 x | 2026-01-02 | `abc` |"
    assert f"| {first.name} | {said} quiet: load 0.2 before, 3.1 at the end |" in text
    assert f"| {second.name} | {said} busy: load 5.1 before, 6.0 at the end |" in text
    assert f"| {row.steps[2].name} | not recorded |" in text
    assert "9.00 x" not in text


def test_the_page_of_this_checkout_is_written_from_its_record() -> None:
    """Whoever commits rounds commits the page, and the cause of what failed."""
    rounds, causes = read_rounds(CHECKOUT / RECORD), read_causes(CHECKOUT / CAUSES)
    assert (CHECKOUT / PAGE).read_text(encoding="utf-8") == page(rounds, causes)
    assert {one.name for one in rounds if one.failures} == set(causes)
    for cause in causes.values():
        path, _, name = cause.test.partition("::")
        assert (CHECKOUT / path).exists(), cause.test
        assert not name or f"def {name}(" in (CHECKOUT / path).read_text(encoding="utf-8"), cause.test


def test_steps_take_turns() -> None:
    row = next(row for row in ROWS if len(row.steps) > 1)
    assert next_step(row, []) == row.steps[0]
    assert next_step(row, [one_round(row.name, row.steps[0].name, counts={})]) == row.steps[1]


def test_every_step_names_what_is_there() -> None:
    for row in ROWS:
        for step in row.steps:
            for path in re.findall(r"tests/[\w/.]+", " ".join(step.words)):
                assert (scoreboard_rounds.CHECKOUT / path).exists(), step.command


def test_every_long_test_is_run_by_a_step(pytestconfig: pytest.Config) -> None:
    """Of those that were collected: with the whole suite, of all. A new one needs a step in ``scripts/scoreboard``."""
    steps = [step for row in ROWS for step in row.steps if step.words[:2] == ("make", "torture")]
    chosen = [chosen_by(step.words[2].removeprefix("ARGS=")) for step in steps]
    assert [test for test in pytestconfig.stash[LONG_TESTS] if not any(one(test) for one in chosen)] == []


def test_a_step_runs_what_its_paths_and_its_expression_choose() -> None:
    chosen = chosen_by("-n 2 tests/a tests/b.py -k 'all and not c'")
    assert chosen("tests/a/d.py::test[all-1]")
    assert chosen("tests/b.py::test_all")
    assert not chosen("tests/ab/d.py::test[all-1]")
    assert not chosen("tests/a/d.py::test[all-c]")
    assert not chosen("tests/a/d.py::test[few-1]")


def chosen_by(arguments: str) -> Callable[[str], bool]:
    """Return what tells whether pytest runs a test, given arguments of a step."""
    words = shlex.split(arguments)
    paths = [word for word in words if word.startswith("tests/")]
    expression = Expression.compile(words[words.index("-k") + 1]) if "-k" in words else None

    def chosen(test: str) -> bool:
        is_there = any(test.startswith((f"{path}/", f"{path}::")) for path in paths)
        return is_there and (
            expression is None or expression.evaluate(lambda name, **_: name in test.lower())
        )

    return chosen


def test_the_command_of_a_step_is_one_that_a_shell_takes() -> None:
    for step in (step for row in ROWS for step in row.steps):
        words = shlex.split(step.command)
        assert words == [*(f"{name}={value}" for name, value in step.environment.items()), *step.words]
        assert "'\"'" not in step.command
    assert Step("one", ("make", 'ARGS="$x"')).command == """make 'ARGS="$x"'"""


def test_the_page_alone_does_not_make_a_checkout_a_changed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        ["init", "-q"],
        ["-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "--allow-empty", "-m", "m"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(scoreboard_rounds, "CHECKOUT", tmp_path)
    clean = scoreboard_rounds.commit()
    (tmp_path / "docs").mkdir()
    for name in (PAGE, RECORD, CAUSES):
        (tmp_path / name).write_text("page")
    assert scoreboard_rounds.commit() == clean
    (tmp_path / "docs" / "other").write_text("other")
    assert scoreboard_rounds.commit() == f"{clean}-dirty"
