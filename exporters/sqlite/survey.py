"""What is in a file, found cheaply."""

from __future__ import annotations

from exporters.base import Survey, SurveyItem
from exporters.sqlite.address import Address
from exporters.sqlite.backup import connected
from exporters.sqlite.catalog import read_catalog
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.snapshot import server


def survey_file(address: Address) -> Survey:
    """Return every table with its rows counted; the file's bytes are spread over them by rows. Raises
    ``SourceError``.
    """
    with connected(address) as connection:
        catalog = read_catalog(connection)
        counts = {
            table.name: int(
                connection.execute(f"SELECT count(*) FROM {quote_name(table.name)} NOT INDEXED").fetchone()[0]
            )
            for table in catalog.tables
        }
    total = max(sum(counts.values()), 1)
    size_bytes = address.path.stat().st_size
    items = [
        SurveyItem(name, "table", count, size_bytes * count // total, exact=True)
        for name, count in counts.items()
    ]
    warnings = [f"{loss.item}: {loss.property} will not survive: {loss.reason}" for loss in catalog.losses]
    return Survey(items, server(), warnings)
