"""The seal of an incomplete bundle that an export continues: it stands until the first file below ``data/`` changes.

Where nothing changes, the bundle stays as it is, under its id: receipts, copies and proofs name that. Where something
changes, the next bundle has been begun, under a new id, before the first file is other than its manifest says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import reduce
from itertools import chain, zip_longest

from msgspec.structs import replace

from migrate.bundle import canonical_json, layout
from migrate.bundle.catalog import row_values
from migrate.bundle.commit_records import FileRecord
from migrate.bundle.reader import BundleReader
from migrate.bundle.reconciliation import reconciliation_json
from migrate.bundle.seal import ExportedData, SealedTables, catalog_rows, compare
from migrate.bundle.tag_files import chunks
from migrate.errors import DamageError, GoneError, MoveoutError, UsageError
from migrate.storage.api import PART_BYTES, FileInfo, MultipartStore, NewFile, Parts, StoreWrapper
from migrate.storage.checksums import crc64nvme as checksum


class StandingSeal:
    """Whether the seal stands. ``remove`` begins the next bundle, and takes the seal off; None where there is none.
    Thread-safe.
    """

    def __init__(self, remove: Callable[[], None] | None = None) -> None:
        self._remove = remove
        self._lock = threading.Lock()

    @property
    def stands(self) -> bool:
        """Whether there is a sealed bundle still."""
        return self._remove is not None

    def remove(self) -> None:
        """Take the seal off, if it stands."""
        with self._lock:
            if self._remove is not None:
                self._remove()
                self._remove = None

    def over(self, store: MultipartStore) -> MultipartStore:
        """Return the location for an export. While the seal stands, what lies below ``data/`` already is not written
        again; whatever else is written there removes the seal first.
        """
        return _Covered(store, self) if self.stands else store


class _Covered(StoreWrapper):
    def __init__(self, store: MultipartStore, seal: StandingSeal) -> None:
        super().__init__(store)
        self._seal = seal

    def put(self, key: str, data: bytes, *, sha256: str | None = None) -> FileInfo:
        """See ``Store.put``."""
        if not self._is_covered(key) or not data:
            self._change(key)
            return super().put(key, data, sha256=sha256)
        crc64nvme = checksum(data)
        if (there := self._there(key, len(data), crc64nvme)) is not None:
            return there
        upload = self.begin(key, sha256=sha256, part_bytes=max(PART_BYTES, len(data)))
        try:
            part = replace(self.put_part(key, upload, 1, data), crc64nvme=crc64nvme)
            self._seal.remove()  # now that there is room for the file
            return super().complete(key, upload, [part], crc64nvme=crc64nvme)
        except MoveoutError:
            self.abort(key, upload)
            raise

    def put_all(self, files: Sequence[NewFile]) -> None:
        """See ``Store.put_all``."""
        rest = [*files]
        if rest and self._is_covered(rest[0].key):
            largest = max(rest, key=lambda file: len(file.data))
            rest.remove(largest)
            self.put(largest.key, largest.data, sha256=largest.sha256)
        for file in rest:
            self._change(file.key)
        super().put_all(rest)

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        """See ``MultipartStore.complete``."""
        size_bytes = sum(part.size_bytes for part in parts)
        there = self._there(key, size_bytes, crc64nvme) if self._is_covered(key) else None
        if there is None:
            self._change(key)
            return super().complete(key, upload, parts, crc64nvme=crc64nvme)
        self.abort(key, upload)
        return there

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        self._change(key)
        super().delete(key)

    def delete_all(self, keys: Sequence[str]) -> None:
        """See ``Store.delete_all``."""
        for key in keys:
            self._change(key)
        super().delete_all(keys)

    def _is_covered(self, key: str) -> bool:
        return self._seal.stands and key.startswith(layout.DATA)

    def _change(self, key: str) -> None:
        if self._is_covered(key):
            self._seal.remove()

    def _there(self, key: str, size_bytes: int, crc64nvme: int) -> FileInfo | None:
        """Return the file that lies there where it has these bytes."""
        try:
            info = self.stat(key)
            is_same = info.size_bytes == size_bytes and self._checksum(key) == crc64nvme
        except GoneError:
            return None
        return info if is_same else None

    def _checksum(self, key: str) -> int:
        return reduce(lambda sum_before, piece: checksum(piece, sum_before), chunks(self, key), 0)


def is_unchanged(
    store: MultipartStore, exported: ExportedData, broken: Collection[str], *, strict: bool
) -> bool:
    """Tell whether the sealed bundle is the same as what this export would seal, and its files are as it says. A
    ``broken`` source is not compared: this run has read nothing new of it. A newer snapshot of the same content is no
    change, unless ``strict``.
    """
    try:
        reader = BundleReader(store)
        if next(compare(reader.files(), store), None) is not None:
            return False
        places = {source.name: place for place, source in enumerate(reader.info.sources)}
        sources = sorted(exported.reconciliations, key=lambda source: places.get(source.name, -1))
        rows = [row for source in sources for row in catalog_rows(source)]
        now = SealedTables(reader.info, reader.payload, sources, rows, store, exported.ledger)
        statements = zip_longest(
            _statements(reader, reader.files(), broken, strict=strict),
            _statements(now, exported.ledger.files(), broken, strict=strict),
        )
        return all(before == after for before, after in statements)
    except (DamageError, UsageError):
        return False


def _statements(
    tables: BundleReader | SealedTables, files: Iterable[FileRecord], broken: Collection[str], *, strict: bool
) -> Iterator[object]:
    """Yield all that a bundle says of sources that are not broken; its snapshots only if ``strict``."""
    for source in reconciliation_json(tables.reconciliation())["sources"]:
        if source["name"] not in broken:
            yield canonical_json.encode(source if strict else {**source, "positions": []})
    for row in tables.catalog():
        if row.source not in broken:
            yield row_values(replace(row, position={}))
    for name, note in chain(tables.losses(), tables.gaps()):
        if name not in broken:
            yield name, note
    for file in files:
        name, _, rest = file.key.removeprefix(layout.DATA).partition("/")
        if rest and name not in broken and file.key != layout.duckdb_script(name):
            yield file
