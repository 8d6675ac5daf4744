"""The tables of contents of a bundle that is just being sealed, for the page that is sealed with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporters.api import Gap, Loss
from migrate.bundle import catalog, layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.identity import BundleInfo
from migrate.bundle.progress_database import Ledger
from migrate.bundle.reconciliation import SourceReconciliation
from migrate.storage.api import Store
from migrate.storage.file_reader import RandomAccess

if TYPE_CHECKING:
    import pyarrow as pa

_INDEX_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Sealing:
    """Answers as ``BundleReader`` will. ``payload``: bytes and files."""

    info: BundleInfo
    payload: tuple[int, int]
    reconciliations: Sequence[SourceReconciliation]
    store: Store
    ledger: Ledger

    def reconciliation(self) -> Sequence[SourceReconciliation]:
        """Return the reconciliation, a source each."""
        return self.reconciliations

    def catalog(self) -> Sequence[CatalogRow]:
        """Return every table and bucket of the bundle."""
        return catalog.read_catalog(RandomAccess(self.store, layout.CATALOG), layout.CATALOG)

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
        import pyarrow.parquet as pq  # noqa: PLC0415  a third of a second of a start, and few commands seal

        prefix = layout.source_file(source, "index/objects-")
        for file in self.ledger.files():
            if file.key.startswith(prefix):
                with pq.ParquetFile(
                    RandomAccess(self.store, file.key, size_bytes=file.size_bytes)
                ) as parquet:
                    yield from parquet.iter_batches(_INDEX_BATCH, columns=columns)
