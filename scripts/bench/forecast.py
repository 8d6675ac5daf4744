"""How well the forecast of a move holds: real moves are recorded, then forecast as if they were still to come.

    sudo nice python -m scripts.bench.forecast record --to DIR [--moves 24] [--seed 1]
    python -m scripts.bench.forecast fit --from DIR
    python -m scripts.bench.forecast validate --from DIR
    sudo python -m scripts.bench.forecast check [--moves 6] [--to DIR]

``record`` makes sources of random sizes on real servers, and moves them with ``moveout run``: PostgreSQL, MariaDB,
SQLite, small and large objects, alone and together. They go to a local host and over links of a set rate (network
namespaces, so it needs root). ``fit`` writes ``migrate/plan/reference_runs.json`` from what was recorded. ``validate``
leaves each move out in turn, forecasts it from the others before its start and at moments while it runs, and prints a
table. ``check`` makes new moves, and forecasts them from ``migrate/plan/reference_runs.json``; the table counts all
moves of ``DIR``, also those of earlier checks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from msgspec.structs import replace

from migrate.plan import cost_model
from migrate.plan.cost_model import REFERENCE_FILE, Reference, fit_costs
from migrate.plan.forecast import Interval, ReferenceClass, WorkKey, WorkProgress, forecast
from migrate.plan.stage_work import LEAVING, RunRecord, StageRecord
from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.storage.s3.metadata.object_metadata import Description
from migrate.storage.s3.tar_upload import Member, put
from scripts.bench.turns import CHECKOUT, beside
from scripts.mariadb import MariadbServer
from scripts.network.links import HERE, Shape, links
from scripts.postgresql import PostgresServer
from scripts.servers import S3Server, Servers

KINDS = ("postgresql", "mysql", "sqlite", "small objects", "large objects")
LINK_MBIT = 40.0
MIB = 2**20
_BODY = random.Random(2).randbytes(32 * MIB)


@dataclass(frozen=True, slots=True)
class Hosts:
    """The servers of the moves. ``destinations`` are MinIOs: one next to us, the others behind links."""

    postgres: PostgresServer
    mariadb: MariadbServer
    old: S3Server
    destinations: Sequence[S3Server]


def main() -> int:
    """Do one of the steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    recording = steps.add_parser("record")
    recording.add_argument("--to", type=Path, required=True)
    recording.add_argument("--moves", type=int, default=24)
    recording.add_argument("--seed", type=int, default=1)
    for name in ("fit", "validate"):
        steps.add_parser(name).add_argument("--from", dest="source", type=Path, required=True)
    checking = steps.add_parser("check")
    checking.add_argument("--moves", type=int, default=6)
    checking.add_argument("--seed", type=int, default=None)
    checking.add_argument("--to", type=Path, help="keep the moves here")
    options = parser.parse_args()
    if options.step == "record":
        record(options.to, options.moves, options.seed)
        return 0
    if options.step == "check":
        with tempfile.TemporaryDirectory(prefix="moveout-forecasts-") as scratch:
            check(options.to or Path(scratch), options.moves, options.seed or secrets.randbelow(10**6))
        return 0
    moves = read_moves(options.source)
    if options.step == "fit":
        path = CHECKOUT / "migrate/plan" / REFERENCE_FILE
        path.write_text(reference_text(moves), encoding="utf-8")
        print(f"{path}: {len(moves)} moves")
        return 0
    return validate(moves)


def record(directory: Path, moves: int, seed: int) -> None:
    """Make and move so many random cases; each adds a file to the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    with ExitStack() as stack:
        [link] = stack.enter_context(links(1, Shape(LINK_MBIT, LINK_MBIT)))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moveout-bench-")))
        servers = stack.enter_context(Servers(scratch, HERE))
        destinations = [servers.minio("near"), servers.minio("far", link=link)]
        hosts = Hosts(servers.postgres("db"), servers.mariadb("maria"), servers.minio("old"), destinations)
        os.environ.update(servers.environment)
        for number in range(moves):
            path = directory / f"move-{seed}-{number:02d}.json"
            if not path.exists():
                started = time.monotonic()
                _move(hosts, scratch / f"case-{number}", random.Random(rng.random()), number, path)
                print(f"  {path.name}: {time.monotonic() - started:.0f} s", flush=True)
            else:
                rng.random()


def _move(hosts: Hosts, directory: Path, rng: random.Random, number: int, path: Path) -> None:
    """Make sources, move them, and keep what was measured."""
    directory.mkdir()
    kinds = [KINDS[number % len(KINDS)]] if number % 8 < len(KINDS) else rng.sample(KINDS, rng.randint(2, 4))
    destination = hosts.destinations[1 if number % 3 == 2 else 0]
    text = '[case]\nname = "bench"\n[bundle]\nlocation = "bundle"\n'
    bucket = _bucket(destination)
    text += f'[transfer]\nlocation = "s3://{bucket}/b?profile={destination.profile}"\n'
    for position, kind in enumerate(kinds):
        old, new = _MAKERS[kind](hosts, directory, rng, destination)
        text += f'[[source]]\nname = "s{position}"\nurl = "{old}"\n'
        text += f'[[destination]]\nsource = "s{position}"\nurl = "{new}"\n'
    limit = rng.choice((None, None, None, "4M", "20M"))
    workers = rng.choice((1, 2, 2, 4))
    text += f"[limits]\nworkers = {workers}\n" + (f'bwlimit = "{limit}"\n' if limit else "")
    (directory / "moveout.toml").write_text(text)
    environment = os.environ | {"XDG_STATE_HOME": str(directory / "state")}
    command = [beside("moveout"), "run", "-c", str(directory / "moveout.toml"), "--json"]
    ended = subprocess.run(
        command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"{path.name}: the move ended with {ended.returncode}: {ended.stderr[-2000:]}")
    history = json.loads((directory / "state/moveout/moves.json").read_text())
    value = {
        "kinds": kinds,
        "link": f"{LINK_MBIT:g} Mbit/s" if destination is not hosts.destinations[0] else "local",
        "bwlimit": limit,
        "workers": workers,
        "run": history["runs"][-1],
    }
    path.write_text(json.dumps(value))
    subprocess.run(["rm", "-rf", str(directory)], check=True)


def _postgres(hosts: Hosts, _directory: Path, rng: random.Random, _new: S3Server) -> tuple[str, str]:
    url = hosts.postgres.database()
    tables = rng.choice((3, 10, 40))
    rows = round(10 ** rng.uniform(3, 5.3))
    with psycopg.connect(url, autocommit=True) as connection:
        for number in range(1, tables + 1):
            connection.execute(
                f"CREATE TABLE t{number} AS SELECT n AS id, md5(n::text) AS name, n * 1.25 AS price, now() AS at"
                f" FROM generate_series(1, {max(1, rows // number**2)}) n".encode()
            )
            connection.execute(f"ALTER TABLE t{number} ADD PRIMARY KEY (id)".encode())
        connection.execute("VACUUM ANALYZE")
    return url, hosts.postgres.database()


def _mariadb(hosts: Hosts, _directory: Path, rng: random.Random, _new: S3Server) -> tuple[str, str]:
    url = hosts.mariadb.database()
    tables = rng.choice((3, 10, 30))
    rows = round(10 ** rng.uniform(3, 5))
    with hosts.mariadb.connect(url.rpartition("/")[2]) as connection, connection.cursor() as cursor:
        for number in range(1, tables + 1):
            table, count = f"t{number}", max(1, rows // number**2)
            columns = "id INT PRIMARY KEY, name VARCHAR(40), price DECIMAL(12,2), at DATETIME"
            cursor.execute(f"CREATE TABLE {table} ({columns})")
            cursor.execute(
                f"INSERT INTO {table} SELECT seq, MD5(seq), seq * 1.25, NOW() FROM seq_1_to_{count}"
            )
            cursor.execute(f"ANALYZE TABLE {table}")
    return url, hosts.mariadb.database()


def _sqlite(_hosts: Hosts, directory: Path, rng: random.Random, _new: S3Server) -> tuple[str, str]:
    path = directory / f"{secrets.token_hex(4)}.db"
    rows = round(10 ** rng.uniform(3, 5.3))
    with closing(sqlite3.connect(path)) as connection, connection:
        for number in range(1, rng.choice((2, 10, 40)) + 1):
            connection.execute(f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY, name TEXT, price REAL)")
            connection.execute(
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {max(1, rows // number**2)})"
                f" INSERT INTO t{number} SELECT i, 'name ' || i, i * 1.25 FROM n"
            )
    return f"sqlite://{path}", f"sqlite://{path}.new"


def _small_objects(hosts: Hosts, _directory: Path, rng: random.Random, new: S3Server) -> tuple[str, str]:
    count = round(10 ** rng.uniform(2, 3.7))
    sizes = [round(10 ** rng.uniform(2, 4.5)) for _ in range(count)]
    return _objects(hosts.old, sizes, rng), f"s3://{_bucket(new)}?profile={new.profile}"


def _large_objects(hosts: Hosts, _directory: Path, rng: random.Random, new: S3Server) -> tuple[str, str]:
    sizes = [rng.randint(4 * MIB, 12 * MIB) for _ in range(rng.randint(1, 8))]
    return _objects(hosts.old, sizes, rng), f"s3://{_bucket(new)}?profile={new.profile}"


_MAKERS: dict[str, Callable[[Hosts, Path, random.Random, S3Server], tuple[str, str]]] = dict(
    zip(KINDS, (_postgres, _mariadb, _sqlite, _small_objects, _large_objects), strict=True)
)


def _objects(server: S3Server, sizes: Sequence[int], rng: random.Random) -> str:
    bucket = _bucket(server)
    url = f"s3://{bucket}?profile={server.profile}"
    if max(sizes) > MIB:
        for number, size in enumerate(sizes):
            start = rng.randrange(MIB)
            server.client().put_object(Bucket=bucket, Key=f"large/{number}", Body=_BODY[start : start + size])
        return url
    destination, members = open_destination_bucket(url), _members(sizes, rng)
    while batch := list(islice(members, 2000)):
        put(destination, batch)
    return url


def _members(sizes: Sequence[int], rng: random.Random) -> Iterator[Member]:
    for number, size in enumerate(sizes):
        start = rng.randrange(MIB)
        described = Description(f"small/{number:07d}", {"content-type": "text/plain"}, {})
        body = _BODY[start : start + size]
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        yield Member(described, body, md5, int(time.time()))


def _bucket(server: S3Server) -> str:
    name = f"bench-{secrets.token_hex(6)}"
    server.client().create_bucket(Bucket=name)
    return name


@dataclass(frozen=True, slots=True)
class RecordedMove:
    """A recorded move. ``route`` is how its bundle travelled."""

    kinds: Sequence[str]
    route: str
    run: RunRecord

    @property
    def seconds(self) -> float:
        """The time of all stages."""
        return sum(record.seconds for record in self.run)


def read_moves(directory: Path, seed: int | None = None) -> list[RecordedMove]:
    """Return the recorded moves in the order of their files, all or those of one seed."""
    moves = []
    for path in sorted(directory.glob(f"move-{'*' if seed is None else seed}-*.json")):
        value = json.loads(path.read_text())
        limit = f", limit {value['bwlimit']}B/s" if value["bwlimit"] else ""
        run = tuple(_named(records) for records in enumerate(value["run"]))
        moves.append(RecordedMove(value["kinds"], value["link"] + limit, run))
    return moves


def _named(numbered: tuple[int, Any]) -> StageRecord:
    """Return a record with a name for its source: a history has none."""
    record = StageRecord.from_json(numbered[1])
    return replace(record, work=replace(record.work, source=str(numbered[0])))


def reference(moves: Sequence[RecordedMove]) -> Reference:
    """Return what a forecast rests on, if these are all moves that there are."""
    runs = [move.run for move in moves]
    return Reference(fit_costs(runs), runs)


def reference_text(moves: Sequence[RecordedMove]) -> str:
    """Return the content of the reference file, without the marks, which only a validation needs."""
    model = reference(moves)
    value = {
        "costs": {
            stage: {kind: [float(f"{cost:.4g}") for cost in costs] for kind, costs in by_kind.items()}
            for stage, by_kind in model.costs.items()
        },
    }
    runs = [json.dumps([replace(record, marks=()).as_json() for record in move.run]) for move in moves]
    lines = ",\n  ".join(runs)
    return json.dumps(value, indent=1).removesuffix("\n}") + f',\n "runs": [\n  {lines}\n ]\n}}\n'


@dataclass(slots=True)
class Coverage:
    """How often the real time was within P50 and P90, and how much longer P90 is than P50."""

    moves: int = 0
    p50: int = 0
    p90: int = 0
    widths: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def add(self, interval: Interval, seconds: float) -> None:
        """Count one forecast."""
        self.moves += 1
        self.p50 += seconds <= interval.p50
        self.p90 += seconds <= interval.p90
        self.widths.append(interval.p90 / max(interval.p50, 1e-6))
        self.errors.append(max(seconds / interval.p50, interval.p50 / seconds))

    def row(self, name: str) -> str:
        """Return a row of the table."""
        return (
            f"| {name} | {self.moves} | {self.p50 / self.moves:.0%} | {self.p90 / self.moves:.0%}"
            f" | {median(self.widths):.2f} | {median(self.errors):.2f} | {max(self.errors):.2f} |"
        )


MOMENTS = (0.0, 0.1, 0.25, 0.5, 0.75)


def validate(moves: Sequence[RecordedMove]) -> int:
    """Forecast each move from the others; print how well that holds. Return 1 where P90 holds in less than 85 %."""

    def others(move: RecordedMove) -> ReferenceClass:
        return ReferenceClass.of(reference([other for other in moves if other is not move]))

    before_start = _print_table(moves, others)
    return int(before_start.p90 < 0.85 * before_start.moves)


def _print_table(
    moves: Sequence[RecordedMove], known_of: Callable[[RecordedMove], ReferenceClass]
) -> Coverage:
    """Forecast each move before its start and on the way; print how well that holds. Return what held before the
    start.
    """
    by_moment: dict[float, Coverage] = {moment: Coverage() for moment in MOMENTS}
    groups: dict[str, Coverage] = {}
    before = Coverage()
    for move in moves:
        known = known_of(move)
        for moment in MOMENTS:
            interval, left = _forecast_at(move, known, moment)
            by_moment[moment].add(interval, left)
            if moment == 0.0:
                name = move.kinds[0] if len(move.kinds) == 1 else "several kinds"
                for group in (name, move.route):
                    groups.setdefault(group, Coverage()).add(interval, left)
        sampled = [record.work.sampled_seconds or 0.0 for record in move.run if record.work.stage in LEAVING]
        point = max(sum(sampled), 0.1)
        before.add(Interval(point, point), move.seconds)
    print("| forecast | moves | within P50 | within P90 | P90 ÷ P50 | median error | largest error |")
    print("|---|---|---|---|---|---|---|")
    for moment, coverage in by_moment.items():
        print(coverage.row("before the start" if not moment else f"after {moment:.0%} of the time"))
    for name, coverage in sorted(groups.items()):
        print(coverage.row(name))
    print(before.row("samples alone, as a point"))
    return by_moment[0.0]


def check(directory: Path, count: int, seed: int) -> None:
    """Make new moves, and forecast each from what moveout comes with, which knows nothing of them."""
    known, coverage = ReferenceClass.of(cost_model.reference()), Coverage()
    record(directory, count, seed)
    for move in read_moves(directory, seed):
        interval, seconds = _forecast_at(move, known, 0.0)
        coverage.add(interval, seconds)
        kinds = ", ".join(move.kinds)
        print(
            f"  {kinds} ({move.route}): {seconds:.1f} s; P50 {interval.p50:.1f} s, P90 {interval.p90:.1f} s"
        )
    _print_table(read_moves(directory), lambda _move: known)
    print(f"forecasts: {coverage.moves} moves, {coverage.p50} within P50, {coverage.p90} within P90")


def _forecast_at(move: RecordedMove, known: ReferenceClass, moment: float) -> tuple[Interval, float]:
    """Return the forecast when a share of the move's time had passed, and the time that was really left."""
    passed = now = moment * move.seconds
    progress: dict[WorkKey, WorkProgress] = {}
    for record in move.run:
        key = record.work.stage, record.work.source
        if passed >= record.seconds:
            progress[key] = WorkProgress(1.0, 1.0, record.seconds, has_ended=True)
        elif passed > 0:
            share = max((share for at, share in record.marks if at <= passed), default=0.0)
            progress[key] = WorkProgress(share, share, passed)
        passed = max(0.0, passed - record.seconds)
    works = [record.work for record in move.run]
    made = forecast(works, known, now=datetime.now(UTC), deadline=None, progress=progress)
    return made.ends, move.seconds - now


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
