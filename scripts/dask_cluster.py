"""A Dask cluster of processes: a scheduler, and workers that come and go, killed with their parent."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.process import Child, free_port, start

READY_SECONDS = 60.0
_IDLE = {
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
}
"""Without work a process looks after itself fifty times a second, and a test run has many of them."""


@dataclass(slots=True)
class DaskCluster:
    """Ends its processes when the context ends. Use it from the main thread."""

    directory: Path
    host: str = "127.0.0.1"
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    workers: list[Child] = field(default_factory=list)
    _scheduler: Child | None = None

    @property
    def address(self) -> str:
        """What ``--scheduler`` takes."""
        return f"tcp://{self.host}:{self.port}"

    @property
    def scheduler(self) -> Child:
        """The scheduler's process."""
        assert self._scheduler is not None
        return self._scheduler

    def __enter__(self) -> Self:
        self.port = free_port()
        self.directory.mkdir(parents=True, exist_ok=True)
        arguments = (
            "scheduler",
            "--host",
            self.host,
            "--port",
            str(self.port),
            "--no-dashboard",
            "--no-jupyter",
        )
        self._scheduler = self._start("scheduler", arguments, ())
        self._scheduler.wait_until(self._listens, seconds=READY_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            kill(worker)
        if self._scheduler is not None:
            kill(self._scheduler)

    def join(
        self,
        *,
        threads: int = 1,
        prefix: Sequence[str] = (),
        host: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a worker; ``wait`` waits until it has joined. ``prefix`` stands before its command (a network
        namespace, say), ``host`` is its address there.
        """
        name = f"worker-{len(self.workers)}"
        arguments = ("worker", self.address, "--nthreads", str(threads), "--no-nanny", "--no-dashboard")
        arguments = (*arguments, *(("--host", host) if host else ()))
        child = self._start(name, (*arguments, "--memory-limit", "0", "--name", name), prefix, environment)
        self.workers.append(child)
        return child

    def wait(self, *workers: Child) -> None:
        """Wait until these workers (all, unless named) have joined."""
        for worker in workers or self.workers:
            worker.wait_until(
                lambda log=worker.log: "Registered to" in log.read_text(errors="replace"),  # type: ignore[misc]
                seconds=READY_SECONDS,
            )

    def _start(
        self,
        name: str,
        arguments: Sequence[str],
        prefix: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        log = self.directory / f"{name}.log"
        argv = [*prefix, sys.executable, "-m", "dask", *arguments]
        local = {"DASK_TEMPORARY_DIRECTORY": str(self.directory), **_IDLE}
        return start(name, argv, log=log, env={**local, **self.environment, **(environment or {})})

    def _listens(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1):
                return True
        except OSError:
            return False


def kill(child: Child) -> None:
    """End a process at once, as a machine that fails does."""
    if child.popen.poll() is None:
        child.popen.send_signal(signal.SIGKILL)
    child.popen.wait()
