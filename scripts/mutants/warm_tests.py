"""Runs tests on request, each time in a fork of one process that has loaded libraries and started the servers.

It reads a line of JSON a request and answers with one: ``{"code": 0, "seconds": 1.5, "tests": {...}}``. The code is
pytest's, or -1 after ``timeout`` seconds. Modules of the tree are loaded by the fork, so they may have been changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest

import scripts.servers
from scripts.mutants.traces import begin
from scripts.servers import S3Server, Servers

_LIBRARIES = (
    "_pytest.assertion.rewrite asyncpg boto3 botocore.client concurrent.futures cryptography.x509 jinja2"
    " minio psycopg pyarrow.compute pyarrow.parquet pymysql rich.console rich.progress tenacity tomlkit typer"
    " xxhash xml.etree.ElementTree urllib.request sqlite3 unittest.mock asn1crypto.cms rfc3161_client"
    " hypothesis.strategies xdist.scheduler pytest_timeout"
    " exporters.testing migrate.storage.registry migrate.storage.testing migrate.runtime.worker_pool"
    " migrate.engines.registry"
)
"""What is loaded once. Of the tree: what imports no module that is mutated."""
_PR_SET_PDEATHSIG = 1
_IGNORED = "ignore:Module already imported"
_Server = TypeVar("_Server")


_SETTINGS: dict[str, list[str]] = {
    "postgres": ["wal_level=logical", "max_replication_slots=40", "max_prepared_transactions=10"],
    "mariadb-followed": ["binlog-format=ROW", "binlog-row-metadata=FULL"],
}
_KEPT = (
    "minio",
    "other-minio",
    "postgres",
    "other-postgres",
    "mariadb-old",
    "mariadb-new",
    "mariadb-followed",
)
"""The servers that stay, by the names that ``tests/conftest.py`` gives them."""
_WANTED = 98
"""How a fork ends that needs one of them which does not run yet."""


class _Lent(Servers):
    """The servers of the parent, for a fork. What else it starts ends with it."""

    kept: Servers
    by_name: dict[str, Any]
    run_directory: Path

    def minio(self, name: str, **options: Any) -> S3Server:
        return self._of_parent(name, lambda: super(_Lent, self).minio(name, **options), self.s3)

    def postgres(self, name: str, *arguments: Any, **options: Any) -> Any:
        return self._of_parent(
            name, lambda: super(_Lent, self).postgres(name, *arguments, **options), self.databases
        )

    def mariadb(self, name: str, **options: Any) -> Any:
        return self._of_parent(name, lambda: super(_Lent, self).mariadb(name, **options), [])

    def _secret(self, name: str) -> str:
        if name == "mariadb":
            return str(self.kept._secret(name))  # noqa: SLF001  all MariaDBs share one
        return str(super()._secret(name))

    def _of_parent(self, name: str, start: Callable[[], _Server], known: list[_Server]) -> _Server:
        if name not in _KEPT:
            return start()
        if name not in self.by_name:
            (self.run_directory / "wanted").write_text(name)
            os._exit(_WANTED)
        (self.run_directory / "used").touch()
        server: _Server = self.by_name[name]
        known.append(server)
        self._write_access_files()
        return server


def _start(servers: Servers, name: str) -> Any:
    if "minio" in name:
        return servers.minio(name)
    start = servers.mariadb if "mariadb" in name else servers.postgres
    return start(name, settings=_SETTINGS.get(name, ()))


class _Timings:
    """Sums up what each test took, and keeps whether it passed."""

    def __init__(self) -> None:
        self.tests: dict[str, Any] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        entry = self.tests.setdefault(report.nodeid, {"seconds": 0.0, "passed": True})
        entry["seconds"] += report.duration
        entry["passed"] = entry["passed"] and report.passed


def main() -> None:
    """Answer until the input ends. The first argument is the directory of the servers, which start when needed."""
    directory = Path(sys.argv[1])
    shutil.rmtree(directory, ignore_errors=True)
    for name in _LIBRARIES.split():
        importlib.import_module(name)
    with Servers(directory / "servers", keeps_data=False) as servers:
        _Lent.kept = servers
        _Lent.by_name = {}
        _Lent.run_directory = directory / "run"
        gc.freeze()
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            assert request.get("module") not in sys.modules, "a mutated module must not be loaded before"
            answer = _answer(request, _Lent.run_directory)
            while answer["code"] == _WANTED:
                name = (_Lent.run_directory / "wanted").read_text()
                _Lent.by_name[name] = _start(servers, name)
                answer = _answer(request, _Lent.run_directory)
            print(json.dumps(answer), flush=True)
            if (_Lent.run_directory / "used").exists():
                _tidy(servers)


def _answer(request: dict[str, Any], directory: Path) -> dict[str, Any]:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    started = time.monotonic()
    child = os.fork()
    if not child:
        _run(request, directory)
    code = None
    while code is None and time.monotonic() - started < request["timeout"]:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if code is None:
        os.waitpid(child, 0)
    seconds = round(time.monotonic() - started, 2)
    timings = directory / "timings.json"
    tests = json.loads(timings.read_text()) if timings.exists() else {}
    output = (directory / "log").read_text(errors="replace")[-3000:]
    code = -1 if code is None else code
    return {"code": code, "seconds": seconds, "tests": tests, "output": output}


def _run(request: dict[str, Any], directory: Path) -> None:
    """Run the tests in this fork, and end it."""
    code = 99
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(
            _PR_SET_PDEATHSIG, signal.SIGKILL
        )  # else a change that hangs outlives a stopped run
        log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        scripts.servers.Servers = _Lent  # type: ignore[misc]
        os.environ.update(request.get("environment", {}))
        begin()
        timings = _Timings()
        options = [
            "-q",
            "-p",
            "no:cacheprovider",
            "-n0",
            "--tb=line",
            "-W",
            _IGNORED,
            f"--basetemp={directory / 'tmp'}",
        ]
        code = int(pytest.main([*options, *request["options"], *request["tests"]], plugins=[timings]))
        (directory / "timings.json").write_text(json.dumps(timings.tests))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tidy(servers: Servers) -> None:
    """Drop slots, prepared transactions, databases and roles that killed tests have left."""
    for server in servers.databases:
        with psycopg.connect(server.url, password=server.password, autocommit=True) as connection:
            for gid, database in connection.execute("SELECT gid, database FROM pg_prepared_xacts").fetchall():
                with psycopg.connect(
                    server.url_of(database), password=server.password, autocommit=True
                ) as owner:
                    owner.execute(f"ROLLBACK PREPARED '{gid}'")
            slots = "SELECT slot_name FROM pg_replication_slots"
            for (slot,) in connection.execute(slots).fetchall():
                with contextlib.suppress(psycopg.Error):
                    connection.execute(
                        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                        " WHERE slot_name = %s AND active",
                        [slot],
                    )
                    connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            names = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
            for (name,) in connection.execute(names).fetchall():
                with contextlib.suppress(psycopg.Error):
                    connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            roles = "SELECT rolname FROM pg_roles WHERE NOT rolsuper AND rolname NOT LIKE 'pg\\_%'"
            for (name,) in connection.execute(roles).fetchall():
                with contextlib.suppress(psycopg.Error):
                    connection.execute(f'DROP OWNED BY "{name}"')
                    connection.execute(f'DROP ROLE "{name}"')


if __name__ == "__main__":
    main()
