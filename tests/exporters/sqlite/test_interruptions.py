"""Others write while it is exported; runs are killed at any moment; the result is the same."""

import multiprocessing.util
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from exporters.sqlite import chunk_plan
from exporters.sqlite.address import parse_url
from exporters.sqlite.files import backup
from exporters.sqlite.snapshot import SqliteSnapshot
from migrate.restore.sqlite import load_rows as sqlite_rows
from migrate.restore.sqlite import restore as sqlite_restore
from tests.export.victims import kill_when
from tests.exporters.sqlite.databases import (
    everything,
    export_file,
    fetch,
    restore_file,
    run_sql,
    schema_of,
    settings,
    url_of,
)
from tests.tools.bundles import differences, read_bundle
from tests.tools.commit_records import recorded_units
from tests.tools.waiting import eventually

CHUNK = 64 * 1024
ACCOUNTS, MONEY = 2000, 1000

_WRITER = """
import random, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
print("ready", flush=True)
while True:
    a, b = random.sample(range({accounts}), 2)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE accounts SET money = money - 7 WHERE id = ?", (a,))
    connection.execute("UPDATE accounts SET money = money + 7 WHERE id = ?", (b,))
    connection.execute("INSERT INTO log VALUES ((SELECT count(*) FROM log))")
    connection.execute("COMMIT")
"""

_LAST_WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("UPDATE t SET n = 1")
print("ready", flush=True)
sys.stdin.readline()
connection.execute("UPDATE t SET n = 2")
connection.close()
"""

_TABLES = """
PRAGMA user_version = 7;
CREATE TABLE big (a TEXT, b INT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
  INSERT INTO big SELECT 'row number ' || i || ' of many', i % 7 FROM n;
DELETE FROM big WHERE b = 3;
CREATE INDEX by_b ON big (b);
CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, x);
INSERT INTO counted VALUES (40, 'x');
CREATE VIEW v AS SELECT count(*) FROM big;
CREATE TRIGGER t AFTER INSERT ON big BEGIN INSERT INTO counted (x) VALUES (new.a); END;
"""


def slow_export(path: Path, location: Path, count: int) -> None:
    """Export in small chunks, each of which takes a while. Begin none when ``count`` are done."""
    chunk_plan.CHUNK_BYTES = CHUNK
    real = SqliteSnapshot.export

    def slow(self, unit, sink):
        time.sleep(60 if len(recorded_units(location)) >= count else 0.05)
        return real(self, unit, sink)

    SqliteSnapshot.export = slow
    export_file(path, location)


def killed_export(path: Path, location: Path, *, after: int) -> set[str]:
    kill_when(lambda: len(recorded_units(location)) >= after, slow_export, path, location, after)
    return recorded_units(location)


def stopping_restore(location: Path, destination: Path, marker: Path, count: int) -> None:
    """Restore row by row. Stop after ``count`` parts, and statements after the rows; tell so by a file."""
    sqlite_rows.COMMIT_ROWS = 1
    insert, complete, steps = sqlite_rows._PartWriter._insert, sqlite_restore._complete, []

    def step(*_):
        if len(steps) == count:
            marker.touch()
            time.sleep(60)
        steps.append(1)

    def slow_insert(*args):
        step()
        insert(*args)

    def slow_complete(job, connection, notes):
        connection.set_trace_callback(step)
        return complete(job, connection, notes)

    sqlite_rows._PartWriter._insert, sqlite_restore._complete = slow_insert, slow_complete
    restore_file(location, destination)


@pytest.fixture
def big(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(chunk_plan, "CHUNK_BYTES", CHUNK)
    return run_sql(tmp_path / "big.db", _TABLES)


@pytest.fixture
def redone(monkeypatch) -> Counter:
    counted: Counter = Counter()
    real = SqliteSnapshot.export

    def export(self, unit, sink):
        counted[unit.id] += 1
        return real(self, unit, sink)

    monkeypatch.setattr(SqliteSnapshot, "export", export)
    return counted


def test_a_program_that_opens_the_file_meanwhile_is_not_in_the_way(tmp_path, monkeypatch):
    """The file is looked at once before it is copied; another program may begin to write at that moment."""
    path = run_sql(tmp_path / "a.db", "PRAGMA journal_mode = wal; CREATE TABLE t (n int)")
    real, looks = backup.mark_of, []

    def look(address):
        looks.append(address)
        return real(address) if len(looks) > 2 else len(looks)

    monkeypatch.setattr(backup, "mark_of", look)
    assert export_file(path, tmp_path / "bundle").complete
    assert len(looks) > 2


def test_who_closes_a_file_last_moves_nothing_into_it_while_it_is_copied(tmp_path, monkeypatch):
    """A file that is opened and closed meanwhile takes the locks on it along: the log went into it, under the copy."""
    path = run_sql(
        tmp_path / "a.db", "PRAGMA journal_mode = wal; CREATE TABLE t (n int); INSERT INTO t VALUES (0)"
    )
    argv = [sys.executable, "-c", _LAST_WRITER, path]
    real, log, kept = backup._copy, path.with_name("a.db-wal"), []

    def copy(source, destination, *, gently):
        source.execute("BEGIN")
        source.execute("SELECT n FROM t").fetchone()
        writer.communicate("\n")
        kept.append(log.exists())
        real(source, destination, gently=gently)

    monkeypatch.setattr(backup, "_copy", copy)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "ready\n"
        with backup.copied(parse_url(url_of(path))) as copied:
            assert fetch(copied.path, "SELECT n FROM t") == [(1,)]
    assert kept == [True]


@pytest.mark.parametrize("mode", ["wal", pytest.param("delete", marks=pytest.mark.torture)])
def test_what_is_exported_is_one_moment_while_others_write(tmp_path, mode, monkeypatch):
    """Money moves between accounts: its sum is exact; the log is a prefix without holes; writers go on."""
    monkeypatch.setattr(backup, "STEP_PAGES", 5)
    path = run_sql(
        tmp_path / "bank.db",
        f"PRAGMA journal_mode = {mode}; CREATE TABLE accounts (id INTEGER PRIMARY KEY, money INT, pad TEXT);"
        f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS - 1})"
        f" INSERT INTO accounts SELECT i, {MONEY}, printf('%.200c', 'x') FROM n; CREATE TABLE log (n INT)",
    )
    argv = [sys.executable, "-c", _WRITER.format(accounts=ACCOUNTS), path]
    writer = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        writer.stdout.readline()
        for number in range(3):
            location, destination = tmp_path / f"bundle{number}", tmp_path / f"{number}.db"
            assert export_file(path, location).complete
            assert restore_file(location, destination).findings == ()
            assert fetch(destination, "SELECT sum(money), count(*) FROM accounts") == [
                (ACCOUNTS * MONEY, ACCOUNTS)
            ]
            ((count, last),) = fetch(destination, "SELECT count(*), max(n) FROM log")
            assert count == (last + 1 if count else 0)
        with closing(sqlite3.connect(path)) as live:
            logged = "SELECT count(*) FROM log"
            eventually(lambda: writer.poll() is not None or live.execute(logged).fetchone()[0] > count)
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.communicate()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM log").fetchone()[0] > count
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_export_that_was_killed_does_the_rest_only(big, tmp_path, redone):
    location = tmp_path / "bundle"
    done = killed_export(big, location, after=3)
    outcome = export_file(big, location)
    assert outcome.complete, outcome.sources
    assert redone
    assert not done & redone.keys()
    assert differences(read_bundle(location), url_of(big)) == []


def test_a_file_that_changed_meanwhile_is_exported_as_it_is_now(big, tmp_path, redone):
    location = tmp_path / "bundle"
    done = killed_export(big, location, after=3)
    run_sql(big, "UPDATE big SET a = 'new' WHERE rowid = 1; INSERT INTO big VALUES ('last', 0)")
    assert export_file(big, location).complete
    first, *_, last = sorted(unit for unit in done | redone.keys() if ".big/" in unit)
    changed = {first, last, "tables/0002.main.counted/000000", "tables/0003.main.sqlite_sequence/000000"}
    assert done & redone.keys() <= changed
    assert differences(read_bundle(location), url_of(big)) == []
    assert len(read_bundle(location).reconciliation()[0].summary.positions) == 2


def test_copies_of_killed_runs_are_removed(big, tmp_path, monkeypatch):
    multiprocessing.util.get_temp_dir()  # of the fork server's socket, whose path may have 107 bytes: not in ours
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    location = tmp_path / "bundle"
    killed_export(big, location, after=1)
    assert list((tmp_path / "tmp").glob("moveout-sqlite-*"))
    assert export_file(big, location).complete
    assert not list((tmp_path / "tmp").glob("moveout-sqlite-*"))


@pytest.mark.parametrize("count", [6, *(pytest.param(n, marks=pytest.mark.torture) for n in (0, 3, 14))])
def test_a_restore_that_was_killed_goes_on(big, tmp_path, count, monkeypatch):
    location, destination, marker = tmp_path / "bundle", tmp_path / "new.db", tmp_path / "there"
    assert export_file(big, location).complete
    kill_when(marker.exists, stopping_restore, location, destination, marker, count)
    written: list[str] = []
    real = sqlite_rows._PartWriter._insert
    monkeypatch.setattr(
        sqlite_rows._PartWriter, "_insert", lambda *args: (written.append(args[1].name), real(*args))
    )
    outcome = restore_file(location, destination)
    assert outcome.findings == ()
    assert len(written) == len(set(written))
    assert everything(destination) == everything(big)
    assert (schema_of(destination), settings(destination)) == (schema_of(big), settings(big))
    assert b"moveout" not in destination.read_bytes()


def test_another_bundles_unfinished_restore_is_not_continued(big, tmp_path):
    location, destination, marker = tmp_path / "bundle", tmp_path / "new.db", tmp_path / "there"
    assert export_file(big, location).complete
    # rows are there: so the transaction that made the tables has ended, and is not undone
    kill_when(marker.exists, stopping_restore, location, destination, marker, 3)
    assert destination.stat().st_size > 100_000
    other = tmp_path / "other"
    assert export_file(run_sql(tmp_path / "o.db", "CREATE TABLE o (a)"), other).complete
    with pytest.raises(Exception, match=r"unfinished restore|something else"):
        restore_file(other, destination)
