"""Commands that take turns between two MinIOs: the same servers, each into an empty bucket, timed as whole
processes.
"""

from __future__ import annotations

import functools
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.cost import cost_of, used_by
from scripts.servers import S3Server

CHECKOUT = Path(__file__).parents[2]

Command = Callable[[str], list[str]]
"""The command line of a tool that writes to the bucket named."""


@dataclass(slots=True)
class Runs:
    """Seconds of the clock, of the tool's own processor time and of both servers', run by run."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    server_seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of the clock's seconds."""
        return statistics.median(self.seconds)

    @property
    def cpu_median(self) -> float:
        """Of the processor's seconds."""
        return statistics.median(self.cpu_seconds)

    @property
    def all_median(self) -> float:
        """Of the processor's seconds, the servers' included."""
        both = zip(self.cpu_seconds, self.server_seconds, strict=True)
        return statistics.median(own_seconds + servers for own_seconds, servers in both)

    def __str__(self) -> str:
        spread = f"{min(self.seconds):.2f}-{max(self.seconds):.2f}"
        servers = f", {self.all_median:5.2f} s with the servers'" if self.server_seconds else ""
        return f"median {self.median:6.2f} s ({spread}), {self.cpu_median:5.2f} s of CPU{servers}"


def take_turns(tools: Mapping[str, Command], old: S3Server, new: S3Server, *, rounds: int) -> dict[str, Runs]:
    """Run every tool once a round, into a bucket of ``new`` that is made for it and dropped afterwards."""
    variables = environment(old, new)
    client = new.client()
    runs = {name: Runs() for name in tools}
    for number in range(rounds):
        for name, command in tools.items():
            bucket = f"{name.replace(' ', '-')}-{number}"
            client.create_bucket(Bucket=bucket)
            run(command(bucket), variables, runs[name], (old, new))
            _drop(client, bucket)
            _empty_trash(new)
            print(f"  run {number + 1}: {name:13} {runs[name].seconds[-1]:6.2f} s", flush=True)
    for name, measured in runs.items():
        print(f"{name:13} {measured}")
    return runs


def environment(old: S3Server, new: S3Server) -> dict[str, str]:
    """Return the variables by which all tools know the two servers."""
    return {**_remote("OLD", old), **_remote("NEW", new), "RCLONE_CONFIG": "/dev/null"}


def beside(program: str) -> str:
    """Return the path of a program in this Python's environment."""
    return str(Path(sys.executable).with_name(program))


@functools.cache
def as_installed() -> str:
    """Return the path of moveout as users have it: today's code, installed afresh into an environment (``make
    .venv/.bench`` makes it) that holds what moveout needs and no tools of development. pyarrow loads pandas where
    there is one, which takes a fifth of a second.
    """
    python = Path(sys.prefix) / "user/bin/python"
    with tempfile.TemporaryDirectory(prefix="moveout-build-") as copy:
        for name in ("migrate", "exporters"):
            shutil.copytree(CHECKOUT / name, Path(copy, name))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(CHECKOUT / name, copy)
        wheels = Path(copy, "wheels")
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, copy], check=True)
        install = ["--python", str(python), "install", "--no-deps", "--force-reinstall"]
        subprocess.run([*pip, *install, *wheels.iterdir()], check=True)
    return str(python.with_name("moveout"))


def run(
    command: list[str], variables: Mapping[str, str], into: Runs, servers: Sequence[S3Server] = ()
) -> None:
    """Run a command, and measure it, and what servers do meanwhile."""
    used = _used_by(servers)
    cost = cost_of(command, variables)
    into.seconds.append(cost.seconds)
    into.cpu_seconds.append(cost.cpu_seconds)
    if servers:
        into.server_seconds.append(_used_by(servers) - used)


def _used_by(servers: Sequence[S3Server]) -> float:
    return sum(used_by(server.child.popen.pid) for server in servers)


def _remote(name: str, server: S3Server) -> dict[str, str]:
    """Return rclone's settings for a server."""
    values = {
        "TYPE": "s3",
        "PROVIDER": "Minio",
        "ENDPOINT": server.endpoint,
        "ACCESS_KEY_ID": server.access_key,
        "SECRET_ACCESS_KEY": server.secret_key,
    }
    return {f"RCLONE_CONFIG_{name}_{key}": value for key, value in values.items()}


def _drop(client: Any, bucket: str) -> None:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        if rows := [{"Key": row["Key"]} for row in page.get("Contents", ())]:
            client.delete_objects(Bucket=bucket, Delete={"Objects": rows, "Quiet": True})
    client.delete_bucket(Bucket=bucket)


def _empty_trash(server: S3Server) -> None:
    """MinIO keeps what was deleted for minutes: a disk in memory would fill up, and the later rounds be slower."""
    for trash in server.directory.glob("**/.minio.sys/tmp/.trash/*"):
        shutil.rmtree(trash, ignore_errors=True)
