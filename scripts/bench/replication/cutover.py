"""How long a cutover keeps a database from being written to, compared with another checkout of moveout.

    python -m scripts.bench.replication.cutover [--engine mariadb] [--mb 500 | --scale 350 [--rate 500]] [--rounds 3]
        [--other DIRECTORY]

A database of eight tables of equal size is followed. A writer updates one of them all the time. With ``--scale`` it is
the database of pgbench (15 MB for each step), to which pgbench writes. At MariaDB and MySQL it always is such a one.
Each round switches and goes back with either checkout in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from scripts.bench.replication.loads import Bank, Pgbench, meanwhile
from scripts.bench.turns import beside
from scripts.servers import Servers, environment_for

_TABLES = 8
_ROW_BYTES = 250
_SETTINGS = ["max_wal_size=8GB", "shared_buffers=512MB"]
_TABLE = """
CREATE TABLE t{number} (id int PRIMARY KEY, name text, price numeric(12,2), seen timestamptz, filler text);
INSERT INTO t{number} SELECT n, md5(n::text), n * 1.25, timestamptz '2024-01-01' + n * interval '1 minute',
  repeat(md5((n + {number})::text), 5) FROM generate_series(1, {rows}) n;
"""
_MYSQL_SETTINGS = ["innodb-buffer-pool-size=512M"]
_LOGGED = ["binlog-format=ROW", "binlog-row-metadata=FULL"]
_STEP_MB = 15
_UPDATE = "UPDATE t1 SET price = price + 1 WHERE id = %s"


class _FilledSides(NamedTuple):
    """The URLs of both databases, what writes to the old one, and how that is held."""

    old: str
    new: str
    writing: AbstractContextManager[None]
    hold: Sequence[str]


def main() -> int:
    """Make the servers, the base and the copy, and let both switch in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=["postgresql", "mariadb", "mysql"], default="postgresql")
    parser.add_argument("--mb", type=int, default=500)
    parser.add_argument("--scale", type=int, default=0)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--other", type=Path)
    options = parser.parse_args()
    checkouts = {"this": Path.cwd()} | ({"other": options.other} if options.other else {})
    with tempfile.TemporaryDirectory() as directory, Servers(Path(directory)) as servers:
        measured_move = (
            _postgres(servers, options) if options.engine == "postgresql" else _bank(servers, options)
        )
        old, new, writing, hold = measured_move
        variables = environment_for(servers)
        case = Path(directory) / "moveout.toml"
        case.write_text(
            f'[case]\nname = "bench"\nfollow = true\n[[source]]\nname = "app"\nurl = "{old}"\n'
            f'[bundle]\nlocation = "{directory}/bundle"\n[[destination]]\nsource = "app"\nurl = "{new}"\n'
        )
        for verb in ("export", "restore"):
            begun = time.monotonic()
            _moveout(variables, Path.cwd(), verb, "-c", case)
            print(f"{verb} {time.monotonic() - begun:.0f} s", flush=True)
        measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in checkouts}
        with writing:
            for _ in range(options.rounds):
                for name, checkout in checkouts.items():
                    measured[name].append(_switch(variables, checkout, case, hold))
        for name, runs in measured.items():
            print(f"{name:6} {_words(runs)}")
    return 0


def _postgres(servers: Servers, options: argparse.Namespace) -> _FilledSides:
    """Make and fill the databases of a PostgreSQL."""
    source = servers.postgres("source", settings=["wal_level=logical", *_SETTINGS])
    destination = servers.postgres("destination", settings=_SETTINGS)
    old, new = source.database("app"), destination.database("app")
    if options.scale:
        pgbench = Pgbench(source, old, options.rate)
        pgbench.fill(options.scale)
        return _FilledSides(old, new, pgbench.writing(), ["--hold"])
    rows = options.mb * 2**20 // _TABLES // _ROW_BYTES
    for number in range(1, _TABLES + 1):
        source.execute(_TABLE.format(number=number, rows=rows), "app")
    return _FilledSides(old, new, _writing(old, source.password, rows), ["--hold"])


def _bank(servers: Servers, options: argparse.Namespace) -> _FilledSides:
    """Make and fill the databases of a MariaDB or MySQL."""
    start = getattr(servers, options.engine)
    source = start(f"{options.engine}-old", settings=[*_MYSQL_SETTINGS, *_LOGGED])
    destination = start(f"{options.engine}-new", settings=_MYSQL_SETTINGS)
    old, new = source.database("app"), destination.database("app")
    bank = Bank(source, old, options.rate)
    bank.fill(options.scale or max(options.mb // _STEP_MB, 1))
    return _FilledSides(
        old, new, bank.writing(), ["--hold", *(["--whole-server"] if options.engine == "mariadb" else [])]
    )


def _switch(
    variables: Mapping[str, str], checkout: Path, case: Path, hold: Sequence[str]
) -> Mapping[str, float]:
    """Switch, and go back; return the seconds of the whole, of the downtime, and of its stages."""
    undo = ["--undo-file", case.with_name("undo.json")]
    begun = time.monotonic()
    words = ["cutover", "-c", case, *hold, "--yes", "--json", *undo]
    result = json.loads(_moveout(variables, checkout, *words))["result"]
    for name, reason in result["sources"][0]["read_whole"].items():
        print(f"read whole: {name}: {reason}", flush=True)
    seconds = {"command": time.monotonic() - begun, "downtime": result["downtime_seconds"]}
    seconds |= result["sources"][0]["seconds"]
    _moveout(variables, checkout, "cutover", "-c", case, "--undo", *undo)
    print("  ".join(f"{name} {value:.1f}" for name, value in seconds.items()), flush=True)
    return seconds


def _moveout(variables: Mapping[str, str], checkout: Path, *words: object) -> str:
    environment = {**os.environ, **variables, "PYTHONPATH": str(checkout)}
    command = [beside("moveout"), *map(str, words)]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def _writing(url: str, password: str, rows: int) -> Iterator[None]:
    """Update one table meanwhile, also after the old database was held."""

    def write(stop: threading.Event) -> None:
        number = 0
        while not stop.wait(0.1):
            with contextlib.suppress(psycopg.Error), psycopg.connect(url, password=password) as connection:
                connection.autocommit = True
                while not stop.wait(0.002):
                    number += 1
                    connection.execute(_UPDATE, (number * 7919 % rows + 1,))

    with meanwhile(write):
        yield


def _words(runs: list[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(name for run in runs for name in run)
    medians = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in names}
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in medians.items())


if __name__ == "__main__":
    sys.exit(main())
