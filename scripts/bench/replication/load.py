"""What writes to a source all the time: pgbench, and the same transactions at a MariaDB."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pymysql

from scripts.bench.replication.tools import cursor_of
from scripts.mariadb import MariadbServer
from scripts.postgresql import PostgresServer

_CLIENTS = 8
_ACCOUNTS = 100_000
"""For each step of the scale, as pgbench has it."""
_PROCEDURE = (
    "CREATE PROCEDURE pay(IN a int, IN t int, IN b int, IN d int) BEGIN START TRANSACTION;"
    " UPDATE pgbench_accounts SET abalance = abalance + d WHERE aid = a;"
    " UPDATE pgbench_tellers SET tbalance = tbalance + d WHERE tid = t;"
    " UPDATE pgbench_branches SET bbalance = bbalance + d WHERE bid = b;"
    " INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (t, b, a, d, now()); COMMIT; END"
)


class Load(Protocol):
    """Writes ``rate`` transactions a second to a database: three updates and one insert each."""

    @property
    def longest(self) -> str:
        """The query for how many seconds the longest statement is at work, but for those of the load."""
        ...

    def fill(self, scale: int) -> None:
        """Make the tables, 15 MB for each step of the scale."""
        ...

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Write meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class Pgbench:
    """PostgreSQL's own load. Its history has no key, so the log needs whole rows of it."""

    server: PostgresServer
    database: str
    rate: int
    longest: str = (
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0) FROM pg_stat_activity"
        " WHERE datname = current_database() AND backend_type = 'client backend' AND state = 'active'"
        " AND application_name <> 'pgbench' AND pid <> pg_backend_pid()"
    )

    def fill(self, scale: int) -> None:
        """See ``Load``."""
        words = ["-i", "-q", "-s", str(scale), self.server.url_of(self.database)]
        subprocess.run([*self._command, *words], env=self._environment, check=True, capture_output=True)
        self.server.execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL", self.database)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See ``Load``. A hold ends all clients; they come back again and again."""

        def write(stop: threading.Event) -> None:
            words = ["-n", "-c", str(_CLIENTS), "-R", str(self.rate), "-T", "100000"]
            while not stop.wait(0.5):
                with subprocess.Popen(
                    [*self._command, *words, self.server.url_of(self.database)],
                    env=self._environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                ) as process:
                    while process.poll() is None and not stop.wait(0.2):
                        pass
                    process.terminate()

        with meanwhile(write):
            yield

    @property
    def _command(self) -> list[str]:
        return [str(self.server.bin_dir / "pgbench")]

    @property
    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "PGPASSWORD": self.server.password}


@dataclass(frozen=True, slots=True)
class MariadbLoad:
    """The transactions of pgbench, each one call of a procedure. The history has a key here."""

    server: MariadbServer
    database: str
    rate: int
    longest: str = (
        "SELECT coalesce(max(time_ms), 0) / 1000 FROM information_schema.processlist WHERE command = 'Query'"
        " AND id <> connection_id() AND info NOT LIKE 'CALL pay(%'"
    )

    def fill(self, scale: int) -> None:
        """See ``Load``."""
        history = (
            "(id bigint AUTO_INCREMENT PRIMARY KEY, tid int, bid int, aid int, delta int, mtime timestamp)"
        )
        for statement in (
            "CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84))",
            "CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84))",
            "CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88))",
            f"CREATE TABLE pgbench_history {history}",
            f"INSERT INTO pgbench_accounts SELECT seq, seq % {scale} + 1, 0, '' FROM seq_1_to_{_ACCOUNTS * scale}",
            f"INSERT INTO pgbench_tellers SELECT seq, seq % {scale} + 1, 0, '' FROM seq_1_to_{10 * scale}",
            f"INSERT INTO pgbench_branches SELECT seq, 0, '' FROM seq_1_to_{scale}",
            _PROCEDURE,
        ):
            with cursor_of(self.server.connect(self.database)) as cursor:
                cursor.execute(statement)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See ``Load``."""
        with cursor_of(self.server.connect(self.database)) as cursor:
            cursor.execute("SELECT count(*) FROM pgbench_branches")
            (scale,) = cursor.fetchone()

        def write(stop: threading.Event) -> None:
            chance, begun, written = random.Random(), time.monotonic(), 0
            with contextlib.suppress(pymysql.Error), cursor_of(self.server.connect(self.database)) as cursor:
                while not stop.is_set():
                    due = (time.monotonic() - begun) * self.rate / _CLIENTS
                    if written >= due:
                        stop.wait((written + 1 - due) * _CLIENTS / self.rate)
                        continue
                    account = chance.randrange(_ACCOUNTS * scale) + 1
                    branch, teller = (chance.randrange(count * scale) + 1 for count in (1, 10))
                    cursor.execute(
                        f"CALL pay({account}, {teller}, {branch}, {chance.randrange(-5000, 5000)})"
                    )
                    written += 1

        with contextlib.ExitStack() as stack:
            for _ in range(_CLIENTS):
                stack.enter_context(meanwhile(write))
            yield


def load_of(pair: Any, rate: int) -> Load:
    """Return what writes to the source of a pair."""
    server = pair.source_server
    if isinstance(server, PostgresServer):
        return Pgbench(server, pair.name, rate)
    return MariadbLoad(server, pair.name, rate)


@contextlib.contextmanager
def meanwhile(write: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a writer in a thread; at the end its event is set, and it is waited for."""
    stop = threading.Event()
    writer = threading.Thread(target=write, args=[stop], daemon=True)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()
