"""A SQLite database file as a source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from exporters.base import Estimate, Host, Snapshot, Survey, SurveyItem, Workspace
from exporters.sampling import MemoryWorkspace
from exporters.sampling import measure as measure_rate
from exporters.sqlite.address import Address, parse_url
from exporters.sqlite.backup import check_file, connected, copied
from exporters.sqlite.catalog import check_library, read_catalog
from exporters.sqlite.identifiers import quote_name
from exporters.sqlite.snapshot import SqliteSnapshot, server


class SqliteExporter:
    """Opens ``sqlite:///path/to/file.db``. See ``exporters.base.Exporter``."""

    def open(self, name: str, url: str, host: Host) -> SqliteSource:
        """Open once, to prove that the file can be read."""
        del host
        check_library()
        address = parse_url(url)
        with connected(address):
            pass
        return SqliteSource(name, address)


class SqliteSource:
    """See ``exporters.base.Source``."""

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self.url = address.url
        self._address = address

    def survey(self) -> Survey:
        """Return every table with its rows counted; the file's bytes are spread over them by rows."""
        with connected(self._address) as connection:
            catalog = read_catalog(connection)
            counts = {
                table.name: int(
                    connection.execute(
                        f"SELECT count(*) FROM {quote_name(table.name)} NOT INDEXED"
                    ).fetchone()[0]
                )
                for table in catalog.tables
            }
        total = max(sum(counts.values()), 1)
        size_bytes = self._address.path.stat().st_size
        items = [
            SurveyItem(name, "table", count, size_bytes * count // total, exact=True)
            for name, count in counts.items()
        ]
        warnings = [
            f"{loss.item}: {loss.property} will not survive: {loss.reason}" for loss in catalog.losses
        ]
        return Survey(items, server(), warnings)

    def estimate(self, survey: Survey, *, seconds: float, workers: int) -> Estimate:
        """See ``exporters.base.Measurable``: exports the largest chunks to nowhere."""
        del survey
        with self.snapshot(MemoryWorkspace(), workers=workers) as snapshot:
            return measure_rate(snapshot, list(snapshot.units()), seconds=seconds, workers=workers)

    @contextmanager
    def snapshot(self, workspace: Workspace, *, workers: int) -> Iterator[Snapshot]:
        """Copy the file; the plan of an earlier run is used again where it still fits."""
        del workers
        header = check_file(self._address)
        with copied(self._address) as copy:
            view = SqliteSnapshot(copy, header, self.url, workspace)
            try:
                yield view
            finally:
                view.close()

    def close(self) -> None:
        """Nothing is kept open between calls."""
