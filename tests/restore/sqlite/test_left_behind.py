"""A program ended in the middle of a write: what was committed leaves, and nothing is touched."""

import subprocess
import sys

import pytest

from exporters.sqlite.source import SqliteExporter
from tests.exporters.sqlite.databases import (
    NoBuckets,
    everything,
    export_file,
    fetch,
    restore_file,
    run_sql,
    url_of,
)

_ENDS = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.executescript(sys.argv[2])
os._exit(9)
"""
_FILL = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
    " INSERT INTO t SELECT i, printf('old %.200c', 'x') FROM n;"
)


def ended_while(path, script: str) -> dict[str, bytes]:
    """Run a script in a program that ends without closing; return what lies there then."""
    ended = subprocess.run([sys.executable, "-c", _ENDS, path, script], check=False)
    assert ended.returncode == 9
    return there(path)


def there(path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "source").mkdir()
    return run_sql(tmp_path / "source/a.db", f"CREATE TABLE t (id INTEGER PRIMARY KEY, x); {_FILL}")


def test_a_write_that_was_not_committed_is_rolled_back_in_a_copy(path, tmp_path):
    before = everything(path)
    left = ended_while(
        path, "PRAGMA cache_size = 5; BEGIN; UPDATE t SET x = 'new'; DELETE FROM t WHERE id > 50"
    )
    assert left.keys() == {"a.db", "a.db-journal"}
    assert len(left["a.db-journal"]) > 100_000
    SqliteExporter().open("app", url_of(path), NoBuckets()).survey()
    assert export_file(path, tmp_path / "bundle").complete
    assert restore_file(tmp_path / "bundle", tmp_path / "b.db").findings == ()
    assert everything(tmp_path / "b.db") == before
    assert there(path) == left


def test_what_was_committed_to_the_log_alone_leaves_too(path, tmp_path):
    left = ended_while(
        path,
        "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; UPDATE t SET x = 'new' WHERE id <= 10;",
    )
    assert "a.db-wal" in left
    assert export_file(path, tmp_path / "bundle").complete
    assert restore_file(tmp_path / "bundle", tmp_path / "b.db").findings == ()
    assert fetch(tmp_path / "b.db", "SELECT count(*) FROM t WHERE x = 'new'") == [(10,)]
    for name in ("a.db", "a.db-wal"):
        assert (path.parent / name).read_bytes() == left[name]


def test_a_log_without_its_index_leaves_too_and_no_index_is_left_behind(path, tmp_path):
    """As where a file was copied with its log, or a server was switched off."""
    ended_while(
        path, "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; DELETE FROM t WHERE id > 10;"
    )
    (path.parent / "a.db-shm").unlink()
    left = there(path)
    assert export_file(path, tmp_path / "bundle").complete
    assert there(path) == left
    assert restore_file(tmp_path / "bundle", tmp_path / "b.db").findings == ()
    assert fetch(tmp_path / "b.db", "SELECT count(*) FROM t") == [(10,)]


def test_a_restored_file_is_open_to_nobody_else(path, tmp_path):
    assert export_file(path, tmp_path / "bundle").complete
    outcome = restore_file(tmp_path / "bundle", tmp_path / "b.db")
    assert (tmp_path / "b.db").stat().st_mode & 0o777 == 0o600
    assert outcome.routine == (
        f"{tmp_path / 'b.db'} is open to this account only: chown or chmod it for the application's",
    )


@pytest.mark.parametrize(
    ("mode", "script", "rows"),
    [
        ("wal", "PRAGMA wal_autocheckpoint = 0; UPDATE t SET x = 'new' WHERE id <= 10", 10),
        ("delete", "PRAGMA cache_size = 5; BEGIN; UPDATE t SET x = 'new'", 0),
    ],
)
def test_the_log_of_a_link_is_that_of_its_file(path, tmp_path, mode, script, rows):
    """It was looked for next to the link: what was committed to the log alone was missing, and nothing said so."""
    ended_while(path, f"PRAGMA journal_mode = {mode}; {script}")
    (tmp_path / "linked.db").symlink_to("source/a.db")
    for source in (tmp_path / "linked.db", path):
        location, restored = tmp_path / f"bundle of {source.name}", tmp_path / f"from {source.name}"
        assert export_file(source, location).complete
        assert restore_file(location, restored).findings == ()
        assert fetch(restored, "SELECT count(*) FROM t WHERE x = 'new'") == [(rows,)]
