"""A bundle with an object index and a table, made without any server: for tests and benchmarks of what goes by rows."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from exporters.api import (
    CatalogEntry,
    DoneUnit,
    Enumeration,
    Json,
    Outcome,
    Sink,
    SourceSummary,
    Survey,
    Unit,
    Workspace,
)
from exporters.objects.index_rows import INDEX
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.api import MultipartStore
from migrate.storage.registry import open_location

ODD_KEY = 'odd "ä" \n key/%2F\\'
LONG_KEYS = tuple(
    char * (1024 // len(char.encode()))
    for char in ("\N{CJK UNIFIED IDEOGRAPH-4E2D}", "\N{GRINNING FACE}", "\x01", '"', "\\")
)
"""Keys of 1,024 bytes, or one less, each of one character: of 3 bytes, of 4, and such as JSON escapes."""


def index_table(count: int, odd: Sequence[str] = (ODD_KEY,)) -> pa.Table:
    """An index of ``count`` objects, the last with odd keys."""
    keys = [f"photos/{number:07d}.jpg" for number in range(count)]
    keys[-len(odd) :] = odd
    digests = [sha256(key.encode()).hexdigest() for key in keys]
    columns = {
        "bucket": pa.array(["media"] * count),
        "key": pa.array(keys),
        "size": pa.array(range(count), pa.int64()),
        "last_modified": pa.array([datetime(2026, 11, 1, tzinfo=UTC)] * count, pa.timestamp("us", tz="UTC")),
        "etag": pa.array([digest[:32] for digest in digests]),
        "sha256": pa.array(digests),
        "disposition": pa.array(["exported"] * count),
    }
    return pa.table([columns.get(field.name, pa.nulls(count, field.type)) for field in INDEX], schema=INDEX)


@dataclass
class Shelf:
    """A source with ``objects`` objects, and a table of two parts where ``table`` is on."""

    objects: int
    table: bool = True
    name: str = "media"
    url: str = "shelf://host/media"
    position: Json = field(default_factory=dict)
    odd: Sequence[str] = (ODD_KEY,)

    def survey(self) -> Survey:
        return Survey([], "memory")

    @contextmanager
    def snapshot(self, workspace: Workspace, *, workers: int) -> Iterator[Shelf]:
        del workspace, workers
        yield self

    def close(self) -> None:
        pass

    def units(self) -> Iterator[Unit]:
        yield Unit("all", self.objects, 1, {})

    def export(self, unit: Unit, sink: Sink) -> Outcome:
        del unit
        for number in range(2 if self.table else 0):
            rows = pa.table({"id": pa.array([number * 10 + 1, number * 10 + 2]), "name": ["a", f"b{number}"]})
            with sink.create(f"tables/1/part-{number:06d}.parquet") as file:
                file.write(_parquet(rows))
        return Outcome(self.objects + 4 * self.table, 1, 0)

    def still_holds(self, done: DoneUnit) -> bool:
        del done
        return True

    def finish(self, done: Iterator[DoneUnit], sink: Sink) -> SourceSummary:
        list(done)
        with sink.create("index/objects-000000.parquet") as file:
            file.write(_parquet(index_table(self.objects, self.odd)))
        entries = [CatalogEntry("bucket", 0, "", "media", self.objects, 1, "", {"bucket": "media"})]
        if self.table:
            parts = [{"name": f"tables/1/part-{number:06d}.parquet", "rows": 2} for number in range(2)]
            entries.append(CatalogEntry("table", 1, "public", "people", 4, 1, "", {"parts": parts}))
        total = self.objects + 4 * self.table
        counts = [Enumeration("items", "listed", total), Enumeration("items", "exported", total)]
        return SourceSummary(entries=entries, enumerations=counts, positions=[{}], server="memory")


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=50_000)
    return buffer.getvalue()


def shelf(path: str, objects: int, *, odd: Sequence[str] = (ODD_KEY,)) -> MultipartStore:
    """Seal a bundle at a location."""
    store = open_location(path)
    export([Shelf(objects, odd=odd)], store, workers=1, progress=Silent())
    return store
