"""What follows a database: the contract of the tools that are compared, and moveout."""

from __future__ import annotations

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from scripts.bench.turns import beside
from scripts.cost import tree_bytes, used_by
from scripts.mariadb import MariadbServer
from scripts.postgresql import PostgresServer

_STOP_SECONDS = 60.0
COMPLETE, INCOMPLETE = 0, 3


Server = TypeVar("Server", PostgresServer, MariadbServer)
AnyPair = TypeVar("AnyPair")


@dataclass(frozen=True, slots=True)
class Pair(ABC, Generic[Server]):
    """A database and the empty one that it goes to, on servers of this machine. ``folder`` is where tools may write,
    ``environment`` that by which programs reach the servers.
    """

    source_server: Server
    destination_server: Server
    name: str
    folder: Path
    environment: Mapping[str, str]

    @abstractmethod
    def open(self, server: Server) -> Any:
        """Open a connection to the database on one of both servers. It commits by itself."""

    @property
    def urls(self) -> tuple[str, str]:
        """Both, without passwords."""
        return self.source_server.url_of(self.name), self.destination_server.url_of(self.name)

    def source(self) -> Any:
        """Open a connection to the source."""
        return self.open(self.source_server)

    def destination(self) -> Any:
        """Open a connection to the destination."""
        return self.open(self.destination_server)

    def used(self) -> tuple[float, float]:
        """Return the seconds of processor that either server has used."""
        servers = self.source_server, self.destination_server
        source, destination = (used_by(server.child.popen.pid) for server in servers)
        return source, destination


def pairs_between(
    kind: Callable[[Server, Server, str, Path, Mapping[str, str]], AnyPair],
    source: Server,
    destination: Server,
    directory: Path,
    environment: Mapping[str, str],
) -> Callable[[str], AnyPair]:
    """Return what makes a pair of empty databases of a name, with a folder of its own below ``directory``."""

    def pair(name: str) -> AnyPair:
        folder = directory / f"work-{name}"
        folder.mkdir()
        for server in (source, destination):
            server.database(name)
        return kind(source, destination, name, folder, environment)

    return pair


class FollowTool(Protocol):
    """Follows one database."""

    @property
    def cpu_seconds(self) -> float:
        """What its own processes have used since it was started, 0 where only the servers are at work."""
        ...

    @property
    def peak_bytes(self) -> int:
        """The most memory of its own processes."""
        ...

    def take_base(self) -> None:
        """Copy the database. What is written from then on is kept for the tool."""
        ...

    def start(self) -> None:
        """Begin to bring what was written after the base."""
        ...

    def look(self) -> None:
        """Take down what it uses; to be called now and then."""
        ...

    def stop(self) -> None:
        """End it."""
        ...

    def finish(self) -> str:
        """End the move as the tool means it, with all that it brings; return what it says."""
        ...


@dataclass(slots=True)
class Process:
    """A tool's own process, started by ``begin``."""

    log: Path
    environment: Mapping[str, str]
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    popen: subprocess.Popen[bytes] | None = None

    def begin(self, *words: str | Path) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                words, stdout=log, stderr=log, env={**os.environ, **self.environment}, start_new_session=True
            )

    def look(self) -> None:
        """Take down what it and its children use."""
        if self.popen is not None and self.popen.poll() is None:
            self.cpu_seconds = max(self.cpu_seconds, used_by(self.popen.pid))
            self.peak_bytes = max(self.peak_bytes, tree_bytes(self.popen.pid))

    def stop(self, seconds: float = _STOP_SECONDS) -> int:
        """Interrupt it, and return its exit code; a process that does not heed that is killed with its children."""
        if self.popen is None:
            return 0
        self.look()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.popen.pid, signal.SIGKILL)
            return self.popen.wait()

    def run(self, *words: str | Path, may_return: Sequence[int] = (COMPLETE,)) -> int:
        """Run a program to its end, and return its exit code. Raises ``CalledProcessError`` for another."""
        with self.log.open("ab") as log:
            code = subprocess.run(
                words, stdout=log, stderr=log, env={**os.environ, **self.environment}, check=False
            ).returncode
        if code not in may_return:
            print(self.log.read_text(errors="replace")[-2000:], flush=True)
            raise subprocess.CalledProcessError(code, [str(word) for word in words])
        return code


@dataclass(slots=True)
class Moveout:
    """``moveout follow``. With ``by_passes`` it follows without the log, by comparing tables again and again."""

    pair: Pair[Any]
    by_passes: bool = False
    process: Process = field(init=False)

    def __post_init__(self) -> None:
        self.process = Process(self.pair.folder / "moveout.log", self.pair.environment)

    @property
    def cpu_seconds(self) -> float:
        """See ``FollowTool``."""
        return self.process.cpu_seconds

    @property
    def peak_bytes(self) -> int:
        """See ``FollowTool``."""
        return self.process.peak_bytes

    def take_base(self) -> None:
        """See ``FollowTool``."""
        source, destination = self.pair.urls
        follow = "" if self.by_passes else "follow = true\n"
        self._case.write_text(
            f'[case]\nname = "{self.pair.name}"\n{follow}[[source]]\nname = "app"\nurl = "{source}"\n'
            f'[bundle]\nlocation = "{self.pair.folder}/bundle"\n[[destination]]\nsource = "app"\n'
            f'url = "{destination}"\n'
        )
        for verb in ("export", "restore"):
            self._run(verb, "--quiet", may_return=(COMPLETE, INCOMPLETE))

    def start(self) -> None:
        """See ``FollowTool``."""
        passes = ["--delta"] if self.by_passes else []
        self.process.begin(beside("moveout"), "follow", "-c", self._case, *passes)

    def look(self) -> None:
        """See ``FollowTool``."""
        self.process.look()

    def stop(self) -> None:
        """See ``FollowTool``."""
        self.process.stop()

    def finish(self) -> str:
        """Switch."""
        undo = ["--undo-file", str(self.pair.folder / "undo.json")]
        every_code = range(256)
        code = self._run("cutover", "--hold", "--yes", "--quiet", *undo, may_return=every_code)
        self.stop()
        return f"exit code {code}"

    @property
    def _case(self) -> Path:
        return self.pair.folder / "moveout.toml"

    def _run(self, verb: str, *words: str, may_return: Sequence[int]) -> int:
        return self.process.run(beside("moveout"), verb, "-c", self._case, *words, may_return=may_return)


@contextmanager
def cursor_of(connection: Any) -> Iterator[Any]:
    """Yield a cursor; the connection is closed afterwards."""
    with closing(connection), connection.cursor() as cursor:
        yield cursor
