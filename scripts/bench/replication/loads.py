"""Writers that keep a database busy while it is followed: pgbench, and the same work at MariaDB and MySQL."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pymysql
from pymysql.constants import CLIENT

from exporters.mysql.connection import parse_url
from scripts.mariadb import MariadbServer
from scripts.postgresql import PostgresServer

_ACCOUNTS, _TELLERS = 100_000, 10
"""So many of them each step of the scale has, as pgbench's."""
_CLIENTS = 8
_DISCONNECTED_SECONDS = 0.5


class Load(Protocol):
    """A database in steps of about 15 MB, and who writes to it."""

    def fill(self, scale: int) -> None:
        """Make the tables."""
        ...

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Write meanwhile. The hold ends all clients; they come back again and again."""
        ...


@dataclass(frozen=True, slots=True)
class Pgbench:
    """PostgreSQL's own load: three updates and one insert a transaction. Its history has no key, so the log needs whole
    rows of it.
    """

    server: PostgresServer
    url: str
    rate: int

    def fill(self, scale: int) -> None:
        """See ``Load``."""
        subprocess.run(
            [*self._command(), "-i", "-q", "-s", str(scale), self.url], env=self._environment, check=True
        )
        self.server.execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL", self.url.rpartition("/")[2])

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See ``Load``."""

        def write(stop: threading.Event) -> None:
            words = ["-n", "-c", str(_CLIENTS), "-R", str(self.rate), "-T", "100000", self.url]
            while not stop.wait(_DISCONNECTED_SECONDS):
                with subprocess.Popen(
                    [*self._command(), *words],
                    env=self._environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                ) as process:
                    while process.poll() is None and not stop.wait(0.2):
                        pass
                    process.terminate()

        with meanwhile(write):
            yield

    def _command(self) -> list[str]:
        return [str(self.server.bin_dir / "pgbench")]

    @property
    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "PGPASSWORD": self.server.password}


_BANK = """
CREATE TABLE accounts (aid INT PRIMARY KEY, bid INT, balance INT NOT NULL, filler CHAR(84)) CHARSET=latin1;
CREATE TABLE tellers (tid INT PRIMARY KEY, bid INT, balance INT NOT NULL, filler CHAR(84)) CHARSET=latin1;
CREATE TABLE branches (bid INT PRIMARY KEY, balance INT NOT NULL, filler CHAR(88)) CHARSET=latin1;
CREATE TABLE history (id BIGINT AUTO_INCREMENT PRIMARY KEY, tid INT, bid INT, aid INT, delta INT, at TIMESTAMP);
CREATE TABLE numbers (n INT PRIMARY KEY);
"""
_STEP = """
INSERT INTO accounts SELECT {step} * {accounts} + a.n * 1000 + b.n + 1, {step} + 1, 0, 'filler'
  FROM numbers a JOIN numbers b WHERE a.n < {accounts} DIV 1000;
INSERT INTO tellers SELECT {step} * {tellers} + n + 1, {step} + 1, 0, 'filler' FROM numbers WHERE n < {tellers};
INSERT INTO branches VALUES ({step} + 1, 0, 'filler');
"""
_TRANSFER = """
BEGIN; UPDATE accounts SET balance = balance + {delta} WHERE aid = {aid};
UPDATE tellers SET balance = balance + {delta} WHERE tid = {tid};
UPDATE branches SET balance = balance + {delta} WHERE bid = {bid};
INSERT INTO history (tid, bid, aid, delta, at) VALUES ({tid}, {bid}, {aid}, {delta}, NOW()); COMMIT
"""


@dataclass(slots=True)
class Bank:
    """What pgbench does, at MariaDB or MySQL, by an account that the hold binds. The history has a key."""

    server: MariadbServer
    url: str
    rate: int
    scale: int = 0

    def fill(self, scale: int) -> None:
        """See ``Load``."""
        self.scale = scale
        with self._connect(self.server) as connection, connection.cursor() as cursor:
            self._run(cursor, f"SET SESSION sql_log_bin = 0; {_BANK}")
            self._run(cursor, f"INSERT INTO numbers VALUES {','.join(f'({n})' for n in range(1000))}")
            for step in range(scale):
                self._run(cursor, _STEP.format(step=step, accounts=_ACCOUNTS, tellers=_TELLERS))
            self._run(
                cursor,
                f"CREATE USER IF NOT EXISTS bank@'127.0.0.1' IDENTIFIED BY '{self.server.password}';"
                f" GRANT ALL ON {parse_url(self.url).database}.* TO bank@'127.0.0.1'",
            )

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See ``Load``."""
        with contextlib.ExitStack() as stack:
            for _ in range(_CLIENTS):
                stack.enter_context(meanwhile(self._write))
            yield

    def _write(self, stop: threading.Event) -> None:
        seconds = _CLIENTS / self.rate
        while not stop.wait(_DISCONNECTED_SECONDS):
            with (
                contextlib.suppress(pymysql.Error, OSError),
                self._connect(self.server, user="bank") as connection,
                connection.cursor() as cursor,
            ):
                due = time.monotonic()
                while not stop.wait(max(due - time.monotonic(), 0)):
                    due += seconds
                    numbers = {
                        "aid": random.randint(1, self.scale * _ACCOUNTS),
                        "tid": random.randint(1, self.scale * _TELLERS),
                        "bid": random.randint(1, self.scale),
                        "delta": random.randint(-5000, 5000),
                    }
                    self._run(cursor, _TRANSFER.format(**numbers))

    def _connect(self, server: MariadbServer, user: str = "moveout") -> pymysql.Connection:
        return pymysql.connect(
            host=server.host,
            port=server.port,
            user=user,
            password=server.password,
            database=parse_url(self.url).database,
            autocommit=True,
            ssl_disabled=True,
            client_flag=CLIENT.MULTI_STATEMENTS,
        )

    @staticmethod
    def _run(cursor: pymysql.cursors.Cursor, statements: str) -> None:
        cursor.execute(statements)
        while cursor.nextset():
            pass


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
