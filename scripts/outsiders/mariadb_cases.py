"""A directory of small scripts of SQL: a database of MariaDB for each, moved, its restore repeated and killed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pymysql

from scripts.mariadb import USER, MariadbServer, find_mariadb
from scripts.outsiders.mariadb_suite import execute, judge, make_empty, reported_of
from scripts.outsiders.program import Outcome, Program
from scripts.outsiders.repeat import Case, move_repeatedly
from scripts.outsiders.suite import Context, Skipped, SuiteRow
from scripts.process import ServerError

_VARIABLE = "OUTSIDERS_MARIADB_CASES"
_KILLS = 3


class MariadbCases:
    """One database for each script."""

    name = "mariadb-cases"
    origin = f"scripts for the client mariadb, *.sql in the directory that {_VARIABLE} names"

    def obtain(self) -> Path | Skipped:
        """Return the directory with the scripts."""
        directory = os.environ.get(_VARIABLE)
        if not directory:
            return Skipped(f"set {_VARIABLE} to a directory with scripts for the client mariadb (*.sql)")
        if not any(Path(directory).glob("*.sql")):
            return Skipped(f"{_VARIABLE}={directory}: there is no *.sql in it")
        try:
            find_mariadb()
        except ServerError as error:
            return Skipped(str(error))
        return Path(directory).resolve()

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Run each script, and move its database."""
        source, destination = (context.servers.mariadb(f"{side}-cases") for side in ("source", "destination"))
        try:
            for server in (source, destination):
                with suppress(pymysql.Error):
                    execute(server, "INSTALL SONAME 'ha_archive'")
            scripts = context.choose(sorted(context.material.glob("*.sql")))
            for script in scripts:
                make_empty(source, script.stem)
                _run(source, script)
            program = Program.for_servers(context.servers, context.scratch / "cases")
            cases = [_case(program, source, destination, script.stem) for script in scripts]
            yield from move_repeatedly(context, program, cases, variant="administrator", kills=_KILLS)
        finally:
            for server in (source, destination):
                server.child.stop()
                shutil.rmtree(server.directory, ignore_errors=True)


def _run(server: MariadbServer, script: Path) -> None:
    """Run a script in the database of its name; statements may fail."""
    argv = ["mariadb", "--no-defaults", "--skip-ssl", f"--user={USER}", "--host=127.0.0.1"]
    argv += [f"--port={server.port}", "--force", "--binary-mode", script.stem]
    environment = {**os.environ, "MYSQL_PWD": server.password}
    subprocess.run(argv, input=script.read_bytes(), env=environment, capture_output=True, check=False)


def _case(program: Program, source: MariadbServer, destination: MariadbServer, database: str) -> Case:
    def judge_copy(row: SuiteRow, exported: Outcome, restored: Outcome) -> None:
        reported = list(reported_of(program.directory, database, exported, restored))
        judge(row, source, destination, database, reported)

    return Case(
        database,
        source.url_of(database),
        destination.url_of(database),
        make_empty=lambda: make_empty(destination, database),
        judge=judge_copy,
    )


SUITE = MariadbCases()
