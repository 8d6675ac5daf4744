"""Tables whose keys are in an order that only the application knows leave, and come back for it to order anew."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.exporters.sqlite.databases import export_file, restore_file, url_of
from tests.tools.bundles import differences, read_bundle

SCRIPT = """
CREATE TABLE sorted (a TEXT COLLATE "my own" PRIMARY KEY, b) WITHOUT ROWID;
CREATE TABLE once (a TEXT UNIQUE COLLATE [my own], b, c AS (twice(b)));
CREATE TABLE bracketed (a TEXT, b, UNIQUE (b, a COLLATE `my own`));
"""
ROWS = [(chr(97 + n % 26) * 3, n) for n in range(26)]
TABLES = ("sorted", "once", "bracketed")


def of_application(path: Path) -> sqlite3.Connection:
    """A connection that orders backwards, and has a function."""
    connection = sqlite3.connect(path)
    connection.create_collation("my own", lambda a, b: (a < b) - (a > b))
    connection.create_function("twice", 1, lambda a: a * 2, deterministic=True)
    return connection


def found(connection: sqlite3.Connection) -> list[list]:
    return [connection.execute(f"SELECT b FROM {t} WHERE a = 'ccc' AND b >= 0").fetchall() for t in TABLES]


def test_keys_in_an_order_of_the_application_come_back(tmp_path):
    path, destination = tmp_path / "a.db", tmp_path / "b.db"
    with closing(of_application(path)) as connection:
        connection.executescript(SCRIPT)
        for table in TABLES:
            connection.executemany(f"INSERT INTO {table} (a, b) VALUES (?, ?)", ROWS)
        connection.execute("CREATE INDEX over ON once (twice(b))")
        connection.commit()
    assert export_file(path, tmp_path / "bundle").complete
    restored = restore_file(tmp_path / "bundle", destination)
    assert restored.findings == ()
    assert [entry.partition(":")[0] for entry in restored.left_out] == ["the index over could not be made"]
    (note,) = [note for note in restored.notes if "REINDEX" in note]
    assert note.startswith("keys by the collation my own, which only the application has")
    reader = read_bundle(tmp_path / "bundle")
    assert differences(reader, url_of(destination)) == []
    with closing(of_application(destination)) as connection:
        connection.execute('REINDEX "my own"')
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert found(connection) == [[(2,)]] * 3
        for table in TABLES:
            assert sorted(connection.execute(f"SELECT a, b FROM {table}").fetchall()) == ROWS
