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
from migrate.errors import DamageError, GoneError, UsageError
from migrate.storage.api import FileInfo, MultipartStore, NewFile, Parts, StoreWrapper
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
        kept = self._kept(key, len(data), lambda: checksum(data))
        return super().put(key, data, sha256=sha256) if kept is None else kept

    def put_all(self, files: Sequence[NewFile]) -> None:
        """See ``Store.put_all``."""
        for file in files:
            self._change(file.key)
        super().put_all(files)

    def complete(self, key: str, upload: str, parts: Parts, *, crc64nvme: int) -> FileInfo:
        """See ``MultipartStore.complete``."""
        kept = self._kept(key, sum(part.size_bytes for part in parts), lambda: crc64nvme)
        if kept is None:
            return super().complete(key, upload, parts, crc64nvme=crc64nvme)
        self.abort(key, upload)
        return kept

    def delete(self, key: str) -> None:
        """See ``Store.delete``."""
        self._change(key)
        super().delete(key)

    def delete_all(self, keys: Sequence[str]) -> None:
        """See ``Store.delete_all``."""
        for key in keys:
            self._change(key)
        super().delete_all(keys)

    def _change(self, key: str) -> None:
        if key.startswith(layout.DATA):
            self._seal.remove()

    def _kept(self, key: str, size_bytes: int, crc64nvme: Callable[[], int]) -> FileInfo | None:
        """Return the file that lies there where it has these bytes; else None, and the seal is removed."""
        if not (self._seal.stands and key.startswith(layout.DATA)):
            return None
        try:
            info = self.stat(key)
            if info.size_bytes == size_bytes and self._checksum(key) == crc64nvme():
                return info
        except GoneError:
            pass
        self._seal.remove()
        return None

    def _checksum(self, key: str) -> int:
        return reduce(lambda sum_before, piece: checksum(piece, sum_before), chunks(self, key), 0)


def is_unchanged(
    store: MultipartStore, exported: ExportedData, broken: Collection[str], *, strict: bool = False
) -> bool:
    """Tell whether a sealed bundle says of each source what its export has now, and its files are as it says. Of a
    ``broken`` source nothing is asked: nothing new came of it. That all was found to be the same under a newer snapshot
    is no change, unless ``strict``.
    """
    try:
        reader = BundleReader(store)
        if next(compare(reader.files(), store), None) is not None:
            return False
        rows = [row for source in exported.reconciliations for row in catalog_rows(source)]
        now = SealedTables(
            reader.info, reader.payload, exported.reconciliations, rows, store, exported.ledger
        )
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
