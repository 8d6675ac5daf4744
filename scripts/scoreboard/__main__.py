"""``make scoreboard``: add rounds to the rows that are furthest from their target, and write the page.

``make scoreboard ARGS="--rows tampers --minutes 10"`` runs one row for ten minutes, also past its target: a round that
has begun is finished. ``--rounds 3`` ends after three.
The rounds are kept next to the page, so any checkout can go on: commit both. The exit code is 1 where a round failed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from scripts.scoreboard.causes import read_causes
from scripts.scoreboard.page import page
from scripts.scoreboard.rounds import (
    CAUSES,
    CHECKOUT,
    PAGE,
    RECORD,
    Round,
    add_round,
    next_step,
    reached,
    read_rounds,
    run_step,
)
from scripts.scoreboard.rows import ROWS, Row

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
LOGS = _CACHE / "moveout" / "scoreboard-logs"


def main(argv: Sequence[str] | None = None) -> int:
    """Run rounds until the time is over or all targets are reached; return 1 where one failed. The target of a row that
    was asked for by name ends nothing.
    """
    options = _parse(argv)
    rounds = read_rounds(options.record)
    failed: set[str] = set()
    ends_at = time.monotonic() + 60 * options.minutes
    try:
        before = len(rounds)
        while len(rounds) - before < options.rounds and time.monotonic() < ends_at:
            left = [row for row in options.rows if options.named or reached(row, rounds) < row.target]
            row = _furthest([row for row in left if row.name not in failed], rounds)
            if row is None:
                break
            done = _run(row, rounds, options.record)
            rounds.append(done)
            failed |= {row.name} if done.failures else set()
            _write_page(options.to, rounds)
    except KeyboardInterrupt:
        return 130
    _write_page(options.to, rounds)
    for row in options.rows:
        print(f"{row.name:16} {reached(row, rounds):>7,} of {row.target:>7,} {row.unit}")
    return int(bool(failed))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="make scoreboard", description="Run what takes long, and count.")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no round after that (default: 30)")
    parser.add_argument("--rounds", type=int, default=sys.maxsize, help="begin at most so many rounds")
    parser.add_argument("--page", action="store_true", help="write the page, run nothing")
    parser.add_argument("--record", type=Path, default=CHECKOUT / RECORD, help="the finished rounds")
    parser.add_argument("--to", type=Path, default=CHECKOUT / PAGE, help="the page")
    options = parser.parse_args(argv)
    unknown = sorted(set(options.rows or ()) - set(names))
    if unknown:
        parser.error(f"unknown row {unknown[0]}; known are {', '.join(names)}")
    options.named = bool(options.rows)
    options.rows = [row for row in ROWS if row.name in (options.rows or names)]
    if options.page:
        options.rounds = 0
    return options


def _write_page(to: Path, rounds: Sequence[Round]) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(page(rounds, read_causes(CHECKOUT / CAUSES)), encoding="utf-8")


def _furthest(rows: Sequence[Row], rounds: Sequence[Round]) -> Row | None:
    """Return the row that has the least of its target, None where there is no row."""
    return min(rows, key=lambda row: reached(row, rounds) / row.target, default=None)


def _run(row: Row, rounds: Sequence[Round], record: Path) -> Round:
    """Run the next step of a row, and keep what came of it."""
    step = next_step(row, rounds)
    print(f"scoreboard: {row.name}, {step.name}: {step.command}", flush=True)
    name = re.sub(r"\W+", "-", f"{row.name} {step.name}").strip("-")
    log = LOGS / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.log"
    done = run_step(row, step, log)
    add_round(record, done)
    print(
        f"scoreboard: {done.seconds:.0f} s, {done.counts}"
        + "".join(f"\n  FAILED {one}" for one in done.failures)
    )
    if done.failures:
        print(f"  see {log}; write the cause to {CAUSES}", flush=True)
    return done


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
