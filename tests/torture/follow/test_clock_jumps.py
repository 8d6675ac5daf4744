"""Clocks jump by two hours and back, at the source's server and where ``moveout follow`` runs, and an hour of silence
passes in a minute. Nothing is lost, and status says nothing untrue.

The jumps are made by libfaketime (a Debian package), which changes no clock that only counts, as a real jump does not.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psycopg
import pytest

from scripts.binaries import find_postgres
from scripts.mariadb import find_mariadb
from scripts.outsiders.debian import fetch_package
from scripts.outsiders.suite import Skipped
from tests.exporters.mysql import databases as mysql_databases
from tests.exporters.postgres import databases
from tests.follow.move_case import write_move_case
from tests.tools.preloaded import compile_library
from tests.tools.waiting import eventually
from tests.torture.command import MOVEOUT, followed_by_process, moveout, must

pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]
TABLE = "CREATE TABLE t (id int PRIMARY KEY, at timestamp DEFAULT CURRENT_TIMESTAMP)"
BINLOG = ["binlog-format=ROW", "binlog-row-metadata=FULL"]
HOURS = (2, 0, -2, 0)


class Clock:
    """The clock of a program: so many hours beside the machine's. Every user may read its file."""

    def __init__(self, directory: Path, library: Path) -> None:
        self._file = directory / "clock"
        steady_sleep = compile_library("steady_sleep", directory)
        self.environment = {
            "LD_PRELOAD": f"{steady_sleep}:{shutil.copy(library, directory)}",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self._programs = directory / "programs"
        self.jump(0)

    def jump(self, hours: int) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{hours:+d}h\n")
        fresh.chmod(0o644)
        fresh.rename(self._file)

    @contextlib.contextmanager
    def jumping(self):
        """Let it jump all the time."""
        ended = threading.Event()

        def jump():
            while not ended.is_set():
                for hours in HOURS:
                    self.jump(hours)
                    ended.wait(0.7)

        thread = threading.Thread(target=jump)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def wrapped(self, program: Path) -> Path:
        """Return a directory with a program that has this clock. The library keeps memory that belongs to the first
        user who loads it, so only the server itself loads it.
        """
        variables = " ".join(f"{name}={value}" for name, value in self.environment.items())
        self._programs.mkdir()
        script = self._programs / program.name
        script.write_text(f'#!/bin/sh\n{variables} exec {program} "$@"\n')
        script.chmod(0o755)
        return self._programs


@pytest.fixture
def make_clock():
    """Make a clock; ``name``: of the library that changes what a program takes for the time."""
    package = fetch_package("libfaketime")
    if isinstance(package, Skipped):
        pytest.skip(f"NOT TESTED: {package.reason}")
    with tempfile.TemporaryDirectory(prefix="moveout-clock-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield lambda library: Clock(directory, next(package.rglob(library)))


def ask(url, statement):
    """Execute a statement at a PostgreSQL or a MariaDB; return its rows."""
    if url.startswith("mysql"):
        return mysql_databases.fetch(url, statement)
    return databases.fetch(url, statement)


def make_server(servers, clock, whose):
    """A server that has the clock, unless that is the one of follow."""
    if whose == "mariadb":
        with pytest.MonkeyPatch.context() as variables:
            variables.setenv("PATH", f"{clock.wrapped(find_mariadb())}:{os.environ['PATH']}")
            return servers.mariadb("jumping", settings=BINLOG)
    programs = None
    if whose == "postgresql":
        real = find_postgres()
        programs = clock.wrapped(real / "postgres")
        for name in ("initdb", "pg_dump", "psql"):
            (programs / name).symlink_to(real / name)
    return servers.postgres(f"jumping-{whose}", programs, settings=["wal_level=logical"])


@pytest.mark.parametrize("whose", ["postgresql", "mariadb", "follow"])
def test_clocks_jump(whose, make_clock, servers, request, tmp_path, monkeypatch):
    """While a source is followed, and during the switch."""
    clock = make_clock("libfaketimeMT.so.1" if whose == "mariadb" else "libfaketime.so.1")
    server = make_server(servers, clock, whose)
    other = request.getfixturevalue("other_mariadb" if whose == "mariadb" else "other_postgres")
    try:
        old, new = server.database(), other.database()
        run = mysql_databases.run_sql if whose == "mariadb" else databases.run_sql
        run(old, TABLE)
        monkeypatch.chdir(tmp_path)
        write_move_case(tmp_path, old, new, name="jumps")
        must("export", "-c", "moveout.toml")
        must("restore", "-c", "moveout.toml")
        written = 0
        own_clock = clock.environment if whose == "follow" else {}
        with followed_by_process(own_clock) as process:
            for hours in HOURS:
                clock.jump(hours)
                time.sleep(2)
                for _ in range(20):
                    written += 1
                    run(old, f"INSERT INTO t (id) VALUES ({written})")
                eventually(lambda: ask(new, "SELECT count(*) FROM t")[0][0] == written)  # noqa: B023
                assert process.poll() is None
                check_status()
        ((first, last),) = ask(old, "SELECT min(at), max(at) FROM t")
        assert ((last - first).total_seconds() > 3600) == (whose != "follow")
        words = [str(MOVEOUT), "cutover", "-c", "moveout.toml", "--hold", "--whole-server", "--yes"]
        older = contextlib.ExitStack()
        if whose == "postgresql":
            clock.jump(2)
            session = older.enter_context(contextlib.closing(psycopg.connect(old, autocommit=True)))
        with older, clock.jumping():
            switched = subprocess.run(
                words, env={**os.environ, **own_clock}, capture_output=True, text=True, check=False
            )
            assert switched.returncode == 0, switched
            if whose == "postgresql":
                with pytest.raises(psycopg.OperationalError):  # it is older, though it has a later start
                    session.execute("INSERT INTO t (id) VALUES (0)")
        assert ask(new, "SELECT * FROM t ORDER BY 1") == ask(old, "SELECT * FROM t ORDER BY 1")
    finally:
        clock.jump(0)
        if whose != "mariadb":
            servers.end(server)


def check_status():
    """What status says of the lag holds: nothing is behind for longer than this test takes."""
    status = moveout("status", "-c", "moveout.toml", "--json")
    assert status.code == 0, status.said
    assert "2 h" not in status.said
    assert "1 h" not in status.said


def test_an_hour_of_silence_in_a_minute(servers, other_postgres, tmp_path, monkeypatch):
    """The server ends what is silent or idle for ten seconds; the capture comes again, or is not ended at all."""
    settings = [
        "wal_level=logical", "wal_sender_timeout=10s", "idle_session_timeout=5s", "tcp_user_timeout=5000",
        "idle_in_transaction_session_timeout=5s",
    ]  # fmt: skip
    server = servers.postgres("silent", settings=settings)
    other = servers.postgres("silent-new", settings=settings[2:])
    try:
        old, new = server.database(), other.database()
        databases.run_sql(old, TABLE)
        monkeypatch.chdir(tmp_path)
        write_move_case(tmp_path, old, new, name="silence")
        must("export", "-c", "moveout.toml")
        must("restore", "-c", "moveout.toml")
        with followed_by_process() as process:
            for number in (1, 2):
                databases.run_sql(old, f"INSERT INTO t VALUES ({number})")
                eventually(lambda number=number: ask(new, "SELECT count(*) FROM t") == [(number,)])
                time.sleep(45)
                assert process.poll() is None
        switched = moveout("cutover", "-c", "moveout.toml", "--hold", "--yes")
        assert switched.code == 0, switched.said
    finally:
        for one in (server, other):
            servers.end(one)
