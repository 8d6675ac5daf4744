"""How much memory a move takes: many small objects, and a large table.

    python -m scripts.bench.memory [--objects 100000] [--rows 5000000] [--limit 400]

Each command runs in a process of its own with its default of workers. Printed is the peak of its resident
memory as the system counts it (``ru_maxrss``), programs that it starts itself (``pg_dump``) included: the largest
process of all. The exit code is 1 where one goes above ``--limit`` MB, or where the end is not what was there before.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.metadata.object_metadata import Description
from scripts.bench.turns import as_installed
from scripts.cost import MB, Cost, cost_of
from scripts.postgresql import PostgresServer
from scripts.servers import S3Server, Servers

BUCKET = "small-objects"
KIB = 1024
_TABLE = """
CREATE TABLE line (id bigint PRIMARY KEY, at timestamptz NOT NULL, price numeric(12, 2), ratio float8, name text,
  flags boolean[], note text)
"""
_ROWS = """
INSERT INTO line
SELECT n, timestamptz '2020-01-01' + n * interval '7 s', n %% 100000 / 100.0, n / 7.0, 'name ' || n %% 1000,
  CASE WHEN n %% 3 = 0 THEN ARRAY[n %% 2 = 0, NULL] END,
  CASE WHEN n %% 5 > 0 THEN md5(n::text) || repeat('x', (n %% 40)::int) END
FROM generate_series(1, %s) n
"""


Measured = tuple[str, Cost]
"""A command in words, and what it took."""


def main() -> int:
    """Run all steps."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="moveout-bench-", dir=options.dir) as directory,
        Servers(Path(directory)) as servers,
    ):
        os.environ.update(servers.environment)
        measured: list[Measured] = []
        if options.objects:
            old, new = servers.minio("old"), servers.minio("new")
            measured += _objects(old, new, options.objects)
        if options.rows:
            measured += _table(
                servers.postgres("old-db"),
                servers.postgres("new-db"),
                Path(directory) / "bundle",
                options.rows,
            )
    print(f"\n{'':44} {'seconds':>8} {'peak MB':>8}")
    for label, cost in measured:
        print(f"{label:44} {cost.seconds:8.1f} {cost.peak_bytes / MB:8.0f}")
    return int(any(cost.peak_bytes > options.limit * MB for _, cost in measured))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=100_000, help="number of objects of 1 to 16 KiB")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--limit", type=int, default=400, metavar="MB")
    parser.add_argument("--dir", type=Path, help="where the servers keep their data (default: the system's)")
    return parser.parse_args()


def _objects(old: S3Server, new: S3Server, count: int) -> Iterator[Measured]:
    _seed(old, count)
    client = new.client()
    for name in ("bundle", "moved", "restored"):
        client.create_bucket(Bucket=name)
    bundle, moved_bundle = (f"s3://{name}/b?profile={new.profile}" for name in ("bundle", "moved"))
    restored = f"shop=s3://restored?profile={new.profile}"
    label = f"{count} objects:"
    yield _measure(f"{label} plan", "plan", f"shop=s3://{BUCKET}?profile={old.profile}")
    yield _measure(f"{label} export", "export", f"shop=s3://{BUCKET}?profile={old.profile}", "--to", bundle)
    yield _measure(f"{label} transfer", "transfer", bundle, moved_bundle)
    yield _measure(f"{label} verify, full", "verify", moved_bundle, "--level", "full")
    yield _measure(f"{label} restore", "restore", moved_bundle, restored)
    yield _measure(f"{label} verify against the new bucket", "verify", moved_bundle, "--against", restored)


def _seed(old: S3Server, count: int) -> None:
    old.client().create_bucket(Bucket=BUCKET)
    destination = open_destination_bucket(f"s3://{BUCKET}?profile={old.profile}")
    for written in destination.put_all(_bodies(count), window_bytes=8 * KIB * KIB):
        if written.error is not None:
            raise written.error


def _bodies(count: int) -> Iterator[tuple[Description, bytes]]:
    rng = random.Random(1)
    block = rng.randbytes(KIB * KIB)
    for number in range(count):
        size_bytes = rng.randint(KIB, 16 * KIB)
        start = rng.randrange(len(block) - size_bytes)
        description = Description(
            f"user-{number % 97:02d}/photo-{number:06d}.jpg",
            {"content-type": "image/jpeg"},
            {"number": str(number)},
        )
        yield description, block[start : start + size_bytes]


def _table(old: PostgresServer, new: PostgresServer, bundle: Path, rows: int) -> Iterator[Measured]:
    source, destination = old.database("big"), new.database("big")
    with psycopg.connect(source, password=old.password) as connection:
        connection.execute(_TABLE)
        connection.execute(_ROWS, (rows,))
    label = f"{rows} rows:"
    yield _measure(f"{label} plan", "plan", f"app={source}")
    yield _measure(f"{label} export", "export", f"app={source}", "--to", str(bundle))
    yield _measure(f"{label} verify, full", "verify", str(bundle), "--level", "full")
    yield _measure(f"{label} restore", "restore", str(bundle), f"app={destination}")
    yield _measure(
        f"{label} verify against the new database", "verify", str(bundle), "--against", f"app={destination}"
    )


def _measure(label: str, *arguments: str) -> Measured:
    cost = cost_of([as_installed(), *arguments, "--quiet"])
    print(f"  {label}: {cost.seconds:.1f} s, {cost.peak_bytes / MB:.0f} MB", flush=True)
    return label, cost


if __name__ == "__main__":
    sys.exit(main())
