"""The report of a restore, at a location of its own: what the destination cannot represent, what it was tried out for,
and which version became which.

    <source>/losses.parquet         every property that the destination cannot hold; written before the first object is
    <source>/capabilities.json      what was tried out
    <source>/versions.parquet       key, version id at the source, version id at the destination; where there are
    versions
    <source>/report.json           counts, findings, notes, and ``settings`` that were not taken; written last
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import replace

from exporters.api import Loss
from migrate.bundle import canonical_json
from migrate.bundle.catalog import losses_schema
from migrate.restore.common.api import RestoreOutcome
from migrate.storage.api import MultipartStore
from migrate.storage.file_writer import FileWriter

VERSIONS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("old_version_id", pa.string(), nullable=False),
        pa.field("new_version_id", pa.string(), nullable=False),
        pa.field("is_delete_marker", pa.bool_(), nullable=False),
    ]
)
_BATCH = 10_000
RestoredVersion = tuple[str, str, str, bool]
"""A row of ``versions.parquet``. Keys are whole keys of the destination."""


class RestoreReport:
    """The report of one source's restore, at a store; nowhere where that is None."""

    def __init__(self, store: MultipartStore | None, source: str) -> None:
        self._store, self._source = store, source
        self.losses = 0
        self._lost: dict[str, None] = {}

    @property
    def lost(self) -> tuple[str, ...]:
        """The properties that were lost, each once."""
        return tuple(self._lost)

    @property
    def location(self) -> str:
        """Where it is stored, as shown to users; empty where it is not stored."""
        return "" if self._store is None else f"{self._store.location.removesuffix('/')}/{self._source}"

    def write_losses(self, losses: Iterable[Loss]) -> None:
        """Write the list of losses, streamed."""
        rows = ((self._source, loss.item, loss.property, loss.reason) for loss in losses)
        with self._table("losses.parquet", losses_schema()) as write:
            while batch := list(islice(rows, _BATCH)):
                self.losses += len(batch)
                self._lost |= dict.fromkeys(lost for _, _, lost, _ in batch)
                write([tuple(_text(value) for value in row) for row in batch])

    def add_losses(self, outcome: RestoreOutcome, losses: Iterable[Loss]) -> RestoreOutcome:
        """Write the list of losses, and return the outcome with it."""
        self.write_losses(losses)
        return replace(outcome, losses=self.losses, lost=self.lost, report=self.location)

    @contextmanager
    def versions(self) -> Iterator[VersionMap]:
        """Open the map of versions; it is there once the context ends without an error."""
        with self._table("versions.parquet", VERSIONS) as write:
            opened = VersionMap(write)
            yield opened
            opened.flush()

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one of the small files."""
        if self._store is not None:
            self._store.put(f"{self._source}/{name}", canonical_json.encode_pretty({"version": 1, **value}))

    @contextmanager
    def _table(self, name: str, schema: pa.Schema) -> Iterator[Any]:
        if self._store is None:
            yield lambda _rows: None
            return
        with (
            FileWriter(self._store, f"{self._source}/{name}") as file,
            pq.ParquetWriter(cast("Any", file), schema, compression="zstd") as writer,
        ):

            def write(rows: Sequence[tuple[Any, ...]]) -> None:
                columns = zip(zip(*rows, strict=True), schema, strict=True)
                arrays = [pa.array(list(column), field.type) for column, field in columns]
                writer.write_batch(pa.record_batch(arrays, schema=schema))

            yield write


class VersionMap:
    """Takes rows of ``versions.parquet``. For one thread at a time."""

    def __init__(self, write: Any) -> None:
        self._write = write
        self._rows: list[RestoredVersion] = []

    def add(self, rows: Iterable[RestoredVersion]) -> None:
        """Note where versions have gone."""
        self._rows.extend(rows)
        if len(self._rows) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self._rows:
            self._write([(_text(key), *rest) for key, *rest in self._rows])
            self._rows = []


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
