"""A backlog of changes is applied: by moveout, and by what its peers are.

    python -m scripts.bench.replication.backlog [--engine mariadb] [--rows 1000000] [--shape mixed|inserts|updates]
        [--transaction 4] [--tools moveout,subscription] [--rounds 1]

Each tool takes a base of the same tables and is held. Then so many rows are changed, a few in each transaction, or all
in one (``--transaction 0``), and the tool is started. Its time ends when a row that was written last is at the
destination. The tools run one after the other.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.replication import mariadb_tools, postgres_tools
from scripts.bench.replication.arrivals import BEAT, NotArrivedError, arrival_seconds
from scripts.bench.replication.tools import FollowTool, Pair, cursor_of
from scripts.cost import MB
from scripts.servers import Servers

ENGINES = {"postgres": postgres_tools, "mariadb": mariadb_tools}
_ACCOUNTS, _TELLERS = 200_000, 100
_TABLES = (
    "CREATE TABLE accounts (id int PRIMARY KEY, branch int, balance bigint, filler varchar(100))",
    "CREATE TABLE tellers (id int PRIMARY KEY, balance bigint)",
    "CREATE TABLE history (id bigint PRIMARY KEY, account int, teller int, delta int, at timestamp, note varchar(40))",
)
_FILL = {
    "postgres": (
        f"INSERT INTO accounts SELECT i, i % 100, 0, repeat('x', 80) FROM generate_series(1, {_ACCOUNTS}) i",
        f"INSERT INTO tellers SELECT i, 0 FROM generate_series(1, {_TELLERS}) i",
    ),
    "mariadb": (
        f"INSERT INTO accounts SELECT seq, seq % 100, 0, repeat('x', 80) FROM seq_1_to_{_ACCOUNTS}",
        f"INSERT INTO tellers SELECT seq, 0 FROM seq_1_to_{_TELLERS}",
    ),
}
_NOTE = {"postgres": "'note ' || i", "mariadb": "concat('note ', i)"}
_INSERT = "INSERT INTO history VALUES (i, i % 200000 + 1, i % 100 + 1, i % 1000, now(), {note});"
_UPDATE = "UPDATE accounts SET balance = balance + i WHERE id = (i * 7919) % 200000 + 1;"
_TELLER = "UPDATE tellers SET balance = balance + i WHERE id = i % 100 + 1;"
_DELETE = "DELETE FROM history WHERE id = i - 1000;"
SHAPES = {"mixed": [_UPDATE, _TELLER, _INSERT, _DELETE], "inserts": [_INSERT], "updates": [_UPDATE]}
_LOOP = {
    "postgres": "DO $$ DECLARE i bigint; BEGIN FOR i IN 1..{turns} LOOP {body} {commit} END LOOP; END $$",
    "mariadb": "BEGIN NOT ATOMIC DECLARE i bigint DEFAULT 1; START TRANSACTION; WHILE i <= {turns} DO {body} {commit}"
    " SET i = i + 1; END WHILE; COMMIT; END",
}
_COMMIT = {
    "postgres": "IF i % {every} = 0 THEN COMMIT; END IF;",
    "mariadb": "IF i % {every} = 0 THEN COMMIT; START TRANSACTION; END IF;",
}
_CHECK = "SELECT count(*), sum(id), sum({column}) FROM {table}"
_CHECKED = {"accounts": "balance", "tellers": "balance", "history": "delta"}


@dataclass(frozen=True, slots=True)
class Applied:
    """Seconds of the clock until all had arrived, and of the processors; the tool's peak memory. ``seconds`` is
    negative where not all has arrived. ``different``: the tables that are not what they are at the source.
    """

    seconds: float
    tool_cpu: float
    source_cpu: float
    destination_cpu: float
    peak_bytes: int
    different: Sequence[str]

    def line(self, rows: int) -> str:
        """Return the cells of a table."""
        clock = f"{self.seconds:.1f} s, {rows / self.seconds:,.0f}/s" if self.seconds > 0 else "never"
        peak = f"{self.peak_bytes / MB:.0f} MB" if self.peak_bytes else "-"
        cpu = f"{self.tool_cpu:.1f} s | {self.source_cpu:.1f} s | {self.destination_cpu:.1f} s"
        rows_cell = f"DIFFERENT: {', '.join(self.different)}" if self.different else "equal"
        return f"{clock} | {cpu} | {peak} | {rows_cell} |"


def main() -> int:
    """Let the tools apply a backlog each, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=ENGINES, default="postgres")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shape", choices=SHAPES, default="mixed")
    parser.add_argument("--transaction", type=int, default=4, help="rows in each; 0: all in one")
    parser.add_argument("--tools", default="", help="only these, by commas")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--most-seconds", type=float, default=900.0, help="for this long a tool is waited for"
    )
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as directory, Servers(Path(directory)) as servers:
        engine: Any = ENGINES[options.engine]
        make_pair, known = engine.start_pair(servers, Path(directory)), engine.tools()
        for number in range(options.rounds):
            for name in options.tools.split(",") if options.tools else known:
                pair = make_pair(f"{name}_{number}")
                write = _writer(pair, options.engine, options.shape, options.rows, options.transaction)
                applied = apply_backlog(
                    pair, known[name], _tables(options.engine), write, options.most_seconds
                )
                lines.append(f"| {name} | {applied.line(options.rows)}")
                print(lines[-1], flush=True)
    print(f"\n{options.rows:,} changes ({options.shape}), load {os.getloadavg()[1]:.1f} at the end")
    print(
        "| tool | clock, rate | CPU: tool | source | destination | tool's memory | rows |"
        "\n|---|---|---|---|---|---|---|"
    )
    print("\n".join(lines))
    return 0


def apply_backlog(
    pair: Pair[Any],
    make_tool: Callable[[Any], FollowTool],
    tables: Sequence[str],
    write: Callable[[], None],
    most_seconds: float,
) -> Applied:
    """Let one tool take a base, write, and let it bring what was written."""
    with cursor_of(pair.source()) as cursor:
        for statement in (*tables, *BEAT):
            cursor.execute(statement)
    tool = make_tool(pair)
    tool.take_base()
    write()
    before = pair.used()
    tool.start()
    try:
        seconds = arrival_seconds(pair, tool, most_seconds)
    except NotArrivedError:
        seconds = -1.0
    tool.look()
    after = pair.used()
    tool.stop()
    costs = after[0] - before[0], after[1] - before[1]
    return Applied(seconds, tool.cpu_seconds, *costs, tool.peak_bytes, _different(pair))


def _tables(engine: str) -> Sequence[str]:
    return (*_TABLES, *_FILL[engine])


def _writer(pair: Pair[Any], engine: str, shape: str, rows: int, transaction: int) -> Callable[[], None]:
    statements = SHAPES[shape]
    every = max(transaction // len(statements), 1)
    body = " ".join(statements).format(note=_NOTE[engine])
    commit = _COMMIT[engine].format(every=every) if transaction else ""
    script = _LOOP[engine].format(turns=rows // len(statements), body=body, commit=commit)

    def write() -> None:
        begun = time.monotonic()
        with cursor_of(pair.source()) as cursor:
            cursor.execute(script)
        print(f"  {rows:,} changes were written in {time.monotonic() - begun:.1f} s", flush=True)

    return write


def _different(pair: Pair[Any]) -> list[str]:
    answers: list[dict[str, Any]] = []
    for connect in (pair.source, pair.destination):
        with cursor_of(connect()) as cursor:
            answer = {}
            for table, column in _CHECKED.items():
                cursor.execute(_CHECK.format(table=table, column=column))
                answer[table] = cursor.fetchall()
            answers.append(answer)
    return [table for table in _CHECKED if answers[0][table] != answers[1][table]]


if __name__ == "__main__":
    sys.exit(main())
