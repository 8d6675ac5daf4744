"""Whole databases to another server: moveout compared with the tools of their engine.

    python -m scripts.bench.moves [postgres mariadb] [--data lineitem types] [--tools pgcopydb] [--scale 0.1] [--runs 3]

Starts two servers of each engine. Each tool moves each database by turns, as whole processes, into a new database of
the other server. *moveout* is ``export`` and then ``restore``; *moveout sync* goes through a working folder, and
follows the source. Of PostgreSQL the others are ``pgcopydb clone`` (Debian's) and ``pg_dump -Fd`` with ``pg_restore``,
of MariaDB ``mariadb-dump | mariadb`` and ``mydumper`` with ``myloader`` (Debian's). All that can, take two jobs.
Afterwards the rows of each table are counted: a tool that failed, or lost some, is named. moveout also hashes its
files, counts and digests the rows of the source, seals, reads all rows back and compares them.

Ratios are medians of those of the single turns, and more than 1 means that moveout is faster. The processor's seconds
are those of the tool and of both servers.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.moves.databases import KINDS
from scripts.bench.moves.engines import MARIADB, POSTGRES, Ends, Engine, Tool
from scripts.bench.ratios import note
from scripts.bench.tables import MOVEOUT
from scripts.cost import cost_of, used_by
from scripts.outsiders.suite import Skipped
from scripts.servers import Servers

_ENGINES: Mapping[str, Engine] = {"postgres": POSTGRES, "mariadb": MARIADB}
_TARGETS = {"pgcopydb": 0.67, "mariadb-dump": 0.67, "mydumper": 0.67}
"""An export and a restore take at most one and a half times as long as these."""
_SETTLE_SECONDS = 0.3
"""Until then a server has noticed that sessions have ended."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """Seconds of one move: of the clock, and of the processor, the tool's and both servers'. ``steps``: of the clock,
    command by command.
    """

    steps: Sequence[float]
    tool: float
    servers: float

    @property
    def clock(self) -> float:
        return sum(self.steps)

    @property
    def processor(self) -> float:
        return self.tool + self.servers

    def __str__(self) -> str:
        steps = " + ".join(f"{seconds:.1f}" for seconds in self.steps)
        return f"{self.clock:6.1f} s ({steps}), {self.tool:5.1f} + {self.servers:5.1f} s of processor"


def main() -> int:
    """Move by turns, and print ratios; return 1 where moveout failed or lost a row."""
    options = _options()
    lines: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="moveout-bench-", dir=options.dir) as directory,
        Servers(Path(directory), keeps_data=False) as servers,
    ):
        Path(directory).chmod(0o755)  # servers run as other users
        for name in options.engines:
            engine = _ENGINES[name]
            source, destination = (engine.start(servers, f"{name}-{end}") for end in ("old", "new"))
            os.environ.update(servers.environment)
            for kind in options.data:
                filled = engine.fill(source, kind, kind, options.scale, options.tables)
                if isinstance(filled, Skipped):
                    print(f"{name}, {kind}: SKIPPED: {filled.reason}", flush=True)
                    continue
                ends = Ends(source, destination, kind, Path(directory, "work"))
                lines += _compare(f"{name}, {kind}", engine, ends, options)
    print("", *lines, sep="\n")
    return int(any(re.match(f"{MOVEOUT}.* (LOST|FAILED) ", line) for line in lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "engines", nargs="*", metavar="ENGINE", help=f"of {', '.join(_ENGINES)} (default: all)"
    )
    parser.add_argument("--data", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--tools", nargs="+", help="only these, and moveout")
    parser.add_argument("--scale", type=float, default=0.1, help="of TPC-H; 1 is 6 million rows of lineitem")
    parser.add_argument("--tables", type=int, default=200, help="so many small ones")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where the servers keep their data (default: the system's)")
    options = parser.parse_args()
    options.engines = options.engines or list(_ENGINES)
    if unknown := set(options.engines) - set(_ENGINES):
        parser.error(f"unknown engine {unknown.pop()}; known are {', '.join(_ENGINES)}")
    return options


def _compare(title: str, engine: Engine, ends: Ends, options: argparse.Namespace) -> list[str]:
    """Let each tool move a database in each run; return the lines to end with."""
    print(f"== {title}", flush=True)
    tools: dict[str, Tool] = {}
    for name, tool in engine.tools.items():
        if name != MOVEOUT and options.tools and name not in options.tools:
            continue
        obtained = tool.obtain()
        if isinstance(obtained, Skipped):
            print(f"  {name}: SKIPPED: {obtained.reason}", flush=True)
        else:
            tools[name] = tool
    expected = engine.rows(ends.source, ends.name)
    taken: dict[str, list[_Taken]] = {name: [] for name in tools}
    faults: list[str] = []
    for number in range(options.runs):
        for name in list(taken):
            try:
                taken[name].append(_move(tools[name], ends))
                print(f"  run {number + 1}: {name:24} {taken[name][-1]}", flush=True)
                arrived = engine.rows(ends.destination, ends.name)
                if arrived != expected:
                    lost = sum(expected.values()) - sum(arrived.values())
                    faults.append(
                        f"{name} LOST {lost} rows of {title}: {len(arrived)} of {len(expected)} tables"
                    )
            except subprocess.CalledProcessError as exc:
                faults.append(
                    f"{name} FAILED to move {title}: {Path(exc.cmd[0]).name} ended with {exc.returncode}"
                )
                del taken[name]
            engine.drop(ends.destination, ends.name)
    return [*_ratios(title, taken), *dict.fromkeys(faults)]


def _move(tool: Tool, ends: Ends) -> _Taken:
    """Move the database once, into a new one."""
    ends.destination.database(ends.name)
    ends.folder.mkdir()
    ends.folder.chmod(0o777)
    pids = [server.child.popen.pid for server in (ends.source, ends.destination)]
    before = sum(map(used_by, pids))
    try:
        costs = [cost_of(command, tool.variables(ends)) for command in tool.commands(ends)]
        time.sleep(_SETTLE_SECONDS)
        used = sum(map(used_by, pids)) - before
        tool.clean(ends)
    finally:
        shutil.rmtree(ends.folder)
    return _Taken([cost.seconds for cost in costs], sum(cost.cpu_seconds for cost in costs), used)


def _ratios(title: str, taken: Mapping[str, Sequence[_Taken]]) -> list[str]:
    """Return a line for each tool but ours, and for each way of ours."""
    ours = {name: turns for name, turns in taken.items() if name.startswith(MOVEOUT)}
    lines = []
    for name, turns in ours.items():
        lines.append(f"{title}: {name} takes {statistics.median(turn.clock for turn in turns):.1f} s")
        for peer in sorted(taken.keys() - ours.keys()):
            clock = _ratios_of(taken[peer], turns, lambda turn: turn.clock)
            processor = _ratios_of(taken[peer], turns, lambda turn: turn.processor)
            lines.append(f"{title}: {name} : {peer} = {_text(clock)}, by processor time {_text(processor)}")
            target = _TARGETS.get(peer, 0) if name == MOVEOUT else 0
            note(f"{title}: {name}", peer, statistics.median(clock), target)
    return sorted(lines)


def _ratios_of(
    peer: Sequence[_Taken], ours: Sequence[_Taken], value: Callable[[_Taken], float]
) -> Sequence[float]:
    return [value(theirs) / value(mine) for theirs, mine in zip(peer, ours, strict=True)]


def _text(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} x as fast ({min(ratios):.2f}-{max(ratios):.2f})"


if __name__ == "__main__":
    sys.exit(main())
