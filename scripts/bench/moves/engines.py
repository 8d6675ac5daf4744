"""The engines with the tools that move their databases: what each is called with."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from scripts.bench.moves import databases
from scripts.bench.tables import MOVEOUT
from scripts.bench.turns import as_installed
from scripts.outsiders.debian import fetch_package
from scripts.outsiders.suite import Skipped
from scripts.servers import Servers

JOBS = "2"
SYNC = f"{MOVEOUT} sync"
_WORDS = ("--workers", JOBS, "--quiet")


@dataclass(frozen=True, slots=True)
class Ends:
    """From which server to which, the database's name on both, and a folder for what a tool keeps meanwhile."""

    source: Any
    destination: Any
    name: str
    folder: Path

    @property
    def urls(self) -> tuple[str, str]:
        """The URLs of both databases."""
        return self.source.url_of(self.name), self.destination.url_of(self.name)


Command = Sequence[str | Path]


def _nothing(_: Ends) -> None:
    """Nothing is left behind at the servers."""


@dataclass(frozen=True, slots=True)
class Tool:
    """``commands`` move a database, one after the other, with ``variables`` in their environment; ``clean`` takes away
    what they leave at the source. ``obtain`` returns why there is no such tool.
    """

    commands: Callable[[Ends], Sequence[Command]]
    variables: Callable[[Ends], Mapping[str, str]] = lambda _: {}
    clean: Callable[[Ends], None] = _nothing
    obtain: Callable[[], Path | Skipped | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Engine:
    """How servers are started, filled (server, name, kind, scale, number of tables) and looked at."""

    start: Callable[[Servers, str], Any]
    fill: Callable[[Any, str, str, float, int], Skipped | None]
    rows: Callable[[Any, str], Mapping[str, int]]
    drop: Callable[[Any, str], None]
    tools: Mapping[str, Tool]


def _moveout(ends: Ends) -> Sequence[Command]:
    source, destination = ends.urls
    bundle = ends.folder / "bundle"
    return (
        [as_installed(), "export", f"app={source}", "--to", bundle, *_WORDS],
        [as_installed(), "restore", bundle, f"app={destination}", *_WORDS],
    )


def _sync(ends: Ends) -> Sequence[Command]:
    source, destination = ends.urls
    work = ends.folder / "sync"
    return ([as_installed(), "sync", f"app={source}", f"app={destination}", "--work", work, *_WORDS],)


def _end_sync(ends: Ends) -> None:
    """Remove what keeps the source's log."""
    case = ends.folder / "sync" / "moveout.toml"
    command: Command = [as_installed(), "clean", "-c", case, "--changes", "--yes", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


_OURS = {MOVEOUT: Tool(_moveout), SYNC: Tool(_sync, clean=_end_sync)}


@functools.cache
def _package(name: str) -> Path | Skipped:
    return fetch_package(name)


def _program(package: str, name: str = "") -> str:
    """Return a program of a Debian package that was obtained."""
    return str(next(Path(str(_package(package))).rglob(f"bin/{name or package}")))


def _pgcopydb(ends: Ends) -> Sequence[Command]:
    source, destination = (
        f"host={end.host} port={end.port} user=postgres password={end.password} dbname={ends.name}"
        for end in (ends.source, ends.destination)
    )
    jobs = ("--table-jobs", JOBS, "--index-jobs", JOBS)
    both = ("--source", source, "--target", destination)
    return ([_program("pgcopydb"), "clone", *both, *jobs, "--dir", ends.folder / "pgcopydb", "--quiet"],)


def _pg_programs(ends: Ends) -> Mapping[str, str]:
    """pgcopydb looks for pg_dump and pg_restore."""
    return {"PATH": f"{ends.source.bin_dir}{os.pathsep}{os.environ['PATH']}", "PGCOPYDB_LOG": "error"}


def _pg_dump(ends: Ends) -> Sequence[Command]:
    source, destination = ends.urls
    programs, dump = ends.source.bin_dir, ends.folder / "dump"
    return (
        [programs / "pg_dump", "-Fd", f"-j{JOBS}", "-Z1", "-f", dump, source],
        [programs / "pg_restore", f"-j{JOBS}", "-d", destination, dump],
    )


def _drop_postgres(server: Any, name: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        connection.execute("CHECKPOINT")


POSTGRES = Engine(
    start=lambda servers, name: servers.postgres(name, settings=["wal_level=logical"]),
    fill=databases.fill_postgres,
    rows=databases.rows_in_postgres,
    drop=_drop_postgres,
    tools={
        **_OURS,
        "pgcopydb": Tool(_pgcopydb, _pg_programs, obtain=lambda: _package("pgcopydb")),
        "pg_dump, pg_restore": Tool(_pg_dump),
    },
)


def _login(server: Any) -> list[str]:
    return ["-h", server.host, "-P", str(server.port), "-u", "moveout"]


def _mariadb_dump(ends: Ends) -> Sequence[Command]:
    dump = ["mariadb-dump", *_login(ends.source), "--single-transaction", "--routines", "--events", ends.name]
    load = ["mariadb", *_login(ends.destination), ends.name]
    return (["bash", "-o", "pipefail", "-c", f"{shlex.join(dump)} | {shlex.join(load)}"],)


def _has_mariadb_dump() -> Skipped | None:
    return None if shutil.which("mariadb-dump") else Skipped("mariadb-dump is not on this machine")


def _mydumper(ends: Ends) -> Sequence[Command]:
    dump = str(ends.folder / "dump")
    objects = ("--triggers", "--events", "--routines")
    return (
        [
            *(
                _program("mydumper"),
                *_login(ends.source),
                "-p",
                ends.source.password,
                "-B",
                ends.name,
                "-o",
                dump,
            ),
            *("-t", JOBS, "--trx-consistency-only", "-c", "-r", "200000", *objects),
        ],
        [
            *(_program("mydumper", "myloader"), *_login(ends.destination), "-p", ends.destination.password),
            *("-B", ends.name, "-d", dump, "-t", JOBS, "-o"),
        ],
    )


def _drop_mariadb(server: Any, name: str) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE `{name}`")


MARIADB = Engine(
    start=lambda servers, name: servers.mariadb(
        name, settings=["binlog-format=ROW", "binlog-row-metadata=FULL"]
    ),
    fill=databases.fill_mariadb,
    rows=databases.rows_in_mariadb,
    drop=_drop_mariadb,
    tools={
        **_OURS,
        "mariadb-dump": Tool(_mariadb_dump, obtain=_has_mariadb_dump),
        "mydumper": Tool(_mydumper, obtain=lambda: _package("mydumper")),
    },
)
