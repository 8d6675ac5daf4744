"""What follows a PostgreSQL database: moveout, a native subscription, and the package sources' pgcopydb."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from scripts.bench.replication.tools import FollowTool, Moveout, Pair, Process, cursor_of, pairs_between
from scripts.binaries import find_postgres, postgres_major
from scripts.outsiders.debian import fetch_package
from scripts.outsiders.suite import Skipped
from scripts.postgresql import PostgresServer
from scripts.servers import Servers, environment_for

_SETTINGS = [
    "wal_level=logical",
    "max_prepared_transactions=10",
    "max_replication_slots=20",
    "wal_sender_timeout=0",  # a tool may be held meanwhile
    "max_wal_size=8GB",
]
POLLING = "polling"
"""moveout, where it has to read the log by SQL."""
_WAIT_SECONDS = 120.0
_POLL_SECONDS = 0.1
_SWITCH_SECONDS = 1.0
_READY = "SELECT bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel"
_NO_SNAPSHOT = (
    "SELECT count(*) = 0 FROM pg_stat_activity"
    " WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
)
"""While a session keeps a snapshot open, the server keeps all versions of a row, and updates become slow."""
_IS_FOLLOWED = "SELECT count(*) > 0 FROM pg_replication_slots WHERE active AND database = current_database()"


@dataclass(frozen=True, slots=True)
class PostgresPair(Pair[PostgresServer]):
    """See ``Pair``."""

    def open(self, server: PostgresServer) -> psycopg.Connection[Any]:
        """See ``Pair``."""
        return _connect(server, self.name)

    def conninfo(self, server: PostgresServer) -> str:
        """Return a URL with its password, for programs that have no other way."""
        return server.url_of(self.name).replace("//postgres@", f"//postgres:{server.password}@")


@dataclass(slots=True)
class Subscription:
    """Logical replication of the servers themselves. Definitions come by ``pg_dump``."""

    pair: PostgresPair
    cpu_seconds: float = 0.0
    peak_bytes: int = 0

    def take_base(self) -> None:
        """See ``FollowTool``."""
        pair, source = self.pair, self.pair.source_server
        dump = [str(source.bin_dir / "pg_dump"), "--schema-only", "-d", pair.conninfo(source)]
        script = subprocess.run(dump, capture_output=True, check=True, text=True).stdout
        psql = [str(source.bin_dir / "psql"), "-q", "-d", pair.conninfo(pair.destination_server)]
        subprocess.run(psql, input=script, capture_output=True, check=True, text=True)
        source.execute(f"CREATE PUBLICATION {pair.name} FOR ALL TABLES", pair.name)
        self._command(
            f"CREATE SUBSCRIPTION {pair.name} CONNECTION '{pair.conninfo(source)}' PUBLICATION {pair.name}"
        )
        _wait(pair.destination, _READY)
        self._command(f"ALTER SUBSCRIPTION {pair.name} DISABLE")

    def start(self) -> None:
        """See ``FollowTool``."""
        self._command(f"ALTER SUBSCRIPTION {self.pair.name} ENABLE")

    def look(self) -> None:
        """See ``FollowTool``: the servers do it."""

    def stop(self) -> None:
        """See ``FollowTool``."""
        self._command(f"DROP SUBSCRIPTION {self.pair.name}")

    def finish(self) -> str:
        """Nothing says when it has all, so its position is asked."""
        with cursor_of(self.pair.source()) as cursor:
            cursor.execute("SELECT pg_current_wal_lsn()")
            (end,) = cursor.fetchone()
        has_all = (
            f"SELECT confirmed_flush_lsn >= '{end}'::pg_lsn FROM pg_replication_slots"
            f" WHERE slot_name = '{self.pair.name}'"
        )
        words = "it has confirmed all" if _wait(self.pair.source, has_all) else "it never confirms all"
        self.stop()
        return words

    def _command(self, statement: str) -> None:
        self.pair.destination_server.execute(statement, self.pair.name)


@dataclass(slots=True)
class Pgcopydb:
    """``pgcopydb clone --follow``. It is one command, so between base and start it is held by a signal. It applies what
    a file of the source's log holds when the next file begins. So while somebody waits for it, the log is switched to
    the next file once a second, as its own tests do after they have written.
    """

    pair: PostgresPair
    program: Path
    process: Process = field(init=False)
    _base_cpu_seconds: float = 0.0
    _switched_at: float = 0.0

    def __post_init__(self) -> None:
        ends = {
            "PGCOPYDB_SOURCE_PGURI": self.pair.conninfo(self.pair.source_server),
            "PGCOPYDB_TARGET_PGURI": self.pair.conninfo(self.pair.destination_server),
        }
        self.process = Process(self.pair.folder / "pgcopydb.log", {**self.pair.environment, **ends})

    @property
    def cpu_seconds(self) -> float:
        """See ``FollowTool``."""
        return self.process.cpu_seconds - self._base_cpu_seconds

    @property
    def peak_bytes(self) -> int:
        """See ``FollowTool``."""
        return self.process.peak_bytes

    def take_base(self) -> None:
        """See ``FollowTool``."""
        self.process.begin(self.program, "clone", "--follow", *self._place)
        _wait(self.pair.source, _IS_FOLLOWED)
        deadline = time.monotonic() + _WAIT_SECONDS
        while not self._is_copied and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        _wait(self.pair.source, _NO_SNAPSHOT)
        self._signal(signal.SIGSTOP)
        self.process.look()
        self._base_cpu_seconds = self.process.cpu_seconds

    def start(self) -> None:
        """See ``FollowTool``."""
        self._signal(signal.SIGCONT)

    def look(self) -> None:
        """See ``FollowTool``."""
        self.process.look()
        if time.monotonic() - self._switched_at > _SWITCH_SECONDS:
            self._switched_at = time.monotonic()
            self.pair.source_server.execute("SELECT pg_switch_wal()")

    def stop(self) -> None:
        """See ``FollowTool``."""
        self.process.stop(seconds=5)

    def finish(self) -> str:
        """Set the end, and wait for it."""
        self.process.run(self.program, "stream", "sentinel", "set", "endpos", "--current")
        assert self.process.popen is not None
        try:
            words = f"exit code {self.process.popen.wait(_WAIT_SECONDS)}"
        except subprocess.TimeoutExpired:
            self.stop()
            words = f"it does not end within {_WAIT_SECONDS:.0f} s"
        errors = [line for line in self._lines if "ERROR" in line or "FATAL" in line]
        return " ".join([words, *(errors[:3] or self._lines[-1:])])

    @property
    def _place(self) -> tuple[str, str]:
        return "--dir", str(self.pair.folder / "work")

    @property
    def _lines(self) -> list[str]:
        return self.process.log.read_text(errors="replace").splitlines()

    @property
    def _is_copied(self) -> bool:
        """Whether the base is there, as its log says."""
        return any("Total Wall Clock Duration" in line for line in self._lines)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process.popen is not None
        os.killpg(self.process.popen.pid, number)


def start_pair(servers: Servers, directory: Path) -> Callable[[str], PostgresPair]:
    """Start two servers, and return what makes a pair of empty databases of a name. The source of ``POLLING`` is a
    third server, which refuses the replication protocol.
    """
    directory.chmod(0o755)  # servers run as another user
    settings = [*_SETTINGS, f"dynamic_library_path=$libdir:{_plugins(directory / 'plugins')}"]
    source, destination = (servers.postgres(name, settings=settings) for name in ("source", "destination"))

    @cache
    def polled() -> PostgresServer:
        return servers.postgres("refuses-replication", settings=[*settings, "max_wal_senders=0"])

    def pair(name: str) -> PostgresPair:
        chosen, environment = polled() if name.startswith(POLLING) else source, environment_for(servers)
        return pairs_between(PostgresPair, chosen, destination, directory, environment)(name)

    return pair


def tools() -> Mapping[str, Callable[[PostgresPair], FollowTool]]:
    """Return what can follow here, by name."""
    known: dict[str, Callable[[PostgresPair], FollowTool]] = {
        "moveout": Moveout,
        POLLING: Moveout,
        "subscription": Subscription,
    }
    package = fetch_package("pgcopydb")
    if isinstance(package, Skipped):
        print(f"pgcopydb SKIPPED: {package.reason}")
    else:
        program = next(package.rglob("bin/pgcopydb"))
        known["pgcopydb"] = lambda pair: Pgcopydb(pair, program)
    return known


def _plugins(folder: Path) -> Path:
    """Return a folder with the output plugin that pgcopydb needs, where it can be had."""
    folder.mkdir()
    package = fetch_package(f"postgresql-{postgres_major(find_postgres())}-wal2json")
    if not isinstance(package, Skipped):
        shutil.copy(next(package.rglob("wal2json.so")), folder)
    return folder


def _connect(server: PostgresServer, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(server.url_of(database), password=server.password, autocommit=True)


def _wait(connect: Callable[[], psycopg.Connection[Any]], query: str) -> bool:
    """Wait until a query is true; tell whether it has become so."""
    deadline = time.monotonic() + _WAIT_SECONDS
    with cursor_of(connect()) as cursor:
        while time.monotonic() < deadline:
            cursor.execute(query.encode())
            row = cursor.fetchone()
            if row and row[0]:
                return True
            time.sleep(_POLL_SECONDS)
    return False
