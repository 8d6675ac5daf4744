"""The levels of a verification."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.reader import REQUIRED, BundleReader
from migrate.bundle.table_comparison import TableDigest
from migrate.engines import registry
from migrate.errors import DamageError
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import ThreadWorkerPool, run_all
from migrate.storage.api import Store
from migrate.verify import (
    file_presence,
    reconciliation_check,
    table_contents,
    tag_file_checks,
)
from migrate.verify.file_hashes import check_file
from migrate.verify.file_presence import Counted, check_payload
from migrate.verify.object_contents import IndexWalk, PackJob
from migrate.verify.outcome import Level, VerifyOutcome
from migrate.verify.tag_file_checks import Expected, Tags, Unreadable, expected_files, finding_of

Item = TypeVar("Item")

PARTS_AT_ONCE = min(max(os.cpu_count() or 2, 2), 4)
"""Parts of tables that are rendered to text at once: that takes processors, and some 60 MB each."""
_UNREAD = (
    "{0.name}: every byte was hashed, but the values in its tables were not compared: no engine that is installed here"
    " reads the Parquet files of {0.kind}:// sources"
)


def verify(
    store: Store, level: Level, *, workers: int, progress: Progress, values: bool = True
) -> VerifyOutcome:
    """Look for everything that is not as the bundle says; what is wrong comes back as findings. Without ``values``
    level ``full`` does not compare the values in tables: a restore that compares what it has written does.

    Raises ``GoneError`` (nothing there), ``UsageError`` (not sealed, or sealed by a newer moveout) and the
    store's errors: then nothing could be checked.
    """
    level = Level(level)
    findings: list[Finding] = []
    known = tag_file_checks.check(store, findings)
    size_bytes, files = known.oxum or (0, 0)
    progress.begin(f"verify {level.value}", items=files, size_bytes=size_bytes if level is Level.FULL else 0)
    findings.extend(file_presence.check_tags(store, known, level))
    counted = Counted()
    digests: list[TableDigest] = []
    if level is Level.FULL:
        full = _FullCheck(store, known, workers, progress)
        full.check(findings, counted, values=values)
        digests = full.digests
    else:
        for _ in file_presence.check_payload(store, known, findings, counted):
            progress.advance(items=1)
    if (
        level is not Level.QUICK
        and known.sound.issuperset(REQUIRED)
        and all(finding.extra for finding in findings)
    ):
        findings.extend(reconciliation_check.check(BundleReader(store)))
    progress.end()
    ordered = sorted(set(findings), key=lambda finding: (finding.key, finding.what, finding.found))
    return VerifyOutcome(
        ordered,
        counted.files,
        counted.size_bytes,
        digests,
        known.info.id if known.info else "",
        values=level is Level.FULL and values,
    )


class _FullCheck:
    """Level ``full``: every byte is hashed once. Objects in packs and values in tables are compared with index and
    catalog.
    """

    def __init__(self, store: Store, tags: Tags, workers: int, progress: Progress) -> None:
        self._store = store
        self._tags = tags
        self._workers = workers
        self._progress = progress
        self._hashed: set[str] = set()
        self.digests: list[TableDigest] = []
        """Of tables whose every value was read."""

    def check(self, findings: list[Finding], counted: Counted, *, values: bool) -> None:
        """Read everything. Payload that is missing or has another size is reported by the listing, and
        counted.
        """
        reader, rows = self._open(findings)
        if reader is not None:
            for source in reader.sources.values():
                engine = registry.find(source.kind)
                if engine is not None and engine.contents == "objects":
                    self._check_objects(reader, source.name, rows, findings)
                elif values and (engine is None or not engine.part_reader):
                    self._progress.note(_UNREAD.format(source))
        if reader is not None and values:
            findings.extend(self._check_tables(reader, rows))
        present = check_payload(self._store, self._tags, findings, counted)
        rest = (file for file, _ in present if file.key not in self._hashed)
        files: ThreadWorkerPool[Expected, list[Finding]] = self._pool(
            partial(check_file, self._store, self._progress)
        )
        for _, file_findings in run_all(files, rest):
            findings.extend(file_findings)

    def _check_tables(self, reader: BundleReader, rows: list[CatalogRow]) -> list[Finding]:
        """Compare the values in tables; a part that fits into memory is read once, and hashed on the way. It counts
        when its values have been compared: that takes longest.
        """
        findings: list[Finding] = []
        files = self._files_of({source.name for source in reader.sources.values()}, ("tables/",))
        # Few threads, too: memory that one has used is not lent to another.
        workers = min(self._workers, PARTS_AT_ONCE)
        for part in table_contents.check(reader, rows, workers=workers, digests=self.digests, files=files):
            findings += part.findings
            if part.hashed_bytes is not None:
                self._hashed.add(part.key)
                self._progress.advance(items=1, size_bytes=part.hashed_bytes)
        return findings

    def _pool(self, work: Callable[[Item], list[Finding]]) -> ThreadWorkerPool[Item, list[Finding]]:
        return ThreadWorkerPool(work, self._workers, name="moveout-verify", ahead=self._workers)

    def _open(self, findings: list[Finding]) -> tuple[BundleReader | None, list[CatalogRow]]:
        """Return what can be checked beyond hashes: nothing, where the tag files or the catalog are damaged
        (which is a finding already, or becomes one).
        """
        if not self._tags.sound.issuperset(REQUIRED):
            return None, []
        try:
            reader = BundleReader(self._store)
            return reader, reader.catalog()
        except DamageError as exc:
            findings.append(finding_of(exc, "cannot be read"))
            return None, []

    def _check_objects(
        self, reader: BundleReader, source: str, rows: list[CatalogRow], findings: list[Finding]
    ) -> None:
        files = self._files_of({source}, ("packs/", "large/", "index/"))
        walk = IndexWalk(reader, source, files, findings)
        try:
            packs: ThreadWorkerPool[PackJob, list[Finding]] = self._pool(self._check_pack)
            for _, pack_findings in run_all(packs, walk.packs()):
                findings.extend(pack_findings)
        except DamageError as exc:
            findings.append(finding_of(exc, "cannot be read"))
            return
        listed = sum(row.items for row in rows if row.source == source and row.kind == "bucket")
        if walk.exported != listed:
            key = layout.source_file(source, "index/")
            findings.append(Finding(key, "rows that say exported", str(listed), str(walk.exported)))

    def _files_of(self, sources: set[str], kinds: Sequence[str]) -> dict[str, Expected]:
        """Return the files of these kinds of sources, such as ``packs/``; an unreadable list is reported elsewhere."""
        files: dict[str, Expected] = {}
        prefixes = tuple(layout.source_file(source, kind) for source in sources for kind in kinds)
        try:
            for file in expected_files(self._store, self._tags, []):
                if file.key.startswith(prefixes):
                    files[file.key] = file
        except Unreadable:
            pass
        return files

    def _check_pack(self, job: PackJob) -> list[Finding]:
        self._hashed.add(job.file.key)
        return check_file(self._store, self._progress, job.file, job.members)
