"""A worker's part of a transfer: some files of the payload, looked for at the destination first, then moved."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from exporters.api import Json
from exporters.structs import as_dict
from migrate.bundle.findings import Finding
from migrate.cluster.worker_state import TransferSession
from migrate.errors import GoneError
from migrate.runtime.progress import Progress
from migrate.storage.api import Store
from migrate.transfer.counters import TransferCounters
from migrate.transfer.file_copy import CopySettings, FileCopier
from migrate.transfer.plan import SealedFile


class Carried(Struct):
    """What became of one file. ``here``: it is at the destination now, whole."""

    here: bool = False
    bytes_moved: int = 0
    bytes_skipped: int = 0
    findings: list[Finding] = field(default_factory=list)


class ByFile:
    """See ``migrate.transfer.counters.Counter``: keeps the counts of each file."""

    def __init__(self, files: Sequence[SealedFile], progress: Progress) -> None:
        self._lock = threading.Lock()
        self._progress = progress
        self.carried_files = {file.key: Carried() for file in files}

    def move_bytes(self, file: SealedFile, size_bytes: int) -> None:
        """See ``Counter``."""
        with self._lock:
            self.carried_files[file.key].bytes_moved += size_bytes

    def skip_bytes(self, file: SealedFile, size_bytes: int) -> None:
        """See ``Counter``."""
        with self._lock:
            self.carried_files[file.key].bytes_skipped += size_bytes

    def pass_bytes(self, file: SealedFile, size_bytes: int) -> None:
        """See ``Counter``."""

    def move_file(self, file: SealedFile) -> None:
        """See ``Counter``."""
        self.carried_files[file.key].here = True

    def skip_file(self, file: SealedFile) -> None:
        """See ``Counter``."""
        self.skip_bytes(file, file.size_bytes)
        self.move_file(file)

    def again(self, file: SealedFile, finding: Finding) -> None:
        """See ``Counter``."""
        del file
        self._progress.note(f"{finding}; once more")

    def find(self, finding: Finding, *, blocks: bool = True) -> None:
        """See ``Counter``."""
        del blocks
        with self._lock:
            self.carried_files[finding.key].findings.append(finding)


def copy_files(session: TransferSession, files: Sequence[SealedFile]) -> Iterator[tuple[str, Json]]:
    """Move files; yield what became of each. Raises whatever a store raises for good, ``Cancelled``."""
    counters = ByFile(files, session.notes)
    settings = CopySettings(
        session.origin,
        session.store,
        session.fence,
        session.cancellation,
        on_stuck=session.cancellation.cancel,
        workers=session.workers,
        recheck=session.recheck,
    )
    copier = FileCopier(settings, counters, look=True)
    copier.move(copier.missing(files, _present(session.store, files)))
    for key, carried in counters.carried_files.items():
        yield key, as_dict(carried)


def _present(store: Store, files: Sequence[SealedFile]) -> dict[str, int]:
    """Return the sizes of those that lie there, perhaps by a worker that died before it could say so."""
    sizes = {}
    for file in files:
        try:
            sizes[file.key] = store.stat(file.key).size_bytes
        except GoneError:
            continue
    return sizes


def piece(file: SealedFile) -> Json:
    """Return a file as a piece of an order."""
    return {"id": file.key, "size_bytes": file.size_bytes, "sha256": file.sha256}


def file_of(value: Json) -> SealedFile:
    """Return the file of a piece."""
    return SealedFile(value["id"], value["size_bytes"], value["sha256"])


def take(counters: TransferCounters, file: SealedFile, response: Json) -> None:
    """Count what a worker says of a file."""
    if response["bytes_skipped"] == file.size_bytes and response["here"] and not response["bytes_moved"]:
        counters.skip_file(file)
        return
    counters.skip_bytes(file, response["bytes_skipped"])
    counters.move_bytes(file, response["bytes_moved"])
    for finding in response["findings"]:
        counters.find(Finding(**finding))
    if response["here"]:
        counters.move_file(file)
