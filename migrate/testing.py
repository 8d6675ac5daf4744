"""The contract of engines as tests, for whoever writes one: everything from the export to a repeated restore.

Subclass ``EngineContract``, say where the data and an empty destination are, and let pytest run it. It contains
``exporters.testing.ExporterContract``, which is enough for an engine that only exports. The engine must be installed,
with its entry point: one test kills a restore that runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from exporters.api import Source
from exporters.engine import Engine, TablesRequest, exporter_of, live_reader_of
from exporters.row_digest import RowsDigest, to_hex
from exporters.testing import ExporterContract, StandaloneHost
from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.case.secrets import Secret
from migrate.engines import registry
from migrate.errors import NotEmptyError
from migrate.export.run import export
from migrate.restore.common.api import RestoreOutcome, RestoreRequest
from migrate.restore.source_restore import finished_restores, missing_from, restore_source
from migrate.runtime.progress import OF_NO_SOURCE, Progress, Silent, SourceTask
from migrate.storage.registry import open_location
from migrate.verify.compare import ComparisonRequest, compare_source
from migrate.verify.run import Level, verify

SOURCE = "app"


class EngineContract(ExporterContract):
    """Each method that begins with ``test_`` is one guarantee. Set ``url``, the source's, in a fixture. The largest
    table should have several parts. ``secret_references`` open the source and the destinations; they are written as in
    a case file: ``{"password": "env:MY_PASSWORD"}``.
    """

    url: str = ""
    secret_references: Mapping[str, str] = {}

    def new_destination(self) -> str:
        """Return the URL of another empty destination."""
        raise NotImplementedError

    def fill(self, url: str) -> None:
        """Put something into an empty destination that is not the bundle's."""
        raise NotImplementedError

    def alter(self, url: str) -> None:
        """Change one value of a row in a restored destination."""
        raise NotImplementedError

    def open(self) -> Source:
        """Open the source by its URL."""
        return exporter_of(self.engine).open(SOURCE, self.url, StandaloneHost(**self._secrets(self.url)))

    @property
    def engine(self) -> Engine:
        """The engine, as the registry finds it."""
        return registry.engine_for(self.url, self.url)

    def _secrets(self, url: str) -> Mapping[str, str]:
        return _endpoint(url, self.secret_references).reveal()

    @contextmanager
    def _bundle(self) -> Iterator[BundleReader]:
        with TemporaryDirectory() as directory:
            store = open_location(directory)
            source = self.open()
            try:
                outcome = export([source], store, workers=self.workers, progress=Silent())
            finally:
                source.close()
            assert outcome.complete, outcome
            yield BundleReader(store)

    def _restore(self, reader: BundleReader, url: str) -> RestoreOutcome:
        return restore_source(RestoreRequest(reader, SOURCE, url, self.workers, Silent(), self._secrets(url)))

    def _live(self, url: str) -> Mapping[tuple[str, str], RowsDigest]:
        request = TablesRequest(self.workers, lambda *_: None)
        return live_reader_of(self.engine).live_tables(url, request, secrets=self._secrets(url)).digests

    def _differences(self, reader: BundleReader, url: str) -> Sequence[object]:
        """Return what ``verify --against`` says."""
        records = finished_restores(reader, SOURCE, url, secrets=self._secrets(url))
        request = ComparisonRequest(
            reader,
            SOURCE,
            url,
            self.workers,
            Silent(),
            self._secrets(url),
            read_all=True,
            accepted=[record.accepts for record in records],
        )
        return [*compare_source(request).findings, *missing_from(reader, SOURCE, records)]

    def test_a_bundle_has_the_rows_of_the_source_and_brings_them_to_a_destination(self) -> None:
        """Parquet has rows and digests of the catalog, of every table. Digests of the source, the bundle and the
        destination are the same, and so says ``verify --against``. A restore that is repeated says so, and writes
        nothing.
        """
        url = self.new_destination()
        with self._bundle() as reader:
            self._has_all_rows(reader)
            outcome = self._restore(reader, url)
            assert (outcome.findings, outcome.left_out) == ((), ())
            assert outcome.items == sum(row.items for row in reader.catalog())
            assert self._differences(reader, url) == []
            restored = self._live(url)
            assert restored == self._live(self.url)
            digests = {row.key: row.digest for row in reader.catalog() if row.has_rows}
            assert {name: to_hex(digest.digest) for name, digest in restored.items()} == digests
            again = self._restore(reader, url)
            assert (again.findings, again.left_out, again.items) == ((), (), outcome.items)
            assert (again.size_bytes, again.skipped_items) == (0, again.items)
            assert self._live(url) == restored
            self.alter(url)
            assert self._differences(reader, url)

    def _has_all_rows(self, reader: BundleReader) -> None:
        verified = verify(reader.store, Level.FULL, workers=self.workers, progress=Silent())
        assert verified.findings == []
        tables = [row for row in reader.catalog() if row.has_rows]
        assert [(table.name, table.rows, table.digest) for table in verified.tables] == [
            (table.name, table.items, table.digest) for table in tables
        ]
        assert any(table.items for table in tables), "the contract needs data"

    def test_a_destination_with_something_else_is_refused(self) -> None:
        """It is left as it was."""
        url = self.new_destination()
        self.fill(url)
        before = self._live(url)
        with self._bundle() as reader:
            try:
                self._restore(reader, url)
            except NotEmptyError as exc:
                assert exc.next_step  # noqa: PT017  the contract needs no pytest
            else:
                raise AssertionError("it was restored into")
        assert self._live(url) == before

    def test_a_restore_that_was_killed_goes_on(self) -> None:
        """The same restore again restores the rest. Until then ``verify --against`` does not call it equal."""
        url = self.new_destination()
        with self._bundle() as reader:
            assert self._end_half_way(reader.store.location, url) == -signal.SIGKILL, (
                "the restore was not killed"
            )
            assert self._differences(reader, url)
            assert self._restore(reader, url).findings == ()
            assert self._differences(reader, url) == []
            assert self._live(url) == self._live(self.url)

    def _end_half_way(self, location: str, url: str) -> int | None:
        """Restore in another process until it is killed; return the status that it ends with."""
        words = [sys.executable, "-m", __name__, location, url, json.dumps(dict(self.secret_references))]
        path = os.pathsep.join(filter(None, sys.path))
        return subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


class _Killing(Silent):
    """Kills the process once half of a restore's rows are written."""

    def __init__(self) -> None:
        self._left = 0.0

    def begin(self, what: str, *, items: int, size_bytes: int, of: SourceTask = OF_NO_SOURCE) -> None:
        """Note how much there is to do."""
        del size_bytes, of
        self._left = items / 2 if what.startswith("restore") else 0.0

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Count, and kill."""
        del size_bytes
        if self._left > 0:
            self._left -= items
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _endpoint(url: str, references: Mapping[str, str]) -> Endpoint:
    return Endpoint(url, {name: Secret(reference) for name, reference in references.items()})


def restore_until_killed(location: str, url: str, references: str) -> None:
    """Kill this process half-way through a restore. ``references``: ``secret_references`` as JSON."""
    progress: Progress = _Killing()
    secrets = _endpoint(url, json.loads(references)).reveal()
    reader = BundleReader(open_location(str(Path(location))))
    restore_source(RestoreRequest(reader, SOURCE, url, 1, progress, secrets))


if __name__ == "__main__":
    restore_until_killed(*sys.argv[1:])
