"""A SQLite database file as a source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from exporters.api import Estimate, Host, Snapshot, Source, Survey, Workspace
from exporters.errors import SourceError, SourceUsageError
from exporters.rate_sampling import try_out
from exporters.sqlite.address import SqliteAddress, parse_url
from exporters.sqlite.catalog import check_library
from exporters.sqlite.errors import is_of_damage
from exporters.sqlite.files.backup import OpenedMeanwhileError, check_file, connected, copied
from exporters.sqlite.files.directory import DirectorySource, find
from exporters.sqlite.snapshot import SqliteSnapshot, server, survey_damaged, survey_file


class SqliteExporter:
    """Opens ``sqlite:///path/to/file.db``, or a directory of such files. See ``exporters.api.Exporter``."""

    def open(self, name: str, url: str, host: Host) -> Source:
        """Open once, to prove that the file can be read."""
        del host
        check_library()
        address = parse_url(url)
        if address.path.is_dir():
            if not find(address.path).databases:
                raise SourceUsageError(
                    f"there is no SQLite database in {address.path}", next_step="check the path"
                )
            return DirectorySource(name, address)
        try:
            with suppress(OpenedMeanwhileError), connected(address):  # the copy is begun again then
                pass
        except SourceError as exc:
            if not is_of_damage(exc):  # of which some can be read
                raise
        return SqliteSource(name, address)


class SqliteSource:
    """See ``exporters.api.Source``."""

    def __init__(self, name: str, address: SqliteAddress) -> None:
        self.name = name
        self.url = address.url
        self.identity = f"sqlite:{address.path}"
        self._address = address

    def survey(self) -> Survey:
        """Return every table with its rows counted; the file's bytes are spread over them by rows."""
        try:
            return survey_file(self._address)
        except SourceError as exc:
            if not is_of_damage(exc):
                raise
            return Survey([survey_damaged(self._address)], server(), [str(exc)])

    def estimate(self, survey: Survey, *, seconds: float, workers: int) -> Estimate:
        """See ``exporters.api.Measurable``: exports the largest chunks to nowhere."""
        del survey
        return try_out(self, seconds=seconds, workers=workers)

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
        """Do nothing: no file stays open between calls."""
