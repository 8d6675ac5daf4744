"""PostgreSQL's source tree of the version in use, and the regression schedule run from it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.binaries import find_postgres, postgres_major
from scripts.outsiders.debian import fetch_package, fetch_source
from scripts.outsiders.suite import Skipped
from scripts.postgresql import PostgresServer
from scripts.process import Argv, ServerError

_SCRIPT_SECONDS = 300.0
_VARIABLES = ("-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on")
_COMPILER = ("cc", "-O1", "-fPIC", "-shared", "-w")


def obtain_source() -> Path | Skipped:
    """Return the source tree of the PostgreSQL in use, fetched once."""
    bin_dir = find_postgres()
    unpacked = fetch_source(f"postgresql-{postgres_major(bin_dir)}", _version(bin_dir))
    if isinstance(unpacked, Skipped):
        return unpacked
    (tree,) = unpacked.glob("postgresql-*")
    return tree


def obtain_libraries(tree: Path) -> Path | Skipped:
    """Return a directory with ``regress.so``, ``refint.so`` and ``autoinc.so``, compiled once from the source."""
    destination = tree.parent / "libraries"
    if destination.exists():
        return destination
    bin_dir = find_postgres()
    package = fetch_package(f"postgresql-server-dev-{postgres_major(bin_dir)}", _version(bin_dir))
    if isinstance(package, Skipped):
        return package
    if shutil.which(_COMPILER[0]) is None:
        return Skipped("there is no C compiler (cc) for the suite's libraries")
    headers = package / "usr/include/postgresql" / str(postgres_major(bin_dir)) / "server"
    scratch = tree.parent / f"libraries.{os.getpid()}"
    scratch.mkdir()
    for source in ("src/test/regress/regress.c", "contrib/spi/refint.c", "contrib/spi/autoinc.c"):
        output = scratch / f"{Path(source).stem}.so"
        argv: Argv = [*_COMPILER, f"-I{headers}", "-I/usr/include/postgresql", "-o", output, tree / source]
        completed = subprocess.run(argv, capture_output=True, text=True, check=False)
        if completed.returncode:
            shutil.rmtree(scratch)
            return Skipped(f"{source} cannot be compiled: {completed.stderr[-300:]}")
    scratch.rename(destination)
    return destination


def _version(bin_dir: Path) -> str:
    output = subprocess.run([bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"\d+\.\d+", output.stdout)
    return match[0] if match else ""


@dataclass(frozen=True, slots=True)
class Scripts:
    """Regression scripts in a directory that the server can read, and how psql runs them."""

    server: PostgresServer
    directory: Path
    libraries: Path

    @classmethod
    def stage(cls, server: PostgresServer, scripts: Path, libraries: Path, directory: Path) -> Scripts:
        """Copy the scripts' directory and the libraries to where the server reads and writes."""
        shutil.copytree(scripts, directory, dirs_exist_ok=True)
        copied = directory / "libraries"
        shutil.copytree(libraries, copied, dirs_exist_ok=True)
        for name in ("results", "testtablespace"):
            (directory / name).mkdir(exist_ok=True)
            (directory / name).chmod(0o777)
        return cls(server, directory, copied)

    def run(self, database: str, script: str | bytes, *, encoding: str = "") -> str:
        """Run a script in psql as pg_regress does; return its output. Statements may fail; psql may not hang."""
        argv: Argv = [
            self.server.bin_dir / "psql",
            "-X",
            "-a",
            "-q",
            *_VARIABLES,
            "-d",
            self.server.url_of(database),
        ]
        data = script if isinstance(script, bytes) else script.encode("latin1")
        completed = subprocess.run(
            argv,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            cwd=self.directory,
            env=self._environment(encoding),
            timeout=_SCRIPT_SECONDS,
        )
        if completed.returncode not in {0, 3}:
            raise ServerError(f"psql ended with status {completed.returncode}: {completed.stdout[-500:]!r}")
        return completed.stdout.decode("latin1")

    def schedule(self) -> list[str]:
        """Return the names of the scripts in the order of the schedule."""
        lines = (self.directory / "parallel_schedule").read_text().splitlines()
        return [name for line in lines if line.startswith("test:") for name in line.split()[1:]]

    def text(self, name: str) -> str:
        """Return a script; its bytes, which may be of any encoding, are Latin-1 characters here."""
        return (self.directory / "sql" / f"{name}.sql").read_bytes().decode("latin1")

    def _environment(self, encoding: str) -> Mapping[str, str]:
        foreign = ("PG", "LC_", "LANG")
        own_variables = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        own_variables |= {
            "PGPASSWORD": self.server.password,
            "PGTZ": "America/Los_Angeles",
            "PGDATESTYLE": "Postgres, MDY",
            "PGOPTIONS": "-c intervalstyle=postgres_verbose",
            "LANG": "C",
            "LC_MESSAGES": "C",
            "PG_ABS_SRCDIR": str(self.directory),
            "PG_ABS_BUILDDIR": str(self.directory),
            "PG_LIBDIR": str(self.libraries),
            "PG_DLSUFFIX": ".so",
        }
        return own_variables | ({"PGCLIENTENCODING": encoding} if encoding else {})


REGRESSION_SETTINGS: Sequence[str] = (
    "lc_messages = 'C'",
    "lc_monetary = 'C'",
    "lc_numeric = 'C'",
    "lc_time = 'C'",
    "bytea_output = 'hex'",
    "timezone_abbreviations = 'Default'",
)
"""What pg_regress sets for its databases."""


def trust_everybody(server: PostgresServer) -> None:
    """Let every role connect without a password: the scripts make roles and connect as them."""
    (server.directory / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")
    server.execute("SELECT pg_reload_conf()")


def create_database(server: PostgresServer, name: str, *, encoding: str = "UTF8", template: str = "") -> str:
    """Create a database as pg_regress does, empty or as a copy; return its URL."""
    options = (
        f'TEMPLATE "{template}"'
        if template
        else f"TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    server.execute(f'CREATE DATABASE "{name}" {options}')
    if not template:
        for setting in REGRESSION_SETTINGS:
            server.execute(f'ALTER DATABASE "{name}" SET {setting}')
    return server.url_of(name)
