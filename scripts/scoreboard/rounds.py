"""One round of a step: run its command, count, and keep a line of the result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from scripts.scoreboard.rows import Row, Step

CHECKOUT = Path(__file__).parents[2]
PAGE = "docs/reliability.md"
RECORD = "docs/reliability.jsonl"
CAUSES = "docs/reliability-causes.toml"


class Round(msgspec.Struct, frozen=True, omit_defaults=True):
    """A finished round. ``commit`` ends with ``-dirty`` where files had been changed. ``failures`` are names, with
    their reasons behind `` - ``. ``load`` is the machine's load average of a minute, before the round and at its end.
    """

    row: str
    step: str
    at: str
    commit: str
    seconds: float
    counts: dict[str, int]
    failures: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    load: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """What names a round in the file of causes."""
        return f"{self.at} {self.commit}"


def read_rounds(record: Path) -> list[Round]:
    """Return the rounds of a record, none where there is none. Ends the program where a line is not one of a round."""
    lines = record.read_bytes().splitlines() if record.exists() else []
    rounds = []
    for number, line in enumerate(lines, 1):
        try:
            rounds.append(msgspec.json.decode(line, type=Round))
        except msgspec.DecodeError as error:
            sys.exit(f"{record}, line {number} is not the line of a round: {error}")
    return rounds


def add_round(record: Path, done: Round) -> None:
    """Append a line, which is durable then."""
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("ab") as file:
        file.write(msgspec.json.encode(done) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def reached(row: Row, rounds: Iterable[Round]) -> int:
    """Return how much of a row's unit was done, in all rounds of all rows: a cutover has kills, too."""
    return sum(done.counts.get(row.unit, 0) for done in rounds)


def next_step(row: Row, rounds: Sequence[Round]) -> Step:
    """Return the step that had the fewest rounds, the first of them."""
    times = Counter(done.step for done in rounds if done.row == row.name)
    return min(row.steps, key=lambda step: times[step.name])


def run_step(row: Row, step: Step, log: Path) -> Round:
    """Run a step's command to its end. What it prints goes to ``log``, which stays where the round failed. A command
    that fails without naming a test has itself failed.
    """
    started, begun_at, load = time.monotonic(), commit(), os.getloadavg()[0]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            step.words,
            cwd=CHECKOUT,
            env={**environment, **step.environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    output = step.read(log.read_text(encoding="utf-8", errors="replace"))
    failures = list(output.failures)
    if code and not failures:
        failures.append(f"the command ended with {code}")
    elif not output.counts[row.unit] and not failures:
        failures.append("nothing was counted")
    if not failures:
        log.unlink()
    return Round(
        row.name,
        step.name,
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        begun_at,
        round(time.monotonic() - started, 1),
        dict(output.counts),
        tuple(failures),
        output.lines,
        (round(load, 1), round(os.getloadavg()[0], 1)),
    )


def commit() -> str:
    """Return the commit of the checkout; with a mark where files have been changed since, the page and what it is
    written from apart.
    """
    named = _git("rev-parse", "--short=10", "HEAD").stdout.strip()
    changed = _git(
        "status", "--porcelain", "--", ".", *(f":!{name}" for name in (PAGE, RECORD, CAUSES))
    ).stdout
    return (named or "unknown") + ("-dirty" if changed else "")


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=False)
