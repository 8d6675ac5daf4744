"""Real servers on free loopback ports, each with its own data directory, killed with their parent. No Docker.

As a library: ``with Servers(directory) as servers: servers.minio("old-host")``. ``servers.environment`` is
what programs need to reach them: AWS profiles (one a server) and a pgpass file, so that URLs hold no secrets.
By hand:

    python -m scripts.servers up --dir DIR     two MinIOs and two PostgreSQLs, until Ctrl-C
    python -m scripts.servers get [NAME ...]   find or build the programs, print where they are
"""

from __future__ import annotations

import argparse
import os
import pwd
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import psycopg

from scripts.binaries import MINIO, PROGRAMS, TOXIPROXY, VERSITYGW, find_postgres, find_program
from scripts.process import Argv, Child, ServerError, free_port, start
from scripts.toxiproxy import Toxiproxy

READY_SECONDS = 60.0
ATTEMPTS = 3
"""A free port may be taken by somebody else before the server binds it; then the next port is tried."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server. ``profile`` is the AWS profile that reaches it: ``s3://bucket?profile=…``."""

    profile: str
    endpoint: str
    access_key: str
    secret_key: str
    directory: Path
    child: Child


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

    @property
    def url(self) -> str:
        """The URL of the database ``postgres``."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://postgres@{self.host}:{self.port}/{database}"

    def database(self, name: str = "") -> str:
        """Create an empty database, return its URL."""
        name = name or f"db_{secrets.token_hex(6)}"
        with psycopg.connect(self.url, password=self.password, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self.url_of(name)


@dataclass(slots=True)
class Servers:
    """Starts servers under ``directory`` and ends them when the context ends. Use it from the main thread."""

    directory: Path
    s3: list[S3Server] = field(default_factory=list)
    databases: list[PostgresServer] = field(default_factory=list)
    _children: list[Child] = field(default_factory=list)
    _borrowed: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory = self.directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write_access_files()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all servers, the youngest first, and drop directories that had to lie elsewhere."""
        while self._children:
            self._children.pop().stop()
        for path in self._borrowed:
            shutil.rmtree(path, ignore_errors=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which any program reaches the servers."""
        return {
            "AWS_CONFIG_FILE": str(self.directory / "aws-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.directory / "aws-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "PGPASSFILE": str(self.directory / "pgpass"),
        }

    def minio(self, name: str) -> S3Server:
        """Start a MinIO."""
        program = find_program(MINIO)

        def launch(port: int, access: str, secret: str, data: Path) -> Child:
            env = {
                "MINIO_ROOT_USER": access,
                "MINIO_ROOT_PASSWORD": secret,
                "MINIO_BROWSER": "off",
                "MINIO_UPDATE": "off",
                "MINIO_PROMETHEUS_AUTH_TYPE": "public",
            }
            argv: Argv = [program, "server", "--quiet", "--address", f"127.0.0.1:{port}", data]
            return self._launch(name, argv, env=env)

        return self._s3_server(name, launch, ready_path="/minio/health/cluster")

    def versitygw(self, name: str) -> S3Server:
        """Start a versitygw over a directory, with versioning."""
        program = find_program(VERSITYGW)
        versions = self.directory / name / "versions"

        def launch(port: int, access: str, secret: str, data: Path) -> Child:
            versions.mkdir(exist_ok=True)
            env = {"ROOT_ACCESS_KEY_ID": access, "ROOT_SECRET_ACCESS_KEY": secret, "VGW_HEALTH": "/health"}
            argv: Argv = [program, "--port", f"127.0.0.1:{port}", "posix", "--versioning-dir", versions, data]
            return self._launch(name, argv, env=env)

        return self._s3_server(name, launch, ready_path="/health")

    def _s3_server(
        self, name: str, launch: Callable[[int, str, str, Path], Child], *, ready_path: str
    ) -> S3Server:
        data = self.directory / name / "data"
        data.mkdir(parents=True, exist_ok=True)
        secret = self._secret(name)

        def attempt() -> S3Server:
            port = free_port()
            endpoint = f"http://127.0.0.1:{port}"
            child = launch(port, name, secret, data)
            child.wait_until(lambda: _answers(endpoint + ready_path), seconds=READY_SECONDS)
            return S3Server(name, endpoint, name, secret, data, child)

        server = _retried(attempt)
        self.s3.append(server)
        self._write_access_files()
        return server

    def postgres(self, name: str) -> PostgresServer:
        """Start a PostgreSQL: TCP only, passwords by SCRAM, no fsync. As root it runs as another user."""
        bin_dir = find_postgres()
        user = _unprivileged_user()
        data = self.directory / name / "data"
        data.parent.mkdir(parents=True, exist_ok=True)
        password = self._secret(name)
        if user and not _reaches(user, bin_dir / "postgres"):
            bin_dir = self._copied(bin_dir)
        if user and not _reaches(user, data.parent):
            data = self._borrow(f"moveout-{name}-") / "data"
        if not (data / "PG_VERSION").exists():
            self._initdb(name, bin_dir, data, user=user, password=password)

        def attempt() -> PostgresServer:
            port = free_port()
            argv: Argv = [bin_dir / "postgres", "-D", data, "-p", str(port), *_POSTGRES_SETTINGS]
            child = self._launch(name, argv, user=user, stop_signal=signal.SIGINT)
            server = PostgresServer(name, "127.0.0.1", port, password, bin_dir, data, child)
            child.wait_until(lambda: _accepts(server), seconds=READY_SECONDS)
            return server

        server = _retried(attempt)
        self.databases.append(server)
        self._write_access_files()
        return server

    def toxiproxy(self, name: str = "toxiproxy") -> Toxiproxy:
        """Start a proxy server whose proxies cut, slow down or corrupt connections."""
        program = find_program(TOXIPROXY)
        (self.directory / name).mkdir(exist_ok=True)

        def attempt() -> Toxiproxy:
            port = free_port()
            child = self._launch(name, [program, "-host", "127.0.0.1", "-port", str(port)])
            child.wait_until(lambda: _answers(f"http://127.0.0.1:{port}/version"), seconds=READY_SECONDS)
            return Toxiproxy(f"http://127.0.0.1:{port}")

        return _retried(attempt)

    def _launch(
        self,
        name: str,
        argv: Argv,
        *,
        env: Mapping[str, str] | None = None,
        user: str = "",
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Child:
        log = self.directory / name / "server.log"
        child = start(name, argv, log=log, env=env, user=user, stop_signal=stop_signal)
        self._children.append(child)
        return child

    def _secret(self, name: str) -> str:
        """Return the server's password: made once, kept beside its data."""
        path = self.directory / name / "password"
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(18))
        return path.read_text()

    def _initdb(self, name: str, bin_dir: Path, data: Path, *, user: str, password: str) -> None:
        data.mkdir(mode=0o700, exist_ok=True)
        password_file = data.parent / "initdb-password"
        _write_private(password_file, password)
        if user:
            shutil.chown(data, user)
            shutil.chown(password_file, user)
        argv: list[str | Path] = [
            bin_dir / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "--auth=scram-sha-256",
            f"--pwfile={password_file}",
        ]
        argv += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        log = self.directory / name / "initdb.log"
        child = start(f"initdb for {name}", argv, log=log, user=user)
        status = child.popen.wait()
        password_file.unlink()
        if status:
            shutil.rmtree(data, ignore_errors=True)
            raise ServerError(f"initdb for {name} failed:\n{child.log_end()}")

    def _borrow(self, prefix: str) -> Path:
        """Make a directory that another user can reach; it goes away with the servers."""
        path = Path(tempfile.mkdtemp(prefix=prefix))
        path.chmod(0o755)
        self._borrowed.append(path)
        return path

    def _copied(self, bin_dir: Path) -> Path:
        """Copy a PostgreSQL from where only root can enter; its libraries lie beside the package."""
        package = bin_dir.parent.parent
        there = self._borrow("moveout-postgres-")
        for source in (bin_dir.parent, package.parent / f"{package.name}.libs"):
            if source.exists():
                shutil.copytree(source, there / source.relative_to(package.parent), symlinks=True)
        return there / bin_dir.relative_to(package.parent)

    def _write_access_files(self) -> None:
        profiles = "".join(
            f"[profile {one.profile}]\nregion = us-east-1\nendpoint_url = {one.endpoint}\n"
            "s3 =\n    addressing_style = path\n\n"
            for one in self.s3
        )
        keys = "".join(
            f"[{one.profile}]\naws_access_key_id = {one.access_key}\n"
            f"aws_secret_access_key = {one.secret_key}\n\n"
            for one in self.s3
        )
        passwords = "".join(f"{one.host}:{one.port}:*:postgres:{one.password}\n" for one in self.databases)
        _write_private(self.directory / "aws-config", profiles)
        _write_private(self.directory / "aws-credentials", keys)
        _write_private(self.directory / "pgpass", passwords)


_POSTGRES_SETTINGS = [
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
    )
    for word in ("-c", setting)
]


_Started = TypeVar("_Started")


def _retried(attempt: Callable[[], _Started]) -> _Started:
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except ServerError as error:
            if "in use" not in str(error):
                raise
    return attempt()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _accepts(server: PostgresServer) -> bool:
    try:
        psycopg.connect(server.url, password=server.password, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _unprivileged_user() -> str:
    """Return whom PostgreSQL runs as where we are root (it refuses root), else an empty name."""
    if os.geteuid() != 0:
        return ""
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return name
    raise ServerError("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")


def _reaches(user: str, path: Path) -> bool:
    """Tell whether another user can enter every directory above ``path`` and use it."""
    entry = pwd.getpwnam(user)
    for step in (*path.resolve().parents, path.resolve()):
        status = step.stat()
        if not (status.st_mode & 0o001 or (status.st_uid == entry.pw_uid and status.st_mode & 0o100)):
            return False
    return True


def _write_private(path: Path, text: str) -> None:
    """Replace a file that only we may read, atomically."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)


def _up(directory: Path) -> None:
    with Servers(directory) as servers:
        for name in ("old", "new"):
            servers.minio(f"{name}-s3")
            servers.postgres(f"{name}-db")
        lines = [f"export {key}={shlex.quote(value)}" for key, value in servers.environment.items()]
        (servers.directory / "env.sh").write_text("\n".join(lines) + "\n")
        for s3 in servers.s3:
            print(f"{s3.profile:8} s3://BUCKET?profile={s3.profile}   ({s3.endpoint})")
        for database in servers.databases:
            print(f"{database.name:8} {database.url}   (programs: {database.bin_dir})")
        print(f"\nin another terminal:  . {servers.directory / 'env.sh'}\nCtrl-C ends them.", flush=True)
        signal.pause()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.servers", description="Real servers on loopback."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="two MinIOs and two PostgreSQLs, until Ctrl-C")
    up.add_argument("--dir", type=Path, default=Path("servers-work"), help="where their data lies (kept)")
    get = verbs.add_parser("get", help="find or build the programs")
    get.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROGRAMS)} (default: all)")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.verb == "up":
            _up(options.dir)
        else:
            unknown = sorted(set(options.names) - set(PROGRAMS))
            if unknown:
                parser.error(f"unknown program {unknown[0]}; known are {', '.join(PROGRAMS)}")
            for name in options.names or PROGRAMS:
                print(find_program(PROGRAMS[name]))
            print(find_postgres())
    except ServerError as error:
        print(f"servers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
