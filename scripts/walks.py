"""Which functions one row of PostgreSQL passes, or one small object: from the source into a bundle, and from there on.

    python -m scripts.walks {row,object} [--list]

``row`` exports and restores a database of one table. It lists the functions of moveout that are called between the
query for its rows and their Parquet file, while they are written into the destination, and while they are compared.
Connections that open and close, catalogs, how files get to a location, properties, and Arrow's own functions
(``exporters/arrow_functions.py`` has them under their names) are not counted.

``object`` does the same with a bucket of small objects. It lists the functions that are called for each of them.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg

from exporters.bucket_api import Bucket
from exporters.objects.source import ObjectExporter
from exporters.postgres.exporter import PostgresExporter
from exporters.selection import EVERYTHING, Selection
from migrate.bundle.reader import BundleReader
from migrate.export.run import export
from migrate.restore.common.api import RestoreRequest
from migrate.restore.objects.restore import BucketRestorer
from migrate.restore.postgres.restore import PostgresRestorer
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.storage.s3.source_bucket import open_bucket
from scripts.servers import Servers

_TABLE = (
    "CREATE TABLE orders (id bigint PRIMARY KEY, name text, price numeric(10,2), made timestamptz);"
    """INSERT INTO orders SELECT n, 'a "quoted" name', n / 2.0, now() FROM generate_series(1, 10000) n"""
)
"""More than a small table, of which rows are read, and made ready for a destination, together with those of others."""
_OBJECTS = 50
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Route:
    """Which calls are noted. ``stages``: functions in which a row is on its way, in whatever thread, and the names of
    the stages; ``own_stages``: the same, of one thread, while others do something else. ``ignored``: modules whose
    functions, and all that these call, do not touch rows. ``outer``: modules that only call functions which do.
    ``least_calls``: a function counts that is called so often.
    """

    stages: Mapping[str, str] = field(default_factory=dict)
    own_stages: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    outer: tuple[str, ...] = ()
    least_calls: int = 1


ROW = Route(
    stages={
        "RowWriter.write_all": "restore",
        "digest_tables": "comparison",
        "differences": "comparison",
    },
    own_stages={"PostgresSnapshot.export": "export"},
    ignored=(
        "/exporters/arrow_functions.py",
        "/sessions/",
        "/exporters/limits.py",
        "/exporters/sql/snapshots.py",
        "/postgres/catalog.py",
        "/postgres/definitions/",
        "/postgres/destination.py",
        "/postgres/errors.py",
        "/postgres/identifiers.py",
        "/postgres/large_objects.py",
        "/postgres/restore_state.py",
        "/postgres/chunk_plan.py",
        "/postgres/charset/",
        "/postgres/rows/source_charset.py",
        "load_rows.py/RowWriter._connect",
        "Feeds.close",
        "AsyncpgFeed.close",
        "ConnectionWorkers.close",
        "open_feed",
        "/postgres/server_counts.py",
        "/postgres/statistics.py",
        "/note_refusals",
    ),
    outer=("/migrate/bundle/", "/migrate/export/", "/migrate/runtime/", "/migrate/storage/"),
)
OBJECT = Route(own_stages={"Packing.export": "export", "Writer.write": "restore"}, least_calls=_OBJECTS)


class _Host:
    """A host for a source."""

    def secret(self, name: str) -> str | None:
        del name
        return None

    def bucket(self, url: str) -> Bucket:
        return open_bucket(url)

    def selection(self) -> Selection:
        return EVERYTHING

    def inventory(self) -> str | None:
        return None


Call = tuple[str, str]
"""The name of a function, and its file."""


class Walk:
    """Notes the functions that are called on a route: how often, by stage, in the order of their first calls."""

    def __init__(self, route: Route) -> None:
        self.entered: set[Call] = set()
        """Those that another module calls."""
        self._route = route
        stages = (*route.stages.values(), *route.own_stages.values())
        self._calls: dict[str, dict[Call, int]] = {stage: {} for stage in stages}
        self._stages: list[str] = []
        self._threads = threading.local()

    @property
    def calls(self) -> Mapping[str, list[Call]]:
        """The functions by stage."""
        least = self._route.least_calls
        return {
            stage: [call for call, count in counts.items() if count >= least]
            for stage, counts in self._calls.items()
        }

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
        code, route = frame.f_code, self._route
        # A module that is imported on the way runs its own body, and those of its classes.
        is_function = code.co_flags & inspect.CO_OPTIMIZED
        if event not in {"call", "return"} or not is_function or not code.co_filename.startswith(str(_ROOT)):
            return
        file, name = code.co_filename.removeprefix(str(_ROOT)), code.co_qualname
        step = 1 if event == "call" else -1
        if any(part in f"{file}/{name}" for part in route.ignored):
            self._threads.ignored = getattr(self._threads, "ignored", 0) + step
        elif name in route.stages:
            if event == "call":
                self._stages.append(route.stages[name])
            else:
                self._stages.pop()
        elif name in route.own_stages:
            self._threads.stage = route.own_stages[name] if event == "call" else ""
        stage = getattr(self._threads, "stage", "") or (self._stages or [""])[-1]
        if (
            event == "call"
            and stage
            and not getattr(self._threads, "ignored", 0)
            and self._counts(file, name)
            and not _is_property(frame)
        ):
            call = (name, file.removeprefix("/"))
            self._calls[stage][call] = self._calls[stage].get(call, 0) + 1
            if _caller(frame) != file:
                self.entered.add(call)

    def _counts(self, file: str, name: str) -> bool:
        """Tell whether a function is one with a name of its own, and may touch rows."""
        named = not name.endswith(">") and not name.rpartition(".")[2].startswith("__")
        return (
            named and file.startswith(("/exporters", "/migrate")) and not file.startswith(self._route.outer)
        )


def _is_property(frame: FrameType) -> bool:
    """Tell whether a function is read as an attribute."""
    owner = type(frame.f_locals.get("self"))
    return isinstance(inspect.getattr_static(owner, frame.f_code.co_name, None), property | cached_property)


def _caller(frame: FrameType) -> str:
    """Return the module of moveout that calls."""
    caller = frame.f_back
    while caller is not None and not caller.f_code.co_filename.startswith(str(_ROOT)):
        caller = caller.f_back
    return "" if caller is None else caller.f_code.co_filename.removeprefix(str(_ROOT))


def main() -> None:
    """Print how many functions and files the row, or the object, passes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("row", "object"))
    parser.add_argument("--list", action="store_true", help="print the functions, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Servers(Path(directory)) as servers:
        follow = follow_row if options.what == "row" else follow_object
        walk = follow(servers, Path(directory))
    for stage, calls in walk.calls.items():
        _print(stage, set(calls), walk.entered)
        for name, file in calls if options.list else ():
            print(f"  {'>' if (name, file) in walk.entered else ' '} {name:45} {file}")
    _print("all", {call for calls in walk.calls.values() for call in calls}, walk.entered)


def _print(label: str, calls: set[Call], entered: set[Call]) -> None:
    files = {file for _, file in calls}
    print(
        f"{label:10} {len(calls):3} functions in {len(files):2} files,"
        f" {len(calls & entered):2} called by another module"
    )


def follow_row(servers: Servers, directory: Path) -> Walk:
    """Return the walk of a row."""
    server = servers.postgres("walk")
    os.environ["PGPASSWORD"] = server.password
    source, destination = (
        f"{server.url.rpartition('/')[0]}/walk_{name}" for name in ("source", "destination")
    )
    with psycopg.connect(server.url, autocommit=True) as connection:
        for name in ("source", "destination"):
            connection.execute(f"CREATE DATABASE walk_{name}".encode())
    with psycopg.connect(source) as connection:
        connection.execute(_TABLE.encode())
    walk, location = Walk(ROW), open_location(str(directory / "bundle"))
    with walk.noting():
        export([PostgresExporter().open("app", source, _Host())], location, workers=1, progress=Silent())
        PostgresRestorer().restore(
            RestoreRequest(BundleReader(location), "app", destination, workers=1, progress=Silent())
        )
    return walk


def follow_object(servers: Servers, directory: Path) -> Walk:
    """Return the walk of an object."""
    server = servers.minio("walk")
    os.environ.update(servers.environment)
    source, destination = (f"s3://walk-{name}?profile={server.profile}" for name in ("source", "destination"))
    client = server.client()
    for name in ("source", "destination"):
        client.create_bucket(Bucket=f"walk-{name}")
    for number in range(_OBJECTS):
        client.put_object(
            Bucket="walk-source", Key=f"object {number}", Body=b"hello", Metadata={"one": "two"}
        )
    walk, location = Walk(OBJECT), open_location(str(directory / "bundle"))
    with walk.noting():
        export([ObjectExporter().open("media", source, _Host())], location, workers=1, progress=Silent())
        BucketRestorer().restore(
            RestoreRequest(BundleReader(location), "media", destination, workers=1, progress=Silent())
        )
    return walk


if __name__ == "__main__":
    main()
