"""A cluster of processes on this machine, and a bucket on one MinIO that goes into a bundle on another."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from migrate.bundle.commit_records import record_ids
from migrate.storage.registry import open_location
from scripts.dask_cluster import DaskCluster, kill
from scripts.servers import S3Server
from tests.cli.conftest import MOVEOUT, Ended
from tests.tools.clients import boto_client


@pytest.fixture
def cluster(servers, tmp_path: Path) -> Iterator[DaskCluster]:
    """A scheduler without workers; they find the servers by their own environment."""
    with DaskCluster(tmp_path / "dask", environment=servers.environment) as running:
        yield running


@dataclass(frozen=True)
class Pair:
    """A cluster of two workers that others have used before, and will use."""

    cluster: DaskCluster
    said_before: tuple[int, ...]

    @property
    def address(self) -> str:
        return self.cluster.address

    def took_part(self) -> int:
        """How many of the workers had something to do in this test: a run that ends tells each of them to stop."""
        logs = (worker.log.read_bytes() for worker in self.cluster.workers)
        return sum(
            b"'cancel_job'" in log[before:] for log, before in zip(logs, self.said_before, strict=True)
        )


@pytest.fixture(scope="package")
def two_workers(servers, tmp_path_factory) -> Iterator[DaskCluster]:
    """To start a worker takes longer than what most tests have for it; the scheduler is within this process. They end
    with the tests of this directory: without work they use as much of the processor as a server under load.
    """
    import dask
    from distributed import LocalCluster  # a second, which each process that collects the tests would spend

    calm = {"distributed.admin.tick.interval": "1s", "distributed.admin.system-monitor.interval": "5s"}
    running = DaskCluster(tmp_path_factory.mktemp("dask"), environment=servers.environment)
    with (
        dask.config.set(calm),
        LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", protocol="tcp", host=running.host
        ) as made,
    ):
        running.port = urlsplit(made.scheduler_address).port
        try:
            running.join()
            running.join()
            running.wait()
            yield running
        finally:
            for worker in running.workers:
                kill(worker)


@pytest.fixture
def pair(two_workers: DaskCluster) -> Pair:
    """Two workers, for tests that end neither."""
    return Pair(two_workers, tuple(worker.log.stat().st_size for worker in two_workers.workers))


@dataclass(frozen=True)
class Within:
    """A scheduler within this process."""

    cluster: Any

    @property
    def address(self) -> str:
        return self.cluster.scheduler_address


@pytest.fixture
def within() -> Iterator[Callable[..., Within]]:
    """Make a scheduler with so many workers, for what they need no processes of their own."""
    from distributed import LocalCluster  # a second, which each process that collects the tests would spend

    with ExitStack() as open_ones:

        def make(workers: int = 0, threads: int = 1) -> Within:
            options = {"processes": False, "dashboard_address": ":0", "protocol": "tcp", "host": "127.0.0.1"}
            made = LocalCluster(n_workers=workers, threads_per_worker=threads, **options)
            return Within(open_ones.enter_context(made))

        yield make


@pytest.fixture
def location(other_minio: S3Server, make_bucket) -> str:
    """Where a bundle may be made."""
    return f"s3://{make_bucket(other_minio)}/bundle?profile={other_minio.profile}"


def fill(server: S3Server, bucket: str, *, small: int, large: int = 0, small_bytes: int = 3000) -> None:
    """Put ``small`` objects, and ``large`` ones of 9 MiB."""
    client = boto_client(server.profile)
    block = secrets.token_bytes(2**20)

    def put(key: str, body: bytes) -> None:
        client.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"n": str(len(body))})

    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(put, f"small/{n:05d}", (str(n).encode() + block)[: small_bytes + n])
            for n in range(small)
        ]
        jobs += [pool.submit(put, f"large/{n:03d}", str(n).encode() + block * 9) for n in range(large)]
        for job in jobs:
            job.result()


@dataclass(slots=True)
class Running:
    """The command as a process that can be stopped in the middle."""

    popen: subprocess.Popen[str]
    log: Path

    @property
    def said(self) -> str:
        """What it has said until now."""
        return self.log.read_text()

    def end(self, seconds: float = 200) -> Ended:
        """Wait for its end."""
        out, _ = self.popen.communicate(timeout=seconds)
        return Ended(self.popen.returncode, out, self.said)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start moveout and go on; whatever still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object) -> Running:
        log = tmp_path / f"moveout-{len(started)}.log"
        with log.open("w") as file:
            popen = subprocess.Popen(
                [MOVEOUT, *map(str, words)], stdout=subprocess.PIPE, stderr=file, text=True
            )
        started.append(popen)
        return Running(popen, log)

    yield start
    for popen in started:
        popen.kill()
        popen.communicate()


def committed(location: str, source: str = "media") -> int:
    """Return how many units of a source are done."""
    return len(list(record_ids(open_location(location), source)))
