"""A bucket of very many small objects moved while moveout is killed ten times: export, transfer, verify, restore.

    python -m scripts.bench.million [--objects 20000] [--undisturbed] [--limit 400] [--keep DIR] [--at DIR]

Each kill is a SIGKILL when the receiving server has counted a share of the bytes that are to come; then the same
command goes on. At the end the restored bucket is compared with the source by two plain listings (keys, sizes, ETags),
and a sample of bodies with what was put in; then every verb is run once more, with nothing left to do. The scoreboard
says for each run: time, memory as it goes on, what the servers counted; then what resuming did again. The exit code is
1 where a process went above ``--limit`` MB or where its memory grew. ``--keep``: where the source's server keeps its
data from one run to the next, for ``scripts.bench.listing`` too; ``--at``: where the target's keeps them meanwhile.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import boto3

from scripts import metrics
from scripts.bench.population import BUCKET, body_of, key_of, populate, total_bytes
from scripts.bench.turns import as_installed
from scripts.bench.watched import MB, Run, watch
from scripts.servers import S3Server, Servers

SHARES = {"export": (0.01, 0.4, 0.7, 0.99), "transfer": (0.3, 0.7), "restore": (0.05, 0.35, 0.65, 0.95)}
"""When a verb is killed: at which shares of the bytes that it is to send. The first and the last of an export lie in
its listing and in its index.
"""
_TAR_BYTES = 850
"""What a member of a pack takes besides its bytes, on average, with its row of the index."""
_SAMPLE = 2000
_GROWTH = 1.15
"""By so much the memory of a long run may be larger in its last fifth than in its second."""
_LONG_SECONDS = 60.0


@dataclass(slots=True)
class Move:
    """The whole move, run by run."""

    old: S3Server
    new: S3Server
    objects: int
    kills: bool
    runs: list[Run] = field(default_factory=list)
    again: list[str] = field(default_factory=list)

    @property
    def _source(self) -> str:
        return f"shop=s3://{BUCKET}?profile={self.old.profile}"

    def _place(self, name: str) -> str:
        return f"s3://{name}/b?profile={self.new.profile}"

    def run(self) -> None:
        """Do all of it, and compare."""
        client = boto3.Session(profile_name=self.new.profile).client("s3")
        for name in ("bundle", "moved", "restored"):
            client.create_bucket(Bucket=name)
        size_bytes = total_bytes(self.objects)
        restored = f"shop=s3://restored?profile={self.new.profile}"
        bundle, moved = self._place("bundle"), self._place("moved")
        export = ("export", self._source, "--to", bundle)
        self._watch("plan", self._source)
        sent = self._killed(export, size_bytes + _TAR_BYTES * self.objects)
        read = sum(run.requests[self.old.profile]["GetObject"] for run in self.runs if run.verb == "export")
        there = _size(client, "bundle")
        self._tell("export", f"read {read - self.objects} objects again, sent {_mb(sent - there)} again")
        sent = self._killed(("transfer", bundle, moved), there)
        self._tell("transfer", f"sent {_mb(sent - there)} again")
        _empty(client, "bundle")
        self._watch("verify", moved, "--level", "full")
        self._killed(("restore", moved, restored), size_bytes)
        put = sum(run.requests[self.new.profile]["PutObject"] for run in self.runs if run.verb == "restore")
        self._tell("restore", f"wrote {put - self.objects} objects again")
        compare(self.old, self.new, self.objects)
        self._watch("verify", moved, "--against", restored)
        self._watch("restore", moved, restored)
        self._watch("export", self._source, "--to", moved)

    def _killed(self, words: Sequence[str], size_bytes: int) -> int:
        """Run a command, killed on the way; return how many bytes the new server has received in all."""
        first = len(self.runs)
        before = metrics.received_bytes(self.new.endpoint)
        for share in SHARES[words[0]] if self.kills else ():
            self._watch(*words, kill=self._reached(before + int(share * size_bytes)))
        self._watch(*words)
        return sum(run.received_bytes[self.new.profile] for run in self.runs[first:])

    def _reached(self, wanted_bytes: int) -> Callable[[], bool]:
        return lambda: metrics.received_bytes(self.new.endpoint) >= wanted_bytes

    def _watch(self, *words: str, kill: Callable[[], bool] | None = None) -> None:
        command = [as_installed(), *words, "--quiet"]
        self.runs.append(watch(command, (self.old, self.new), kill=kill))
        print(f"  {self.runs[-1]}", flush=True)

    def _tell(self, verb: str, what: str) -> None:
        self.again.append(f"{verb:8} {what}")
        print(f"  {self.again[-1]}", flush=True)


def main() -> int:
    """Move, and print the scoreboard."""
    options = _options()
    with ExitStack() as stack:
        scratch = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="moveout-bench-", dir=options.at))
        )
        olds = stack.enter_context(Servers(options.keep or scratch / "source"))
        old = olds.minio("old")
        os.environ.update(olds.environment)
        populate(old, options.objects)
        news = stack.enter_context(Servers(scratch / "target"))
        new = news.minio("new")
        news.know(old)
        os.environ.update(news.environment)
        move = Move(old, new, options.objects, kills=not options.undisturbed)
        began = time.monotonic()
        move.run()
    return _score(move, time.monotonic() - began, options.limit)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=20_000, help="of 200 to 2,000 bytes")
    parser.add_argument("--undisturbed", action="store_true", help="kill nothing")
    parser.add_argument("--limit", type=int, default=400, metavar="MB")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="of the source's server; reused")
    parser.add_argument(
        "--at", type=Path, metavar="DIR", help="of the target's server (default: the system's)"
    )
    return parser.parse_args()


def compare(old: S3Server, new: S3Server, objects: int) -> None:
    """Compare what both servers list, and a sample of bodies with what was put in. Ends the program where they
    differ.
    """
    clients = [boto3.Session(profile_name=one.profile).client("s3") for one in (old, new)]
    count = 0
    for one, other in zip_longest(_listed(clients[0], BUCKET), _listed(clients[1], "restored")):
        if one != other:
            raise SystemExit(f"the buckets differ: {one} and {other}")
        count += 1
    if count != objects:
        raise SystemExit(f"{count} objects, not {objects}")
    for number in range(0, objects, max(1, objects // _SAMPLE)):
        found = clients[1].get_object(Bucket="restored", Key=key_of(number))
        body = found["Body"].read()
        same = hashlib.sha256(body).digest() == hashlib.sha256(body_of(number)).digest()
        if not same or found["Metadata"] != {"number": str(number)}:
            raise SystemExit(f"{key_of(number)} is not what was put into the source")
    print(
        f"  {count} objects have the same key, size and ETag; a sample of {_SAMPLE} the same bytes",
        flush=True,
    )


def _listed(client: Any, bucket: str) -> Iterator[tuple[str, int, str]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for row in page.get("Contents", ()):
            yield row["Key"], row["Size"], row["ETag"]


def _size(client: Any, bucket: str) -> int:
    return sum(size for _, size, _ in _listed(client, bucket))


def _empty(client: Any, bucket: str) -> None:
    keys = (key for key, _, _ in _listed(client, bucket))
    while batch := [{"Key": key} for key in islice(keys, 1000)]:
        client.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})


def _score(move: Move, seconds: float, limit: int) -> int:
    print(f"\n{move.objects} objects, {os.cpu_count()} cores, {seconds:.0f} s in all")
    for line in (*map(str, move.runs), *move.again):
        print(line)
    large = [run for run in move.runs if run.peak_bytes > limit * MB]
    grown = [run for run in move.runs if _has_grown(run)]
    print(f"above {limit} MB: {len(large)} runs; memory grew: {len(grown)} runs")
    return int(bool(large or grown))


def _has_grown(run: Run) -> bool:
    return run.seconds > _LONG_SECONDS and run.rss[-1] > _GROWTH * run.rss[1]


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / MB:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
