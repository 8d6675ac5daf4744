"""``make outsiders``: run test suites that other people wrote against moveout, and print a scoreboard.

``make outsiders ARGS="postgresql-regress --seconds 120"`` runs one suite for two minutes. The exit code is 1 where a
suite shows a defect: a difference that moveout did not report, a failed command or a traceback.
"""

from __future__ import annotations

import argparse
import importlib
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.outsiders.suite import Context, Skipped, Suite, SuiteRow
from scripts.process import ServerError
from scripts.servers import Servers

_SHOWN = 25
_COLUMNS = ("moved", "equal", "reported", "unreported", "errors")


SUITES = (
    "postgresql.regress",
    "postgresql.contrib",
    "postgresql.dump",
    "postgresql.cases",
    "postgresql.subscription",
    "pgcopydb",
    "pgcopydb_follow",
    "sqllogictest",
    "mariadb_suite",
    "mariadb_cases",
    "s3_tests",
    "mint",
    "odd_keys",
    "bagit_conformance",
)
"""The modules with suites, in the order in which they run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites named, or all; return 1 if one of them shows a defect."""
    options = _parse(argv)
    suites = [_load(name) for name in options.names or SUITES]
    print(f"outsiders: --seed {options.seed}", flush=True)
    try:
        results = _run_all(suites, options)
    except KeyboardInterrupt:
        return 130
    print_summary(results)
    return 1 if any(row.failed for rows in results.values() for row in rows) else 0


def _run_all(suites: Sequence[Suite], options: argparse.Namespace) -> dict[str, list[SuiteRow]]:
    """Obtain all suites, then run each; of the budget a suite may use its share of what is left."""
    results: dict[str, list[SuiteRow]] = {}
    materials: list[tuple[Suite, Path]] = []
    for suite in suites:
        material = suite.obtain()
        if isinstance(material, Skipped):
            results[suite.name] = [SuiteRow("all", skipped=material.reason)]
            print_title(suite)
            print_row(results[suite.name][0])
        else:
            materials.append((suite, material))
    ends_at = time.monotonic() + options.seconds if options.seconds else None
    for number, (suite, material) in enumerate(materials):
        now = time.monotonic()
        share = now + (ends_at - now) / (len(materials) - number) if ends_at is not None else None
        results[suite.name] = _run(suite, material, options, share)
    return results


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    names = {re.sub("[._]", "-", module): module for module in SUITES}
    parser = argparse.ArgumentParser(prog="make outsiders", description="Run suites of others on moveout.")
    parser.add_argument("names", nargs="*", metavar="SUITE", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--slice", metavar="N/M", default="1/1", help="run the N-th of M parts of each suite")
    parser.add_argument(
        "--rows", type=int, metavar="N", help="end each suite after N rows that were not skipped"
    )
    parser.add_argument(
        "--skip",
        type=int,
        default=0,
        metavar="N",
        help="leave out the first N tests, files or buckets of each suite: with --seed, go on where a run ended",
    )
    parser.add_argument("--seconds", type=float, metavar="BUDGET", help="begin nothing new after that time")
    parser.add_argument("--seed", type=int, default=None, help="repeat a run's choices (default: random)")
    options = parser.parse_args(argv)
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"unknown suite {unknown[0]}; known are {', '.join(names)}")
    options.names = [names[name] for name in options.names]
    part = re.fullmatch(r"(\d+)/(\d+)", options.slice)
    if not part or not 1 <= int(part[1]) <= int(part[2]):
        parser.error(f"--slice {options.slice}: expected N/M with N from 1 to M, such as 2/8")
    if options.rows is not None and options.rows < 1:
        parser.error(f"--rows {options.rows}: expected at least 1")
    if options.skip < 0:
        parser.error(f"--skip {options.skip}: expected 0 or more")
    options.slice_index, options.slice_count = int(part[1]) - 1, int(part[2])
    if options.seed is None:
        options.seed = secrets.randbelow(10**6)
    return options


def _load(module: str) -> Suite:
    suite: Suite = importlib.import_module(f"scripts.outsiders.{module}").SUITE
    return suite


def _run(suite: Suite, material: Path, options: argparse.Namespace, ends_at: float | None) -> list[SuiteRow]:
    """Run one suite; a suite that breaks off is a row with an error."""
    print_title(suite)
    rows: list[SuiteRow] = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="moveout-outsiders-") as directory,
            Servers(Path(directory) / "servers") as servers,
        ):
            Path(directory).chmod(0o755)  # servers run as another user
            context = Context(
                material=material,
                servers=servers,
                scratch=Path(directory),
                seed=options.seed,
                slice_index=options.slice_index,
                slice_count=options.slice_count,
                skip=options.skip,
                ends_at=ends_at,
            )
            for row in suite.run(context):
                rows.append(row)
                print_row(row)
                if sum(not suite_row.skipped for suite_row in rows) == options.rows:
                    break
    except (ServerError, subprocess.SubprocessError) as error:
        rows.append(SuiteRow("setup", errors=[str(error)]))
        print_row(rows[-1])
    return rows


def print_title(suite: Suite) -> None:
    """Print the suite's name and origin, and the head of its table."""
    print(f"\n== {suite.name}: {suite.origin}")
    print(f"{'variant':44}" + "".join(f"{name:>12}" for name in _COLUMNS), flush=True)


def print_row(row: SuiteRow) -> None:
    """Print one variant's figures, then what it shows."""
    if row.skipped:
        print(f"{row.variant:44} SKIPPED: {row.skipped}", flush=True)
        return
    print(f"{row.variant:44}" + "".join(f"{figure:12}" for figure in _figures(row)))
    for label, lines in (("reported", row.losses), ("UNREPORTED", row.unreported), ("ERROR", row.errors)):
        for line in lines[:_SHOWN]:
            print(f"  {label}: {line}")
        if len(lines) > _SHOWN:
            print(f"  and {len(lines) - _SHOWN} more")
    print(end="", flush=True)


def print_summary(results: Mapping[str, Sequence[SuiteRow]]) -> None:
    """Print one line per suite."""
    print(f"\n{'suite':44}" + "".join(f"{name:>12}" for name in _COLUMNS))
    for name, rows in results.items():
        ran = [row for row in rows if not row.skipped]
        if not ran:
            print(f"{name:44} SKIPPED: {rows[0].skipped if rows else 'nothing was run in time'}")
            continue
        totals = map(sum, zip(*map(_figures, ran), strict=True))
        skipped = len(rows) - len(ran)
        skipped_text = f"  ({skipped} of {len(rows)} variants skipped)" if skipped else ""
        print(f"{name:44}" + "".join(f"{total:12}" for total in totals) + skipped_text)


def _figures(row: SuiteRow) -> tuple[int, ...]:
    return row.moved, row.equal, len(row.losses), len(row.unreported), len(row.errors)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
