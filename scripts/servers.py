"""Real servers on free loopback ports, each with its own data directory, killed with their parent. No Docker.

As a library: ``with Servers(directory) as servers: servers.minio("old-host")``. ``servers.environment`` is
what programs need to reach them: AWS profiles (one a server) and a pgpass file, so that URLs hold no secrets.
By hand:

    python -m scripts.servers up --dir DIR     two MinIOs and two PostgreSQLs, until Ctrl-C
    python -m scripts.servers get [NAME ...]   find or build the programs, print where they are
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import os
import secrets
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

import boto3

from scripts.binaries import (
    MINIO,
    PROGRAMS,
    TOXIPROXY,
    VERSITYGW,
    find_postgres,
    find_program,
    find_programs,
    find_rclone,
)
from scripts.mariadb import MariadbServer, Store, make_store
from scripts.mysql import make_store as make_mysql_store
from scripts.network.links import Link
from scripts.network.toxiproxy import Toxiproxy
from scripts.postgresql import PostgresServer, make_cluster
from scripts.process import Argv, Child, ServerError, free_port, start, write_private

READY_SECONDS = 60.0
KMS_KEY = "moveout"
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
    ca_bundle: Path | None = None
    """The certificate to trust, of a server that speaks TLS."""

    def client(self) -> Any:
        """Return a client of boto3's."""
        return boto3.Session(profile_name=self.profile).client("s3")


@dataclass(slots=True)
class Servers:
    """Starts servers under ``directory`` and ends them when the context ends. Use it from the main thread."""

    directory: Path
    host: str = "127.0.0.1"
    """The address of S3 servers."""
    keeps_data: bool = True
    """Whether the servers end in order, so that others can start with their data. It takes seconds."""
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
        """End all servers at the same time, and drop directories that had to lie elsewhere."""
        for child in self._children:
            if self.keeps_data:
                child.begin_stop()
            else:
                child.begin_kill()
        while self._children:
            self._children.pop().finish_stop()
        if self._borrowed:  # rm takes a third of shutil's time for the files of many databases
            subprocess.run(["rm", "-rf", "--", *self._borrowed], check=False, capture_output=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which any program reaches the servers."""
        return {
            "AWS_CONFIG_FILE": str(self.directory / "aws-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.directory / "aws-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "PGPASSFILE": str(self.directory / "pgpass"),
            "MYSQL_PWD": self._secret("mariadb"),
        }

    def know(self, server: S3Server) -> None:
        """Let ``environment`` reach a server that others have started, too."""
        self.s3.append(server)
        self._write_access_files()

    def write_environment(self, more: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write ``env.sh``, by which a shell gets the environment, and ``more`` variables."""
        variables = {**self.environment, **more}
        lines = [f"export {key}={shlex.quote(value)}\n" for key, value in variables.items()]
        (self.directory / "env.sh").write_text("".join(lines))

    def minio(
        self, name: str, *, encrypts: bool = False, tls: bool = False, link: Link | None = None
    ) -> S3Server:
        """Start a MinIO. ``encrypts``: it has a key (``KMS_KEY``), and its buckets can be told to encrypt by it.
        ``tls``: it speaks TLS with a certificate of its own, without which MinIO takes no keys of customers (SSE-C).
        ``link``: it lives in that namespace.
        """
        program = find_program(MINIO)
        host = link.address if link else self.host
        certificates = make_certificate(self.directory / name / "certificates", host) if tls else None

        def launch(port: int, access: str, secret: str, data: Path) -> Child:
            env = {
                "MINIO_ROOT_USER": access,
                "MINIO_ROOT_PASSWORD": secret,
                "MINIO_BROWSER": "off",
                "MINIO_UPDATE": "off",
                "MINIO_PROMETHEUS_AUTH_TYPE": "public",
                "MINIO_SCANNER_SPEED": "slowest",  # else it looks through all buckets each minute
                "MINIO_DRIVE_MAX_TIMEOUT": "10m",  # else it takes a disk for broken that is busy for half a minute
            }
            if encrypts:
                env["MINIO_KMS_SECRET_KEY"] = (
                    f"{KMS_KEY}:{base64.b64encode(secrets.token_bytes(32)).decode()}"
                )
            arguments: list[str | Path] = [program, "server", "--quiet", "--address", f"{host}:{port}"]
            if certificates is not None:
                arguments += ["--certs-dir", certificates.parent]
            return self._launch(name, [*(link.prefix if link else ()), *arguments, data], env=env)

        return self._s3_server(
            name, launch, ready_path="/minio/health/cluster", host=host, ca_bundle=certificates
        )

    def versitygw(self, name: str) -> S3Server:
        """Start a versitygw over a directory, with versioning, and accounts of its own."""
        program = find_program(VERSITYGW)
        versions, accounts = self.directory / name / "versions", self.directory / name / "accounts"

        def launch(port: int, access: str, secret: str, data: Path) -> Child:
            versions.mkdir(exist_ok=True)
            accounts.mkdir(exist_ok=True)
            env = {"ROOT_ACCESS_KEY_ID": access, "ROOT_SECRET_ACCESS_KEY": secret, "VGW_HEALTH": "/health"}
            options = ("--port", f"{self.host}:{port}", "--iam-dir", accounts)
            argv: Argv = [program, *options, "posix", "--versioning-dir", versions, data]
            return self._launch(name, argv, env=env)

        return self._s3_server(name, launch, ready_path="/health")

    def rclone(self, name: str) -> S3Server:
        """Start ``rclone serve s3`` over a directory. Raises ``ServerError`` where there is no rclone."""
        program = find_rclone()

        def launch(port: int, access: str, secret: str, data: Path) -> Child:
            env = {"RCLONE_AUTH_KEY": f'"{access},{secret}"', "RCLONE_CONFIG": os.devnull}
            argv: Argv = [program, "serve", "s3", "--addr", f"{self.host}:{port}", data]
            return self._launch(name, argv, env=env)

        return self._s3_server(name, launch, ready_path="/")

    def _s3_server(
        self,
        name: str,
        launch: Callable[[int, str, str, Path], Child],
        *,
        ready_path: str,
        host: str = "",
        ca_bundle: Path | None = None,
    ) -> S3Server:
        data = self.directory / name / "data"
        data.mkdir(parents=True, exist_ok=True)
        secret = self._secret(name)

        def attempt() -> S3Server:
            port = free_port()
            endpoint = f"{'https' if ca_bundle else 'http'}://{host or self.host}:{port}"
            child = launch(port, name, secret, data)
            child.wait_until(lambda: _answers(endpoint + ready_path, ca_bundle), seconds=READY_SECONDS)
            return S3Server(name, endpoint, name, secret, data, child, ca_bundle)

        server = _retried(attempt)
        self.s3.append(server)
        self._write_access_files()
        return server

    def postgres(
        self, name: str, bin_dir: Path | None = None, *, settings: Sequence[str] = ()
    ) -> PostgresServer:
        """Start a PostgreSQL: TCP only, passwords by SCRAM, no fsync. As root it runs as another user. ``bin_dir`` has
        its programs, else one is found. ``settings``: more of them, as ``name=value``.
        """
        password = self._secret(name)
        cluster = make_cluster(name, self.directory / name, password, self._borrow, bin_dir)

        def attempt() -> PostgresServer:
            port = free_port()
            command = cluster.command(port, settings)
            child = self._launch(
                name, command, user=cluster.user, stop_signal=signal.SIGINT, kill_signal=signal.SIGQUIT
            )  # on SIGQUIT its processes end, too, and it frees what it shares with them
            server = PostgresServer(name, "127.0.0.1", port, password, cluster.bin_dir, cluster.data, child)
            child.wait_until(server.accepts, seconds=READY_SECONDS)
            return server

        server = _retried(attempt)
        self.databases.append(server)
        self._write_access_files()
        return server

    def end(self, server: PostgresServer) -> None:
        """End a PostgreSQL before the others, and remove its data."""
        server.child.stop()
        self.databases.remove(server)
        self._write_access_files()
        shutil.rmtree(server.directory.parent, ignore_errors=True)

    def mariadb(self, name: str, *, settings: Sequence[str] = ()) -> MariadbServer:
        """Start a MariaDB. All of them have one password, since MYSQL_PWD is one. As root it runs as another user.
        ``settings``: more of them, as ``name=value``.
        """
        return self._mariadb(name, make_store, settings)

    def mysql(self, name: str, *, settings: Sequence[str] = ()) -> MariadbServer:
        """Start a MySQL, which is reached as a MariaDB is, and has the same password."""
        return self._mariadb(name, make_mysql_store, settings)

    def _mariadb(
        self, name: str, make: Callable[[str, str, Callable[[str], Path]], Store], settings: Sequence[str]
    ) -> MariadbServer:
        password = self._secret("mariadb")
        (self.directory / name).mkdir(exist_ok=True)
        store = make(name, password, self._borrow)

        def attempt() -> MariadbServer:
            port = free_port()
            child = self._launch(name, store.command(port, settings), user=store.user)
            server = MariadbServer(name, "127.0.0.1", port, password, store.home, child)
            child.wait_until(server.accepts, seconds=READY_SECONDS)
            return server

        return _retried(attempt)

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
        kill_signal: signal.Signals = signal.SIGKILL,
    ) -> Child:
        log = self.directory / name / "server.log"
        child = start(
            name, argv, log=log, env=env, user=user, stop_signal=stop_signal, kill_signal=kill_signal
        )
        self._children.append(child)
        return child

    def _secret(self, name: str) -> str:
        """Return the server's password: made once, kept next to its data."""
        path = self.directory / name / "password"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            write_private(path, secrets.token_urlsafe(18))
        return path.read_text()

    def _borrow(self, prefix: str) -> Path:
        """Make a directory that another user can reach; it goes away with the servers."""
        sweep(Path(tempfile.gettempdir()))
        path = borrowed_directory(prefix)
        path.chmod(0o755)
        self._borrowed.append(path)
        return path

    def _write_access_files(self) -> None:
        profiles = "".join(
            f"[profile {server.profile}]\nregion = us-east-1\nendpoint_url = {server.endpoint}\n"
            + (f"ca_bundle = {server.ca_bundle}\n" if server.ca_bundle else "")
            + "s3 =\n    addressing_style = path\n\n"
            for server in self.s3
        )
        keys = "".join(
            f"[{server.profile}]\naws_access_key_id = {server.access_key}\n"
            f"aws_secret_access_key = {server.secret_key}\n\n"
            for server in self.s3
        )
        passwords = "".join(
            f"{server.host}:{server.port}:*:postgres:{server.password}\n" for server in self.databases
        )
        write_private(self.directory / "aws-config", profiles)
        write_private(self.directory / "aws-credentials", keys)
        write_private(self.directory / "pgpass", passwords)


_Started = TypeVar("_Started")

FOREIGN = ("AWS_", "PG", "MYSQL_", "MOVEOUT_CASE")
"""Prefixes of variables by which the caller's environment would reach servers other than ours."""


_BORROWED, _PREFIX_CHARACTERS = "moveout-servers-", 24


def borrowed_directory(prefix: str) -> Path:
    """Make a directory among temporary files, which ``sweep`` removes once this process is gone.

    A long prefix is cut, since the path of a socket below it has at most 107 bytes.
    """
    return Path(tempfile.mkdtemp(prefix=f"{_BORROWED}{os.getpid()}-{prefix[:_PREFIX_CHARACTERS]}"))


def sweep(directory: Path) -> None:
    """Remove what killed processes have borrowed: the name says whose it was."""
    for path in directory.glob(f"{_BORROWED}*-*"):
        pid = path.name.removeprefix(_BORROWED).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(path, ignore_errors=True)


def environment_for(servers: Servers) -> dict[str, str]:
    """Return our environment without what reaches other servers, and with what reaches these."""
    own_variables = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**own_variables, **servers.environment}


def _retried(attempt: Callable[[], _Started]) -> _Started:
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except ServerError as error:
            if "in use" not in str(error):
                raise
    return attempt()


def make_certificate(directory: Path, host: str) -> Path:
    """Make a certificate for a host and its key in a directory, as MinIO wants them (``public.crt``, ``private.key``).
    Return the certificate, which is its own authority.
    """
    directory.mkdir(parents=True, exist_ok=True)
    certificate = directory / "public.crt"
    arguments = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "9",
        "-subj",
        f"/CN={host}",
    ]
    arguments += ["-addext", f"subjectAltName=IP:{host}"]
    arguments += ["-keyout", str(directory / "private.key"), "-out", str(certificate)]
    subprocess.run(arguments, check=True, capture_output=True)
    return certificate


def _answers(url: str, ca_bundle: Path | None = None) -> bool:
    context = ssl.create_default_context(cafile=ca_bundle) if ca_bundle else None
    try:
        with urllib.request.urlopen(url, timeout=2, context=context):
            return True
    except urllib.error.HTTPError as error:
        return error.code < HTTPStatus.INTERNAL_SERVER_ERROR  # it answers, though not to strangers
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep others from starting servers on the same data. Raises ``ServerError`` where one has done so."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "servers.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            raise ServerError(
                f"process {holder} runs the servers of {directory} already; use them (. {directory / 'env.sh'}),"
                f" end them (kill {holder}), or give another --dir"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _up(directory: Path, *, seeded: bool) -> None:
    with _alone(directory), Servers(directory) as servers:
        (servers.directory / "env.sh").unlink(missing_ok=True)  # of servers before these
        filled = " and filling the old ones" if seeded else ""
        print(f"servers: starting two MinIOs and two PostgreSQLs{filled} ...", flush=True)
        for name in ("old", "new"):
            servers.minio(f"{name}-s3")
            servers.postgres(f"{name}-db")
        servers.write_environment(_seed(servers) if seeded else {})
        for s3 in servers.s3:
            print(f"{s3.profile:8} s3://BUCKET?profile={s3.profile}   ({s3.endpoint})")
        for database in servers.databases:
            print(f"{database.name:8} {database.url}   (programs: {database.bin_dir})")
        print(f"\nin another terminal:  . {servers.directory / 'env.sh'}\nCtrl-C ends them.", flush=True)
        signal.pause()


def _seed(servers: Servers) -> dict[str, str]:
    """Fill the old host with the demo's social network, once, and make room on the new one. Return the variables with
    the databases' URLs.
    """
    from scripts import seed  # noqa: PLC0415  the servers alone need no database driver

    os.environ.update(servers.environment)
    marker_file = servers.directory / "seeded"
    if not marker_file.exists():
        for database in servers.databases:
            database.database("plaza")
        seed.seed_database(servers.databases[0].url_of("plaza"))
        seed.seed_bucket("old-s3", "plaza-media", list(seed.objects(small=200, large=1)))
        seed.make_buckets("new-s3", "evacuated", "plaza-media")
        marker_file.touch()
    urls = [database.url_of("plaza") for database in servers.databases]
    return dict(zip(("OLD_DB", "NEW_DB"), urls, strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.servers", description="Real servers on loopback."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="two MinIOs and two PostgreSQLs, until Ctrl-C")
    up.add_argument("--dir", type=Path, default=Path("servers-work"), help="where their data lies (kept)")
    up.add_argument("--seed", action="store_true", help="fill the old ones with the demo's data")
    get = verbs.add_parser("get", help="find or build the programs")
    get.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROGRAMS)} (default: all)")
    options = parser.parse_args(argv)
    try:
        if options.verb == "up":
            _up(options.dir, seeded=options.seed)
        else:
            unknown = sorted(set(options.names) - set(PROGRAMS))
            if unknown:
                parser.error(f"unknown program {unknown[0]}; known are {', '.join(PROGRAMS)}")
            for path in find_programs(options.names):
                print(path)
            print(find_postgres())
    except ServerError as error:
        print(f"servers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
