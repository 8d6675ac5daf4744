"""How far behind a destination is while an application writes, and what its source bears: moveout compared with its
peers.

    python -m scripts.bench.replication.lag [--engine mariadb] [--rate 500] [--seconds 600] [--scale 10] [--cores 2]
        [--tools nobody,moveout,polling,passes,subscription]

Each tool takes a base of the database of pgbench, to which so many transactions are written each second, and follows
it. After a while (``--settle``) its lag is looked at again and again for ``--seconds``. That is how old the time is in
a row of the destination which is written anew at the source four times a second. "nobody" writes the same load and
follows nothing: what the source uses more is the tool's cost. "polling" is moveout where the source refuses the
replication protocol. "passes" is ``moveout follow --delta``. The load, both servers and the tool share ``--cores``. The
tools run one after the other.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scripts.bench.replication.arrivals import (
    BEAT,
    Lags,
    NotArrivedError,
    arrival_seconds,
    beating,
    watch_lags,
)
from scripts.bench.replication.backlog import ENGINES
from scripts.bench.replication.loads import Bank, Load, Pgbench
from scripts.bench.replication.tools import FollowTool, Moveout, Pair, cursor_of
from scripts.cost import MB
from scripts.servers import Servers

_LOOK_SECONDS = 0.05
_MOST_CATCH_UP_SECONDS = 120.0
_LOADS: Mapping[str, Callable[..., Load]] = {"postgres": Pgbench, "mariadb": Bank}
_HISTORY = {"postgres": "pgbench_history", "mariadb": "history"}
_SUMS = {
    "postgres": "SELECT sum(delta), (SELECT sum(abalance) FROM pgbench_accounts), count(*) FROM pgbench_history",
    "mariadb": "SELECT sum(delta), (SELECT sum(balance) FROM accounts), count(*) FROM history",
}
_LONGEST = {
    "postgres": "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0) FROM pg_stat_activity"
    " WHERE datname = current_database() AND backend_type = 'client backend' AND state = 'active'"
    " AND application_name <> 'pgbench' AND pid <> pg_backend_pid()",
    "mariadb": "SELECT coalesce(max(time_ms), 0) / 1000 FROM information_schema.processlist"
    " WHERE command = 'Query' AND id <> connection_id() AND user <> 'bank'",
}
"""For how many seconds the longest statement is at work, but for those of the load."""


@dataclass(frozen=True, slots=True)
class Followed:
    """How a tool followed: transactions that were written each second, lags in seconds, the longest statement at the
    source. Then the milliseconds of processor a transaction (the source's, the destination's, the tool's), and its peak
    memory.
    """

    rate: float
    lags: Lags
    statement_seconds: float
    source_ms: float
    destination_ms: float
    tool_ms: float
    peak_bytes: int
    result: str

    @property
    def line(self) -> str:
        """The cells of a table."""
        figures = self.lags.share(0.5), self.lags.share(0.95), self.lags.most
        lag = " | ".join("-" if seconds == float("inf") else f"{seconds:.1f} s" for seconds in figures)
        cpu = f"{self.source_ms:.2f} ms | {self.destination_ms:.2f} ms | {self.tool_ms:.2f} ms"
        peak = f"{self.peak_bytes / MB:.0f} MB" if self.peak_bytes else "-"
        return (
            f"{self.rate:.0f}/s | {lag} | {cpu} | {self.statement_seconds:.2f} s | {peak} | {self.result} |"
        )


def main() -> int:
    """Let the tools follow, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=ENGINES, default="postgres")
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--settle", type=float, default=15)
    parser.add_argument("--scale", type=int, default=10)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--tools", default="", help="only these, by commas")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    lines = []
    with tempfile.TemporaryDirectory() as directory, Servers(Path(directory)) as servers:
        engine: Any = ENGINES[options.engine]
        make_pair, known = engine.start_pair(servers, Path(directory)), _tools(engine.tools())
        for name in options.tools.split(",") if options.tools else known:
            pair = make_pair(name)
            load = _LOADS[options.engine](pair.source_server, pair.urls[0], options.rate)
            load.fill(options.scale)
            followed = _follow(pair, options.engine, known[name], load, options.settle, options.seconds)
            lines.append(f"| {name} | {followed.line}")
            print(lines[-1], flush=True)
    print(f"\n{options.seconds:.0f} s each, load {os.getloadavg()[1]:.1f} at the end")
    print(
        "| tool | written | lag: median | 95 % | most | CPU a transaction: source | destination | tool |",
        end="",
    )
    print(" longest statement | tool's memory | afterwards |\n|---|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))
    return 0


def _tools(
    known: Mapping[str, Callable[[Any], FollowTool]],
) -> Mapping[str, Callable[[Any], FollowTool] | None]:
    return {"nobody": None, **known, "passes": partial(Moveout, by_passes=True)}


def _follow(
    pair: Pair[Any],
    engine: str,
    make_tool: Callable[[Any], FollowTool] | None,
    load: Load,
    settle: float,
    seconds: float,
) -> Followed:
    with cursor_of(pair.source()) as cursor:
        for statement in BEAT:
            cursor.execute(statement)
    tool = make_tool(pair) if make_tool else None
    if tool is not None:
        tool.take_base()
    with ExitStack() as stack:
        stack.enter_context(load.writing())
        if tool is not None:
            tool.start()
        stack.enter_context(beating(pair))
        longest = stack.enter_context(_longest_statement(pair, _LONGEST[engine]))
        time.sleep(settle)
        if tool is not None:
            with suppress(NotArrivedError):
                arrival_seconds(pair, tool, _MOST_CATCH_UP_SECONDS)
        longest[:] = [0.0]
        before, written, own = pair.used(), _written(pair, _HISTORY[engine]), _own_cpu(tool)
        if tool is None:
            lags = Lags()
            time.sleep(seconds)
        else:
            lags = watch_lags(pair, tool, seconds)
        after, own = pair.used(), _own_cpu(tool) - own
        written = max(_written(pair, _HISTORY[engine]) - written, 1)
    result = "-"
    if tool is not None:
        result = _end(pair, tool, _SUMS[engine])
        tool.stop()
    source_ms, destination_ms, tool_ms = (
        1000 * used / written for used in (after[0] - before[0], after[1] - before[1], own)
    )
    peak = tool.peak_bytes if tool else 0
    return Followed(written / seconds, lags, longest[0], source_ms, destination_ms, tool_ms, peak, result)


def _end(pair: Pair[Any], tool: FollowTool, sums: str) -> str:
    """Wait until all has arrived, and compare. A pass may bring the row of the time before other tables; the next one
    brings these.
    """
    for _ in range(2):
        try:
            seconds = arrival_seconds(pair, tool, _MOST_CATCH_UP_SECONDS)
        except NotArrivedError:
            return "does not catch up"
        answers = []
        for connect in (pair.source, pair.destination):
            with cursor_of(connect()) as cursor:
                cursor.execute(sums)
                answers.append(cursor.fetchone())
        if answers[0] == answers[1]:
            return f"equal after {seconds:.1f} s"
    return f"DIFFERENT: {answers}"


def _own_cpu(tool: FollowTool | None) -> float:
    if tool is None:
        return 0.0
    tool.look()
    return tool.cpu_seconds


def _written(pair: Pair[Any], history: str) -> int:
    with cursor_of(pair.source()) as cursor:
        cursor.execute(f"SELECT count(*) FROM {history}")
        return int(cursor.fetchone()[0])


@contextmanager
def _longest_statement(pair: Pair[Any], query: str) -> Iterator[list[float]]:
    """Look at the source's sessions meanwhile; yield a list with the seconds of the longest statement."""
    longest, stop = [0.0], threading.Event()

    def look() -> None:
        with cursor_of(pair.source()) as cursor:
            while not stop.wait(_LOOK_SECONDS):
                cursor.execute(query)
                longest[0] = max(longest[0], float(cursor.fetchone()[0]))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield longest
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
