"""What a tool brings from a database that it follows, and what it loses: moveout compared with its peers.

    python -m scripts.bench.replication.peers [--engine mariadb] [--turns 40] [--seed 1] [--tools moveout]

Each tool takes a base of the same database and follows it while the same random workload runs there. The workload is a
list of things that applications do (``things.py``). Then each tool ends the move in its own way, and each thing is
compared. The tools run one after the other.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from scripts.bench.replication.backlog import ENGINES
from scripts.bench.replication.things import MARIADB_THINGS, POSTGRES_THINGS, Thing
from scripts.bench.replication.tools import Pair, cursor_of
from scripts.servers import Servers

_THINGS = {"postgres": POSTGRES_THINGS, "mariadb": MARIADB_THINGS}
_ERRORS = (psycopg.Error, pymysql.Error)


def main() -> int:
    """Let each tool follow, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=ENGINES, default="postgres")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument(
        "--without",
        default="",
        metavar="WORDS",
        help="leave out things with one of these in their name, by commas",
    )
    parser.add_argument("--tools", default="", help="only these, by commas")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"--seed {options.seed}")
    without = options.without.split(",") if options.without else []
    things = [t for t in _THINGS[options.engine] if not any(word in t.name for word in without)]
    results: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as directory, Servers(Path(directory)) as servers:
        engine: Any = ENGINES[options.engine]
        make_pair, known = engine.start_pair(servers, Path(directory)), engine.tools()
        for name in options.tools.split(",") if options.tools else known:
            pair = make_pair(name)
            _make(pair, things)
            tool = known[name](pair)
            tool.take_base()
            tool.start()
            refused = _write(pair, things, options.turns, random.Random(options.seed))
            begun = time.monotonic()
            words = tool.finish()
            print(f"{name}: {words} ({time.monotonic() - begun:.1f} s after the last change)", flush=True)
            results[name] = [_compared(pair, thing, refused) for thing in things]
    print(f"\n| {'what':56} | " + " | ".join(results) + " |\n|---" + "|---" * len(results) + "|")
    for number, thing in enumerate(things):
        print(f"| {thing.name:56} | " + " | ".join(result[number] for result in results.values()) + " |")
    return 0


def _make(pair: Pair[Any], things: Sequence[Thing]) -> None:
    with cursor_of(pair.source()) as cursor:
        for thing in things:
            for statement in thing.before:
                cursor.execute(statement)


def _write(pair: Pair[Any], things: Sequence[Thing], turns: int, chance: random.Random) -> dict[str, str]:
    """Run the turns of all things, mixed. Return what the source refused to the application, by the thing."""
    refused: dict[str, str] = {}
    numbers = [(thing, n) for thing in things for n in range(1, turns + 1)]
    order = sorted(range(len(numbers)), key=lambda index: (numbers[index][1], chance.random()))
    with cursor_of(pair.source()) as cursor:
        for index in order:
            thing, n = numbers[index]
            for statement in thing.turn:
                try:
                    cursor.execute(statement.format(n=n))
                except _ERRORS as error:
                    refused.setdefault(thing.name, str(error).partition("\n")[0])
    return refused


def _compared(pair: Pair[Any], thing: Thing, refused: dict[str, str]) -> str:
    """Return whether a thing has arrived."""
    answers: list[Any] = []
    for connect in (pair.source, pair.destination):
        try:
            with cursor_of(connect()) as cursor:
                cursor.execute(thing.check)
                answers.append([*cursor.fetchall()])
        except _ERRORS as error:
            answers.append(str(error))
    word = "yes" if answers[0] == answers[1] else "NO"
    return f"{word}; the source refuses: {refused[thing.name]}" if thing.name in refused else word


if __name__ == "__main__":
    sys.exit(main())
