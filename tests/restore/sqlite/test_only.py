"""A part of a file: its definitions, its rows, or some of its tables, also beside what is there already."""

import sqlite3
from contextlib import closing

import pytest

from exporters.sqlite.live_reader import digest_tables
from migrate.errors import NotEmptyError, UsageError
from migrate.restore.source_restore import finished_restores
from migrate.restore.sqlite import restore as sqlite_restore
from tests.exporters.sqlite.databases import (
    everything,
    export_file,
    fetch,
    run_sql,
    schema_of,
    settings,
    url_of,
)
from tests.tools.bundles import read_bundle, restore_from


def restore(location, destination, *only):
    outcome = restore_from(read_bundle(location), "app", url_of(destination), workers=2, only=only)
    assert outcome.findings == ()
    return outcome


def names(path, kind):
    return {
        row[0] for row in fetch(path, f"SELECT name FROM sqlite_schema WHERE type = '{kind}'", factory=str)
    }


def test_definitions_first_and_rows_later_make_the_whole(torture, bundle, tmp_path):
    """Triggers and full-text indexes are there before the rows, and do nothing meanwhile."""
    destination = tmp_path / "new.db"
    assert restore(bundle, destination, "schema").items == 0
    assert schema_of(destination) == schema_of(torture)
    assert settings(destination) == settings(torture)
    assert fetch(destination, "SELECT count(*) FROM keyed") == [(0,)]
    restore(bundle, destination, "data")
    before, after = everything(torture), everything(destination)
    for own in ("sqlite_stat1", "sqlite_stat4"):
        before.pop(own, None)
        after.pop(own, None)
    assert {row[:5] for row in after.pop("sqlite_sequence")} == {
        row[:5] for row in before.pop("sqlite_sequence")
    }
    assert after == before
    assert names(destination, "trigger") == names(torture, "trigger")
    assert "already" in restore(bundle, destination, "data").routine[0]


def test_some_tables_come_with_indexes_triggers_and_counters_beside_others(torture, bundle, tmp_path):
    destination = run_sql(
        tmp_path / "mine.db",
        f"PRAGMA encoding = '{settings(torture)['encoding']}'; CREATE TABLE mine (x); INSERT INTO mine VALUES (1);"
        "CREATE VIEW v AS SELECT 1",
    )
    restore(bundle, destination, "keyed", "words", "main.anything")
    tables = names(destination, "table")
    assert {"mine", "keyed", "anything", "words", "words_data", "sqlite_sequence"} <= tables
    assert not {"without", "log", "boxes"} & tables
    assert names(destination, "view") == {"v"}
    assert names(destination, "trigger") == {"logged"}
    assert {"partial", "expression"} <= names(destination, "index")
    before, after = everything(torture), everything(destination)
    assert all(after[name] == before[name] for name in ("keyed", "anything", "words_data", "words_content"))
    with closing(sqlite3.connect(destination)) as connection:
        assert connection.execute("SELECT title FROM words WHERE words MATCH 'lazy'").fetchall() == [("two",)]
        assert connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'keyed'").fetchone() == (11,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert "already" in restore(bundle, destination, "keyed").routine[0]
    run_sql(destination, "DROP TRIGGER logged; UPDATE keyed SET name = 'other' WHERE id = 7")
    with pytest.raises(NotEmptyError, match="table keyed already"):
        restore(bundle, destination, "keyed")
    with pytest.raises(UsageError, match="no table nowhere"):
        restore(bundle, destination, "nowhere")


def test_rows_go_into_tables_that_the_application_has_made(tmp_path):
    source = run_sql(
        tmp_path / "a.db", "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'); CREATE TABLE u (a)"
    )
    destination, location = tmp_path / "b.db", tmp_path / "bundle"
    assert export_file(source, location).complete
    with pytest.raises(UsageError, match="has no table t and 1 more"):
        restore(location, destination, "data")
    assert not destination.exists()
    run_sql(destination, "CREATE TABLE t (b, a); INSERT INTO t VALUES (2, 3)")
    with pytest.raises(NotEmptyError, match="table t with rows in it"):
        restore(location, destination, "data", "t")
    run_sql(destination, "DELETE FROM t; CREATE TRIGGER mine AFTER INSERT ON t BEGIN DELETE FROM t; END")
    with pytest.raises(NotEmptyError, match="mine of table t is not as in the bundle"):
        restore(location, destination, "data", "t")


def test_triggers_that_were_put_aside_are_made_by_the_run_that_ends_it(
    bundle, torture, tmp_path, monkeypatch
):
    destination = tmp_path / "new.db"
    restore(bundle, destination, "schema")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_restore, "_counters", stop)
        with pytest.raises(KeyboardInterrupt):
            restore(bundle, destination, "data", "keyed")
    assert names(destination, "trigger") == {"instead"}
    [record] = finished_restores(read_bundle(bundle), "app", url_of(destination), secrets={})
    assert (record.only, record.finished) == ("data, keyed", False)
    with pytest.raises(NotEmptyError, match="unfinished restore of data, keyed"):
        restore(bundle, destination, "data")
    restore(bundle, destination, "data", "keyed")
    assert names(destination, "trigger") == names(torture, "trigger")
    assert everything(destination)["keyed"] == everything(torture)["keyed"]
    assert fetch(destination, "SELECT count(*) FROM log") == [(0,)]


def test_files_of_a_directory_have_their_own_tables(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("one.db", "two.db"):
        run_sql(tmp_path / "in" / name, "CREATE TABLE t (a); INSERT INTO t VALUES (1); CREATE TABLE u (a)")
    location = tmp_path / "bundle"
    assert export_file(tmp_path / "in", location).complete
    with pytest.raises(UsageError, match=r"one\.db\.t, two\.db\.t"):
        restore(location, tmp_path / "out", "t")
    assert restore(location, tmp_path / "out", "two.db.t").items == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["two.db"]
    assert names(tmp_path / "out/two.db", "table") == {"t"}


def test_what_is_compared_is_shown_in_the_bytes_of_its_total(torture, bundle):
    seen = []
    digest_tables(
        url_of(torture), workers=2, advance=lambda rows, size_bytes: seen.append((rows, size_bytes))
    )
    total = [row for row in read_bundle(bundle).catalog() if row.kind == "table"]
    assert sum(rows for rows, _ in seen) == sum(row.items for row in total)
    assert sum(size_bytes for _, size_bytes in seen) == sum(row.size_bytes for row in total)
