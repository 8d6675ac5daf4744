"""A directory of files is one source: all of them leave, and come back under their names."""

import json
import os
import socket
import sqlite3
from contextlib import closing

import pytest

from exporters.errors import SourceUsageError
from exporters.sqlite.source import SqliteExporter
from exporters.testing import ExporterContract, StandaloneHost
from migrate.errors import DamageError, NotEmptyError
from migrate.restore.sqlite.destination import read_files
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.cli.conftest import call
from tests.exporters.sqlite.conftest import TORTURE
from tests.exporters.sqlite.databases import everything, export_file, restore_file, run_sql, schema_of, url_of
from tests.tools.bundles import differences, read_bundle


@pytest.fixture
def folder(tmp_path):
    """Three databases, one of them deep down and in WAL mode, beside other files."""
    root = tmp_path / "data"
    (root / "tenants/ä b").mkdir(parents=True)
    run_sql(root / "main.db", TORTURE.read_text())
    run_sql(root / "tenants/one", "CREATE TABLE t (x); INSERT INTO t VALUES (1), ('two'), (NULL)")
    run_sql(
        root / "tenants/ä b/2.sqlite",
        "PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (2)",
    )
    (root / "README.txt").write_text("no database")
    (root / "main.db-journal").write_bytes(b"")
    return root


def test_every_file_comes_back_as_it_was(folder, tmp_path):
    location, destination = tmp_path / "bundle", tmp_path / "new/location"
    outcome = export_file(folder, location)
    assert outcome.complete, outcome.sources
    reader = read_bundle(location)
    assert {gap.item: gap.disposition for _, gap in reader.gaps()} == {"README.txt": "excluded"}
    assert {row.schema for row in reader.catalog()} == {"main.db", "tenants/one", "tenants/ä b/2.sqlite"}
    assert verify(open_location(str(location)), Level.FULL, workers=2, progress=Silent()).findings == []
    restored = restore_file(location, destination)
    assert restored.findings == ()
    for name in ("main.db", "tenants/one", "tenants/ä b/2.sqlite"):
        assert everything(destination / name) == everything(folder / name)
        assert schema_of(destination / name) == schema_of(folder / name)
    again = restore_file(location, destination)
    assert again.items == again.skipped_items
    assert differences(reader, url_of(destination)) == []


def test_equal_rows_in_columns_that_have_exchanged_their_names_are_a_finding(tmp_path):
    path = tmp_path / "app.db"
    run_sql(path, "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)")
    export_file(path, tmp_path / "bundle")
    run_sql(path, "ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b")
    (finding,) = differences(read_bundle(tmp_path / "bundle"), url_of(path))
    assert (finding.what, finding.expected, finding.found) == ("has columns of other names", "a, b", "b, a")


def test_a_difference_in_one_file_is_found_in_it(folder, tmp_path):
    location = tmp_path / "bundle"
    export_file(folder, location)
    with closing(sqlite3.connect(folder / "tenants/one")) as connection:
        connection.execute("UPDATE t SET x = 3 WHERE x = 1")
        connection.commit()
    (finding,) = differences(read_bundle(location), url_of(folder))
    assert finding.key == '"tenants/one"."t"'
    (row,) = finding.rows
    assert (row.expected, row.found) == ((("x", "1"),), (("x", "3"),))


def test_a_file_that_holds_something_else_is_let_be(folder, tmp_path):
    location, destination = tmp_path / "bundle", tmp_path / "new"
    export_file(folder, location)
    destination.mkdir()
    run_sql(destination / "main.db", "CREATE TABLE mine (x)")
    before = (destination / "main.db").read_bytes()
    with pytest.raises(NotEmptyError, match="holds something else"):
        restore_file(location, destination)
    assert (destination / "main.db").read_bytes() == before


def test_definitions_of_one_file_that_are_damaged_cost_that_file(folder, tmp_path):
    location, destination = tmp_path / "bundle", tmp_path / "new"
    export_file(folder, location)
    (damaged, *_) = sorted((location / "data/app/files").glob("*/schema/entries.json"))
    damaged.write_bytes(b"[]")
    with pytest.raises(DamageError):
        restore_file(location, destination)
    assert {path.name for path in destination.rglob("*") if path.is_file()} == {"one", "2.sqlite"}


def test_a_name_that_is_not_utf8_is_a_gap_by_name(folder, tmp_path):
    odd = os.fsencode(folder) + b"/odd\xff.db"
    os.link(folder / "main.db", odd)
    outcome = export_file(folder, tmp_path / "bundle")
    assert not outcome.complete
    (gap,) = (gap for gap in outcome.sources[0].gaps if gap.disposition == "failed")
    assert gap.item == "odd\\xff.db"
    assert gap.reason.endswith(f"export it as a source of its own, {url_of(folder)}/odd%FF.db")


def test_what_a_link_leads_to_and_a_directory_that_cannot_be_read_are_named(tmp_path):
    """The files behind a link were missing, and nothing said so; one directory cost all of the source."""
    folder, apart = tmp_path / "data", tmp_path / "apart"
    for directory in (folder / "deep", apart):
        directory.mkdir(parents=True)
    run_sql(folder / "a.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    run_sql(apart / "b.db", "CREATE TABLE t (x); INSERT INTO t VALUES (2)")
    (folder / "linked").symlink_to(apart)
    (folder / "again").symlink_to(folder / "deep")
    (folder / "gone.db").symlink_to("/nowhere/gone.db")
    opened = [os.open(folder / "deep", os.O_RDONLY)]
    for _ in range(20):  # its whole path is longer than any that can be opened
        os.mkdir("d" * 250, dir_fd=opened[-1])
        opened.append(os.open("d" * 250, os.O_RDONLY, dir_fd=opened[-1]))
    list(map(os.close, opened))
    ended = call("export", f"app=sqlite://{folder}", "--to", tmp_path / "bundle")
    assert ended.code == 3
    reader = read_bundle(tmp_path / "bundle")
    gaps = {gap.item.partition("/")[0]: (gap.disposition, gap.reason) for _, gap in reader.gaps()}
    assert gaps == {
        "linked": ("excluded", f"it is a link to {apart}: name that one, too"),
        "gone.db": ("failed", "it is a link to /nowhere/gone.db, where nothing is"),
        "deep": ("failed", "the directory cannot be read: File name too long"),
    }
    assert [row.schema for row in reader.catalog()] == ["a.db"]


def test_discover_counts_tables_and_names_damage(tmp_path):
    run_sql(tmp_path / "a.db", "PRAGMA journal_mode = WAL; CREATE TABLE t (x UNIQUE); CREATE TABLE u (x)")
    run_sql(tmp_path / "b.db", "PRAGMA user_version = 1")
    path = run_sql(tmp_path / "c.db", "CREATE TABLE t (x)")
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE", b"CREATE TOBLE"))
    [server] = call("discover", tmp_path, "--json").json["result"]["servers"]
    sources = {source["name"]: source for source in server["sources"]}
    assert [sources[name]["items"] for name in ("a.db", "b.db", "c.db")] == [2, 0, None]
    assert (sources["b.db"]["facts"], sources["c.db"]["problems"]) == (["empty"], ["its schema is damaged"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "b.db", "c.db"]


def test_a_directory_without_databases_is_a_mistake(tmp_path):
    with pytest.raises(SourceUsageError, match="no SQLite database"):
        SqliteExporter().open("app", url_of(tmp_path), StandaloneHost())


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "a/./b", ""])
def test_a_bundle_cannot_write_outside_of_the_destination(name):
    class File:
        key = "data/app/files.json"

    class Reader:
        def source_files(self, source, prefix):
            return [File]

        def read_checked(self, file):
            return json.dumps({"files": [{"name": name, "folder": "files/000001"}]}).encode()

    with pytest.raises(DamageError, match="below a directory"):
        read_files(Reader(), "app")


@pytest.mark.torture
class TestDirectory(ExporterContract):
    """The contract, over several files."""

    @pytest.fixture(autouse=True)
    def files(self, folder):
        self.folder = folder

    def open(self):
        return SqliteExporter().open("app", url_of(self.folder), StandaloneHost())

    def change(self):
        run_sql(self.folder / "tenants/one", "INSERT INTO t VALUES (4)")
        run_sql(self.folder / "tenants/three", "CREATE TABLE new (y); INSERT INTO new VALUES (1)")
        return True

    def host_files(self):
        return {str(file): file.read_bytes() for file in self.folder.rglob("*") if file.is_file()}


def test_a_fifo_a_socket_and_a_link_to_a_device_are_not_opened(tmp_path, monkeypatch):
    """To read a FIFO that nobody writes to waits for ever."""
    folder = tmp_path / "data"
    folder.mkdir()
    run_sql(folder / "a.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    os.mkfifo(folder / "fifo")
    (folder / "device").symlink_to("/dev/tty")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            listener.bind("socket")  # a whole path has room for 107 bytes
        discovered = call("discover", folder, "--json")
        assert [source["name"] for source in discovered.json["result"]["servers"][0]["sources"]] == ["a.db"]
        assert call("export", f"app=sqlite://{folder}", "--to", tmp_path / "bundle").code == 0
    gaps = {gap.item: gap.reason for _, gap in read_bundle(tmp_path / "bundle").gaps()}
    assert gaps == dict.fromkeys(("fifo", "device", "socket"), "it is no file")
