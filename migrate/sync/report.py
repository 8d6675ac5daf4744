"""The report of a sync, next to its record: what is missing, what was lost, and what was removed.

report.json, REPORT.html         what the last run came to
gaps.parquet                      what the source has and the destination has not, with the reason; as in a bundle
losses.parquet                    what the destination does not have of the objects and of the bucket; as in a
bundle
extra.parquet                     what only the destination has
deleted/<time>-….parquet          what was removed at the destination then
capabilities.json, cutover.json   what the destination can hold; the last proof that both sides were
equal
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from exporters.api import Gap, Loss
from migrate import software
from migrate.bundle import canonical_json
from migrate.bundle.catalog import read_losses, write_gaps, write_losses
from migrate.bundle.export_state import now
from migrate.report.render import render
from migrate.storage.api import MultipartStore
from migrate.storage.file_reader import RandomAccess
from migrate.storage.file_writer import FileWriter
from migrate.sync.diff import Action, SyncStep
from migrate.sync.outcome import Removed, SyncOutcome
from migrate.sync.plan import Sides

_SHOWN = 200
PAGE = "sync.html"
_AHEAD_BYTES = 2**20


GAPS, LOSSES, EXTRA, PROOF = "gaps.parquet", "losses.parquet", "extra.parquet", "cutover.json"
_OBJECTS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("version_id", pa.string()),
    ]
)
_BATCH = 20_000


class SyncReport:
    """The report at the record's store."""

    def __init__(self, store: MultipartStore, sides: Sides) -> None:
        self._store, self._sides = store, sides
        self._stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        self._files = 0
        self._written = {info.key for name in (GAPS, EXTRA) for info in store.list(name)}

    def write_losses(self, losses: Iterable[Loss]) -> int:
        """Write the list of losses, return its rows."""
        with FileWriter(self._store, LOSSES) as file:
            return write_losses(cast("Any", file), ((self._sides.name, loss) for loss in losses))

    def write_removed(self, removed: Sequence[Removed]) -> None:
        """Write the objects that were removed at the destination."""
        self._files += 1
        rows = (
            (removed_object.key, removed_object.size_bytes, removed_object.etag, removed_object.version_id)
            for removed_object in removed
        )
        self._write_objects(f"deleted/{self._stamp}-{self._files:03d}.parquet", rows)

    def write_gaps(self, steps: Iterable[SyncStep], gaps: Iterable[Gap]) -> None:
        """Write what of the source is not at the destination: excluded by the plan or stuck, or a gap since."""
        planned = (
            Gap(step.name, "excluded" if step.do == Action.EXCLUDED else "failed", step.why) for step in steps
        )
        rows = ((self._sides.name, gap) for gap_list in (planned, gaps) for gap in gap_list)
        if (first := next(rows, None)) is None:
            self._drop(GAPS)
            return
        self._written.add(GAPS)
        with FileWriter(self._store, GAPS) as file:
            write_gaps(cast("Any", file), chain([first], rows))

    def write_extra(self, steps: Iterable[SyncStep], removed: frozenset[tuple[str, str]]) -> None:
        """Write the objects that only the destination has."""
        rows = (
            (step.key, step.destination.size_bytes, step.destination.etag, step.destination.version_id)
            for step in steps
            if step.do == Action.EXTRA
            and step.destination is not None
            and (step.key, step.destination.version_id) not in removed
        )
        if (first := next(rows, None)) is None:
            self._drop(EXTRA)
            return
        self._written.add(EXTRA)
        self._write_objects(EXTRA, chain([first], rows))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one of the small files."""
        self._store.put(name, canonical_json.encode_pretty({"version": 1, **value}))

    def load_losses(self) -> None:
        """Read the list of losses early, if it is short: ``close`` needs it then, from the cache of the store."""
        size_bytes = next((info.size_bytes for info in self._store.list(LOSSES)), 0)
        if 0 < size_bytes <= _AHEAD_BYTES:
            self._store.read(LOSSES)

    def close(self, outcome: SyncOutcome) -> None:
        """Write the outcome of the command."""
        with ThreadPoolExecutor(1, thread_name_prefix="moveout-report") as threads:
            report = threads.submit(self.write_json, "report.json", outcome.as_json())
            self._store.put("REPORT.html", page(outcome, self._first_losses(outcome.losses)))
            report.result()

    def _first_losses(self, count: int) -> list[Loss]:
        """Return the beginning of the list of losses, which an earlier run may have written."""
        if not count:
            return []
        size_bytes = next((info.size_bytes for info in self._store.list(LOSSES)), None)
        losses = read_losses(RandomAccess(self._store, LOSSES, size_bytes=size_bytes), LOSSES)
        return [loss for _, loss in islice(losses, _SHOWN)]

    def _drop(self, name: str) -> None:
        if name in self._written:
            self._store.delete(name)
            self._written.discard(name)

    def _write_objects(self, name: str, rows: Iterable[tuple[str, int, str, str]]) -> None:
        source = iter(rows)
        with (
            FileWriter(self._store, name) as file,
            pq.ParquetWriter(cast("Any", file), _OBJECTS, compression="zstd") as writer,
        ):
            while batch := list(islice(source, _BATCH)):
                columns = zip(zip(*batch, strict=True), _OBJECTS, strict=True)
                arrays = [pa.array(list(column), field.type) for column, field in columns]
                writer.write_batch(pa.record_batch(arrays, schema=_OBJECTS))


def page(outcome: SyncOutcome, losses: Sequence[Loss]) -> bytes:
    """Return the page, UTF-8."""
    values = {
        "title": "A bucket copied to a bucket",
        "outcome": outcome,
        "losses": losses,
        "written": now(),
        "software": software(),
        "shown": _SHOWN,
    }
    return render(PAGE, values)
