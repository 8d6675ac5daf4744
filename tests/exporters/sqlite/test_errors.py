"""What cannot be read or written is named, with the right exit code and a next step."""

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from exporters.errors import SourceError, SourceGoneError, SourceUnreachableError, SourceUsageError
from exporters.sqlite.address import parse_url
from exporters.sqlite.files import backup
from exporters.sqlite.source import SqliteExporter
from migrate.bundle import layout
from migrate.errors import BusyError, GoneError, MoveoutError, NotEmptyError, UsageError
from migrate.restore.sqlite import restore as sqlite_database
from migrate.restore.sqlite.left_out import record_path
from tests.cli.conftest import call
from tests.export.victims import run
from tests.exporters.sqlite.databases import (
    NoBuckets,
    export_file,
    fetch,
    losses_of,
    restore_file,
    run_sql,
    schema_of,
    url_of,
)
from tests.tools.bundles import read_bundle


def open_url(url: str) -> None:
    SqliteExporter().open("app", url, NoBuckets())


@pytest.fixture
def small(tmp_path):
    path = run_sql(tmp_path / "a.db", "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
    assert export_file(path, tmp_path / "bundle").complete
    return path


def test_a_missing_file_is_gone(tmp_path):
    with pytest.raises(SourceGoneError, match="no file") as caught:
        open_url(url_of(tmp_path / "no.db"))
    assert (caught.value.exit_code, bool(caught.value.next_step)) == (7, True)
    assert not (tmp_path / "no.db").exists()


@pytest.mark.parametrize("content", [b"not a database at all" * 100, os.urandom(8192)])
def test_what_is_no_database_is_named(tmp_path, content):
    path = tmp_path / "a.db"
    path.write_bytes(content)
    with pytest.raises(SourceUsageError, match=r"a\.db is not a SQLite database"):
        open_url(url_of(path))


def test_an_empty_directory_is_no_source(tmp_path):
    with pytest.raises(SourceUsageError, match="no SQLite database in"):
        open_url(url_of(tmp_path))


@pytest.mark.parametrize(
    "url", ["sqlite://host/a.db", "sqlite://", "sqlite:///a.db?mode=rw", "sqlite:///a.db#x"]
)
def test_other_urls_are_refused(url):
    with pytest.raises(SourceUsageError):
        parse_url(url)


def test_relative_and_escaped_paths():
    assert str(parse_url("sqlite:///tmp/a%20b%3F.db").path) == "/tmp/a b?.db"
    assert str(parse_url("sqlite:////tmp/a.db").path) == "/tmp/a.db"
    assert parse_url("sqlite://./x/../a.db").path.is_absolute()


def test_a_locked_file_can_be_tried_again_later(tmp_path, small, monkeypatch):
    monkeypatch.setattr(backup, "LOCK_SECONDS", 0.2)
    with closing(sqlite3.connect(small)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceUnreachableError, match="locked") as caught:
            open_url(url_of(small))
    assert caught.value.exit_code == 5


def test_a_damaged_page_is_a_gap_or_an_error_never_silence(tmp_path):
    path = run_sql(
        tmp_path / "a.db",
        "CREATE TABLE good (a); INSERT INTO good VALUES (1); CREATE TABLE t (a);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t"
        " SELECT 'row ' || i FROM n",
    )
    data = bytearray(path.read_bytes())
    data[4096 * 8 : 4096 * 9] = b"\xa5" * 4096
    path.write_bytes(data)
    try:
        outcome = export_file(path, tmp_path / "bundle")
    except SourceError as exc:
        message = f"{exc} {exc.next_step}"
    else:
        assert not outcome.complete
        return
    assert "damaged" in message
    assert ".recover" in message


def test_a_file_that_holds_something_else_is_left_alone(tmp_path, small):
    other = run_sql(tmp_path / "other.db", "CREATE TABLE mine (a)")
    before = other.read_bytes()
    with pytest.raises(NotEmptyError, match="something else"):
        restore_file(tmp_path / "bundle", other)
    assert other.read_bytes() == before


def test_a_file_with_one_row_more_is_not_taken_for_equal(tmp_path, small):
    assert restore_file(tmp_path / "bundle", tmp_path / "b.db").findings == ()
    run_sql(tmp_path / "b.db", "INSERT INTO t VALUES (3)")
    with pytest.raises(NotEmptyError):
        restore_file(tmp_path / "bundle", tmp_path / "b.db")


def test_a_destination_that_is_no_database_or_has_no_directory(tmp_path, small):
    (tmp_path / "text").write_text("dear diary " * 1000)
    with pytest.raises(UsageError, match="not a SQLite database"):
        restore_file(tmp_path / "bundle", tmp_path / "text")
    with pytest.raises(GoneError, match="no directory"):
        restore_file(tmp_path / "bundle", tmp_path / "none/b.db")


def test_a_destination_in_use_is_busy(tmp_path, small, monkeypatch):
    monkeypatch.setattr("migrate.restore.sqlite.destination.LOCK_SECONDS", 0.2)
    destination = run_sql(tmp_path / "b.db", "CREATE TABLE x (a)")
    with closing(sqlite3.connect(destination)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BusyError, match="used by another program"):
            restore_file(tmp_path / "bundle", destination)


def test_an_index_that_only_the_application_can_make_is_named_each_time_and_the_rest_is_there(tmp_path):
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.create_collation("own", lambda a, b: (a > b) - (a < b))
        connection.executescript(
            "CREATE TABLE t (a); INSERT INTO t VALUES ('x'); CREATE INDEX i ON t (a COLLATE own);"
        )
    outcome = export_file(path, tmp_path / "bundle")
    assert outcome.complete, outcome.sources
    destination = tmp_path / "b.db"
    victim = run(die_before_comparing, tmp_path / "bundle", destination)
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    for _ in range(2):
        restored = restore_file(tmp_path / "bundle", destination)
        assert restored.findings == ()
        assert [entry.partition(":")[0] for entry in restored.left_out] == ["the index i could not be made"]
        assert "b.db-moveout.json keeps this list" in restored.notes[-1]
    assert fetch(destination, "SELECT a FROM t", factory=str) == [("x",)]
    verified = call("verify", tmp_path / "bundle", "--against", f"app={url_of(destination)}", "--json", "-q")
    assert verified.code == 3
    assert verified.json["result"]["compared"][0]["left_out"] == list(restored.left_out)
    run_sql(destination, "INSERT INTO t VALUES ('y')")
    changed = restore_file(tmp_path / "bundle", destination)
    assert [finding.partition(":")[0] for finding in changed.findings] == ['"main"."t"']
    assert changed.left_out == restored.left_out
    destination.unlink()
    run_sql(path, "DROP INDEX i")
    assert export_file(path, tmp_path / "other").complete
    assert restore_file(tmp_path / "other", destination).left_out == ()


def test_a_unique_index_that_rows_violate_costs_itself(tmp_path):
    path, destination = tmp_path / "a.db", tmp_path / "b.db"
    run_sql(
        path,
        "CREATE TABLE t (a); INSERT INTO t VALUES (1), (1); CREATE INDEX i ON t (a); CREATE INDEX j ON t (a);"
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX i ON t (a)' WHERE name = 'i'",
    )
    assert export_file(path, tmp_path / "bundle").complete
    restored = [
        call("restore", tmp_path / "bundle", f"app={url_of(destination)}", "--json", "-q") for _ in range(2)
    ]
    for one in restored:
        (outcome,) = one.json["result"]["restored"]
        assert (one.code, outcome["findings"]) == (3, [])
        assert outcome["left_out"] == [
            "the index i could not be made: UNIQUE constraint failed: t.a: CREATE UNIQUE INDEX i ON t (a)"
        ]
    assert fetch(destination, "SELECT name FROM sqlite_schema WHERE type = 'index'", factory=str) == [("j",)]


def die_before_comparing(location: Path, destination: Path) -> None:
    def compare(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    sqlite_database.quiet_tables = compare
    restore_file(location, destination)


def test_a_damaged_part_costs_its_rows_and_comes_after_a_repair(tmp_path):
    path, destination = tmp_path / "a.db", tmp_path / "b.db"
    run_sql(
        path,
        "CREATE TABLE t (a); CREATE TABLE u (a); CREATE INDEX i ON u (a); CREATE VIEW v AS SELECT * FROM t",
    )
    run_sql(path, "INSERT INTO t VALUES (1), (2); INSERT INTO u VALUES (3)")
    assert export_file(path, tmp_path / "bundle").complete
    (part,) = (
        row.details["parts"][0]["name"]
        for row in read_bundle(tmp_path / "bundle").catalog()
        if row.name == "t"
    )
    file = tmp_path / "bundle" / layout.source_file("app", part)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        restored = restore_file(tmp_path / "bundle", destination)
        assert [finding.partition(":")[0] for finding in restored.findings] == ['"main"."t"']
        assert "moveout transfer --recheck" in restored.notes[-1]
        assert fetch(destination, "SELECT a FROM u", factory=str) == [(3,)]
    file.write_bytes(whole)
    restored = restore_file(tmp_path / "bundle", destination)
    assert (restored.findings, restored.left_out) == ((), ())
    assert schema_of(destination) == schema_of(path)
    assert not record_path(parse_url(url_of(destination))).exists()


FUNCTIONS = {"twice": lambda a: a * 2, "valid": lambda a: a != "wrong", "mint": lambda: 7}


def with_functions(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    for name, function in FUNCTIONS.items():
        connection.create_function(name, -1, function, deterministic=True)
    return connection


def test_tables_that_call_functions_of_the_application_come_back(tmp_path):
    path, destination = tmp_path / "a.db", tmp_path / "b.db"
    with closing(with_functions(path)) as connection:
        connection.executescript(
            "CREATE TABLE t (a CHECK (valid(a)), n DEFAULT (mint()), b AS (twice(a)));"
            "INSERT INTO t (a) VALUES ('x'), ('y')"
        )
    assert export_file(path, tmp_path / "bundle").complete
    assert losses_of(tmp_path / "bundle") == {"values of generated columns"}
    restored = restore_file(tmp_path / "bundle", destination)
    assert restored.findings == ()
    for name in ("twice", "valid"):
        assert any(
            f"calls the function {name}, which only the application has" in note for note in restored.notes
        )
    assert schema_of(destination) == schema_of(path)
    with closing(with_functions(destination)) as connection:
        assert connection.execute("SELECT * FROM t").fetchall() == [("x", 7, "xx"), ("y", 7, "yy")]
        connection.execute("INSERT INTO t (a) VALUES ('z')")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO t (a) VALUES ('wrong')")


def test_values_that_only_the_application_can_compute_and_the_file_stores_are_findings(tmp_path):
    """SQLite would compute them anew, with a function that is not there: that they differ is told, not hidden."""
    path = tmp_path / "a.db"
    with closing(with_functions(path)) as connection:
        connection.executescript("CREATE TABLE t (a, b AS (twice(a)) STORED); INSERT INTO t VALUES ('x')")
    assert export_file(path, tmp_path / "bundle").complete
    restored = restore_file(tmp_path / "bundle", tmp_path / "b.db")
    assert any("digest" in finding for finding in restored.findings) or losses_of(tmp_path / "bundle")


def test_an_empty_file_is_a_database_without_tables(tmp_path):
    (tmp_path / "a.db").touch()
    outcome = export_file(tmp_path / "a.db", tmp_path / "bundle")
    assert outcome.exit_code == 3
    assert restore_file(tmp_path / "bundle", tmp_path / "b.db").findings == ()


def test_errors_have_a_next_step(tmp_path, small):
    with pytest.raises(MoveoutError) as caught:
        restore_file(tmp_path / "bundle", tmp_path / "none/b.db")
    assert caught.value.next_step


ADDED = """
CREATE TABLE t (/* x AS ( */ "the ,key" INTEGER PRIMARY KEY, body TEXT DEFAULT (')'), loud AS (upper(body)) STORED,
  CHECK (length(body) > 0)); CREATE TABLE kept AS SELECT 1 AS a;
INSERT INTO t ("the ,key", body) VALUES (1, '{"x": 1}'), (2, '{nonsense'), (3, NULL);
ALTER TABLE t ADD COLUMN "x ""(" INT GENERATED ALWAYS AS (json_extract(body, '$.x') -- of (some
  + coalesce(1, (2))); ALTER TABLE t ADD COLUMN size AS (length(body));
CREATE INDEX whole ON t ("x ""(") WHERE "the ,key" <> 2;
"""


@pytest.mark.parametrize("only", [(), ("t",)])
def test_a_generated_column_that_cannot_be_computed_for_a_row_costs_only_its_values(tmp_path, only):
    path, destination = run_sql(tmp_path / "a.db", ADDED), tmp_path / "b.db"
    with pytest.raises(sqlite3.OperationalError):
        fetch(path, "SELECT * FROM t")
    assert export_file(path, tmp_path / "bundle").complete
    assert losses_of(tmp_path / "bundle") == {"values of generated columns"}
    restored = restore_file(tmp_path / "bundle", destination, *only)
    assert (restored.findings, restored.left_out) == ((), ())
    query = 'SELECT "the ,key", body, loud, size FROM t ORDER BY 1'
    assert fetch(destination, query) == fetch(path, query)
    of_some = 'SELECT "the ,key", "x ""(" FROM t WHERE "the ,key" <> 2 ORDER BY 1'
    assert fetch(destination, of_some) == fetch(path, of_some) == [(1, 2), (3, None)]
    sql = "SELECT sql FROM sqlite_schema WHERE tbl_name = 't'"
    assert fetch(destination, sql) == fetch(path, sql)
