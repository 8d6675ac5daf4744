"""The seal: tables of contents, reconciliation, manifests; from then on the bundle does not change.

Order of writing, so that a crash at any step leaves either an unsealed export or a sealed bundle, never a
wrong one:

1. ``_work/seal.json``: when the seal was begun (a rerun takes that time again, and so gives the same bytes); 2 need not
   wait for it, for nothing there tells the time
2. ``data/<source>/duckdb.sql``, ``data/catalog.parquet``, ``data/losses.parquet``, ``data/gaps.parquet`` (only if
   there are gaps)
3. reconcile the location with the commit records: leftovers of interrupted runs are removed; a file that is missing
   or has another size makes its commit record void, and the seal is refused
4. ``meta/files.jsonl``, ``REPORT.html``, ``meta/reconciliation.json``, ``meta/bundle.json``, ``bag-info.txt``,
   ``manifest-sha256.txt``, ``bagit.txt``
   They are asked for once they are written: some servers lose what they took
5. ``tagmanifest-sha256.txt``: with it, and only with it, the bundle is sealed; it is asked for, too
6. a complete bundle loses its ``_work/`` (``export.json`` last); an incomplete one keeps it, to be
continued by the same command

Hashes come from the commit records: no payload is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, cast

from msgspec import Struct

from exporters.api import Gap, Loss
from exporters.sql.bounded_parquet import rows_of
from migrate import software
from migrate.bundle import (
    bundle_json,
    canonical_json,
    catalog,
    duckdb_views,
    layout,
    tag_files,
)
from migrate.bundle.bundle_json import BundleInfo, SourceInfo
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.commit_records import FileRecord, refuse_damage, separate_groups
from migrate.bundle.export_ledger import ExportLedger
from migrate.bundle.export_state import ExportState, seal_time
from migrate.bundle.left_behind import LeftBehind
from migrate.bundle.reconciliation import SourceReconciliation, reconciliation_json
from migrate.storage.api import MultipartStore, Store
from migrate.storage.file_reader import RandomAccess
from migrate.storage.file_writer import FileWriter
from migrate.storage.lost_files import refuse_lost, wrong_sizes

if TYPE_CHECKING:
    import pyarrow as pa

_INDEX_BATCH = 10_000


class Sealed(Struct, frozen=True):
    """What a seal came to. ``files`` and ``size_bytes`` of payload."""

    id: str
    complete: bool
    files: int
    size_bytes: int
    reconciliations: Sequence[SourceReconciliation]


class ExportedData(Struct, frozen=True):
    """What an export has written, as it is known before the seal. ``left_behind`` is what stays on the servers;
    ``case`` names what was to be exported.
    """

    state: ExportState
    ledger: ExportLedger
    reconciliations: Sequence[SourceReconciliation]
    left_behind: LeftBehind | None = None
    case: bundle_json.CaseInfo | None = None


def seal(
    store: MultipartStore,
    exported: ExportedData,
    *,
    executor: Executor,
    check: Callable[[], None],
    page: Callable[[SealedTables], bytes] | None = None,
) -> Sealed:
    """Seal what was exported. ``check`` is called before every step and raises if the run must stop. ``page`` makes the
    report for people; the same contents must give the same bytes.

    Raises ``DamageError`` where the location does not hold what the commit records say.
    """
    state, ledger, reconciliations = exported.state, exported.ledger, exported.reconciliations
    sealed_at = executor.submit(seal_time, store, state)
    check()
    rows = {reconciliation.name: catalog_rows(reconciliation) for reconciliation in reconciliations}
    ledger.add_files(_write_tables(store, ledger, reconciliations, rows, executor))
    sealed = sealed_at.result()
    check()
    aborting = executor.submit(_abort_uploads, store)
    _reconcile(store, ledger, executor)
    check()
    complete = all(reconciliation.complete for reconciliation in reconciliations)
    writing, files, size_bytes = _write_files(store, ledger, executor)
    identities = {source.name: source.identity for source in state.sources}
    info = BundleInfo(
        id=state.id,
        created=state.created,
        sealed=sealed,
        software=software(),
        complete=complete,
        continues=state.continues,
        sources=[_source_info(entry, identities.get(entry.name, "")) for entry in reconciliations],
        pace=bundle_json.pace_of(ledger.times()),
        left_behind=exported.left_behind,
        left_out=state.left_out,
        case=exported.case,
        begun=state.begun,
    )
    if page is not None:  # made while those are written
        contents = SealedTables(
            info,
            (size_bytes, files),
            reconciliations,
            [*chain.from_iterable(rows.values())],
            store,
            ledger,
        )
        writing.append(executor.submit(_write, store, layout.REPORT, page(contents)))
    check()
    for key, data in (
        (layout.RECONCILIATION, canonical_json.encode_pretty(reconciliation_json(reconciliations))),
        (layout.BUNDLE_META, bundle_json.encode(info)),
        (layout.BAG_INFO, _bag_info(state, reconciliations, sealed, (size_bytes, files))),
        (layout.BAGIT, tag_files.DECLARATION),
    ):
        writing.append(executor.submit(_write, store, key, data))
    tags = [future.result() for future in writing]
    refuse_lost(store, ((tag.key, tag.size_bytes) for tag in tags), executor)
    aborting.result()
    check()
    tags.sort(key=lambda tag: tag.key)
    manifest = b"".join(tag_files.manifest_line(tag.key, tag.sha256) for tag in tags)
    written = _write(store, layout.TAG_MANIFEST, manifest)
    refuse_lost(store, [(written.key, written.size_bytes)])
    if complete:
        clean_work(store, executor)
    return Sealed(state.id, complete, files, size_bytes, reconciliations)


def clean_work(store: MultipartStore, executor: Executor) -> None:
    """Remove ``_work/`` but for the lease, which its holder releases; ``export.json`` last, since it is what
    says that there is something to clean.
    """
    _delete_all(store, executor, lambda key: key not in {layout.EXPORT_STATE, layout.LEASE}, layout.WORK)
    store.delete(layout.EXPORT_STATE)


def unseal(store: MultipartStore) -> None:
    """Take the seal off an incomplete bundle that is being continued; the tag manifest first: without it
    nothing is sealed. Its signatures go too; the custody log and documents stay.
    """
    for key in (
        layout.TAG_MANIFEST,
        layout.BAGIT,
        layout.MANIFEST,
        layout.BAG_INFO,
        layout.BUNDLE_META,
        layout.RECONCILIATION,
        layout.REPORT,
        layout.FILES,
        layout.CATALOG,
        layout.LOSSES,
        layout.GAPS,
        layout.SEAL_STATE,
    ):
        store.delete(key)
    for info in list(store.list(layout.SIGNATURES)):
        if not (layout.is_custody(info.key) or layout.is_document(info.key)):
            store.delete(info.key)


def _write_tables(
    store: MultipartStore,
    ledger: ExportLedger,
    reconciliations: Sequence[SourceReconciliation],
    rows: Mapping[str, Sequence[CatalogRow]],
    executor: Executor,
) -> list[FileRecord]:
    """Write the tables of contents, all at once."""
    losses = (
        (reconciliation.name, loss)
        for reconciliation in reconciliations
        for loss in ledger.losses(reconciliation.name)
    )
    tables: list[tuple[str, Callable[[BinaryIO], object]]] = [
        (layout.CATALOG, lambda file: catalog.write_catalog(file, chain.from_iterable(rows.values()))),
        (layout.LOSSES, lambda file: catalog.write_losses(file, losses)),
    ]
    if any(ledger.gap_counts(reconciliation.name) for reconciliation in reconciliations):
        gaps: Iterator[tuple[str, Gap]] = (
            (reconciliation.name, gap)
            for reconciliation in reconciliations
            for gap in ledger.gaps(reconciliation.name)
        )
        tables.append((layout.GAPS, lambda file: catalog.write_gaps(file, gaps)))
    scripts = [
        executor.submit(
            _write, store, layout.duckdb_script(source), duckdb_views.script(source, rows_of_source)
        )
        for source, rows_of_source in rows.items()
    ]
    files = [executor.submit(_write_table, store, key, fill) for key, fill in tables]
    return [future.result() for future in (*scripts, *files)]


def _write_table(store: MultipartStore, key: str, fill: Callable[[BinaryIO], object]) -> FileRecord:
    with FileWriter(store, key) as writer:
        fill(cast("BinaryIO", writer))
    return _record(writer)


def catalog_rows(reconciliation: SourceReconciliation) -> list[CatalogRow]:
    """Return what the catalog says of the tables and buckets of a source."""
    positions = reconciliation.summary.positions
    newest = positions[-1] if positions else {}
    return [
        catalog.catalog_row(reconciliation.name, entry, newest) for entry in reconciliation.summary.entries
    ]


def _reconcile(store: MultipartStore, ledger: ExportLedger, executor: Executor) -> None:
    """Make ``data/`` and the ledger agree: remove what no record names, void records whose files are not as
    they say.
    """
    extra, wrong = [], []
    for key, expected, actual_bytes in compare(ledger.files(), store):
        if expected is None:
            extra.append(key)
        else:
            wrong.append((key, expected, actual_bytes))
    for key in extra:
        executor.submit(store.delete, key).result()
    if not wrong:
        return
    owners = [owner for key, _, _ in wrong if (owner := ledger.owner(key)) and owner[0]]
    for source in {source for source, _ in owners}:
        store.delete(layout.final_record(source))
        separate_groups(store, source, refuse_damage)
    for source, unit_id in owners:
        if unit_id:
            store.delete(layout.commit_record(source, unit_id))
    step = "somebody changed the location; run the same command again, it exports these units anew"
    raise wrong_sizes(store, wrong, next_step=step)


def compare(
    files: Iterator[FileRecord], store: MultipartStore, prefix: str = layout.DATA
) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield (key, expected size, found size) where the files, ordered by key, and the listing of ``prefix``
    differ.
    """
    listed = iter(store.list(prefix))
    info = next(listed, None)
    file = next(files, None)
    while info is not None or file is not None:
        if info is None or (file is not None and file.key < info.key):
            assert file is not None
            yield file.key, file.size_bytes, None
            file = next(files, None)
        elif file is None or info.key < file.key:
            yield info.key, None, info.size_bytes
            info = next(listed, None)
        else:
            if info.size_bytes != file.size_bytes:
                yield file.key, file.size_bytes, info.size_bytes
            info, file = next(listed, None), next(files, None)


def _write_files(
    store: MultipartStore, ledger: ExportLedger, executor: Executor
) -> tuple[list[Future[FileRecord]], int, int]:
    """Write ``meta/files.jsonl`` and the manifest; return them as they will be, the number of payload files and their
    bytes.
    """
    count = size_bytes = 0
    with ExitStack() as stack:
        sizes, manifest = FileWriter(store, layout.FILES), FileWriter(store, layout.MANIFEST)
        for writer in (sizes, manifest):
            stack.enter_context(writer)
        for file in ledger.files():
            sizes.write(tag_files.files_line(file))
            manifest.write(tag_files.manifest_line(file.key, file.sha256))
            count += 1
            size_bytes += file.size_bytes
        stack.pop_all()
    return [executor.submit(_closed, writer) for writer in (sizes, manifest)], count, size_bytes


def _closed(writer: FileWriter) -> FileRecord:
    with writer:
        pass
    return _record(writer)


def _source_info(source: SourceReconciliation, identity: str) -> SourceInfo:
    return SourceInfo(source.name, source.url, source.url.partition(":")[0], source.complete, identity)


def _bag_info(
    state: ExportState, reconciliations: Sequence[SourceReconciliation], sealed: str, oxum: tuple[int, int]
) -> bytes:
    labels = {
        "Bag-Software-Agent": software(),
        "Bagging-Date": sealed[:10],
        "External-Identifier": state.id,
        "Payload-Oxum": f"{oxum[0]}.{oxum[1]}",
        "Moveout-Bundle-Version": str(layout.VERSION),
        "Moveout-Status": "complete"
        if all(reconciliation.complete for reconciliation in reconciliations)
        else "incomplete",
    }
    for reconciliation in reconciliations:
        verdict = "; ".join(reconciliation.reasons) or "complete"
        labels[f"Moveout-Source-{reconciliation.name}"] = f"{reconciliation.totals.items} items, {verdict}"
    return tag_files.bag_info(labels)


def _abort_uploads(store: MultipartStore) -> None:
    for upload in list(store.uploads(layout.DATA)):
        store.abort(upload.key, upload.id)


def _write(store: MultipartStore, key: str, data: bytes) -> FileRecord:
    with FileWriter(store, key) as writer:
        writer.write(data)
    return _record(writer)


def _record(writer: FileWriter) -> FileRecord:
    return FileRecord(writer.key, writer.size_bytes, writer.sha256, writer.crc64nvme)


def _delete_all(
    store: MultipartStore, executor: Executor, chosen: Callable[[str], bool], prefix: str
) -> None:
    keys = [info.key for info in store.list(prefix) if chosen(info.key)]
    groups = [keys[start : start + store.together] for start in range(0, len(keys), store.together)]
    for start in range(0, len(groups), 256):
        list(executor.map(store.delete_all, groups[start : start + 256]))


class SealedTables(Struct, frozen=True):
    """The tables of contents of a bundle that is just being sealed, for the page that is sealed with it: answers as
    ``BundleReader`` will. ``payload``: bytes and files.
    """

    info: BundleInfo
    payload: tuple[int, int]
    reconciliations: Sequence[SourceReconciliation]
    catalog_rows: Sequence[CatalogRow]
    store: Store
    ledger: ExportLedger

    def reconciliation(self) -> Sequence[SourceReconciliation]:
        """Return the reconciliation, a source each."""
        return self.reconciliations

    def catalog(self) -> Sequence[CatalogRow]:
        """Return every table and bucket of the bundle."""
        return self.catalog_rows

    def losses(self) -> Iterator[tuple[str, Loss]]:
        """Yield (source, loss)."""
        return (
            (reconciliation.name, loss)
            for reconciliation in self.reconciliations
            for loss in self.ledger.losses(reconciliation.name)
        )

    def gaps(self) -> Iterator[tuple[str, Gap]]:
        """Yield (source, gap)."""
        return (
            (reconciliation.name, gap)
            for reconciliation in self.reconciliations
            for gap in self.ledger.gaps(reconciliation.name)
        )

    def index(self, source: str, *, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a bucket's object index."""
        prefix = layout.source_file(source, "index/objects-")
        for file in self.ledger.files():
            if file.key.startswith(prefix):
                open_file = RandomAccess(self.store, file.key, size_bytes=file.size_bytes)
                yield from rows_of(open_file, _INDEX_BATCH, columns)
