"""What the Parquet of a bundle holds, read back by the code of ``verify --level full``."""

from collections.abc import Sequence

from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.verify import table_contents
from migrate.verify.table_contents import CheckedPart


def check_parquet(reader: BundleReader, rows: Sequence[CatalogRow]) -> list[Finding]:
    """Return where the values of tables are not those that the catalog has."""
    parts = table_contents.check(reader, rows, workers=2)
    return [finding for part in parts if isinstance(part, CheckedPart) for finding in part.findings]
