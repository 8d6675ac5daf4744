"""Leftovers of interrupted runs at a location: listed and removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.lease import Lease, busy, look
from migrate.errors import GoneError
from migrate.runtime.process_identity import is_alive
from migrate.storage.api import FileInfo, MultipartStore
from migrate.transfer.plan import SEALS

Kind = Literal["upload", "temporary file", "empty folder", "work file"]


class Leftover(Struct, frozen=True):
    """A leftover of an interrupted run. ``size_bytes`` of durable bytes; ``age`` since it was begun or last
    written.
    """

    kind: Kind
    key: str
    size_bytes: int
    age: timedelta


def clean(store: MultipartStore, *, dry_run: bool) -> list[Leftover]:
    """Return the leftovers of interrupted runs at the location; remove them unless ``dry_run``.

    Unfinished uploads, temporary files, empty folders, and the ``_work/`` of a bundle that is complete. Never a file of
    a bundle, nor the commit records of an export that can be continued. Raises ``BusyError`` if a run is at work there.
    """
    if dry_run:
        _refuse_live(store)
        return [leftover for leftover, _ in _leftovers(store)]
    leftovers = []
    with Lease(store, "clean") as lease:
        for leftover, remove in list(_leftovers(store)):
            lease.check()
            remove()
            leftovers.append(leftover)
    return leftovers


def _refuse_live(store: MultipartStore) -> None:
    lease_and_file = look(store)
    if lease_and_file is not None and lease_and_file[0] is not None and is_alive(lease_and_file[0].process):
        raise busy(store, lease_and_file[0])


def _leftovers(store: MultipartStore) -> Iterator[tuple[Leftover, Callable[[], None]]]:
    now = datetime.now(UTC)
    for upload in store.uploads():
        try:
            size = sum(part.size_bytes for part in store.parts(upload.key, upload.id))
        except GoneError:
            continue
        leftover = Leftover("upload", upload.key, size, now - upload.started)
        yield leftover, partial(store.abort, upload.key, upload.id)
    tidying = store.tidying
    if tidying is not None:
        for info in tidying.leftovers():
            kind: Kind = "empty folder" if info.key.endswith("/") else "temporary file"
            leftover = Leftover(kind, info.key, info.size_bytes, now - info.modified)
            yield leftover, partial(tidying.remove_leftover, info.key)
    for info in _work_files(store):
        leftover = Leftover("work file", info.key, info.size_bytes, now - info.modified)
        yield leftover, partial(store.delete, info.key)


def _work_files(store: MultipartStore) -> Iterator[FileInfo]:
    """Yield the work files of a bundle that needs them no more: one that is sealed, and sealed as
    complete.
    """
    work = [info for info in store.list(layout.WORK) if info.key != layout.LEASE]
    if any(info.key == layout.EXPORT_STATE for info in work):
        return
    for key in SEALS:
        try:
            store.stat(key)
        except GoneError:
            return
    yield from work
