"""The levels of a verification, and what it comes to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import TypeVar

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding, only_extra
from migrate.bundle.reader import REQUIRED, BundleReader
from migrate.bundle.table_comparison import TableDigest
from migrate.engines import registry
from migrate.errors import DamageError
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import ThreadWorkerPool, run_all
from migrate.storage.api import Store
from migrate.verify import reconciliation_check, table_contents
from migrate.verify.file_hashes import check_file
from migrate.verify.object_contents import IndexWalk, PackToCheck
from migrate.verify.payload_files import (
    ExpectedFile,
    PayloadCheck,
    Tags,
    UnreadableListError,
    check_tag_files,
    expected_files,
    extra_files,
    finding_of,
)

Item = TypeVar("Item")
PARTS_AT_ONCE = min(max(os.cpu_count() or 2, 2), 4)
"""Parts of tables that are rendered to text at once: that takes processors, and some 60 MB each."""
_UNREAD = (
    "{0.name}: every byte was hashed, but the values in its tables were not compared: no engine that is installed here"
    " reads the Parquet files of {0.kind}:// sources"
)


class Level(StrEnum):
    """How much is checked. Each level includes the one before it."""

    QUICK = "quick"
    """Tag files by SHA-256; payload by names, sizes and Payload-Oxum."""
    COMPLETE = "complete"
    """Every file is there, and nothing else is, inside and outside of ``data/``; the summary adds up."""
    FULL = "full"
    """Every byte is hashed; objects in packs against the index; the values in tables against the catalog's
    digests.
    """


class VerifyOutcome(Struct, frozen=True):
    """``findings``: what is wrong, ordered by file. ``files`` and ``size_bytes`` of the payload that was looked at.
    ``tables``: rows and digests as Parquet gives them back, where every value was read (``full``). ``bundle``: its id,
    where that can be believed. ``values``: whether the values in tables were compared, as ``full`` does.
    """

    findings: Sequence[Finding]
    files: int
    size_bytes: int
    tables: Sequence[TableDigest]
    bundle: str
    values: bool

    @property
    def is_whole(self) -> bool:
        """Whether all that the bundle names is as it says. Files that it does not name may lie there, too."""
        return only_extra(self.findings)


def verify(
    store: Store, level: Level, *, workers: int, progress: Progress, values: bool = True
) -> VerifyOutcome:
    """Compare the files at a location with what the bundle records, and return the differences as findings. Without
    ``values``, level ``full`` does not compare the values in tables. A restore compares them itself.

    Raises ``GoneError`` (nothing there), ``UsageError`` (not sealed, or sealed by a newer moveout) and the
    store's errors: then nothing could be checked.
    """
    level = Level(level)
    tags, findings = check_tag_files(store)
    size_bytes, files = tags.oxum or (0, 0)
    progress.begin(f"verify {level.value}", items=files, size_bytes=size_bytes if level is Level.FULL else 0)
    if level is not Level.QUICK:
        findings += extra_files(store, tags)
    payload = PayloadCheck(store, tags)
    digests: list[TableDigest] = []
    if level is Level.FULL:
        full = _FullCheck(store, tags, workers, progress)
        findings += full.check(payload, values=values)
        digests = full.digests
    else:
        for _ in payload.present():
            progress.advance(items=1)
    findings += payload.findings
    if level is not Level.QUICK and tags.sound.issuperset(REQUIRED) and only_extra(findings):
        findings.extend(reconciliation_check.check(BundleReader(store)))
    progress.end()
    ordered = sorted(set(findings), key=lambda finding: (finding.key, finding.what, finding.found))
    return VerifyOutcome(
        ordered,
        payload.files,
        payload.size_bytes,
        digests,
        tags.info.id if tags.info else "",
        values=level is Level.FULL and values,
    )


class _FullCheck:
    """Level ``full``: every byte is hashed once; objects and values are compared with index and catalog."""

    def __init__(self, store: Store, tags: Tags, workers: int, progress: Progress) -> None:
        self._store = store
        self._tags = tags
        self._workers = workers
        self._progress = progress
        self._hashed: set[str] = set()
        self.digests: list[TableDigest] = []
        """The digests of tables whose every value was read."""

    def check(self, payload: PayloadCheck, *, values: bool) -> Iterator[Finding]:
        """Read everything, and yield what differs. The listing reports payload that is missing or of another size."""
        yield from self._check_contents(values=values)
        rest = (file for file in payload.present() if file.key not in self._hashed)
        files: ThreadWorkerPool[ExpectedFile, list[Finding]] = self._pool(
            partial(check_file, self._store, self._progress)
        )
        for _, findings in run_all(files, rest):
            yield from findings

    def _check_contents(self, *, values: bool) -> Iterator[Finding]:
        """Compare objects with the index, and ``values`` in tables with the catalog. Where the tag files or the catalog
        are damaged, that is a finding, and only hashes can be checked.
        """
        if not self._tags.sound.issuperset(REQUIRED):
            return
        try:
            reader = BundleReader(self._store)
            rows = reader.catalog()
        except DamageError as exc:
            yield finding_of(exc, "cannot be read")
            return
        for source in reader.sources.values():
            engine = registry.find(source.kind)
            if engine is not None and engine.contents == "objects":
                yield from self._check_objects(reader, source.name, rows)
            elif values and (engine is None or not engine.part_reader):
                self._progress.note(_UNREAD.format(source))
        if values:
            yield from self._check_tables(reader, rows)

    def _check_tables(self, reader: BundleReader, rows: Sequence[CatalogRow]) -> Iterator[Finding]:
        """Compare the values in tables; a part that fits into memory is read once, and hashed on the way. It counts
        when its values have been compared: that takes longest.
        """
        files = self._files_of({source.name for source in reader.sources.values()}, ("tables/",))
        # Few threads, too: memory that one has used is not lent to another.
        workers = min(self._workers, PARTS_AT_ONCE)
        for part in table_contents.check(reader, rows, workers=workers, files=files):
            if isinstance(part, TableDigest):
                self.digests.append(part)
                continue
            yield from part.findings
            if part.hashed_bytes is not None:
                self._hashed.add(part.key)
                self._progress.advance(items=1, size_bytes=part.hashed_bytes)

    def _pool(self, work: Callable[[Item], list[Finding]]) -> ThreadWorkerPool[Item, list[Finding]]:
        return ThreadWorkerPool(work, self._workers, name="moveout-verify", ahead=self._workers)

    def _check_objects(
        self, reader: BundleReader, source: str, rows: Sequence[CatalogRow]
    ) -> Iterator[Finding]:
        files = self._files_of({source}, ("packs/", "large/", "index/"))
        walk = IndexWalk(reader, source, files)
        try:
            packs: ThreadWorkerPool[PackToCheck, list[Finding]] = self._pool(self._check_pack)
            for _, findings in run_all(packs, walk.packs()):
                yield from findings
        except DamageError as exc:
            yield from (*walk.findings, finding_of(exc, "cannot be read"))
            return
        yield from walk.findings
        listed = sum(row.items for row in rows if row.source == source and row.kind == "bucket")
        if walk.exported != listed:
            key = layout.source_file(source, "index/")
            yield Finding(key, "rows that say exported", str(listed), str(walk.exported))

    def _files_of(self, sources: set[str], kinds: Sequence[str]) -> dict[str, ExpectedFile]:
        """Return the files of these kinds of sources, such as ``packs/``; an unreadable list is reported elsewhere."""
        files: dict[str, ExpectedFile] = {}
        prefixes = tuple(layout.source_file(source, kind) for source in sources for kind in kinds)
        with suppress(UnreadableListError):
            for file in expected_files(self._store, self._tags):
                if isinstance(file, ExpectedFile) and file.key.startswith(prefixes):
                    files[file.key] = file
        return files

    def _check_pack(self, pack: PackToCheck) -> list[Finding]:
        self._hashed.add(pack.file.key)
        return check_file(self._store, self._progress, pack.file, pack.members)
