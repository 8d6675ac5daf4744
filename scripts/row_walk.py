"""Which functions one row of PostgreSQL passes: from the server into a bundle, and from there to the comparison.

    python -m scripts.row_walk [--url postgresql://user@host:port/postgres] [--list]

Exports and restores a database of one table with one row, and lists the functions of moveout that are called between
the query for the row and its Parquet file, while it is written into the destination, and while it is compared. Opening
connections, asking for catalogs, and how files get to a location are not counted.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg

from exporters.bucket_api import Bucket
from exporters.postgres import PostgresExporter
from exporters.selection import EVERYTHING, Selection
from migrate.bundle.reader import BundleReader
from migrate.export import export
from migrate.restore.postgres.restore import restore_database
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from scripts.servers import Servers

_TABLE = (
    "CREATE TABLE orders (id bigint PRIMARY KEY, name text, price numeric(10,2), made timestamptz);"
    """INSERT INTO orders VALUES (1, 'a "quoted" name', 1.5, now())"""
)
STAGES = {
    "PostgresSnapshot.export": "export",
    "RowWriter.write_all": "restore",
    "live_tables": "comparison",
    "differences": "comparison",
}
"""Functions in which a row is on its way, in whatever thread."""
_ALONE = {"_prepare": "restore"}
"""The same, of one thread: others do something else meanwhile."""
_BESIDE = (
    "/sessions/",
    "/exporters/limits.py",
    "/postgres/catalog.py",
    "/postgres/definitions/",
    "/postgres/destination.py",
    "/postgres/errors.py",
    "/postgres/identifiers.py",
    "/postgres/large_objects.py",
    "/postgres/left_out.py",
    "/postgres/chunk_plan.py",
    "/postgres/charset/",
    "/postgres/rows/source_charset.py",
    "PostgresSnapshot.foresee_finish",
    "open_feed",
    "/postgres/server_counts.py",
    "/postgres/statistics.py",
    "/note_refusals",
)
"""Modules whose functions, and all that these call, do not touch rows."""
_AROUND = ("/migrate/bundle/", "/migrate/export/", "/migrate/runtime/", "/migrate/storage/")
"""Modules that call functions which do."""
_ROOT = Path(__file__).parent.parent


class _NoBuckets:
    """A host for a source that asks for nothing."""

    def secret(self, name: str) -> str | None:
        del name
        return None

    def bucket(self, url: str) -> Bucket:
        raise NotImplementedError(url)

    def selection(self) -> Selection:
        return EVERYTHING


class Walk:
    """Notes the functions that are called while a row is on its way: ``calls`` by stage, in their order."""

    def __init__(self) -> None:
        self.calls: dict[str, dict[tuple[str, str], None]] = {stage: {} for stage in STAGES.values()}
        self.entered: set[tuple[str, str]] = set()
        """Those that another module calls."""
        self._stages: list[str] = []
        self._threads = threading.local()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note calls of this thread, and of those that are started now."""
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _see(self, frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event not in {"call", "return"} or not code.co_filename.startswith(str(_ROOT)):
            return
        file, name = code.co_filename.removeprefix(str(_ROOT)), code.co_qualname
        step = 1 if event == "call" else -1
        if any(part in f"{file}/{name}" for part in _BESIDE):
            self._threads.beside = getattr(self._threads, "beside", 0) + step
        elif name in STAGES:
            if event == "call":
                self._stages.append(STAGES[name])
            else:
                self._stages.pop()
        elif name in _ALONE:
            self._threads.stage = _ALONE[name] if event == "call" else ""
        stage = getattr(self._threads, "stage", "") or (self._stages or [""])[-1]
        if event == "call" and stage and not getattr(self._threads, "beside", 0) and _is_a_step(file, name):
            self.calls[stage].setdefault((name, file.removeprefix("/")))
            if _caller(frame) != file:
                self.entered.add((name, file.removeprefix("/")))


def _caller(frame: FrameType) -> str:
    """Return the module of moveout that calls."""
    caller = frame.f_back
    while caller is not None and not caller.f_code.co_filename.startswith(str(_ROOT)):
        caller = caller.f_back
    return "" if caller is None else caller.f_code.co_filename.removeprefix(str(_ROOT))


def _is_a_step(file: str, name: str) -> bool:
    """Tell whether a function is one with a name of its own, and may touch rows."""
    named = not name.endswith(">") and not name.rpartition(".")[2].startswith("__")
    return named and file.startswith(("/exporters", "/migrate")) and not file.startswith(_AROUND)


def main() -> None:
    """Print how many functions and files the row passes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="a PostgreSQL server (default: one is started)")
    parser.add_argument("--list", action="store_true", help="print the functions, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        if options.url:
            finished_walk = walk(options.url, Path(directory))
        else:
            with Servers(Path(directory)) as servers:
                server = servers.postgres("walk")
                os.environ["PGPASSWORD"] = server.password
                finished_walk = walk(server.url, Path(directory))
    for stage, calls in finished_walk.calls.items():
        _print(stage, set(calls), finished_walk.entered)
        for name, file in calls if options.list else ():
            print(f"  {'>' if (name, file) in finished_walk.entered else ' '} {name:45} {file}")
    _print("all", {call for calls in finished_walk.calls.values() for call in calls}, finished_walk.entered)


def _print(label: str, calls: set[tuple[str, str]], entered: set[tuple[str, str]]) -> None:
    files = {file for _, file in calls}
    print(
        f"{label:10} {len(calls):3} functions in {len(files):2} files,"
        f" {len(calls & entered):2} called by another module"
    )


def walk(url: str, directory: Path) -> Walk:
    """Return what was noted."""
    source, destination = (f"{url.rpartition('/')[0]}/row_walk_{name}" for name in ("source", "destination"))
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("source", "destination"):
            connection.execute(f"DROP DATABASE IF EXISTS row_walk_{name}".encode())
            connection.execute(f"CREATE DATABASE row_walk_{name}".encode())
    with psycopg.connect(source) as connection:
        connection.execute(_TABLE.encode())
    recorded_walk = Walk()
    location = open_location(str(directory / "bundle"))
    with recorded_walk.noting():
        export([PostgresExporter().open("app", source, _NoBuckets())], location, workers=1, progress=Silent())
        restore_database(BundleReader(location), "app", destination, workers=1, progress=Silent())
    return recorded_walk


if __name__ == "__main__":
    main()
