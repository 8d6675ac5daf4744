"""Clocks jump by two hours and back, at the source's server and where ``moveout follow`` runs, and an hour of silence
passes in a minute. Nothing is lost, and status says nothing untrue.

The jumps are made by libfaketime (a Debian package), which changes no clock that only counts, as a real jump does not.
"""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from scripts.outsiders.debian import fetch_package
from scripts.outsiders.suite import Skipped
from tests.exporters.postgres.databases import fetch, run_sql
from tests.follow.move_case import write_move_case
from tests.tools.waiting import eventually
from tests.torture.command import MOVEOUT, moveout, must

pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]
TABLE = "CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT now())"
COUNT = "SELECT count(*) FROM t"


@pytest.fixture(scope="module")
def library():
    """The library that changes what a program takes for the time."""
    package = fetch_package("libfaketime")
    if isinstance(package, Skipped):
        pytest.skip(f"NOT TESTED: {package.reason}")
    return next(package.rglob("libfaketime.so.1"))


class Clock:
    """The clock of a program that is started with ``environment``: so many hours beside the machine's."""

    def __init__(self, file: Path, library: Path) -> None:
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.jump(0)

    def jump(self, hours: int) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{hours:+d}h\n")
        fresh.chmod(0o644)
        fresh.rename(self._file)


@contextlib.contextmanager
def followed_by_process(environment):
    with Path("follow.log").open("wb") as log:
        words = [str(MOVEOUT), "follow", "-c", "moveout.toml"]
        process = subprocess.Popen(
            words, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


@pytest.mark.parametrize("whose", ["server", "follow"])
def test_clocks_jump(whose, library, servers, other_postgres, tmp_path, monkeypatch):
    if whose == "server" and os.geteuid() == 0:
        pytest.skip("NOT TESTED: the library's memory is ours, and as root the server runs as another user")
    clock = Clock(tmp_path / "clock", library)
    with monkeypatch.context() as variables:
        if whose == "server":
            for name, value in clock.environment.items():
                variables.setenv(name, value)
        server = servers.postgres("jumping", settings=["wal_level=logical"])
    try:
        old, new = server.database(), other_postgres.database()
        run_sql(old, TABLE)
        monkeypatch.chdir(tmp_path)
        write_move_case(tmp_path, old, new, name="jumps")
        must("export", "-c", "moveout.toml")
        must("restore", "-c", "moveout.toml")
        written = 0
        with followed_by_process(clock.environment if whose == "follow" else {}) as process:
            for hours in (2, 0, -2, 0):
                clock.jump(hours)
                time.sleep(2)
                for _ in range(20):
                    written += 1
                    run_sql(old, f"INSERT INTO t VALUES ({written})")
                eventually(lambda: fetch(new, COUNT) == [(written,)])  # noqa: B023
                assert process.poll() is None
                check_status()
        jumped = fetch(old, "SELECT max(at) - min(at) > '1 h' FROM t") == [(True,)]
        assert jumped == (whose == "server")
        switched = moveout("cutover", "-c", "moveout.toml", "--hold", "--yes")
        assert switched.code == 0, switched.said
        assert fetch(new, "SELECT * FROM t ORDER BY 1") == fetch(old, "SELECT * FROM t ORDER BY 1")
    finally:
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
        run_sql(old, TABLE)
        monkeypatch.chdir(tmp_path)
        write_move_case(tmp_path, old, new, name="silence")
        must("export", "-c", "moveout.toml")
        must("restore", "-c", "moveout.toml")
        with followed_by_process({}) as process:
            for number in (1, 2):
                run_sql(old, f"INSERT INTO t VALUES ({number})")
                eventually(lambda number=number: fetch(new, COUNT) == [(number,)])
                time.sleep(45)
                assert process.poll() is None
        switched = moveout("cutover", "-c", "moveout.toml", "--hold", "--yes")
        assert switched.code == 0, switched.said
    finally:
        for one in (server, other):
            servers.end(one)
