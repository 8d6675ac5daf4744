"""The databases on which pgcopydb, a tool that copies PostgreSQL databases, is tested."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psycopg

from scripts.outsiders.postgresql.move import Move, move
from scripts.outsiders.postgresql.source import Scripts, create_database, trust_everybody
from scripts.outsiders.suite import Context, Skipped, SuiteRow
from scripts.postgresql import PostgresServer

_VARIABLE = "OUTSIDERS_PGCOPYDB"
_FIRST = ("setup", "Chinook_PostgreSql", "source", "ddl", "special-ddl", "import")
"""Scripts that make tables come before those that fill them."""


class Pgcopydb:
    """One database for each directory of pgcopydb's tests that has scripts of SQL."""

    name = "pgcopydb"
    origin = f"pgcopydb's tests, from the checkout that {_VARIABLE} names"

    def obtain(self) -> Path | Skipped:
        """Return the directory of the tests."""
        checkout = os.environ.get(_VARIABLE)
        if not checkout:
            return Skipped(f"set {_VARIABLE} to a checkout of pgcopydb (github: dimitri/pgcopydb)")
        tests = Path(checkout) / "tests"
        return (
            tests if tests.is_dir() else Skipped(f"{_VARIABLE}={checkout}: there is no directory tests in it")
        )

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Move each directory's database."""
        directories = {path.parent for path in context.material.rglob("*.sql")}
        for directory in context.choose(sorted(path for path in directories if not _queries_only(path))):
            if context.out_of_time:
                yield SuiteRow("others", skipped="the time is used up")
                return
            yield from _move_directory(context, directory)


def _queries_only(directory: Path) -> bool:
    """True where the scripts look at a copy only."""
    return directory.name == "sql" or directory.parent.name in {"filtering", "sql"}


def _move_directory(context: Context, directory: Path) -> Iterator[SuiteRow]:
    """Run the scripts of a directory on a server of their own; move each database that they fill."""
    variant = str(directory.relative_to(context.material))
    label = variant.replace("/", "-")
    server = context.servers.postgres(f"source-{label}")
    try:
        trust_everybody(server)
        create_database(server, "fixture")
        scripts = Scripts(server, directory, directory)
        for script in scripts_of(directory):
            scripts.run("fixture", script.read_bytes())
        for database in _databases(server):
            row = move(context, Move(f"{variant}, {database}", server, database))
            if not row.moved and not row.failed:
                row.skipped = "its scripts made no table (they need fixtures that are not in the checkout)"
            yield row
    finally:
        context.servers.end(server)


def _databases(server: PostgresServer) -> list[str]:
    query = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1"
    with psycopg.connect(server.url, password=server.password) as connection:
        return [name for (name,) in connection.execute(query).fetchall()]


def scripts_of(directory: Path) -> list[Path]:
    """Return a directory's scripts: those that make tables first; only that one which includes all others."""
    scripts = {path.stem: path for path in sorted(directory.glob("*.sql"))}
    if "setup" in scripts:
        return [scripts["setup"]]
    first = [scripts[name] for name in _FIRST if name in scripts]
    return [*first, *(path for path in scripts.values() if path not in first)]


SUITE = Pgcopydb()
