"""``--prove`` reads rows back from what was written: what does not come back as it was sent is not in the bundle."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from exporters.sql import parquet_write
from exporters.sqlite import chunk_plan
from exporters.sqlite.source import SqliteExporter
from exporters.testing import StandaloneHost
from migrate.bundle.reader import BundleReader
from migrate.export.outcome import ExportOptions
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.exporters.sqlite.databases import run_sql, url_of


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(chunk_plan, "CHUNK_BYTES", 32 * 2**10)
    path = run_sql(
        tmp_path / "a.db",
        "CREATE TABLE t (n INTEGER PRIMARY KEY, text);"
        "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 4000)"
        " INSERT INTO t SELECT n, hex(n * 1234567) FROM s",
    )
    return SqliteExporter().open("app", url_of(path), StandaloneHost())


def run(source, location, *, prove=True):
    return export(
        [source],
        open_location(str(location)),
        workers=1,
        progress=Silent(),
        options=ExportOptions(prove=prove),
    )


def details(location):
    (row,) = BundleReader(open_location(str(location))).catalog()
    return row


def test_what_comes_back_is_proved_in_the_catalog(source, tmp_path):
    assert run(source, tmp_path / "bundle").complete
    row = details(tmp_path / "bundle")
    assert len(row.details["chunks"]) > 1
    assert row.details["parquet_digest"] == row.digest
    assert "identical" in (tmp_path / "bundle/REPORT.html").read_text()
    assert run(source, tmp_path / "other", prove=False).complete
    assert "parquet_digest" not in details(tmp_path / "other").details


def test_a_value_that_does_not_survive_makes_the_bundle_incomplete(source, tmp_path, monkeypatch):
    """Rows are right as they pass, and wrong in the file: only who reads the file can tell."""
    real = parquet_write.PartWriter._write_piece

    def spoil(self):
        self._piece = [
            type(one)(
                (one.columns[0], pc.if_else(pc.equal(one.columns[0], 3000), pa.scalar("no"), one.columns[1])),
                one.sides,
                one.rows,
            )
            for one in self._piece
        ]
        real(self)

    monkeypatch.setattr(parquet_write.PartWriter, "_write_piece", spoil)
    assert run(source, tmp_path / "unnoticed", prove=False).complete
    outcome = run(source, tmp_path / "bundle")
    assert not outcome.complete
    assert any("come out of its Parquet files" in reason for reason in outcome.sources[0].reasons)
    monkeypatch.undo()
    monkeypatch.setattr(chunk_plan, "CHUNK_BYTES", 32 * 2**10)
    assert run(source, tmp_path / "bundle").complete


def test_what_an_earlier_run_left_unproved_is_read_back_too(source, tmp_path, monkeypatch):
    from exporters.sqlite.snapshot import SqliteSnapshot

    location = tmp_path / "bundle"
    with monkeypatch.context() as patch:
        patch.setattr(SqliteSnapshot, "finish", _die)
        with pytest.raises(KeyboardInterrupt):
            run(source, location, prove=False)
    spoilt = sorted(location.glob("data/app/tables/0001.*/*.parquet"))[1]
    good = spoilt.read_bytes()
    spoilt.write_bytes(good[: len(good) // 2] + b"x" * (len(good) - len(good) // 2))
    exported: list[str] = []
    real = SqliteSnapshot.export

    def note(self, unit, sink):
        exported.append(unit.id)
        return real(self, unit, sink)

    monkeypatch.setattr(SqliteSnapshot, "export", note)
    assert run(source, location).complete
    assert exported == ["tables/0001.main.t/000001"]
    assert details(location).details["parquet_digest"] == details(location).digest
    assert spoilt.read_bytes() == good


def _die(*_):
    raise KeyboardInterrupt
