"""A bucket of very many small objects moved while moveout is killed ten times: export, transfer, verify, restore.

    python -m scripts.bench.million [--objects 20000] [--undisturbed] [--limit 400] [--snowball]
    python -m scripts.bench.million --keep DIR --at DIR --steps STEP …

Each kill is a SIGKILL when the receiving server has counted a share of the bytes that are to come. Then the same
command goes on, and in the end once more, with nothing left to do. The source and the restored bucket are listed by
boto3, and keys, sizes and ETags compared with what was put in; so are the bodies of a sample. The scoreboard says for
each run: time, memory as it goes on, what the servers counted; then what resuming did again. The exit code is 1 where a
process went above ``--limit`` MB or where its memory grew.

At full size it takes hours, so it can be had in pieces. ``--keep`` is where the source's server has its data from one
call to the next (for ``scripts.bench.listing`` too), ``--at`` where the destination's has. ``--steps`` says which to
do.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from scripts import metrics
from scripts.bench.population import BUCKET, body_of, key_of, populate, total_bytes
from scripts.bench.turns import as_installed
from scripts.servers import S3Server, Servers

SHARES = {"export": (0.01, 0.4, 0.7, 0.99), "transfer": (0.3, 0.7), "restore": (0.05, 0.35, 0.65, 0.95)}
"""When a verb is killed: at which shares of the bytes that it is to send. The first and the last of an export lie in
its listing and in its index.
"""
_TAR_BYTES = 850
"""What a member of a pack takes besides its bytes, on average, with its row of the index."""
_SNOWBALL_BYTES = 1750
"""The same of a member of a tar that the server unpacks."""
_SAMPLE = 2000
_GROWTH = 1.15
"""By so much the memory of a long run may be larger in its last fifth than in its second."""
_LONG_SECONDS = 60.0
MB = 1_000_000
_TICK_SECONDS = 0.2
_FIFTHS = 5
_RSS = re.compile(r"^Vm(HWM|RSS):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """One run. ``rss`` is the largest resident memory in each fifth of its time, in bytes; ``peak_bytes`` what the
    system counted, but for the last fifth of a second. ``requests`` and ``received_bytes`` are what each server, by its
    profile, has counted meanwhile.
    """

    verb: str
    killed: bool
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    rss: Sequence[int]
    requests: dict[str, Counter[str]]
    received_bytes: dict[str, int]

    def __str__(self) -> str:
        request_counts = {name: sum(counted.values()) for name, counted in self.requests.items()}
        requests_text = ", ".join(
            f"{name} {request_counts[name]} requests {self.received_bytes[name] / MB:.0f} MB received"
            for name in request_counts
        )
        fifths = " ".join(f"{rss_bytes / MB:.0f}" for rss_bytes in self.rss)
        end = "killed" if self.killed else "done"
        return (
            f"{self.verb:8} {end:6} {self.seconds:7.1f} s, processor {self.cpu_seconds:6.1f} s,"
            f" peak {self.peak_bytes / MB:.0f} MB (by fifths {fifths}); {requests_text}"
        )


def watch(
    command: Sequence[str | Path], servers: Sequence[S3Server], *, kill: Callable[[], bool] | None = None
) -> WatchedRun:
    """Run a command, whose second word is its verb; SIGKILL it once ``kill()`` holds. Ends the program where it fails,
    or ends before it was killed.
    """
    before = [_counted(server) for server in servers]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    samples, peak, killed = list[int](), 0, False
    while (exit_status := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        peak, now = _resident(process.pid) or (peak, 0)
        samples.append(now)
        if kill is not None and not killed and kill():
            process.kill()
            killed = True
        time.sleep(_TICK_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(exit_status[1])
    if killed != (kill is not None) or (not killed and process.returncode):
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    after = [_counted(server) for server in servers]
    pairs = list(zip(servers, before, after, strict=True))
    used = exit_status[2]
    return WatchedRun(
        verb=str(command[1]),
        killed=killed,
        seconds=time.monotonic() - started,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_bytes=peak,
        rss=fifths(samples),
        requests={server.profile: new[0] - old[0] for server, old, new in pairs},
        received_bytes={server.profile: new[1] - old[1] for server, old, new in pairs},
    )


def fifths(samples: Sequence[int]) -> list[int]:
    """Return the largest sample of each fifth."""
    cuts = [len(samples) * number // _FIFTHS for number in range(_FIFTHS + 1)]
    return [max(samples[start:end], default=0) for start, end in pairwise(cuts)]


def _counted(server: S3Server) -> tuple[Counter[str], int]:
    return metrics.requests(server.endpoint), metrics.received_bytes(server.endpoint)


def _resident(pid: int) -> tuple[int, int] | None:
    """Return the largest resident memory so far, and that of now. (``ru_maxrss`` begins with that of who forks.)"""
    try:
        fields = dict(_RSS.findall(Path(f"/proc/{pid}/status").read_text()))
        return int(fields["HWM"]) * 1024, int(fields["RSS"]) * 1024
    except (OSError, KeyError):
        return None


@dataclass
class Move:
    """The whole move, run by run."""

    old: S3Server
    new: S3Server
    objects: int
    kills: bool
    snowball: bool
    runs: list[WatchedRun] = field(default_factory=list)
    again: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._client = self.new.client()
        existing_buckets = {bucket["Name"] for bucket in self._client.list_buckets()["Buckets"]}
        for name in {"bundle", "moved", "restored"} - existing_buckets:
            self._client.create_bucket(Bucket=name)
        self._source = f"shop=s3://{BUCKET}?profile={self.old.profile}"
        self._restored = f"shop=s3://restored?profile={self.new.profile}"
        self._bundle, self._moved = (
            f"s3://{bucket}/b?profile={self.new.profile}" for bucket in ("bundle", "moved")
        )

    def source(self) -> None:
        """Compare the source with what was put in."""
        compare(self.old, BUCKET, self.objects)

    def plan(self) -> None:
        """Forecast."""
        self._watch("plan", self._source)

    def export(self) -> None:
        """Export, and say what was read and sent twice."""
        expected = total_bytes(self.objects) + _TAR_BYTES * self.objects
        arguments = ("export", self._source, "--to", self._bundle)
        sent = self._killed(arguments, expected)
        read = self._requests("export", self.old, "GetObject")
        resent_bytes = sent - _size(self._client, "bundle")
        self._tell(
            "export", f"read {read - self.objects} objects again, sent {resent_bytes / MB:.1f} MB again"
        )
        self._watch(*arguments)

    def transfer(self) -> None:
        """Bring the bundle to another location, and say what was sent twice."""
        size_bytes = _size(self._client, "bundle")
        arguments = ("transfer", self._bundle, self._moved)
        sent = self._killed(arguments, size_bytes)
        self._tell("transfer", f"sent {(sent - size_bytes) / MB:.1f} MB again")
        self._watch(*arguments)

    def verify(self) -> None:
        """Read all of the bundle."""
        self._watch("verify", self._moved, "--level", "full")

    def restore(self) -> None:
        """Restore, and say what was written twice."""
        options = ("--snowball",) if self.snowball else ()
        arguments = ("restore", self._moved, self._restored, *options)
        expected = total_bytes(self.objects) + (_SNOWBALL_BYTES * self.objects if self.snowball else 0)
        sent = self._killed(arguments, expected)
        if self.snowball:
            self._tell("restore", f"sent {sent / MB:.1f} MB in all, as tars")
        else:
            put = self._requests("restore", self.new, "PutObject")
            self._tell("restore", f"wrote {put - self.objects} objects again")
        self._watch(*arguments)

    def compare(self) -> None:
        """Compare the restored bucket with what was put into the source, and let moveout compare it with the bundle."""
        compare(self.new, "restored", self.objects)
        self._watch("verify", self._moved, "--against", self._restored)

    def _requests(self, verb: str, server: S3Server, operation: str) -> int:
        return sum(run.requests[server.profile][operation] for run in self.runs if run.verb == verb)

    def _killed(self, arguments: Sequence[str], size_bytes: int) -> int:
        """Run a command, killed on the way; return how many bytes the new server has received in all."""
        first = len(self.runs)
        before = metrics.received_bytes(self.new.endpoint)
        for share in SHARES[arguments[0]] if self.kills else ():
            self._watch(*arguments, kill=self._reached(before + int(share * size_bytes)))
        self._watch(*arguments)
        return sum(run.received_bytes[self.new.profile] for run in self.runs[first:])

    def _reached(self, wanted_bytes: int) -> Callable[[], bool]:
        return lambda: metrics.received_bytes(self.new.endpoint) >= wanted_bytes

    def _watch(self, *arguments: str, kill: Callable[[], bool] | None = None) -> None:
        command = [as_installed(), *arguments, "--quiet"]
        self.runs.append(watch(command, (self.old, self.new), kill=kill))
        print(f"  {self.runs[-1]}", flush=True)

    def _tell(self, verb: str, message: str) -> None:
        self.again.append(f"{verb:8} {message}")
        print(f"  {self.again[-1]}", flush=True)


STEPS = {
    "source": Move.source,
    "plan": Move.plan,
    "export": Move.export,
    "transfer": Move.transfer,
    "verify": Move.verify,
    "restore": Move.restore,
    "compare": Move.compare,
}
_READ_THE_SOURCE = {"source", "plan", "export"}


def main() -> int:
    """Move, and print the scoreboard."""
    options = _options()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moveout-bench-")))
        olds = stack.enter_context(Servers(options.keep or scratch / "source"))
        old = olds.minio("old")
        os.environ.update(olds.environment)
        if _READ_THE_SOURCE & set(options.steps):
            populate(old, options.objects)
        news = stack.enter_context(Servers(options.at or scratch / "destination"))
        new = news.minio("new")
        news.know(old)
        os.environ.update(news.environment)
        move = Move(old, new, options.objects, not options.undisturbed, options.snowball)
        started = time.monotonic()
        for step in options.steps:
            STEPS[step](move)
    return _score(move, time.monotonic() - started, options.limit)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=20_000, help="of 200 to 2,000 bytes")
    parser.add_argument("--undisturbed", action="store_true", help="kill nothing")
    parser.add_argument("--snowball", action="store_true", help="restore by tars that the server unpacks")
    parser.add_argument("--limit", type=int, default=400, metavar="MB")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="of the source's server; reused")
    parser.add_argument("--at", type=Path, metavar="DIR", help="of the destination's server; reused")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    return parser.parse_args()


def compare(server: S3Server, bucket: str, objects: int) -> None:
    """Compare what a server lists, and a sample of bodies, with what was put into the source. Ends the program where
    they differ.
    """
    client = server.client()
    for made_object, found_object in zip_longest(map(_made, range(objects)), _listed(client, bucket)):
        if made_object != found_object:
            raise SystemExit(f"{bucket} has {found_object}, not {made_object}")
    for number in range(0, objects, max(1, objects // _SAMPLE)):
        found_object = client.get_object(Bucket=bucket, Key=key_of(number))
        if found_object["Body"].read() != body_of(number) or found_object["Metadata"] != {
            "number": str(number)
        }:
            raise SystemExit(f"{key_of(number)} of {bucket} is not what was put into the source")
    summary = (
        f"{objects} objects have the key, size and MD5 of what was put in, a sample of {_SAMPLE} the bytes"
    )
    print(f"  {bucket}: {summary}", flush=True)


def _made(number: int) -> tuple[str, int, str]:
    body = body_of(number)
    return key_of(number), len(body), f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _listed(client: Any, bucket: str) -> Iterator[tuple[str, int, str]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for row in page.get("Contents", ()):
            yield row["Key"], row["Size"], row["ETag"]


def _size(client: Any, bucket: str) -> int:
    return sum(size for _, size, _ in _listed(client, bucket))


def _score(move: Move, seconds: float, limit: int) -> int:
    print(f"\n{move.objects} objects, {os.cpu_count()} cores, {seconds:.0f} s in all")
    for line in (*map(str, move.runs), *move.again):
        print(line)
    large = [run for run in move.runs if run.peak_bytes > limit * MB]
    grown = [run for run in move.runs if _has_grown(run)]
    print(f"above {limit} MB: {len(large)} runs; memory grew: {len(grown)} runs")
    return int(bool(large or grown))


def _has_grown(run: WatchedRun) -> bool:
    return run.seconds > _LONG_SECONDS and run.rss[-1] > _GROWTH * run.rss[1]


if __name__ == "__main__":
    sys.exit(main())
