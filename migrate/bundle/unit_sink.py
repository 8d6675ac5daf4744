"""Where a unit writes its files: straight to the location, hashed on the way, each noted for the commit
record.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from exporters.errors import SourceError
from migrate.bundle import layout
from migrate.bundle.commit_records import FileRecord
from migrate.errors import MoveoutError, UsageError
from migrate.runtime.cancellation import CancellationToken, Cancelled
from migrate.storage.api import PART_BYTES, MultipartStore, NewFile
from migrate.storage.file_writer import FileWriter

RESUMED_BYTES = 4 * PART_BYTES
"""Files of at least this size are continued where an earlier run was interrupted; of smaller ones no more is sent twice
than the parts that were under way.
"""


class SinkWatch:
    """Is notified how far the files of a sink are; does nothing itself. Thread-safe; sizes are bytes."""

    def read(self, items: int, size_bytes: int) -> None:
        """Take note of what was read of the source."""

    def write(self, size_bytes: int) -> None:
        """Take note of what was written into files."""

    def land(self, size_bytes: int) -> None:
        """A part of a file of this size has arrived at the location."""


class StoreSink:
    """A ``Sink`` (see ``exporters.api``) over a store. ``files`` fills up as files are finished.

    ``cancellation``: once the run is cancelled, the next write raises ``Cancelled``, so that it ends within a moment
    and leaves no half file. ``held``: what lies at the location is replaced by ``publish`` only, and stays as it is
    after ``drop``. ``check`` raises before anything there is replaced, once the location is another run's.
    """

    def __init__(
        self,
        store: MultipartStore,
        source: str,
        *,
        cancellation: CancellationToken | None = None,
        watch: SinkWatch | None = None,
        held: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._check = check
        self._store = store
        self._source = source
        self.cancellation = cancellation or CancellationToken()
        self.watch = watch or SinkWatch()
        self._lock = threading.Lock()
        self._files: dict[str, FileRecord] = {}
        self._waiting: dict[str, FileWriter] | None = {} if held else None
        self.error: MoveoutError | None = None
        """What went wrong at the location, also if the exporter swallowed it."""

    @property
    def files(self) -> list[FileRecord]:
        """The files that were finished, ordered by key."""
        with self._lock:
            return [self._files[key] for key in sorted(self._files)]

    @contextmanager
    def create(self, name: str, *, size_bytes: int = 0) -> Iterator[BinaryIO]:
        """Open ``data/<source>/<name>`` for writing. Raises ``UsageError`` for a name that a bundle cannot
        hold.
        """
        if not layout.is_payload_name(name):
            raise UsageError(
                f"{self._source}: {name!r} cannot be a file of a bundle",
                next_step="this is a defect of the exporter: names match [a-z0-9._/-]+",
            )
        key = layout.source_file(self._source, name)
        self._forget(key)
        # An object may grow between the listing and the reading: a tenth of room.
        part_bytes = self._store.part_bytes(size_bytes + size_bytes // 10)
        try:
            with FileWriter(
                self._store,
                key,
                part_bytes=part_bytes,
                resume=size_bytes >= RESUMED_BYTES,
                on_part=self.watch.land,
                held=self._waiting is not None,
            ) as writer:
                file = StoppableFile(writer, self)
                yield cast("BinaryIO", file)
                if file.broken is not None:
                    raise file.broken
                if self._waiting is None:
                    self._check()
        except SourceError:
            raise  # the location is not to blame
        except MoveoutError as exc:
            self.error = exc
            raise
        with self._lock:
            self._files[key] = FileRecord(key, writer.size_bytes, writer.sha256, writer.crc64nvme)
            if self._waiting is not None:
                self._waiting[key] = writer

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """See ``Sink.advance``."""
        self.watch.read(items, size_bytes)

    def publish(self) -> None:
        """Replace what lies at the location by what was held. Raises the store's errors, and those of ``check``."""
        self._check()
        while self._waiting:
            _, writer = self._waiting.popitem()
            writer.make()

    def release(self) -> list[NewFile]:
        """Make the large files that were held, and release the others for ``put_all``. Raises the store's errors."""
        small = []
        while self._waiting:
            _, writer = self._waiting.popitem()
            file = writer.release()
            if file is None:
                writer.make()
            else:
                small.append(file)
        return small

    def drop(self) -> None:
        """Give up what was held."""
        for key in list(self._waiting or ()):
            self._forget(key)

    def _forget(self, key: str) -> None:
        """Give up a file that is held, of which another one is begun."""
        with self._lock:
            writer = self._waiting.pop(key, None) if self._waiting else None
        if writer is not None:
            writer.abort()


class StoppableFile:
    """A writer that asks before every write whether to go on, and keeps its errors; the rest is the
    writer's. After the first error writes are dropped: Arrow writes once more as it lets go of a file.
    """

    def __init__(self, writer: FileWriter, sink: StoreSink) -> None:
        self._writer = writer
        self._sink = sink
        self.broken: BaseException | None = None
        """Why the file cannot become whole."""

    def write(self, data: bytes) -> int:
        """Write, unless the run is cancelled."""
        if self.broken is not None:
            return len(data)
        if self._sink.cancellation.is_cancelled:
            self.broken = Cancelled()
            raise self.broken
        try:
            written = self._writer.write(data)
        except MoveoutError as exc:
            self._sink.error = self.broken = exc
            raise
        self._sink.watch.write(written)
        return written

    def __getattr__(self, name: str) -> object:
        return getattr(self._writer, name)
