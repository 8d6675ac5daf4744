"""What a transfer came to, and the counts of what it does, for its outcome and for whoever watches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from migrate.bundle.findings import Finding, only_extra
from migrate.runtime.progress import Progress
from migrate.transfer.plan import SealedFile
from migrate.transfer.source_bundle import SealedSource


class TransferOutcome(Struct, frozen=True):
    """``files`` and ``size_bytes`` are what the bundle has; of these so many were moved now and so many lay
    there already.

    ``bytes_moved`` counts bodies sent to the destination, ``bytes_skipped`` bytes that were durable there from an
    earlier run. With ``findings`` other than files that no manifest names, the destination is left unsealed: repair the
    origin and run the same command again.
    """

    files: int
    size_bytes: int
    files_moved: int
    files_skipped: int
    bytes_moved: int
    bytes_skipped: int
    seconds: float
    findings: Sequence[Finding] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the whole bundle lies at the destination."""
        return only_extra(self.findings)

    @property
    def exit_code(self) -> int:
        """0, or 6 with findings."""
        return 6 if self.findings else 0


class Counter(Protocol):
    """Receives what happens to files under way. Thread-safe; sizes are bytes."""

    def move_bytes(self, file: SealedFile, size_bytes: int) -> None:
        """Count bytes that became durable at the destination."""
        ...

    def skip_bytes(self, file: SealedFile, size_bytes: int) -> None:
        """Count bytes that were durable from an earlier run."""
        ...

    def pass_bytes(self, file: SealedFile, size_bytes: int) -> None:
        """Take note of bytes that were counted before and are done again."""
        ...

    def move_file(self, file: SealedFile) -> None:
        """A file is there now."""
        ...

    def skip_file(self, file: SealedFile) -> None:
        """A file was there already."""
        ...

    def again(self, file: SealedFile, finding: Finding) -> None:
        """A file is moved once more, because of what was found."""
        ...

    def find(self, finding: Finding, *, blocks: bool = True) -> None:
        """Something is wrong; ``blocks``: it stands in the way of a whole bundle."""
        ...


class TransferCounters:
    """See ``Counter``: sums over all files."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self.findings: list[Finding] = []
        self.blocked = False
        """Whether a finding stands in the way of a whole bundle at the destination."""
        self._files_moved = self._files_skipped = 0
        self._bytes_moved = self._bytes_skipped = 0

    def move_bytes(self, file: SealedFile, size_bytes: int) -> None:
        """See ``Counter``."""
        del file
        with self._lock:
            self._bytes_moved += size_bytes
        self._progress.advance(size_bytes=size_bytes)

    def skip_bytes(self, file: SealedFile, size_bytes: int) -> None:
        """See ``Counter``."""
        del file
        with self._lock:
            self._bytes_skipped += size_bytes
        self._progress.skip(size_bytes=size_bytes)

    def pass_bytes(self, file: SealedFile, size_bytes: int) -> None:
        """See ``Counter``."""
        del file
        self._progress.advance(size_bytes=size_bytes)

    def move_file(self, file: SealedFile) -> None:
        """See ``Counter``."""
        del file
        with self._lock:
            self._files_moved += 1
        self._progress.advance(items=1)

    def skip_file(self, file: SealedFile) -> None:
        """A file was there already."""
        with self._lock:
            self._files_skipped += 1
            self._bytes_skipped += file.size_bytes
        self._progress.skip(items=1, size_bytes=file.size_bytes)

    def again(self, file: SealedFile, finding: Finding) -> None:
        """A file is moved once more, because of what was found."""
        self._progress.grow(size_bytes=file.size_bytes)
        self._progress.note(f"{finding}; once more")

    def find(self, finding: Finding, *, blocks: bool = True) -> None:
        """Something is wrong."""
        with self._lock:
            self.findings.append(finding)
            self.blocked = self.blocked or blocks
        self._progress.note(str(finding))

    def outcome(self, sealed: SealedSource, seconds: float) -> TransferOutcome:
        """Sum up."""
        return TransferOutcome(
            files=len(sealed.files),
            size_bytes=sealed.size_bytes,
            files_moved=self._files_moved,
            files_skipped=self._files_skipped,
            bytes_moved=self._bytes_moved,
            bytes_skipped=self._bytes_skipped,
            seconds=seconds,
            findings=sorted(self.findings, key=lambda finding: finding.key),
        )
