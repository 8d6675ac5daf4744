"""Every engine keeps the contract that others are asked to keep, and the documented example does too."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from msgspec.structs import force_setattr

import exporters.mysql.chunk_plan as mysql_plan
import exporters.postgres.chunk_plan as postgres_plan
import exporters.sqlite.chunk_plan as sqlite_plan
from exporters.api import Source
from exporters.errors import SourceNotAllowedError
from exporters.objects.source import ObjectExporter
from exporters.testing import ExporterContract, StandaloneHost, disagreements
from migrate.case.model import Endpoint
from migrate.case.secrets import hide_secrets
from migrate.custody.source_holds.contract import HoldRequest
from migrate.custody.source_holds.source_hold import open_hold
from migrate.engines import registry
from migrate.errors import UsageError
from migrate.storage.s3.source_bucket import open_bucket
from migrate.testing import EngineContract, restore_until_killed
from tests.cli.conftest import call
from tests.cli.conftest import run as run_moveout
from tests.export.victims import run
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres
from tests.exporters.sqlite import databases as sqlite
from tests.tools.clients import boto_client

CHUNK_BYTES = 32 * 2**10
EXAMPLE = Path(__file__).parents[1] / "examples/toy_engine.py"
GUIDE = Path(__file__).parents[2] / "docs/guides/add-an-engine.md"


class TestPostgres(EngineContract):
    """Two tables, one of several chunks."""

    @pytest.fixture(autouse=True)
    def database(self, postgres, monkeypatch):
        monkeypatch.setattr(postgres_plan, "CHUNK_BYTES", CHUNK_BYTES)
        self.server = postgres
        self.url = postgres.database()
        self.sql(
            self.url,
            "CREATE TABLE big AS SELECT n, md5(n::text) AS text FROM generate_series(1, 2000) n;"
            "CREATE TABLE empty (a numeric(10,2))",
        )

    def sql(self, url, script):
        postgres.run_sql(url, script)

    def change(self):
        self.sql(self.url, "UPDATE big SET text = 'changed' WHERE n = 1000; INSERT INTO empty VALUES (1)")
        return True

    def new_destination(self):
        return self.server.database()

    def fill(self, url):
        self.sql(url, "CREATE TABLE other (a int); INSERT INTO other VALUES (1)")

    def alter(self, url):
        self.sql(url, "UPDATE big SET text = 'altered' WHERE n = 7")

    def _end_half_way(self, location, url):
        """In a process that need not import all of it anew."""
        victim = run(restore_until_killed, location, url, json.dumps(dict(self.secret_references)))
        victim.join()
        return victim.exitcode


@pytest.mark.torture
class TestMariadb(TestPostgres):
    """The same in MariaDB."""

    @pytest.fixture(autouse=True)
    def database(self, mariadb, monkeypatch):
        monkeypatch.setattr(mysql_plan, "CHUNK_BYTES", CHUNK_BYTES)
        self.server = mariadb
        self.url = mariadb.database()
        self.sql(
            self.url,
            "CREATE TABLE big (n int PRIMARY KEY, text varchar(40));"
            "INSERT INTO big SELECT seq, MD5(seq) FROM seq_1_to_2000;"
            "CREATE TABLE empty (a decimal(10,2)); ANALYZE TABLE big",
        )

        monkeypatch.setenv("CONTRACT_PASSWORD", mariadb.password)
        self.secret_references = {"password": "env:CONTRACT_PASSWORD"}

    def sql(self, url, script):
        mysql.run_sql(url, script)

    def test_its_secrets_open_the_source(self, monkeypatch):
        self.open().close()
        monkeypatch.setenv("CONTRACT_PASSWORD", "wrong")
        with pytest.raises(SourceNotAllowedError):
            self.open()


class TestSqlite(TestPostgres):
    """The same in a SQLite file."""

    @pytest.fixture(autouse=True)
    def database(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sqlite_plan, "CHUNK_BYTES", CHUNK_BYTES)
        self.folder = tmp_path / "source"
        self.folder.mkdir()
        self.url = sqlite.url_of(self.folder / "source.db")
        self.sql(
            self.url,
            "CREATE TABLE big (n INTEGER PRIMARY KEY, text);"
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 2000)"
            " INSERT INTO big SELECT n, hex(n * 1234567) FROM s;"
            "CREATE TABLE empty (a)",
        )

    def sql(self, url, script):
        sqlite.run_sql(Path(url.removeprefix("sqlite://")), script)

    def new_destination(self):
        return sqlite.url_of(self.folder.parent / "destination.db")

    def host_files(self):
        return {file.name: file.read_bytes() for file in self.folder.iterdir()}


class BucketHost(StandaloneHost):
    """Lends the client."""

    def bucket(self, url):
        return open_bucket(url, secrets={})


@pytest.fixture(scope="module")
def objects(minio, make_bucket):
    """A bucket of small objects and a large one, which no test changes."""
    bucket, client = make_bucket(minio), boto_client(minio.profile)
    for number in range(20):
        client.put_object(Bucket=bucket, Key=f"small/{number}", Body=b"x" * number)
    client.put_object(Bucket=bucket, Key="large", Body=bytes(9 * 2**20))
    return bucket


class TestObjects(ExporterContract):
    """Small objects in several packs, and one large one."""

    @pytest.fixture(autouse=True)
    def bucket_of_all(self, minio, objects):
        self.name, self.profile = objects, minio.profile

    def open(self) -> Source:
        return ObjectExporter().open("app", f"s3://{self.name}?profile={self.profile}", BucketHost())


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example as ``pip install`` would leave it: a module and its entry point. Other processes lack it."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copy(EXAMPLE, folder)
    information = folder / "toy_engine-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-engine\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[moveout.engines]\ncsvdir = toy_engine:ENGINE\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        registry.reload()
        yield
    sys.modules.pop("toy_engine", None)
    registry.reload()


def guide() -> dict[str, Any]:
    """The names that the guide's test defines."""
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(blocks[-1], str(GUIDE), "exec"), names)
    return names


class TestExample(guide()["TestCsv"]):
    """The engine of the guide, by the test of the guide."""

    @pytest.fixture(autouse=True)
    def is_installed(self, installed):
        """Nothing else is needed."""


def test_the_example_works_through_every_command(installed, tmp_path):
    """Another package's engine is exported, checked, restored and compared as moveout's own are."""
    old, new, location = tmp_path / "old", tmp_path / "new", tmp_path / "bundle"
    old.mkdir()
    people = "".join(f'{n},"Ada\nthe {n}th"\n' for n in range(1500))
    (old / "people.csv").write_text(f"id,name\n{people}")
    (old / "Towns ä.csv").write_text("name\nLondon\n")

    def moveout(*words, code=0):
        ended = call(*words, "--json")
        assert ended.code == code, ended.err + ended.out
        return ended.json.get("result")

    moveout("plan", f"app=csvdir://{old}")
    moveout("export", f"app=csvdir://{old}", "--to", location, "--prove")
    rows = duckdb.sql(f"SELECT count(*) FROM '{location}/data/app/tables/0002.people/*.parquet'").fetchall()
    assert rows == [(1500,)]
    moveout("verify", location, "--level", "full")
    moveout("restore", location, f"app=csvdir://{new}")
    assert {file.name: file.read_bytes() for file in new.iterdir()} == {
        file.name: file.read_bytes() for file in old.iterdir()
    }
    moveout("verify", location, "--against", f"app=csvdir://{new}")
    (new / "people.csv").write_text((new / "people.csv").read_text().replace("the 7th", "the 8th"))
    [compared] = moveout("verify", location, "--against", f"app=csvdir://{new}", code=6)["compared"]
    assert "1 only in the bundle, 1 only in the database" in compared["findings"][0]["what"]
    moveout("restore", location, f"app=csvdir://{new}", code=2)
    elsewhere = run_moveout("verify", location, "--level", "full")
    assert elsewhere.code == 0
    assert "no engine that is installed here reads the Parquet files of csvdir:// sources" in elsewhere.err


def test_a_part_that_an_engine_lacks_is_named(installed):
    with pytest.raises(UsageError, match="CSV files has no part by which csvdir:// sources are held"):
        open_hold(Endpoint("csvdir:///nowhere"), HoldRequest())


def test_the_guide_shows_the_example():
    assert EXAMPLE.read_text(encoding="utf-8") in GUIDE.read_text(encoding="utf-8")


def test_an_engine_that_cannot_be_loaded_leaves_the_others_and_is_named(tmp_path, monkeypatch):
    information = tmp_path / "broken-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[moveout.engines]\na = no_such_module:ENGINE\nzz = migrate.engines.s3:ENGINE\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry.reload()
    try:
        assert registry.engine_for("sqlite:///a.db", "").name == "SQLite"
        with pytest.raises(UsageError) as caught:
            registry.engine_for("nosuch://x", "nosuch://x")
    finally:
        registry.reload()
    assert "a cannot be loaded: ModuleNotFoundError" in str(caught.value)
    assert "zz cannot be loaded: its scheme is that of S3" in str(caught.value)
    assert "sqlite://" in caught.value.next_step


def test_no_log_has_the_secret_in_a_variable_of_an_installed_engine(tmp_path, monkeypatch):
    information = tmp_path / "vault-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: vault\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[moveout.engines]\nvault = vault_engine:ENGINE\n")
    (tmp_path / "vault_engine.py").write_text(
        "from exporters.engine import Engine\n"
        "ENGINE = Engine('Vault', ('vault',), exporter='', secret_variables=('VAULT_TOKEN',))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("VAULT_TOKEN", "a-token-of-the-vault")
    registry.reload()
    try:
        assert hide_secrets("refused: a-token-of-the-vault") == "refused: …"
    finally:
        registry.reload()


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
    contract.url = sqlite.url_of(tmp_path / "source.db")
    contract.sql(
        contract.url,
        "CREATE TABLE a (x); INSERT INTO a VALUES (1), (2); CREATE TABLE b (x); INSERT INTO b VALUES (3)",
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
                force_setattr(summary, "gaps", ())
                counts = [type(one)(one.what, one.how, 7) for one in summary.enumerations]
                force_setattr(summary, "enumerations", counts)
            return summary

        snapshot.finish = careless
        return snapshot

    def __exit__(self, *error):
        return self._real.__exit__(*error)
