"""``full``: every byte is hashed once; objects in packs and values in tables are checked against index and
catalog.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.reader import REQUIRED, BundleReader
from migrate.bundle.table_digests import TableDigest
from migrate.engines import registry
from migrate.errors import DamageError
from migrate.runtime.progress import Progress
from migrate.storage.api import Store
from migrate.verify import table_contents
from migrate.verify.file_hashes import check_file
from migrate.verify.file_presence import Counted, check_payload
from migrate.verify.object_contents import IndexWalk, PackJob
from migrate.verify.tag_file_checks import Expected, Tags, Unreadable, expected_files, finding_of
from migrate.verify.thread_pool import in_parallel

PARTS_AT_ONCE = min(max(os.cpu_count() or 2, 2), 4)
"""Parts of tables that are rendered to text at once: that takes processors, and some 60 MB each."""


class Content:
    """The full check of one bundle. ``executor`` does the reading, ``ahead`` files at once."""

    def __init__(
        self, store: Store, tags: Tags, executor: ThreadPoolExecutor, progress: Progress, *, ahead: int
    ) -> None:
        self._store = store
        self._tags = tags
        self._executor = executor
        self._progress = progress
        self._ahead = ahead
        self._hashed: set[str] = set()
        self.digests: list[TableDigest] = []
        """Of tables whose every value was read."""

    def check(self, findings: list[Finding], counted: Counted) -> None:
        """Read everything. Payload that is missing or has another size is told by the listing, and
        counted.
        """
        reader, rows = self._open(findings)
        if reader is not None:
            for source in reader.sources:
                self._check_objects(reader, source, rows, findings)
        present = check_payload(self._store, self._tags, findings, counted)
        rest = (file for file, _ in present if file.key not in self._hashed)
        for found in in_parallel(self._executor, self._check_file, rest, ahead=self._ahead):
            findings.extend(found)
        if reader is not None:
            # Few threads, too: memory that one has used is not lent to another.
            with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="moveout-verify-tables") as executor:
                ahead = min(self._ahead, PARTS_AT_ONCE)
                findings.extend(
                    table_contents.check(reader, rows, executor, ahead=ahead, digests=self.digests)
                )

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
        engine = registry.find(reader.sources[source].kind)
        if engine is None or engine.contents != "objects":
            return
        files = self._source_files(source)
        walk = IndexWalk(reader, source, files, findings)
        try:
            for found in in_parallel(self._executor, self._check_pack, walk.packs(), ahead=self._ahead):
                findings.extend(found)
        except DamageError as exc:
            findings.append(finding_of(exc, "cannot be read"))
            return
        listed = sum(row.items for row in rows if row.source == source and row.kind == "bucket")
        if walk.exported != listed:
            key = layout.source_file(source, "index/")
            findings.append(Finding(key, "rows that say exported", str(listed), str(walk.exported)))

    def _source_files(self, source: str) -> dict[str, Expected]:
        """Return packs, large files and index files of a source; what cannot be read of the list is told
        elsewhere.
        """
        found: dict[str, Expected] = {}
        prefixes = tuple(layout.source_file(source, kind) for kind in ("packs/", "large/", "index/"))
        try:
            for file in expected_files(self._store, self._tags, []):
                if file.key.startswith(prefixes):
                    found[file.key] = file
        except Unreadable:
            pass
        return found

    def _check_pack(self, job: PackJob) -> list[Finding]:
        self._hashed.add(job.file.key)
        return check_file(self._store, self._progress, job.file, job.members)

    def _check_file(self, file: Expected) -> list[Finding]:
        return check_file(self._store, self._progress, file)
