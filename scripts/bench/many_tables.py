"""Export and restore of many small PostgreSQL tables, compared with ``pg_dump -Fd -j2`` and ``pg_restore -j2``.

    python -m scripts.bench.many_tables --url postgresql://user@host:port/postgres [--tables 537] [--runs 3]

Makes a database of tables of mixed types once, with keys, indexes, checks and foreign keys: a few large ones, most of
them under 100 rows. Then all tools take turns, each a process of its own. Every restore goes into a new database. These
are dropped at the end: after a drop ext4 examines thousands of freed inodes for each new file.
moveout also hashes its files, digests and counts the rows twice, runs ANALYZE and reads all rows back to compare them.
``--other PROGRAM`` lets a second moveout take its turns, to compare two versions.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psycopg

from exporters.postgres.definitions.dump_programs import find_tools
from scripts.bench.postgres import server
from scripts.bench.ratios import note
from scripts.bench.tables import MOVEOUT
from scripts.bench.turns import as_installed
from scripts.cost import Cost, cost_of, used_by

JOBS = 2
OTHER = "other"
PG_DUMP = "pg_dump"
_DESTINATION = "moveout_many_restored_{number}"
_LARGEST_ROWS = 75_000
_SKEW = 1.3
"""Table number n has the rows of the largest by n to the power of this: of 537 tables half have less than 52 rows."""
_SETTLE_SECONDS = 0.3

_KINDS = (
    "email text NOT NULL, name varchar(80), active boolean NOT NULL DEFAULT true, created timestamptz NOT NULL",
    "code char(8) NOT NULL, price numeric(12,2) NOT NULL, stock integer, weight real, attributes jsonb",
    "placed date NOT NULL, total numeric(15,4), state text NOT NULL, note text, tags text[]",
    "key uuid NOT NULL, value double precision, payload bytea, seen timestamp",
    "title text NOT NULL, body text, revision bigint NOT NULL, span interval, address inet",
)
_VALUES = (
    "'user' || n || '@example.com', md5(n::text), n % 7 <> 0, timestamptz '2024-01-01' + n * interval '1 minute'",
    "lpad((n % 99999999)::text, 8, '0'), n * 1.25, n % 1000, n / 3.0, jsonb_build_object('a', n, 'b', md5(n::text))",
    "date '2020-01-01' + n % 2000, n * 0.0625, 'open', repeat(md5(n::text), 4), ARRAY['x' || n % 9, 'y']",
    "md5(n::text)::uuid, n / 7.0, decode(repeat(md5(n::text), 3), 'hex'), timestamp '2023-05-05' + n * interval '1 s'",
    "'title ' || n, repeat(md5(n::text), 5), n, n * interval '1 hour', '10.0.0.0'::inet + n",
)
_INDEXED = ("email", "code", "placed", "key", "title")
_CHECKED = ("created > '2000-01-01'", "price >= 0", "total >= 0", "value >= 0", "revision >= 0")


def rows_of(number: int) -> int:
    """Return how many rows table ``number``, from 1 on, has."""
    return max(1, int(_LARGEST_ROWS / number**_SKEW))


def load(url: str, tables: int) -> str:
    """Return the URL of the database with so many tables, made where it is not there."""
    name = f"moveout_many_{tables}"
    destination = f"{url.rpartition('/')[0]}/{name}"
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            return destination
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    with psycopg.connect(destination, autocommit=True) as connection:
        fill(connection, tables)
        connection.execute("VACUUM ANALYZE")
    return destination


def fill(connection: psycopg.Connection, tables: int) -> None:
    """Make so many tables with rows."""
    for number in range(1, tables + 1):
        for statement in _statements(number):
            connection.execute(statement.encode())


def _statements(number: int) -> list[str]:
    """Return what makes a table. Every third one refers to the first of its kind."""
    kind, name = number % len(_KINDS), f"t{number:05d}"
    parent = kind or len(_KINDS)
    refers = number > len(_KINDS) and number % 3 == 0
    fill = (
        f"INSERT INTO {name} SELECT n, 1 + n % {rows_of(parent)}, {_VALUES[kind]}"
        f" FROM generate_series(1, {rows_of(number)}) AS s(n)"
    )
    statements = [
        f"CREATE TABLE {name} (id integer PRIMARY KEY, parent integer, {_KINDS[kind]}, CHECK ({_CHECKED[kind]}))",
        fill,
        f"CREATE INDEX {name}_{_INDEXED[kind]} ON {name} ({_INDEXED[kind]})",
    ]
    if refers:
        statements.append(f"ALTER TABLE {name} ADD FOREIGN KEY (parent) REFERENCES t{parent:05d} (id)")
    return statements


@dataclass(slots=True)
class Figures:
    """One tool's runs in one direction: the whole process's cost, and the server's seconds of processor."""

    costs: list[Cost] = field(default_factory=list)
    server_seconds: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median of the clock's."""
        return median(cost.seconds for cost in self.costs)

    @property
    def cpu_seconds(self) -> float:
        """The median of the client's processor time."""
        return median(cost.cpu_seconds for cost in self.costs)

    @property
    def all_cpu_seconds(self) -> float:
        """The median of the processor time of client and server."""
        pairs = zip(self.costs, self.server_seconds, strict=True)
        return median(cost.cpu_seconds + seconds for cost, seconds in pairs)


@dataclass(frozen=True, slots=True)
class Tool:
    """The commands of a tool: from a database's URL to a directory, and back."""

    export: Callable[[str, Path], Sequence[str | Path]]
    restore: Callable[[str, Path], Sequence[str | Path]]


def _moveout(program: str) -> Tool:
    options = ("--workers", str(JOBS), "--quiet")
    return Tool(
        lambda url, directory: [program, "export", f"many={url}", "--to", directory / "bundle", *options],
        lambda url, directory: [program, "restore", directory / "bundle", f"many={url}", *options],
    )


def _pg_dump(directory: Path) -> Tool:
    return Tool(
        lambda url, location: [directory / "pg_dump", "-Fd", f"-j{JOBS}", "-f", location / "dump", url],
        lambda url, location: [directory / "pg_restore", f"-j{JOBS}", "-d", url, location / "dump"],
    )


@dataclass(slots=True)
class Destinations:
    """New databases of one server, kept until all runs are over."""

    url: str
    names: list[str] = field(default_factory=list)

    def new(self) -> str:
        """Return the URL of an empty database."""
        name = _DESTINATION.format(number=len(self.names))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
            self.names.append(name)
            connection.execute("CHECKPOINT")
        return f"{self.url.rpartition('/')[0]}/{name}"

    def close(self) -> None:
        """Drop them all."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            for name in self.names:
                connection.execute(f"DROP DATABASE {name}".encode())


def _measure(command: Sequence[str | Path], postmaster: int, into: Figures) -> None:
    before = used_by(postmaster)
    into.costs.append(cost_of(command))
    time.sleep(_SETTLE_SECONDS)
    into.server_seconds.append(used_by(postmaster) - before)


def _take_turns(
    url: str, source: str, tools: dict[str, Tool], runs: int
) -> tuple[dict[str, Figures], dict[str, Figures]]:
    """Return the figures of exports and restores."""
    exports = {name: Figures() for name in tools}
    restores = {name: Figures() for name in tools}
    postmaster = server(url)
    destinations = Destinations(url)
    with tempfile.TemporaryDirectory(prefix="moveout-bench-") as directory, closing(destinations):
        for number in range(runs):
            for name, tool in tools.items():
                location = Path(directory, f"{number}-{name}")
                location.mkdir()
                _measure(tool.export(source, location), postmaster, exports[name])
                _measure(tool.restore(destinations.new(), location), postmaster, restores[name])
                seconds = (
                    f"{exports[name].costs[-1].seconds:6.2f} + {restores[name].costs[-1].seconds:6.2f} s"
                )
                print(f"  run {number + 1}: {name:10} {seconds}", flush=True)
    return exports, restores


def _print(label: str, figures: dict[str, Figures]) -> None:
    peer = figures[PG_DUMP]
    for name, tool in figures.items():
        print(
            f"{label:8} {name:10} {tool.seconds:6.2f} s, {tool.cpu_seconds:6.2f} s of processor, with the server's"
            f" {tool.all_cpu_seconds:6.2f} s;  {tool.seconds / peer.seconds:5.2f}x of {PG_DUMP}'s time,"
            f" {tool.all_cpu_seconds / peer.all_cpu_seconds:5.2f}x of its processor time"
        )


def main() -> None:
    """Measure by turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True, help="a database of a scratch server")
    parser.add_argument("--tables", type=int, default=537)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--program", help="the moveout to measure (default: this checkout's, as installed)")
    parser.add_argument("--other", metavar="PROGRAM", help="another version of moveout")
    options = parser.parse_args()
    source = load(options.url, options.tables)
    with psycopg.connect(source) as connection:
        version = connection.info.server_version // 10000
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        size_bytes = row[0] if row else 0
    tools = {MOVEOUT: _moveout(options.program or as_installed())}
    if options.other:
        tools[OTHER] = _moveout(options.other)
    tools[PG_DUMP] = _pg_dump(find_tools(version).directory)
    print(f"{options.tables} tables, a database of {size_bytes / 1e6:.0f} MB")
    exports, restores = _take_turns(options.url, source, tools, options.runs)
    _print("export", exports)
    _print("restore", restores)
    for label, peer, figures in (("export", "pg_dump", exports), ("restore", "pg_restore", restores)):
        seconds = {name: tool.seconds for name, tool in figures.items()}
        note(
            f"{options.tables} small tables, PostgreSQL, {label}",
            f"{peer} -Fd -j{JOBS}",
            seconds[PG_DUMP] / seconds[MOVEOUT],
        )


if __name__ == "__main__":
    main()
