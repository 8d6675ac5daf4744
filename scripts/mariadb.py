"""A MariaDB server of our own: its data directory, and whom it runs as (it refuses to be root)."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pymysql

from scripts.process import Argv, Child, ServerError, unprivileged_user, write_private

USER = "moveout"
_SETTINGS = [
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=128M",
    "--max-connections=200",
    "--local-infile=0",
    "--log-bin=binlog",
    "--server-id=1",
    "--event-scheduler=OFF",
]
_LOCATIONS = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec")


@dataclass(frozen=True, slots=True)
class MariadbServer:
    """A running MariaDB. URLs hold no password: the variable MYSQL_PWD does."""

    name: str
    host: str
    port: int
    password: str
    directory: Path
    child: Child

    @property
    def url(self) -> str:
        """The URL of the database ``mysql``."""
        return self.url_of("mysql")

    def url_of(self, database: str, user: str = USER) -> str:
        """Return the URL of one of its databases."""
        return f"mysql://{user}@{self.host}:{self.port}/{database}"

    def connect(self, database: str | None = None, **options: object) -> pymysql.Connection:
        """Open a plain connection as the administrator."""
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=USER,
            password=self.password,
            database=database,
            autocommit=True,
            ssl_disabled=True,
            **options,
        )

    def accepts(self) -> bool:
        """Tell whether it takes connections."""
        try:
            self.connect().close()
        except pymysql.Error:
            return False
        return True

    def database(self, name: str = "", options: str = "CHARACTER SET utf8mb4") -> str:
        """Create an empty database, return its URL."""
        name = name or f"db_{secrets.token_hex(6)}"
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{name}` {options}")
        return self.url_of(name)


@dataclass(frozen=True, slots=True)
class Store:
    """A data directory. ``program``: the server with what only it is told; ``user`` is empty unless we are root, and
    it may not be."""

    program: Sequence[str | Path]
    home: Path
    user: str = ""

    def command(self, port: int, settings: Sequence[str] = ()) -> Argv:
        """Return the command that serves it. ``settings``: more of them, as ``name=value``."""
        return [
            *self.program,
            f"--datadir={self.home / 'data'}",
            f"--tmpdir={self.home / 'tmp'}",
            f"--socket={self.home / 'socket'}",
            f"--pid-file={self.home / 'pid'}",
            f"--init-file={self.home / 'accounts.sql'}",
            f"--port={port}",
            *_SETTINGS,
            *(f"--{setting}" for setting in settings),
        ]


def find_mariadb() -> Path:
    """Return the server program. Raises ``ServerError`` that says how to get it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *_LOCATIONS])
    program = shutil.which("mariadbd", path=path)
    if not program:
        raise ServerError(
            "MariaDB is not on this machine; on Debian and Ubuntu: apt-get install mariadb-server"
        )
    return Path(program)


def make_store(name: str, password: str, borrow: Callable[[str], Path]) -> Store:
    """Make a data directory where the server's user can reach it. Raises ``ServerError``.

    ``borrow(prefix)`` makes a directory that every user can reach; its path is short, as a socket's must be.
    """
    program = find_mariadb()
    home = borrow(f"moveout-{name}-")
    user = unprivileged_user("MariaDB", own_user="mysql")
    install = shutil.which("mariadb-install-db")
    if not install:
        raise ServerError("mariadb-install-db is not on PATH; it comes with mariadb-server")
    scratch = home / "tmp"  # in a common one the temporary tables of two servers may have the same names
    scratch.mkdir()
    if user:
        shutil.chown(scratch, user)
    argv = [install, "--no-defaults", f"--datadir={home / 'data'}", "--skip-test-db", "--skip-name-resolve"]
    argv += [f"--tmpdir={scratch}"]
    argv += ["--auth-root-authentication-method=normal", *([f"--user={user}"] if user else [])]
    completed = subprocess.run(argv, capture_output=True, text=True, check=False)
    if completed.returncode:
        raise ServerError(
            f"mariadb-install-db for {name} failed:\n{completed.stdout[-1000:]}{completed.stderr[-1000:]}"
        )
    write_accounts(home, password)
    if user:
        for path in (home, home / "accounts.sql"):
            shutil.chown(path, user)
    return Store([program, "--no-defaults", "--innodb-log-file-size=64M"], home, user)


def write_accounts(home: Path, password: str) -> None:
    """Write what a server does when it starts."""
    account = f"'{USER}'@'127.0.0.1'"
    write_private(
        home / "accounts.sql",
        f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{password}';\n"
        f"GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION;\n"
        f"ALTER USER root@localhost IDENTIFIED BY '{password}';\n",
    )
