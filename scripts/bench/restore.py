"""Restore of one table into PostgreSQL, compared with ``pg_restore -j2``: lineitem, or a shape of ``row_shapes``.

python -m scripts.bench.restore --url postgresql://user@host:port/postgres [--scale 1] [--shape posts] [--runs 3]

Loads the table once (lineitem of TPC-H with a key and two indexes), exports it by moveout and by ``pg_dump -Fd -j2``,
then lets both restore it by turns into a fresh database of the same server. pg_restore ends with the indexes;
moveout also runs ANALYZE and reads all rows back to compare them, so what it takes is printed with that and
without. Ratios are medians of those of the single turns; the seconds of the processor are the client's and the
server's together, without the start of either program.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import psycopg

from exporters.postgres.definitions.dump_programs import find_tools
from migrate.bundle.reader import BundleReader
from migrate.restore.common.api import RestoreRequest
from migrate.restore.postgres.restore import PostgresRestorer
from migrate.runtime.progress import OF_NO_SOURCE, Silent, SourceTask
from migrate.storage.registry import open_location
from scripts.bench.postgres import load, server
from scripts.bench.ratios import PROCESSOR, note
from scripts.bench.source import row_shapes
from scripts.bench.tables import moveout_to
from scripts.cost import cost_of, used_by

JOBS = 2
_LINEITEM = "lineitem"
_DESTINATION = "moveout_bench_restored"
_SETTLE_SECONDS = 0.3
_BEYOND = ("compare", "statistics")
"""Stages of ours without which pg_restore does."""
_INDEXES = (
    "ALTER TABLE lineitem ADD PRIMARY KEY (l_orderkey, l_linenumber)",
    "CREATE INDEX lineitem_part ON lineitem (l_partkey, l_suppkey)",
    "CREATE INDEX lineitem_shipped ON lineitem (l_shipdate)",
)


@dataclass(frozen=True, slots=True)
class _Taken:
    """Seconds of the clock, and of the processor: the client's and the server's."""

    clock: float
    client: float
    server: float

    @property
    def processor(self) -> float:
        return self.client + self.server

    def since(self, earlier: _Taken) -> _Taken:
        """Return what was taken in between."""
        return _Taken(self.clock - earlier.clock, self.client - earlier.client, self.server - earlier.server)

    def __str__(self) -> str:
        return f"{self.clock:5.1f} s, {self.client:4.1f} + {self.server:4.1f} s of CPU"


class _Stages(Silent):
    """Remembers what had been taken when each stage began. The clock stands still while that is read: a server knows
    only after a while what sessions took that have ended.
    """

    def __init__(self, server_pid: int) -> None:
        self._server_pid = server_pid
        self._stopped_seconds = 0.0
        self.begun = [("", self._now())]

    def begin(self, what: str, *, items: int, size_bytes: int, of: SourceTask = OF_NO_SOURCE) -> None:
        del items, size_bytes, of
        self.begun.append((what.partition(" ")[0], self._now()))

    def _now(self) -> _Taken:
        clock, client = time.perf_counter(), time.process_time()
        time.sleep(_SETTLE_SECONDS)
        taken = _Taken(clock - self._stopped_seconds, client, used_by(self._server_pid))
        self._stopped_seconds += time.perf_counter() - clock
        return taken

    def taken(self) -> dict[str, _Taken]:
        """Return what each stage has taken; the last one ends now."""
        names, starts = zip(*self.begun, strict=True)
        ends = [*starts[1:], self._now()]
        return {name: end.since(start) for name, start, end in zip(names, starts, ends, strict=True)}


@contextmanager
def _fresh(url: str) -> Iterator[str]:
    """Lend an empty database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {_DESTINATION}".encode())
        connection.execute(f"CREATE DATABASE {_DESTINATION} TEMPLATE template0".encode())
        connection.execute("CHECKPOINT")
        yield f"{url.rpartition('/')[0]}/{_DESTINATION}"
        connection.execute(f"DROP DATABASE {_DESTINATION}".encode())


def _prepare(url: str, shape: str, scale: float, directory: Path) -> Path:
    """Load and export; return pg_restore."""
    source = load(url, scale)[0] if shape == _LINEITEM else row_shapes.load(url, shape)
    with psycopg.connect(source, autocommit=True) as connection:
        indexed = connection.execute("SELECT 1 FROM pg_indexes WHERE indexname = 'lineitem_part'").fetchone()
        if shape == _LINEITEM and not indexed:
            for statement in _INDEXES:
                connection.execute(statement.encode())
        version = connection.info.server_version // 10000
    tools = find_tools(version)
    subprocess.run(
        [tools.pg_dump, "-Fd", f"-j{JOBS}", "-f", directory / "dump", source], check=True, env=os.environ
    )
    subprocess.run(moveout_to(source, directory), check=True, stdout=subprocess.DEVNULL)
    return tools.directory / "pg_restore"


def _pg_restore(program: Path, destination: str, directory: Path) -> _Taken:
    server_pid = server(destination)
    before = used_by(server_pid)
    cost = cost_of([program, f"-j{JOBS}", "-d", destination, directory / "dump"])
    time.sleep(_SETTLE_SECONDS)
    return _Taken(cost.seconds, cost.cpu_seconds, used_by(server_pid) - before)


def _moveout(destination: str, directory: Path) -> dict[str, _Taken]:
    stages = _Stages(server(destination))
    reader = BundleReader(open_location(str(directory / "bundle")))
    outcome = PostgresRestorer().restore(
        RestoreRequest(reader, "bench", destination, workers=JOBS, progress=stages)
    )
    if outcome.findings:
        raise SystemExit(str(outcome.findings))
    return stages.taken()


def _sum(parts: Iterable[_Taken]) -> _Taken:
    clock, client, server_seconds = map(sum, zip(*map(astuple, parts), strict=True))
    return _Taken(clock, client, server_seconds)


def _print_ratios(shape: str, name: str, ours: Sequence[_Taken], peer: Sequence[_Taken]) -> None:
    turns = list(zip(peer, ours, strict=True))
    clock = [theirs.clock / mine.clock for theirs, mine in turns]
    processor = [theirs.processor / mine.processor for theirs, mine in turns]
    print(
        f"{name:35s} {statistics.median(mine.clock for mine in ours):6.1f} s"
        f"  {statistics.median(clock):5.2f}x of pg_restore's speed ({min(clock):.2f}-{max(clock):.2f}),"
        f" by processor time {statistics.median(processor):.2f}x"
        f" ({min(processor):.2f}-{max(processor):.2f})"
    )
    note(f"restore of {shape}: {name}", f"pg_restore -j{JOBS}", statistics.median(clock), 1.5)
    note(f"restore of {shape}: {name}", f"pg_restore -j{JOBS}{PROCESSOR}", statistics.median(processor), 1.0)


def main() -> None:
    """Measure by turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True, help="a database of a scratch server")
    parser.add_argument("--shape", default=_LINEITEM, help="lineitem, or a shape of row_shapes")
    parser.add_argument("--scale", type=float, default=1, help="of lineitem")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="moveout-bench-"))
    peer: list[_Taken] = []
    whole: list[_Taken] = []
    bare: list[_Taken] = []
    try:
        program = _prepare(options.url, options.shape, options.scale, directory)
        for _ in range(options.runs):
            with _fresh(options.url) as destination:
                peer.append(_pg_restore(program, destination, directory))
            with _fresh(options.url) as destination:
                stages = _moveout(destination, directory)
            whole.append(_sum(stages.values()))
            bare.append(_sum(taken for name, taken in stages.items() if name not in _BEYOND))
            print(f"pg_restore -j{JOBS} {peer[-1]};  moveout {bare[-1]}, with all it does {whole[-1]}")
            for name, taken in stages.items():
                print(f"    {name or 'definitions':12s} {taken}", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    _print_ratios(options.shape, "moveout, all it does", whole, peer)
    _print_ratios(options.shape, "moveout, as far as pg_restore goes", bare, peer)


if __name__ == "__main__":
    main()
