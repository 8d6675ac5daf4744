"""What is in a file, found cheaply."""

from __future__ import annotations

from exporters.api import Survey, SurveyItem
from exporters.sqlite.address import SqliteAddress
from exporters.sqlite.catalog import read_catalog
from exporters.sqlite.chunk_plan import measure
from exporters.sqlite.files.backup import connected
from exporters.sqlite.snapshot import server


def survey_file(address: SqliteAddress) -> Survey:
    """Return every table with its rows counted; the file's bytes are spread over them by rows. Raises
    ``SourceError``.
    """
    with connected(address) as connection:
        catalog = read_catalog(connection)
        damaged: dict[str, str] = {}
        sizes = measure(connection, catalog.tables, damaged)
    counts = {name: size.rows for name, size in sizes.items()}
    total = max(sum(counts.values()), 1)
    size_bytes = address.path.stat().st_size
    items = [
        SurveyItem(name, "table", count, size_bytes * count // total, exact=True)
        for name, count in counts.items()
    ]
    warnings = [f"{loss.item}: {loss.property} will not survive: {loss.reason}" for loss in catalog.losses]
    warnings += [f"{name}: {reason}" for name, reason in damaged.items()]
    return Survey(items, server(), warnings)
