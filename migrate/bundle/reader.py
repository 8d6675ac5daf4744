"""A sealed bundle, read. It may come from anywhere, so nothing in it is believed before it was checked.

Opening checks what everything else hangs on: the declaration, the versions, and the SHA-256 of every tag file
(the manifests among them) against the tag manifest. Payload is checked by ``migrate.verify``, or file by file
by ``read_checked``.
"""

from __future__ import annotations

import copy
import hashlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Gap, Loss
from exporters.sql.bounded_parquet import RowGroup, rows_of
from exporters.sql.whole_parquet import reading
from migrate.bundle import bundle_json, catalog, layout, reconciliation, tag_files
from migrate.bundle.bundle_json import BundleInfo, SourceInfo
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.commit_records import FileRecord
from migrate.bundle.reconciliation import RecordedChanges, SourceReconciliation
from migrate.bundle.tag_files import ManifestEntry, chunks, lines
from migrate.errors import DamageError, GoneError, MoveoutError, UsageError
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.storage.api import Store, exists
from migrate.storage.checksums import crc64nvme
from migrate.storage.file_reader import RandomAccess

if TYPE_CHECKING:
    import pyarrow as pa

_INDEX_BATCH = 10_000
REQUIRED = (
    layout.BAGIT,
    layout.BAG_INFO,
    layout.MANIFEST,
    layout.BUNDLE_META,
    layout.FILES,
    layout.RECONCILIATION,
)
"""Tag files that every bundle has, besides the tag manifest."""


Rows = TypeVar("Rows", "pa.RecordBatch", "pa.Table")


class BundleReader:
    """A bundle at a location. ``info`` says which; ``sources`` are its sources by name; ``tags`` the SHA-256
    of its tag files by key.

    Raises ``GoneError`` (nothing there), ``UsageError`` (no sealed bundle, or a newer format),
    ``DamageError`` (tag files differ from the tag manifest, or make no sense). Thread-safe.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tags = read_tag_manifest(store)
        first = [key for key in (layout.BAGIT, layout.BUNDLE_META) if key in self.tags]
        for key in first:
            check_hash(store, key, self.tags[key])
        if layout.BAGIT in first:
            tag_files.check_declaration(store.read(layout.BAGIT))
        self.info: BundleInfo = bundle_json.decode(_read(store, layout.BUNDLE_META))
        for key in REQUIRED:
            if key not in self.tags:
                raise DamageError(layout.TAG_MANIFEST, expected=f"a line for {key}", found="none")
        for key, expected in self.tags.items():
            if key not in first:
                check_hash(store, key, expected)
        self.bag_info = tag_files.parse_bag_info(_read(store, layout.BAG_INFO))

    @property
    def payload(self) -> tuple[int, int]:
        """Bytes and files of the payload, as ``bag-info.txt`` says. Raises ``DamageError``."""
        return tag_files.parse_oxum(self.bag_info.get("Payload-Oxum", ""))

    @property
    def sources(self) -> Mapping[str, SourceInfo]:
        """The bundle's sources by name."""
        return {source.name: source for source in self.info.sources}

    def manifest(self) -> Iterator[ManifestEntry]:
        """Yield all payload files, ordered by key, with size and SHA-256, streamed.

        Raises ``DamageError`` where the manifest and ``meta/files.jsonl`` do not name the same files.
        """
        for file in self.files():
            yield ManifestEntry(file.key, file.sha256, file.size_bytes)

    def files(self, prefix: str = "") -> Iterator[FileRecord]:
        """Yield the payload files whose key begins with ``prefix``, with size, SHA-256 and CRC64NVME.
        Raises like ``manifest``.
        """
        listed = read_files(self.store)
        for entry in read_manifest(self.store):
            file = next(listed, None)
            if file is None or (file.key, file.sha256) != (entry.key, entry.sha256):
                raise DamageError(
                    layout.FILES, expected=f"a line for {entry.key}", found=file.key if file else "its end"
                )
            if file.key.startswith(prefix):
                yield file
        if (file := next(listed, None)) is not None:
            raise DamageError(layout.FILES, expected="its end", found=f"a line for {file.key}")

    def source_files(self, source: str, prefix: str = "") -> Iterator[FileRecord]:
        """Yield the files of a source whose name, relative to ``data/<source>/``, begins with ``prefix``."""
        self.info.source(source)
        return self.files(layout.source_file(source, prefix))

    def open(self, key: str, *, size_bytes: int | None = None) -> RandomAccess:
        """Open a file for random reading; pyarrow takes it as it is. Raises ``DamageError`` if it is not
        there.
        """
        try:
            return RandomAccess(self.store, key, size_bytes=size_bytes)
        except GoneError as exc:
            raise _missing(key) from exc

    def read(self, key: str) -> bytes:
        """Return a whole (small) file as it is. Raises ``DamageError`` if it is not there."""
        return _read(self.store, key)

    def read_checked(self, file: FileRecord) -> bytes:
        """Return a whole (small) payload file. Raises ``DamageError`` if its bytes are not those of the
        manifest.
        """
        data = self.read(file.key)
        actual_digest = hashlib.sha256(data).hexdigest()
        if actual_digest != file.sha256:
            raise DamageError(file.key, expected=f"SHA-256 {file.sha256}", found=actual_digest)
        return data

    def catalog(self) -> list[CatalogRow]:
        """Return every table and bucket of the bundle. Raises ``DamageError``."""
        rows, sources = catalog.read_catalog(self.open(layout.CATALOG), layout.CATALOG), self.sources
        for row in rows:
            if row.source not in sources:
                raise DamageError(layout.CATALOG, expected="the bundle's sources", found=repr(row.source))
        return rows

    def tables(self, source: str) -> list[CatalogRow]:
        """Return the tables and materialized views of a source. Raises ``DamageError``."""
        return [row for row in self.catalog() if row.source == source and row.has_rows]

    def losses(self) -> Iterator[tuple[str, Loss]]:
        """Yield (source, loss) from the list of losses."""
        return catalog.read_losses(self.open(layout.LOSSES), layout.LOSSES)

    def gaps(self) -> Iterator[tuple[str, Gap]]:
        """Yield (source, gap): every enumerated item that is not in the bundle."""
        if next(self.files(layout.GAPS), None) is None:
            return iter(())
        return catalog.read_gaps(self.open(layout.GAPS), layout.GAPS)

    def failed(self, source: str) -> Iterator[Gap]:
        """Yield the gaps of a source that its export could not get."""
        return (gap for owner, gap in self.gaps() if owner == source and gap.disposition == "failed")

    def reconciliation(self) -> list[SourceReconciliation]:
        """Return the reconciliation, a source each. Raises ``DamageError``."""
        return reconciliation.decode(_read(self.store, layout.RECONCILIATION))

    def predecessors(self) -> Iterator[BundleReader]:
        """Yield this reader under the id of each incomplete bundle that this one continues, the newest first: what was
        recorded elsewhere of that bundle is found by it.
        """
        for bundle_id in reversed(self.info.continues):
            reader = copy.copy(self)
            reader.info = replace(self.info, id=bundle_id)
            yield reader

    def last_position_value(self, source: str, name: str) -> Any:
        """Return the value in the last recorded position of a source that has one, None where none has."""
        positions = reversed(self._positions(source))
        return next((position[name] for position in positions if position.get(name)), None)

    def newest_position(self, source: str) -> Mapping[str, Any]:
        """Return the position of the newest snapshot of a source, under which all of it was found to hold."""
        positions = self._positions(source)
        return positions[-1] if positions else {}

    def changes(self, source: str) -> RecordedChanges | None:
        """Return where the changes of a source begin; None where they are not followed. Raises ``DamageError``."""
        entries = [entry for entry in self.reconciliation() if entry.name == source]
        return entries[-1].changes() if entries else None

    def _positions(self, source: str) -> list[Mapping[str, Any]]:
        """Return the positions of a source's snapshots, the oldest first."""
        reconciliations = [entry for entry in self.reconciliation() if entry.name == source]
        return [position for entry in reconciliations for position in entry.summary.positions]

    def index(
        self,
        source: str,
        *,
        columns: list[str] | None = None,
        chosen: Callable[[RowGroup], bool] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a bucket's object index in the order of the index, those of row groups that are ``chosen``.
        Raises ``DamageError`` that names the file.
        """
        from exporters.objects.index_rows import INDEX  # noqa: PLC0415  imports Arrow: a third of a second of a start

        for file in self.source_files(source, "index/objects-"):
            try:
                with reading(file.key, "an object index"):
                    open_file = self.open(file.key, size_bytes=file.size_bytes)
                    for batch in rows_of(open_file, _INDEX_BATCH, columns or INDEX.names, chosen=chosen):
                        yield sound_rows(batch, columns)
            except GoneError as exc:
                raise _missing(file.key) from exc


class LiveSource(Struct, frozen=True):
    """A source of a bundle, and the live database or bucket that it is restored to or compared with.

    ``source`` is its name in the bundle; ``url`` the live one, opened by ``secrets``. So many ``workers`` work on it at
    once. ``cancellation`` ends what is under way.
    """

    reader: BundleReader
    source: str
    url: str
    workers: int
    progress: Progress
    secrets: Mapping[str, str] = field(default_factory=dict)
    cancellation: CancellationToken | None = None


def sound_rows(batch: Rows, columns: Sequence[str] | None = None) -> Rows:
    """Return rows of an index that have these columns (all, unless given), whose values are of the types that the
    format says, and can be read. Parquet itself checks none of that: another byte may make a text that is no UTF-8, or
    a time beyond all calendars. Raises ``ValueError`` and ``pa.ArrowException``.
    """
    from pyarrow.types import is_map, is_timestamp  # noqa: PLC0415  see index

    from exporters import arrow_functions as pc  # noqa: PLC0415
    from exporters.objects.index_rows import INDEX  # noqa: PLC0415

    missing = set(columns or INDEX.names) - set(batch.schema.names)
    if missing:
        raise ValueError(f"there is no column {', '.join(sorted(missing))}")
    batch.validate(full=True)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        expected = INDEX.field(name).type if name in INDEX.names else column.type
        if column.type != expected and not (is_map(column.type) and is_map(expected)):
            raise ValueError(f"the column {name} is {column.type}, not {expected}")
        if is_timestamp(column.type):
            pc.min_max(column).as_py()
    return batch


def read_tag_manifest(store: Store) -> dict[str, str]:
    """Return SHA-256 by key of every tag file, by the tag manifest alone.

    Raises ``DamageError``; where there is none, ``GoneError`` or ``UsageError`` with what there is instead.
    """
    try:
        manifest_lines = lines(chunks(store, layout.TAG_MANIFEST), layout.TAG_MANIFEST)
        entries = tag_files.parse_manifest(manifest_lines, layout.TAG_MANIFEST, layout.is_tag_name)
        return {entry.key: entry.sha256 for entry in entries}
    except GoneError as exc:
        raise not_sealed(store) from exc


def read_manifest(store: Store) -> Iterator[ManifestEntry]:
    """Yield the entries of ``manifest-sha256.txt``, streamed. Raises ``DamageError``."""
    manifest_lines = lines(chunks(store, layout.MANIFEST), layout.MANIFEST)
    return tag_files.parse_manifest(manifest_lines, layout.MANIFEST, layout.is_payload)


def read_files(store: Store) -> Iterator[FileRecord]:
    """Yield the lines of ``meta/files.jsonl``, streamed. Raises ``DamageError``."""
    return tag_files.parse_files(lines(chunks(store, layout.FILES), layout.FILES))


def check_hash(store: Store, key: str, expected: str) -> None:
    """Raise ``DamageError`` unless the file is there and has this SHA-256."""
    try:
        actual_digest = hash_file(store, key)
    except GoneError as exc:
        raise _missing(key) from exc
    if actual_digest != expected:
        raise DamageError(key, expected=f"SHA-256 {expected}", found=actual_digest)


def hash_file(store: Store, key: str) -> str:
    """Return the SHA-256 of a file, streamed. Raises ``GoneError``."""
    digest = hashlib.sha256()
    for piece in chunks(store, key):
        digest.update(piece)
    return digest.hexdigest()


def describe_file(store: Store, key: str) -> FileRecord:
    """Return the size and checksums of a file, streamed. Raises ``GoneError``."""
    digest = hashlib.sha256()
    size_bytes = checksum = 0
    for piece in chunks(store, key):
        digest.update(piece)
        checksum = crc64nvme(piece, checksum)
        size_bytes += len(piece)
    return FileRecord(key, size_bytes, digest.hexdigest(), checksum)


def _read(store: Store, key: str) -> bytes:
    try:
        return store.read(key)
    except GoneError as exc:
        raise _missing(key) from exc


def _missing(key: str) -> DamageError:
    return DamageError(key, expected="a file", found="none")


def is_foreign_bag(store: Store) -> bool:
    """Tell whether a location holds a BagIt bag that moveout has not made."""
    foreign_keys = []
    for key in (layout.BAGIT, layout.BUNDLE_META):
        try:
            store.stat(key)
            foreign_keys.append(key)
        except GoneError:
            pass
    return foreign_keys == [layout.BAGIT]


def foreign_bag(store: Store) -> UsageError:
    """Return what to say of such a bag."""
    return UsageError(
        f"{store.location} holds a BagIt bag that is not one of moveout's: there is no {layout.BUNDLE_META}",
        next_step="check the location's URL; bagit.py --validate checks other bags",
    )


def no_bundle(store: Store, problem: str) -> MoveoutError:
    """Return the error for a location that has files, and no bundle. An erased one leaves its record: it is gone."""
    if exists(store, layout.CUSTODY_LOG):
        return GoneError(
            f"no bundle lies at {store.location} any more, only its record: {problem}",
            next_step=f"moveout custody show {shlex.quote(store.location)} says what happened to the bundle:"
            " it may be erased",
        )
    return UsageError(
        f"{store.location} holds no sealed bundle: {problem}",
        next_step="check the location's URL; if a bundle lay here, fetch the missing file again from a copy",
    )


def require_files(store: Store) -> None:
    """Raise ``GoneError`` where nothing at all lies at a location: its URL may be wrong."""
    if next(iter(store.list()), None) is None:
        raise GoneError(
            f"there is nothing at {store.location}",
            next_step="check the location's URL; moveout export or moveout transfer brings a bundle there",
        )


def not_sealed(store: Store) -> Exception:
    """Return the error that says what a location has instead of a sealed bundle."""
    try:
        require_files(store)
    except GoneError as exc:
        return exc
    try:
        store.stat(layout.EXPORT_STATE)
    except GoneError:
        pass
    else:
        return UsageError(
            f"the bundle at {store.location} is not sealed yet",
            next_step="run the export again to its end. Where its sources are gone for good,"
            f" moveout seal {shlex.quote(store.location)} seals what there is",
        )
    try:
        store.stat(layout.TRANSFER_STATE)
    except GoneError:
        if is_foreign_bag(store):
            return foreign_bag(store)
        return no_bundle(store, f"there is no {layout.TAG_MANIFEST}")
    return UsageError(
        f"the transfer to {store.location} has not ended", next_step="run the same transfer again to its end"
    )
