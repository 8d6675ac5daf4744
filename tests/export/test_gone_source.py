"""A source that is gone for good in the middle of an export: what was exported of it is sealed as incomplete, and can
be restored. Only rows that were not read are lost.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from exporters.api import OUTLINE
from exporters.errors import SourceUnreachableError
from exporters.mysql import snapshot as mysql_snapshot
from exporters.objects.source_summary import CONFIGURATION, NotedBucket, summary_of_gone
from exporters.postgres import snapshot as postgres_snapshot
from exporters.postgres.definitions import definition_files
from exporters.sql.outline import NO_DEFINITIONS
from exporters.testing import MemoryWorkspace
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.case.model import Endpoint
from migrate.cli.common.sources import open_sources
from migrate.errors import GoneError, MoveoutError
from migrate.export import source_export as source_export_module
from migrate.export import unit_runner as unit_runner_module
from migrate.export.outcome import ExportOptions
from migrate.export.run import export, seal_unasked
from migrate.export.seal_time import SealTime
from migrate.runtime.progress import Silent
from migrate.storage.api import StoreWrapper
from migrate.storage.registry import open_location
from migrate.storage.s3.http import concurrent_requests
from migrate.verify.run import Level, verify
from tests.cli.conftest import call
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres_databases
from tests.exporters.sqlite import databases as sqlite
from tests.tools.clients import boto_client
from tests.tools.processes import kill_server

TABLES = "".join(f"CREATE TABLE t{number} (g INTEGER PRIMARY KEY, note VARCHAR(9));" for number in range(3))
ROWS = "".join(
    f"INSERT INTO t{table} VALUES {','.join(f'({row}, {chr(39)}n{row}{chr(39)})' for row in range(40))};"
    for table in range(3)
)
VIEW = "CREATE VIEW v AS SELECT count(*) AS c FROM t0;"
SCRIPT = TABLES + ROWS + VIEW
MANY_ROWS = (
    "WITH RECURSIVE n (g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM n WHERE g < 2000)"
    " INSERT INTO t SELECT g, 'note ' || g FROM n"
)


class DyingStore(StoreWrapper):
    """A location that calls ``die`` once so many units are committed, and the outline of their source is there. Each
    unit is committed alone; what ``die`` raises, later writes and removals of units raise, too. The
    lease is given back.
    """

    def __init__(self, store, die, *, units):
        super().__init__(store)
        self.together = 1
        self._die, self._left, self._is_noted = die, units, threading.Event()
        self._error = None

    def put(self, key, data, *, sha256=None):
        self._require_life()
        is_unit = "/units/" in key
        if is_unit:
            assert self._is_noted.wait(120)
            self._die_after(0)
        info = super().put(key, data, sha256=sha256)
        if key.endswith(f"/state/{OUTLINE}") and NO_DEFINITIONS.reason.encode() not in data:
            self._is_noted.set()
        if is_unit:
            self._die_after(1)
        return info

    def delete(self, key):
        if "/units/" in key:
            self._require_life()
        super().delete(key)

    def _require_life(self):
        if self._error is not None:
            raise self._error

    def _die_after(self, units):
        self._left -= units
        if not self._left:
            self._left = -1
            try:
                self._die()
            except GoneError as exc:
                self._error = exc
                raise


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Wait for no server that does not come back."""
    monkeypatch.setattr(source_export_module, "RESTART_SECONDS", 0.0)
    monkeypatch.setattr(unit_runner_module, "RETRY_WAITS", (0.0,))
    monkeypatch.setattr(concurrent_requests, "RETRY_SECONDS", 1.0)


def dying(location, die, units, **sources):
    """Export while the source dies; return the outcome."""
    store = DyingStore(open_location(str(location)), die, units=units)
    endpoints = {name: Endpoint(url) for name, url in sources.items()}
    with open_sources(endpoints) as opened:
        return export(opened, store, workers=1, progress=Silent())


def stopped(location, units, **sources):
    """Let an export die, and not its source."""

    def die():
        raise GoneError("the process was killed")

    with pytest.raises(MoveoutError):
        dying(location, die, units, **sources)


def seal(location):
    return seal_unasked(open_location(str(location)), workers=1, progress=Silent())


def gaps_of(location):
    return [gap.item for _, gap in BundleReader(open_location(str(location))).gaps()]


def check(location, whole):
    """The bundle is sound, says what is missing of its tables, and shows those that are whole."""
    store = open_location(str(location))
    assert verify(store, Level.FULL, workers=2, progress=Silent()).findings == []
    reader = BundleReader(store)
    assert not reader.info.complete
    rows = {row.name: row.items for row in reader.catalog() if row.kind == "table"}
    assert rows == {f"t{number}": 40 if number in whole else 0 for number in range(3)}
    named = " ".join(gaps_of(location))
    assert "the second count of app" in named
    assert [number for number in range(3) if f"t{number}" not in named] == whole
    page = store.read(layout.REPORT).decode()
    status = call("status", location)
    for number in {*range(3)} - {*whole}:
        assert f"t{number}" in page
        assert f"t{number}" in status.out
    for table in (row for row in reader.catalog() if row.items):
        name = f"{table.schema}.{table.name}".removeprefix("main.").removeprefix(".")
        shown = call("sql", location, f"SELECT count(*) AS c FROM {name}", "--csv")
        assert (shown.code, shown.out.split()) == (0, ["c", "40"]), shown.err


def restored(location, url, fetch, whole):
    """Everything that was exported comes back, with all definitions; what is missing is named."""
    result = call("restore", location, url)
    assert result.code == 3, (result.out, result.err)
    assert [fetch(url, f"SELECT count(*) FROM t{number}") for number in range(3)] == [
        [(40 if number in whole else 0,)] for number in range(3)
    ]
    assert fetch(url, "SELECT * FROM v") == [(40 if 0 in whole else 0,)]
    for number in {*range(3)} - {*whole}:
        assert f"t{number}" in result.out


def mysql_rows(url, query):
    with mysql.open_database(url) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return [*cursor.fetchall()]


ENGINES = {
    "postgres": (postgres_databases.run_sql, postgres_databases.fetch),
    "mariadb": (mysql.run_sql, mysql_rows),
}


@pytest.mark.parametrize(
    ("kind", "units"),
    [
        ("postgres", 1),
        pytest.param("mariadb", 1, marks=pytest.mark.torture),
        pytest.param("postgres", 2, marks=pytest.mark.torture),
        pytest.param("mariadb", 2, marks=pytest.mark.torture),
        pytest.param(
            "postgres", 3, marks=pytest.mark.torture
        ),  # after its last row, a MariaDB has counted all
    ],
)
def test_a_server_that_is_killed(request, servers, tmp_path, kind, units):
    server, bundle, (run_sql, fetch) = (
        getattr(servers, kind)(f"gone-{units}"),
        tmp_path / "bundle",
        ENGINES[kind],
    )
    url = server.database()
    run_sql(url, SCRIPT)
    assert dying(bundle, lambda: kill_server(server), units, app=url).exit_code == 3
    check(bundle, [*range(units)])
    other = request.getfixturevalue(f"other_{kind}").database()
    restored(bundle, other, fetch, [*range(units)])


def sqlite_rows(url, query):
    with closing(sqlite3.connect(url.removeprefix("sqlite://"))) as connection:
        return connection.execute(query).fetchall()


def test_a_file_that_is_gone_when_the_export_is_given_again(tmp_path):
    path, bundle = tmp_path / "app.db", tmp_path / "bundle"
    sqlite.run_sql(path, SCRIPT)
    stopped(bundle, 1, app=sqlite.url_of(path))
    path.unlink()
    assert call("export", f"app={sqlite.url_of(path)}", "--to", bundle).code == 3
    check(bundle, [0])
    restored(bundle, f"sqlite://{tmp_path / 'new.db'}", sqlite_rows, [0])


def test_a_directory_of_files_that_is_gone(tmp_path):
    directory, bundle, new = tmp_path / "files", tmp_path / "bundle", tmp_path / "new"
    directory.mkdir()
    for name in ("a.db", "b.db"):
        sqlite.run_sql(directory / name, SCRIPT)
    url = f"sqlite://{directory}"
    stopped(bundle, 4, app=url)
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    assert (seal(bundle).exit_code, verified(bundle)) == (3, [])
    assert call("restore", bundle, f"sqlite://{new}").code == 3
    count = "SELECT count(*) FROM t{}"
    assert [sqlite_rows(f"sqlite://{new / 'a.db'}", count.format(number)) for number in range(3)] == [
        [(40,)]
    ] * 3
    assert [sqlite_rows(f"sqlite://{new / 'b.db'}", count.format(number)) for number in (0, 2)] == [
        [(40,)],
        [(0,)],
    ]


def verified(location):
    return verify(open_location(str(location)), Level.FULL, workers=2, progress=Silent()).findings


def test_definitions_alone_are_sealed_where_that_is_asked_for(postgres_url, other_postgres, tmp_path):
    bundle = tmp_path / "bundle"
    stopped(bundle, 0, app=postgres_url)
    assert seal(bundle).exit_code == 3
    check(bundle, [])
    restored(bundle, other_postgres.database(), postgres_databases.fetch, [])


@pytest.fixture
def postgres_url(request):
    url = request.getfixturevalue("postgres").database()
    postgres_databases.run_sql(url, SCRIPT)
    return url


def test_one_that_had_a_failed_table_keeps_its_definitions_while_others_change_the_bundle(
    postgres, other_postgres, tmp_path
):
    """The first run lacks a table whose file is lost. In the second the database is gone, and another source comes."""
    bundle, late, url = tmp_path / "bundle", tmp_path / "late.db", postgres.database()
    postgres_databases.run_sql(url, SCRIPT)
    place = "current_setting('data_directory') || '/' || pg_relation_filepath('t1')"
    [[path]] = postgres_databases.fetch(url, f"SELECT {place}")
    postgres_databases.run_sql(url, f"CHECKPOINT; COPY (SELECT WHERE false) TO PROGRAM 'rm {path}'")
    assert call("export", f"app={url}", "--to", bundle).code == 3
    postgres.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")
    sqlite.run_sql(late, "CREATE TABLE t (x INTEGER)")
    assert call("export", f"app={url}", f"late={sqlite.url_of(late)}", "--to", bundle).code == 3
    assert [source.complete for source in BundleReader(open_location(str(bundle))).info.sources] == [
        False,
        True,
    ]
    new = other_postgres.database()
    result = call("restore", bundle, f"app={new}")
    assert result.code == 3, result.err
    assert [postgres_databases.fetch(new, f"SELECT count(*) FROM t{number}") for number in (0, 1, 2)] == [
        [(40,)],
        [(0,)],
        [(40,)],
    ]


def test_a_damaged_record_of_a_source_that_breaks_off_costs_its_unit_until_the_next_run(postgres, tmp_path):
    """The other source is exported all the same."""
    bundle, late, url = tmp_path / "bundle", tmp_path / "late.db", postgres.database()
    postgres_databases.run_sql(url, SCRIPT)
    sqlite.run_sql(late, "CREATE TABLE t (x INTEGER); INSERT INTO t VALUES (1)")
    stopped(bundle, 2, app=url)
    store = open_location(str(bundle))
    first, _ = sorted(info.key for info in store.list(layout.units_prefix("app")))
    store.put(first, b"{")
    name, command = url.rpartition("/")[2], ("export", f"app={url}", f"late={sqlite.url_of(late)}", "--to")
    postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    result = call(*command, bundle)
    assert (result.code, first in result.err) == (3, True), (result.out, result.err)
    gaps = {gap.item: gap.reason for _, gap in BundleReader(store).gaps()}
    assert "is damaged: expected" in gaps[first]
    assert gaps[first].endswith("the same command exports it again")
    assert sum(row.items for row in BundleReader(store).catalog()) == 40 + 1
    assert verified(bundle) == []
    postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert call(*command, bundle).code == 0
    assert sum(row.items for row in BundleReader(store).catalog()) == 3 * 40 + 1


def test_a_bucket_whose_server_is_killed(servers, minio, make_bucket, tmp_path):
    """The index has all objects; those that were not read are gaps with their names. Its settings were noted before."""
    server, bundle = servers.minio("gone"), tmp_path / "bundle"
    client = boto_client(server.profile)
    client.create_bucket(Bucket="media")
    tags = [{"Key": "team", "Value": "photos"}]
    client.put_bucket_tagging(Bucket="media", Tagging={"TagSet": tags})
    bodies = {"small": b"s", "a-large": bytes(9 * 2**20), "b-large": bytes(9 * 2**20)}
    for key, body in bodies.items():
        client.put_object(Bucket="media", Key=key, Body=body)
    outcome = dying(bundle, lambda: kill_server(server), 1, media=f"s3://media?profile={server.profile}")
    assert outcome.exit_code == 3
    assert verified(bundle) == []
    reader = BundleReader(open_location(str(bundle)))
    index = {row["key"]: row["disposition"] for batch in reader.index("media") for row in batch.to_pylist()}
    assert sorted(index.values()) == ["exported", "failed", "failed"]
    missing = {key for key, disposition in index.items() if disposition == "failed"}
    assert missing <= {*gaps_of(bundle)}
    assert json.loads(reader.store.read(f"data/media/{CONFIGURATION}"))["tagging"] == {"TagSet": tags}
    assert {loss.property for _, loss in reader.losses()}.isdisjoint({"tags", "bucket settings"})
    new = make_bucket(minio)
    result = call("restore", bundle, f"s3://{new}?profile={minio.profile}")
    assert result.code == 3, result.err
    there = boto_client(minio.profile).list_objects_v2(Bucket=new)["Contents"]
    assert {entry["Key"] for entry in there} == {*bodies} - missing


def test_of_a_bucket_what_was_not_noted_is_not_made_up():
    noted, workspace = NotedBucket("media", "", "MinIO"), MemoryWorkspace()
    assert (noted.configuration(), noted.tags_readable([])) == ({"failing": ["settings"]}, True)
    noted.note(workspace)
    assert summary_of_gone(workspace, [], None, None) is None, "it was not listed to its end"


def test_a_table_with_rows_of_two_snapshots_is_named(tmp_path, monkeypatch):
    """One chunk is read again after rows have changed; the file is gone before the other chunks are compared."""
    path, bundle = tmp_path / "app.db", tmp_path / "bundle"
    monkeypatch.setattr("exporters.sqlite.chunk_plan.CHUNK_BYTES", 10_000)
    sqlite.run_sql(path, f"CREATE TABLE t (g INTEGER PRIMARY KEY, note TEXT); {MANY_ROWS}")
    (units,) = count_units(path)
    assert units > 1
    stopped(bundle, units, app=sqlite.url_of(path))
    store = open_location(str(bundle))
    first, *_ = [info.key for info in store.list("_work/app/units/")]
    store.delete(first)
    sqlite.run_sql(path, "UPDATE t SET g = 3000 WHERE g = 1")
    stopped(bundle, 1, app=sqlite.url_of(path))
    assert seal(bundle).exit_code == 3
    gaps = {gap.item: gap.reason for _, gap in BundleReader(store).gaps()}
    assert "its rows are of 2 snapshots, and were not compared" in gaps["main.t"]
    assert verified(bundle) == []


def test_a_table_that_was_read_in_part_is_named_and_its_rows_are_restored(tmp_path, monkeypatch):
    path, bundle = tmp_path / "app.db", tmp_path / "bundle"
    monkeypatch.setattr("exporters.sqlite.chunk_plan.CHUNK_BYTES", 10_000)
    sqlite.run_sql(path, f"CREATE TABLE t (g INTEGER PRIMARY KEY, note TEXT); {MANY_ROWS}")
    (units,) = count_units(path)
    assert units > 2
    stopped(bundle, 2, app=sqlite.url_of(path))
    path.unlink()
    assert seal(bundle).exit_code == 3
    reader = BundleReader(open_location(str(bundle)))
    gaps = {gap.item: gap.reason for _, gap in reader.gaps()}
    assert gaps["main.t"] == f"only 2 of its {units} chunks were exported before the source was gone"
    assert verified(bundle) == []
    (rows,) = [row.items for row in reader.catalog()]
    assert 0 < rows < 2000
    assert call("restore", bundle, f"sqlite://{tmp_path / 'new.db'}").code == 3
    restored_rows = sqlite_rows(f"sqlite://{tmp_path / 'new.db'}", "SELECT * FROM t ORDER BY g")
    assert restored_rows == [(number, f"note {number}") for number in range(1, rows + 1)]


def test_a_table_with_rows_of_two_snapshots_is_named_where_there_was_no_time_to_compare_it(
    tmp_path, monkeypatch
):
    """Its count is right: as many rows went to one chunk as came from another."""
    path, bundle = tmp_path / "app.db", tmp_path / "bundle"
    monkeypatch.setattr("exporters.sqlite.chunk_plan.CHUNK_BYTES", 10_000)
    sqlite.run_sql(path, "CREATE TABLE t (g INTEGER PRIMARY KEY, note TEXT); CREATE TABLE u (g INTEGER)")
    rows = "WITH RECURSIVE n (g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM n WHERE g < 2000)"
    sqlite.run_sql(path, f"{rows} INSERT INTO t SELECT g, 'note ' || g FROM n")
    stopped(bundle, next(count_units(path)), app=sqlite.url_of(path))
    sqlite.run_sql(path, "UPDATE t SET note = 'other' WHERE g % 500 = 1")
    moments = [datetime(2026, 1, 1, tzinfo=UTC)]
    store = DyingStore(open_location(str(bundle)), lambda: moments.append(moments[0] + timedelta(2)), units=1)
    options = ExportOptions(seal_time=SealTime(moments[0] + timedelta(1), lambda: moments[-1]))
    with open_sources({"app": Endpoint(sqlite.url_of(path))}) as opened:
        assert export(opened, store, workers=1, progress=Silent(), options=options).exit_code == 3
    gaps = {gap.item: gap.reason for _, gap in BundleReader(open_location(str(bundle))).gaps()}
    assert "its rows are of 2 snapshots, and were not compared" in gaps["main.t"]
    assert "main.u" not in gaps
    assert verified(bundle) == []
    assert call("export", f"app={sqlite.url_of(path)}", "--to", bundle).code == 0, "all were compared"


def count_units(path):
    """Yield how many units a file makes."""
    endpoints = {"app": Endpoint(sqlite.url_of(path))}
    with (
        open_sources(endpoints) as (source,),
        source.snapshot(MemoryWorkspace(), workers=1) as snapshot,
    ):
        yield len([*snapshot.units()])


def test_tables_that_were_renamed_or_dropped_before_the_server_was_gone(
    postgres_url, other_postgres, tmp_path
):
    """The second run has a new snapshot, and of that not one row: what the first has exported is still restored."""
    bundle = tmp_path / "bundle"
    stopped(bundle, 2, app=postgres_url)
    postgres_databases.run_sql(postgres_url, "DROP VIEW v; DROP TABLE t0; ALTER TABLE t1 RENAME TO new")
    stopped(bundle, 0, app=postgres_url)
    assert seal(bundle).exit_code == 3
    check(bundle, [0, 1])
    restored(bundle, other_postgres.database(), postgres_databases.fetch, [0, 1])


def test_rows_that_were_read_before_the_definitions_are_restored_too(
    postgres, other_postgres, tmp_path, monkeypatch
):
    """The server is gone while pg_dump runs: tables have their columns."""
    bundle, url = tmp_path / "bundle", postgres.database()
    postgres_databases.run_sql(
        url, """CREATE SCHEMA "s; x"; CREATE TABLE "s; x"."T\nu" (a NUMERIC(9,2) NOT NULL, "B c" TEXT[])"""
    )
    postgres_databases.run_sql(url, """INSERT INTO "s; x"."T\nu" VALUES (1.5, '{a,b}')""")
    gone_while_definitions_are_read(url, bundle, monkeypatch)
    assert {"definitions", "the second count of app"} <= {*gaps_of(bundle)}
    assert verified(bundle) == []
    new = other_postgres.database()
    result = call("restore", bundle, new)
    assert result.code == 3, result.err
    assert "definitions" in result.out
    rows = postgres_databases.fetch(new, 'SELECT a::text, "B c" FROM "s; x"."T\nu"')
    assert rows == [("1.50", ["a", "b"])]


def test_values_of_types_that_were_not_read_before_the_server_was_gone_are_text(
    postgres, other_postgres, tmp_path, monkeypatch
):
    bundle, url = tmp_path / "bundle", postgres.database()
    types = "CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN moment AS TIMESTAMPTZ; CREATE TYPE pair AS (a INT, b INT)"
    columns = "m mood, ms mood[], at moment NOT NULL, p pair, twice INT GENERATED ALWAYS AS (2) STORED"
    row = "'good', '{good}', '2026-01-01 00:00+00', '(1,2)'"
    postgres_databases.run_sql(url, f"{types}; CREATE TABLE t ({columns}); INSERT INTO t VALUES ({row})")
    gone_while_definitions_are_read(url, bundle, monkeypatch)
    new = other_postgres.database()
    assert call("restore", bundle, new).code == 3
    rows = postgres_databases.fetch(new, "SELECT * FROM t")
    assert rows == [("good", "{good}", "2026-01-01 00:00:00+00", "(1,2)", 2)]


def gone_while_definitions_are_read(url, bundle, monkeypatch):
    def fail(*_, **__):
        raise SourceUnreachableError("the server is gone")

    monkeypatch.setattr(definition_files, "_read", fail)
    monkeypatch.setattr(postgres_snapshot.PostgresSnapshot, "finish", fail)
    with open_sources({"app": Endpoint(url)}) as opened:
        assert export(opened, open_location(str(bundle)), workers=1, progress=Silent()).exit_code == 3


def test_rows_of_a_mariadb_that_were_read_before_the_definitions(
    mariadb, other_mariadb, tmp_path, monkeypatch
):
    bundle, url = tmp_path / "bundle", mariadb.database()
    mysql.run_sql(
        url,
        "CREATE TABLE `a;b` (a DECIMAL(9,2) NOT NULL, `b ``c` ENUM('x', 'y'), t TIMESTAMP NULL,"
        " e ENUM('😀') CHARACTER SET utf8mb4)",
    )
    mysql.run_sql(url, "INSERT INTO `a;b` VALUES (1.5, 'y', NULL, '😀')")
    gone_before_the_definitions(url, bundle, monkeypatch)
    new = other_mariadb.database()
    result = call("restore", bundle, new)
    assert (result.code, "definitions" in result.out) == (3, True), result
    assert mysql_rows(new, "SELECT CAST(a AS CHAR), `b ``c`, t, e FROM `a;b`") == [("1.50", "y", None, "😀")]


def test_rows_that_held_once_do_not_come_back_as_rows_where_the_definitions_were_not_read(
    mariadb, other_mariadb, tmp_path, monkeypatch
):
    bundle, url = tmp_path / "bundle", mariadb.database()
    mysql.run_sql(
        url,
        "CREATE TABLE t (id INT, n INT) WITH SYSTEM VERSIONING;"
        "CREATE TABLE `sh``own` (id INT, n INT, `b``` TIMESTAMP(6) GENERATED ALWAYS AS ROW START, e TIMESTAMP(6)"
        " GENERATED ALWAYS AS ROW END INVISIBLE, PERIOD FOR SYSTEM_TIME (`b```, e)) WITH SYSTEM VERSIONING",
    )
    for table in ("t", "`sh``own`"):
        mysql.run_sql(
            url, f"INSERT INTO {table} (id, n) VALUES (1, 1), (2, 2), (3, 3); UPDATE {table} SET n = 4"
        )
        mysql.run_sql(url, f"DELETE FROM {table} WHERE id > 1")
    gone_before_the_definitions(url, bundle, monkeypatch)
    new = other_mariadb.database()
    assert call("restore", bundle, new).code == 3
    for query in (
        "SELECT * FROM t",
        "SELECT * FROM `sh``own`",
        "SELECT t.*, row_start, row_end FROM t FOR SYSTEM_TIME ALL ORDER BY 1, 2",
        "SELECT t.*, e FROM `sh``own` FOR SYSTEM_TIME ALL t ORDER BY 1, 2",
    ):
        assert mysql_rows(new, query) == mysql_rows(url, query), query


def gone_before_the_definitions(url, bundle, monkeypatch):
    def fail(*_, **__):
        raise SourceUnreachableError("the server is gone")

    monkeypatch.setattr(mysql_snapshot, "read_schema", fail)
    monkeypatch.setattr(mysql_snapshot.MysqlSnapshot, "finish", fail)
    with open_sources({"app": Endpoint(url)}) as opened:
        assert export(opened, open_location(str(bundle)), workers=1, progress=Silent()).exit_code == 3
    assert "definitions" in gaps_of(bundle)
    assert verified(bundle) == []


def test_a_table_that_was_only_rewritten_counts_as_each_run_has_it(postgres_url, tmp_path):
    """The second run has read the first table anew, and not the second one."""
    bundle = tmp_path / "bundle"
    stopped(bundle, 2, app=postgres_url)
    for number in (0, 1):
        postgres_databases.run_sql(postgres_url, f"VACUUM FULL t{number}")
    stopped(bundle, 1, app=postgres_url)
    assert seal(bundle).exit_code == 3
    check(bundle, [0, 1])


def test_rows_of_a_dropped_table_are_named_once_more_was_exported_without_it(tmp_path):
    path, bundle = tmp_path / "app.db", tmp_path / "bundle"
    sqlite.run_sql(path, SCRIPT)
    stopped(bundle, 2, app=sqlite.url_of(path))
    rows = "WITH RECURSIVE n (g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM n WHERE g < 99) SELECT g FROM n"
    sqlite.run_sql(path, f"DROP VIEW v; DROP TABLE t0; CREATE TABLE t3 AS {rows}; DROP TABLE t2")
    stopped(bundle, 1, app=sqlite.url_of(path))
    path.unlink()
    assert seal(bundle).exit_code == 3
    gaps = {gap.item: gap.reason for _, gap in BundleReader(open_location(str(bundle))).gaps()}
    assert gaps["tables/0001.main.t0"].startswith("this table was dropped or renamed")
    rows = {row.name: row.items for row in BundleReader(open_location(str(bundle))).catalog()}
    assert rows == {"t1": 40, "t3": 99}
    assert verified(bundle) == []
