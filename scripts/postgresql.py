"""A PostgreSQL server of our own: its data directory, and whom it runs as (it refuses to be root)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import pwd
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from scripts.binaries import find_postgres, postgres_major
from scripts.process import Argv, Child, ServerError, start, unprivileged_user, write_private

_SETTINGS = [
    word
    for setting in (
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=200",
        "shared_buffers=128MB",
        "max_wal_size=2GB",
        "fsync=off",
        "full_page_writes=off",
        "logging_collector=off",
        "autovacuum_naptime=1h",  # for all databases: with hundreds, one is begun every other second
    )
    for word in ("-c", setting)
]
_LONG_PASSWORDS = 14


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running PostgreSQL with the superuser ``postgres``. URLs hold no password: pgpass does."""

    name: str
    host: str
    port: int
    password: str
    bin_dir: Path
    directory: Path
    child: Child
    _temporary: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The URL of the database ``postgres``."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://postgres@{self.host}:{self.port}/{database}"

    def accepts(self) -> bool:
        """Tell whether it takes connections."""
        try:
            psycopg.connect(self.url, password=self.password, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def database(self, name: str = "", *, stays: bool = False, template: str = "template0") -> str:
        """Create a database, empty or like the ``template``, return its URL. Without a name it gets one, and goes with
        ``drop_temporary`` unless it ``stays``.

        Where the server can be told so, it copies files: to log each page takes half as long again, and twice the
        writes.
        """
        if not name:
            name = f"db_{secrets.token_hex(6)}"
            if not stays:
                self._temporary.append(name)
        with psycopg.connect(self.url, password=self.password, autocommit=True) as connection:
            strategy = "STRATEGY file_copy" if connection.info.server_version >= 150000 else ""
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {strategy}'.encode())
        return self.url_of(name)

    def drop_temporary(self) -> None:
        """Drop the databases that nobody has named, 8 MB each, unless something keeps one or the server is gone."""
        options: dict[str, Any] = {"password": self.password, "autocommit": True, "connect_timeout": 5}
        with suppress(psycopg.Error), psycopg.connect(self.url, **options) as connection:
            while self._temporary:
                with suppress(psycopg.DatabaseError):
                    name = self._temporary.pop()
                    connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Execute a statement in one of its databases."""
        with psycopg.connect(self.url_of(database), password=self.password, autocommit=True) as connection:
            connection.execute(statement.encode())


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data directory with the programs that made it. ``user`` is empty unless we are root."""

    bin_dir: Path
    data: Path
    user: str

    def command(self, port: int, settings: Sequence[str] = ()) -> Argv:
        """Return the command that serves it. ``settings``: more of them, as ``name=value``."""
        words = [word for setting in settings for word in ("-c", setting)]
        return [self.bin_dir / "postgres", "-D", self.data, "-p", str(port), *_SETTINGS, *words]


def make_cluster(
    name: str, directory: Path, password: str, borrow: Callable[[str], Path], bin_dir: Path | None = None
) -> Cluster:
    """Find a PostgreSQL, unless it is in ``bin_dir``, and make its data directory, unless it is there already. Raises
    ``ServerError``.

    ``borrow(prefix)`` makes a directory that every user can reach, for when ours cannot be.
    """
    bin_dir = bin_dir or find_postgres()
    user, data = unprivileged_user("PostgreSQL", own_user="postgres"), directory / "data"
    directory.mkdir(parents=True, exist_ok=True)
    if user and not _reaches(user, bin_dir / "postgres"):
        bin_dir = _copied(bin_dir, borrow("programs-"))
    if user and not _reaches(user, directory):
        data = borrow(f"{name}-") / "data"
    if not (data / "PG_VERSION").exists():
        _initdb(name, Cluster(bin_dir, data, user), directory / "initdb.log", password)
    return Cluster(bin_dir, data, user)


def _initdb(name: str, cluster: Cluster, log: Path, password: str) -> None:
    cluster.data.mkdir(mode=0o700, exist_ok=True)
    password_file = cluster.data.parent / "initdb-password"
    # Before version 14, initdb cuts what it reads to 99 characters.
    secret = _scram_secret(password) if postgres_major(cluster.bin_dir) >= _LONG_PASSWORDS else password
    write_private(password_file, secret)
    if cluster.user:
        shutil.chown(cluster.data, cluster.user)
        shutil.chown(password_file, cluster.user)
    argv: list[str | Path] = [
        cluster.bin_dir / "initdb",
        "-D",
        cluster.data,
        "-U",
        "postgres",
        f"--pwfile={password_file}",
    ]
    argv += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
    child = start(f"initdb for {name}", argv, log=log, user=cluster.user)
    status = child.popen.wait()
    password_file.unlink()
    if status:
        shutil.rmtree(cluster.data, ignore_errors=True)
        raise ServerError(f"initdb for {name} failed:\n{child.log_end()}")


def _scram_secret(password: str) -> str:
    """Return what the server stores of a password, made with one iteration instead of 4096. A random password needs no
    more, and each login costs a client a third of the time. The form: PostgreSQL's documentation, pg_authid.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded_salt, stored, server = (
        base64.b64encode(part).decode() for part in (salt, stored_key, server_key)
    )
    return f"SCRAM-SHA-256$1:{encoded_salt}${stored}:{server}"


def _copied(bin_dir: Path, directory: Path) -> Path:
    """Copy a PostgreSQL from where only root can enter; a wheel's libraries lie next to its package."""
    package = bin_dir.parent.parent
    for source in (bin_dir.parent, package.parent / f"{package.name}.libs"):
        if source.exists():
            shutil.copytree(source, directory / source.relative_to(package.parent), symlinks=True)
    return directory / bin_dir.relative_to(package.parent)


def _reaches(user: str, path: Path) -> bool:
    """Tell whether another user can enter every directory above ``path`` and use it."""
    entry = pwd.getpwnam(user)
    for step in (*path.resolve().parents, path.resolve()):
        status = step.stat()
        if not (status.st_mode & 0o001 or (status.st_uid == entry.pw_uid and status.st_mode & 0o100)):
            return False
    return True
