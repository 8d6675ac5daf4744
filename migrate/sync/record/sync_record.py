"""The record of a sync: which object of the source became which object of the destination, and what a run is at.

    sync.json                                   which buckets, and which generation of the index is the one that counts
    index/<generation>/objects-000000.parquet   a row for every object that is at the destination as it was at the
    source
    work/<run>/plan-000000.parquet              what a run is going to do; written before it touches anything
    work/<run>/done-000000.parquet              rows of what it has done, batch by batch

What a run writes lies in its plan before it is written, so that an object that a killed run has left is known to be
ours. Losing all of this costs time: objects are then compared one by one.
"""

from __future__ import annotations

import heapq
import io
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

from exporters.api import Loss
from exporters.sql.bounded_parquet import rows_of
from exporters.sql.whole_parquet import reading
from exporters.structs import as_dict
from migrate.bundle import canonical_json
from migrate.errors import DamageError, GoneError, UsageError, in_words
from migrate.storage.api import MultipartStore, Store
from migrate.sync.diff import SyncStep
from migrate.sync.record.column_pages import Known, KnownPage, microseconds
from migrate.sync.record.record_rows import (
    SYNCED,
    begun_rows,
    plan_bytes,
    read_known,
    read_losses,
    read_plan,
    read_versions,
    synced_table,
    to_bytes,
    which_version,
)
from migrate.sync.versions.version_diff import KnownVersion

_Row = TypeVar("_Row")
VERSION = 1
HEADER = "sync.json"
_A_FILE = "a file of the record"
FILE_ROWS = 100_000
"""Rows of one file of the index."""
PLAN_ROWS = 10_000
_PLAN_AHEAD = 1
_DONE_AHEAD = 8
_DONE_BYTES = 2**20
"""What is larger is written before its batch ends, so that little is held."""
_RUN = re.compile(r"work/(\d{6,})/")


class Header(Struct, frozen=True):
    """``sync.json``. Buckets and prefixes say which sync it is, and whether it copies every version (``history``);
    ``rows`` of the index, ``losses``: how many the report lists; times UTC. ``refused_markers``: delete markers that
    the destination does not make, None where that was not tried out.
    """

    source_bucket: str
    source_prefix: str
    destination_bucket: str
    destination_prefix: str
    begun: str
    generation: int = 0
    files: int = 0
    rows: int = 0
    size_bytes: int = 0
    losses: int = 0
    history: bool = False
    refused_markers: Sequence[str] | None = None


class Record:
    """The record at its store. For one thread, but for ``write_done``. By ``threads``, if there are any, the plan and
    what is done are written while other work goes on. Whoever reads the plan waits until all of it is there; so does
    ``fold`` for what is done.
    """

    def __init__(self, store: MultipartStore, fresh: Header, threads: Executor | None = None) -> None:
        self.store = store
        self.header = _header_of(store, fresh) or fresh
        self._threads = threads
        self._being_written: deque[Future[None]] = deque()
        self._done_being_written: dict[str, tuple[bytes, Future[object]]] = {}
        self._lock, self._plan_lock = threading.Lock(), threading.Lock()

    def known(self) -> Iterator[KnownPage]:
        """Yield what is known of each key, by key."""
        index = (page for name in self._index() for page in self._rows(name, read_known))
        plans = [names for run in self.runs() if (names := self._names(f"{run}plan-"))]
        if not plans:
            yield from index
            return
        streams: list[Iterator[Known]] = [
            (page.row(row_number) for page in index for row_number in range(len(page.keys)))
        ]
        streams += [(row_ for name in names for row_ in self._rows(name, begun_rows)) for names in plans]
        merged = (_together(list(rows)) for _, rows in groupby(heapq.merge(*streams, key=_key), key=_key))
        while piece := list(islice(merged, PLAN_ROWS)):
            yield KnownPage.of(piece)

    def known_versions(self) -> Iterator[tuple[str, Sequence[KnownVersion]]]:
        """Yield what is known of the versions of each key, by key, in the order in which they were written."""
        rows = (row for name in self._index() for row in self._rows(name, read_versions))
        for key, group in groupby(rows, key=itemgetter(0)):
            yield key, [version for _, version in group]

    def which(self, step: SyncStep) -> tuple[str, str]:
        """Return the key of a step, and what its row is called (see ``fold``)."""
        if not self.header.history or step.source is None:
            return step.key, step.key
        summary = step.source
        return step.key, which_version(step.key, summary.version_id, microseconds(summary.modified))

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of the index, by key."""
        for name in self._index():
            yield from self._rows(name, _tables)

    def losses(self) -> Iterator[Loss]:
        """Yield what the destination does not have of the objects of the index."""
        for name in self._index():
            yield from self._rows(name, partial(read_losses, history=self.header.history))

    def runs(self) -> list[str]:
        """Return the folders of runs that did not end, the oldest first."""
        run_names = {match[0] for name in self._names("work/") if (match := _RUN.match(name))}
        return sorted(run_names, key=lambda run: int(run.split("/")[1]))

    def begin_run(self) -> str:
        """Return the folder of a new run."""
        numbers = [int(run.split("/")[1]) for run in self.runs()]
        return f"work/{max(numbers, default=self.header.generation) + 1:06d}/"

    def write_plan(self, run: str, number: int, steps: Sequence[SyncStep]) -> None:
        """Write a piece of the plan."""
        self._write_later(self.store.put, f"{run}plan-{number:06d}.parquet", plan_bytes(steps))

    def plan(self, run: str) -> Iterator[SyncStep]:
        """Yield the plan again. Nothing is touched before it was read, so all of it is written by then."""
        self._finish_writing()
        for name in self._names(f"{run}plan-"):
            yield from self._rows(name, read_plan)

    def begin(self) -> None:
        """Write the header of a new record: what a plan belongs to is known before there is one."""
        if not self.header.generation:
            self._write_later(self.write_header)

    def _write_later(self, write: Callable[..., object], *arguments: Any) -> None:
        """Write by a thread, once what was to be written before is there."""
        if self._threads is None:
            write(*arguments)
            return
        self._finish_writing(but=_PLAN_AHEAD)
        before = self._being_written[-1] if self._being_written else None

        def in_turn() -> None:
            if before is not None:
                before.result()
            write(*arguments)

        self._being_written.append(self._threads.submit(in_turn))

    def _finish_writing(self, *, but: int = 0) -> None:
        with self._plan_lock:  # whoever comes second waits, too
            while len(self._being_written) > but:
                self._being_written[0].result()
                self._being_written.popleft()

    def write_done(self, run: str, number: int, rows: Sequence[dict[str, Any]]) -> None:
        """Commit what a batch has done, soon: no later than when some batches more have ended. Batches are numbered in
        the order of their keys, and do not overlap.
        """
        if not rows:
            return
        name, data = (
            f"{run}done-{number:06d}.parquet",
            to_bytes(synced_table(sorted(rows, key=itemgetter("key")))),
        )
        if self._threads is None or len(data) > _DONE_BYTES:
            self.store.put(name, data)
            return
        with self._lock:
            self._done_being_written[name] = (data, self._threads.submit(self.store.put, name, data))
        self.finish_done(but=_DONE_AHEAD)

    def finish_done(self, *, but: int = 0) -> None:
        """Return when all that is done is committed, ``but`` for so many batches. Raises what came in the way of it."""
        while True:
            with self._lock:
                if len(self._done_being_written) <= but:
                    return
                name, (_, being_written) = next(iter(self._done_being_written.items()))
            try:
                being_written.result()
            finally:
                with self._lock:
                    self._done_being_written.pop(name, None)

    def fold(self, run: str, dropped: Iterable[tuple[str, str]]) -> None:
        """Make the index that has what the run has done, and has not what is ``dropped`` (see ``which``; by key). The
        old one counts until the header is written.
        """
        self._finish_writing()
        unwritten = {
            name: data for name, (data, _) in self._done_being_written.items() if name.startswith(run)
        }
        done_names = sorted({*self._names(f"{run}done-"), *unwritten})
        new = (
            table
            for name in done_names
            for table in (_tables(unwritten[name]) if name in unwritten else self._rows(name, _tables))
        )
        generation = self.header.generation + 1
        files = rows = size_bytes = 0
        from migrate.sync.record import record_merge  # noqa: PLC0415  runs that find nothing to do need not wait for Arrow's functions

        identity = record_merge.by_version if self.header.history else record_merge.by_object
        merged = record_merge.folded(self.tables(), new, dropped, identity)
        for table in record_merge.grouped(merged, FILE_ROWS):
            self.store.put(_index_file(generation, files), to_bytes(table.select(SYNCED.names)))
            files, rows = files + 1, rows + table.num_rows
            size_bytes += record_merge.size_bytes_of(table)
        self.finish_done()
        self.header = replace(
            self.header, generation=generation, files=files, rows=rows, size_bytes=size_bytes
        )

    def settle(self) -> bool:
        """Take in what runs have done that did not end; tell whether there was any. Their plans stay: they say what may
        be ours.
        """
        before = self.header.generation
        for run in self.runs():
            done_names = self._names(f"{run}done-")
            if done_names:
                self.fold(run, ())
                self.write_header()
            self.store.delete_all(done_names)
        return self.header.generation > before

    def write_header(self) -> None:
        """Write ``sync.json``."""
        self.store.put(HEADER, canonical_json.encode_pretty({"version": VERSION, **as_dict(self.header)}))

    def sweep(self, *runs: str) -> None:
        """Remove what these runs have left, or all, and generations of the index that do not count."""
        self._finish_writing()
        chosen_runs = runs or self.runs()
        # In any order: the header counts an index that has all that is done. What stays is taken in once more.
        names = [
            name for run in chosen_runs for kind in ("done-", "plan-") for name in self._names(run + kind)
        ]
        current = _index_folder(self.header.generation)
        self.store.delete_all(
            [*names, *(name for name in self._names("index/") if not name.startswith(current))]
        )

    def _index(self) -> list[str]:
        return [_index_file(self.header.generation, number) for number in range(self.header.files)]

    def _names(self, prefix: str) -> list[str]:
        return [info.key for info in self.store.list(prefix)]

    def _read(self, name: str) -> bytes:
        try:
            return self.store.read(name)
        except GoneError as exc:
            raise _damage(self.store, name, "nothing") from exc

    def _rows(self, name: str, read: Callable[[bytes], Iterator[_Row]]) -> Iterator[_Row]:
        """Yield what ``read`` makes of a file of the record. Raises ``DamageError``."""
        data = self._read(name)
        with reading(name, _A_FILE, next_step=_next_step(self.store)):
            yield from read(data)


def read_header(store: Store) -> Header | None:
    """Return which sync has its record at a location, None where there is none. Raises ``DamageError``."""
    try:
        data = store.read(HEADER)
    except GoneError:
        return None
    try:
        return msgspec.convert(
            canonical_json.decode(data, HEADER, version=VERSION, next_step=_next_step(store)), Header
        )
    except ValueError as exc:
        raise _damage(store, HEADER, f"a malformed one ({in_words(exc)})") from exc


def _header_of(store: MultipartStore, fresh: Header) -> Header | None:
    """Return the header of a sync like the ``fresh`` one; see ``read_header``. Raises ``UsageError``, too."""
    header = read_header(store)
    if header is None:
        return None
    if _which(header) != _which(fresh):
        before = f"s3://{header.source_bucket}/{header.source_prefix}"
        raise UsageError(
            f"{store.location} is the record of another sync: from {before}"
            f" to s3://{header.destination_bucket}/{header.destination_prefix}",
            next_step="name another location with --record, or another prefix of the destination",
        )
    if header.history != fresh.history:
        kept_versions = "whole histories" if header.history else "current versions"
        raise UsageError(
            f"{store.location} is the record of a sync of {kept_versions}",
            next_step="say --history"
            if header.history
            else "leave out --history, or begin anew in another bucket",
        )
    return header


def _damage(store: Store, name: str, found: str) -> DamageError:
    return DamageError(name, expected=_A_FILE, found=found, next_step=_next_step(store))


def _next_step(store: Store) -> str:
    return f"remove what is left of the record at {store.location}; the objects are then compared"


def _which(header: Header) -> tuple[str, ...]:
    return (header.source_bucket, header.source_prefix, header.destination_bucket, header.destination_prefix)


def _together(rows: Sequence[Known]) -> Known:
    whole_row = next((row for row in rows if row.size_bytes >= 0), rows[0])
    return replace(whole_row, begun=True) if any(row.begun for row in rows) else whole_row


def _key(known: Known) -> str:
    return known.key


def _tables(data: bytes) -> Iterator[pa.Table]:
    for batch in rows_of(io.BytesIO(data), 20_000):
        yield pa.Table.from_batches([batch])


def _index_folder(generation: int) -> str:
    return f"index/{generation:06d}/"


def _index_file(generation: int, number: int) -> str:
    return f"{_index_folder(generation)}objects-{number:06d}.parquet"
