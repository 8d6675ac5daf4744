"""pgcopydb's tests of change data capture: what they do at their source is done at a database that moveout follows."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from scripts.outsiders.pgcopydb import SUITE as WHOLE
from scripts.outsiders.postgresql.followed_move import FollowedMoves, Step, Workload
from scripts.outsiders.suite import Context, Skipped, SuiteRow
from scripts.process import Argv

PAGILA = "OUTSIDERS_PAGILA"
_PAGILA_COMMIT = "e0e35a666f31a786b9d3c06cb83799fc46db25d4"
"""The last one before it needs PostgreSQL 18. pgcopydb's tests name its partitions of 2022."""
_PAGILA_FILES = ("pagila-schema.sql", "pagila-data.sql")
_CONTAINER, _PAGILA_CONTAINER = "/usr/src/pgcopydb/", "/usr/src/pagila/"
_SOURCE = re.compile(r"PGCOPYDB_SOURCE_PGURI")
_COPIES = re.compile(r"pgcopydb\s+(?:snapshot|clone|fork|follow|copy|stream\s+setup)\b")
_COPIED_FILE = re.compile(r"^\s*cp\s+(/usr/src/\S+)\s+(\S+)$", re.MULTILINE)
_FILE = re.compile(r"\s-f\s+(\S+)")
_VARIABLE = re.compile(r"\s-v\s+(\w+)=(\S+)")
_COMMAND = re.compile(r"""\s-c\s+(?:"([^"$]*)"|'([^']*)')""")
_HERE = re.compile(r"<<\s*'?(\w+)'?")
_READS_ONLY = re.compile(r"\A\s*select\s+(?!pg_switch_wal|setval|nextval|lo_)", re.IGNORECASE)


class PgcopydbFollow:
    """One move for each test that writes to its source after the copy has begun."""

    name = "pgcopydb-follow"
    origin = f"pgcopydb's tests cdc-* and follow-*; pagila from the checkout that {PAGILA} names"

    def obtain(self) -> Path | Skipped:
        """Return the directory of the tests."""
        return WHOLE.obtain()

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Move each test's database."""
        moves = FollowedMoves.begin(context)
        scripts = pagila_scripts(context.scratch / "pagila")
        pagila = None if isinstance(scripts, Skipped) else scripts
        directories = sorted({*context.material.glob("cdc-*"), *context.material.glob("follow-*")})
        workloads: list[Workload] = []
        for directory in context.choose(directories):
            workload = workload_of(directory, pagila)
            if workload is None:
                assert isinstance(scripts, Skipped)
                yield SuiteRow(directory.name, skipped=scripts.reason)
            elif not workload.after:
                yield SuiteRow(directory.name, skipped="its scripts write nothing after the copy has begun")
            else:
                workloads.append(workload)
        yield from moves.move_all(workloads)


def pagila_scripts(directory: Path, commit: str = _PAGILA_COMMIT) -> Path | Skipped:
    """Write the scripts of pagila into a new directory, and return it. The checkout has them."""
    checkout = os.environ.get(PAGILA)
    if not checkout:
        return Skipped(f"it needs pagila: set {PAGILA} to a checkout of it (github: devrimgunduz/pagila)")
    directory.mkdir()
    for name in _PAGILA_FILES:
        argv: Argv = ["git", "-C", checkout, "show", f"{commit}:{name}"]
        shown = subprocess.run(argv, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
        if shown.returncode:
            words = shown.stderr.decode(errors="replace").strip()
            return Skipped(
                f"it needs pagila: the checkout {PAGILA}={checkout} does not show {name} of {commit}: {words}"
            )
        (directory / name).write_bytes(shown.stdout)
    return directory


def workload_of(directory: Path, pagila: Path | None) -> Workload | None:
    """Return what a test does to its source; None where that needs a database that is not there."""
    parts: tuple[list[Step], list[Step]] = ([], [])
    scripts = [directory / name for name in ("copydb.sh", "inject.sh")]
    copies = False
    for script in scripts:
        for command in commands(_without_copies(script.read_text())) if script.exists() else ():
            copies = copies or bool(_COPIES.search(command))
            if not re.search(r"\bpsql\b", command) or not _SOURCE.search(command):
                continue
            if _PAGILA_CONTAINER in command and pagila is None:
                return None
            parts[copies].extend(_steps(command, directory, pagila))
    return Workload(directory.name, *parts)


def _without_copies(script: str) -> str:
    """Return a script that names the files themselves, where it names copies that it makes of them."""
    for file, copy in _COPIED_FILE.findall(script):
        script = script.replace(copy, file)
    return script


def commands(script: str) -> Iterator[str]:
    """Yield the commands of a shell script that stand on lines of their own, each with its here-document."""
    lines = iter(script.replace("\\\n", " ").splitlines())
    for line in lines:
        if line.lstrip().startswith("#"):
            continue
        here = _HERE.search(line)
        body = []
        if here:
            for text in lines:
                if text.strip() == here[1]:
                    break
                body.append(text)
        yield "\n".join([line, *body])


def _steps(command: str, directory: Path, pagila: Path | None) -> Iterator[Step]:
    """Yield what one psql does; nothing where it only asks."""
    line, _, here = command.partition("\n")
    variables: Mapping[str, str] = dict(_VARIABLE.findall(line))
    for name in _FILE.findall(line):
        file = _host_path(name, directory, pagila)
        if file is not None and file.is_file():
            yield Step(file.read_text(errors="surrogateescape"), variables=variables, directory=directory)
    texts: Sequence[str] = [double or single for double, single in _COMMAND.findall(line)]
    for text in [*texts, here]:
        if text.strip() and not _READS_ONLY.match(text):
            yield Step(text, variables=variables, directory=directory)


def _host_path(name: str, directory: Path, pagila: Path | None) -> Path | None:
    if name.startswith(_PAGILA_CONTAINER):
        return pagila / name.removeprefix(_PAGILA_CONTAINER) if pagila else None
    return directory / name.removeprefix(_CONTAINER)


SUITE = PgcopydbFollow()
