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
    "CREATE TABLE orders (id bigint PRIMARY KEY, name text, price numeric(10,2), made timestamptz, tags text[]);"
    """INSERT INTO orders VALUES (1, 'a "quoted" name', 1.5, now(), ARRAY['x', 'y'])"""
)
STAGES = {
    "PostgresSnapshot.export": "export",
    "_prepare": "restore",
    "RowWriter.write_all": "restore",
    "live_tables": "comparison",
    "differences": "comparison",
}
"""Functions in which a row is on its way."""
_BESIDE = (
    "/sessions/",
    "/exporters/limits.py",
    "/postgres/catalog.py",
    "/postgres/destination.py",
    "/postgres/errors.py",
    "/postgres/large_objects.py",
    "/postgres/left_out.py",
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
        if event not in {"call", "return"} or not frame.f_code.co_filename.startswith(str(_ROOT)):
            return
        code, beside = frame.f_code, getattr(self._threads, "beside", 0)
        file = code.co_filename.removeprefix(str(_ROOT))
        aside = any(name in f"{file}/{code.co_qualname}" for name in _BESIDE)
        if aside:
            self._threads.beside = beside + (1 if event == "call" else -1)
        elif code.co_qualname in STAGES:
            if event == "call":
                self._stages.append(STAGES[code.co_qualname])
            else:
                self._stages.pop()
        around = file.startswith(_AROUND) or not file.startswith(("/exporters", "/migrate"))
        if event == "call" and self._stages and not beside and not aside and not around:
            self.calls[self._stages[-1]].setdefault((code.co_qualname, file.removeprefix("/")))


def main() -> None:
    """Print how many functions and files the row passes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="a PostgreSQL server (default: one is started)")
    parser.add_argument("--list", action="store_true", help="print the functions, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        if options.url:
            calls = walk(options.url, Path(directory))
        else:
            with Servers(Path(directory)) as servers:
                server = servers.postgres("walk")
                os.environ["PGPASSWORD"] = server.password
                calls = walk(server.url, Path(directory))
    every = {call for some in calls.values() for call in some}
    for stage, some in calls.items():
        print(f"{stage:10} {len(some):3} functions in {len({file for _, file in some}):2} files")
        for name, file in some if options.list else ():
            print(f"    {name:45} {file}")
    print(f"{'all':10} {len(every):3} functions in {len({file for _, file in every}):2} files")


def walk(url: str, directory: Path) -> dict[str, dict[tuple[str, str], None]]:
    """Return the functions by stage."""
    source, destination = (f"{url.rpartition('/')[0]}/row_walk_{name}" for name in ("source", "destination"))
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("source", "destination"):
            connection.execute(f"DROP DATABASE IF EXISTS row_walk_{name}".encode())
            connection.execute(f"CREATE DATABASE row_walk_{name}".encode())
    with psycopg.connect(source) as connection:
        connection.execute(_TABLE.encode())
    seen = Walk()
    location = open_location(str(directory / "bundle"))
    with seen.noting():
        export([PostgresExporter().open("app", source, _NoBuckets())], location, workers=1, progress=Silent())
        restore_database(BundleReader(location), "app", destination, workers=1, progress=Silent())
    return seen.calls


if __name__ == "__main__":
    main()
