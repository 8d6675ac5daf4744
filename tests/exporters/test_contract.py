"""Every exporter keeps the contract that others are asked to keep, and the documented example does too."""

import re
import shutil
import sys
import types
from pathlib import Path

import duckdb
import pytest

import exporters.mysql.chunk_plan as mysql_plan
import exporters.postgres.chunk_plan as postgres_plan
import exporters.sqlite.chunk_plan as sqlite_plan
from exporters.api import Source
from exporters.engine import exporter_of
from exporters.mysql import MysqlExporter
from exporters.objects import ObjectExporter
from exporters.postgres import PostgresExporter
from exporters.sqlite import SqliteExporter
from exporters.testing import ExporterContract, StandaloneHost, disagreements
from migrate.bundle.reader import BundleReader
from migrate.engines import registry
from migrate.export import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.storage.s3.source_bucket import open_bucket
from migrate.verify import Level, verify
from tests.mysql import databases as mysql
from tests.postgres import databases as postgres
from tests.sqlite import databases as sqlite
from tests.tools.clients import boto_client

CHUNK_BYTES = 32 * 2**10
GUIDE = Path(__file__).parents[2] / "docs/guides/write-an-exporter.md"


class TestPostgres(ExporterContract):
    """Two tables, one of several chunks."""

    @pytest.fixture(autouse=True)
    def database(self, postgres, monkeypatch):
        monkeypatch.setattr(postgres_plan, "CHUNK_BYTES", CHUNK_BYTES)
        self.url = postgres.database()
        self.sql(
            "CREATE TABLE big AS SELECT n, md5(n::text) AS text FROM generate_series(1, 2000) n;"
            "CREATE TABLE empty (a numeric(10,2))"
        )

    def sql(self, script):
        postgres.run_sql(self.url, script)

    def open(self) -> Source:
        return PostgresExporter().open("app", self.url, StandaloneHost())

    def change(self):
        self.sql("UPDATE big SET text = 'changed' WHERE n = 1000; INSERT INTO empty VALUES (1)")
        return True


class TestMariadb(TestPostgres):
    """The same in MariaDB."""

    @pytest.fixture(autouse=True)
    def database(self, mariadb, monkeypatch):
        monkeypatch.setattr(mysql_plan, "CHUNK_BYTES", CHUNK_BYTES)
        self.url = mariadb.database()
        self.sql(
            "CREATE TABLE big (n int PRIMARY KEY, text varchar(40));"
            "INSERT INTO big SELECT seq, MD5(seq) FROM seq_1_to_2000;"
            "CREATE TABLE empty (a decimal(10,2)); ANALYZE TABLE big"
        )

    def sql(self, script):
        mysql.run_sql(self.url, script)

    def open(self) -> Source:
        return MysqlExporter().open("app", self.url, StandaloneHost())


class TestSqlite(TestPostgres):
    """The same in a SQLite file."""

    @pytest.fixture(autouse=True)
    def database(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sqlite_plan, "CHUNK_BYTES", CHUNK_BYTES)
        self.path = tmp_path / "source.db"
        self.sql(
            "CREATE TABLE big (n INTEGER PRIMARY KEY, text);"
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 2000)"
            " INSERT INTO big SELECT n, hex(n * 1234567) FROM s;"
            "CREATE TABLE empty (a)"
        )

    def sql(self, script):
        sqlite.run_sql(self.path, script)

    def open(self) -> Source:
        return SqliteExporter().open("app", sqlite.url_of(self.path), StandaloneHost())

    def host_files(self):
        return {file.name: file.read_bytes() for file in self.path.parent.iterdir()}


class BucketHost(StandaloneHost):
    """Lends the client."""

    def bucket(self, url):
        return open_bucket(url, secrets={})


class TestObjects(ExporterContract):
    """Small objects in several packs, and one large one."""

    @pytest.fixture(autouse=True)
    def objects(self, minio, bucket):
        self.name, self.profile = bucket, minio.profile
        client = boto_client(minio.profile)
        for number in range(20):
            client.put_object(Bucket=bucket, Key=f"small/{number}", Body=b"x" * number)
        client.put_object(Bucket=bucket, Key="large", Body=bytes(9 * 2**20))

    def open(self) -> Source:
        return ObjectExporter().open("app", f"s3://{self.name}?profile={self.profile}", BucketHost())


def example() -> dict[str, object]:
    """The names that the guide's code defines, the contract included."""
    module = types.ModuleType("csv_directory")
    for block in re.findall(
        r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        exec(compile(block, str(GUIDE), "exec"), module.__dict__)
    return module.__dict__


EXAMPLE = example()
TestExample = EXAMPLE["TestCsvExporter"]


def test_the_example_makes_a_bundle_that_others_read(tmp_path):
    folder, location = tmp_path / "csv", tmp_path / "bundle"
    folder.mkdir()
    (folder / "people.csv").write_text('id,name\n1,Ada\n2,"Grace\nHopper"\n')
    (folder / "towns.csv").write_text("name\nLondon\n")
    source = EXAMPLE["CsvExporter"]().open("old", f"csvdir://{folder}", StandaloneHost())
    outcome = export([source], open_location(str(location)), workers=2, progress=Silent())
    assert outcome.complete, outcome.sources
    store = open_location(str(location))
    assert verify(store, Level.FULL, workers=2, progress=Silent()).findings == []
    assert [row.items for row in BundleReader(store).catalog()] == [2, 1]
    rows = duckdb.sql(f"SELECT * FROM '{location}/data/old/tables/1/*.parquet' ORDER BY id").fetchall()
    assert rows == [("1", "Ada"), ("2", "Grace\nHopper")]


def test_an_exporter_of_another_package_is_found_by_its_scheme(tmp_path, monkeypatch):
    """As ``pip install`` would leave it: a module and its entry position."""
    code = re.search(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    declared = re.search(
        r"^```toml\n\[.*?\"(.*?)\"\]\n(.*?)\n```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert code
    assert declared
    (tmp_path / "csv_directory.py").write_text(code[1])
    information = tmp_path / "csv_directory-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: csv-directory\nVersion: 1\n")
    (information / "entry_points.txt").write_text(f"[{declared[1]}]\n{declared[2].replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(tmp_path)
    url = f"csvdir://{tmp_path}"
    for cached in (registry._installed, registry._by_scheme):
        cached.cache_clear()
    try:
        assert type(exporter_of(registry.engine_for(url, url))).__name__ == "CsvExporter"
    finally:
        for cached in (registry._installed, registry._by_scheme):
            cached.cache_clear()
    sys.modules.pop("csv_directory")
    shutil.rmtree(information)


def test_the_contract_notices_an_exporter_that_counts_only_what_it_exported(tmp_path):
    """A contract that cannot fail would be none."""

    class Careless(TestSqlite):
        def open(self):
            source = super().open()
            real = source.snapshot

            def snapshot(workspace, *, workers):
                return _Careless(real(workspace, workers=workers))

            source.snapshot = snapshot
            return source

    contract = Careless()
    contract.path = tmp_path / "source.db"
    contract.sql(
        "CREATE TABLE a (x); INSERT INTO a VALUES (1), (2); CREATE TABLE b (x); INSERT INTO b VALUES (3)"
    )
    with pytest.raises(AssertionError):
        contract.test_what_is_missing_is_never_called_complete()


class _Careless:
    """A snapshot that takes for all there is what it was given."""

    def __init__(self, real):
        self._real = real

    def __enter__(self):
        snapshot = self._real.__enter__()
        finish = snapshot.finish

        def careless(done, sink):
            summary = finish(done, sink)
            if disagreements(summary):
                object.__setattr__(summary, "gaps", ())
                counts = [type(one)(one.what, one.how, 7) for one in summary.enumerations]
                object.__setattr__(summary, "enumerations", counts)
            return summary

        snapshot.finish = careless
        return snapshot

    def __exit__(self, *error):
        return self._real.__exit__(*error)
