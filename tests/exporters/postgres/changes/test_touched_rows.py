"""Which rows changes name, and what these rows are on a server."""

import contextlib

import pytest

from exporters import touched_rows as module
from exporters.engine import TablesRequest
from exporters.postgres.changes.touched_rows import touched_rows
from exporters.postgres.live_digests import live_tables
from exporters.postgres.live_rows import live_rows
from exporters.postgres.sessions.connection import parse_url
from exporters.row_digest import RowsDigest
from tests.exporters.postgres.databases import run_sql
from tests.tools.changes import SqlSlot

TABLES = """
CREATE TABLE one (id int PRIMARY KEY, v text); INSERT INTO one SELECT g, 'v' || g FROM generate_series(1, 9) g;
CREATE TABLE two (a text, b timestamptz, v int, PRIMARY KEY (b, a));
CREATE TABLE whole (v int); ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE emptied (id int PRIMARY KEY); CREATE TABLE altered (id int PRIMARY KEY);
CREATE TABLE many (id int PRIMARY KEY);
CREATE TABLE long (id text PRIMARY KEY, v int); ALTER TABLE long ALTER id SET STORAGE EXTERNAL;
CREATE TABLE chosen (n int NOT NULL, other int PRIMARY KEY); CREATE UNIQUE INDEX by_n ON chosen (n);
ALTER TABLE chosen REPLICA IDENTITY USING INDEX by_n;
CREATE TABLE vague (n numeric PRIMARY KEY); CREATE TABLE untouched (id int PRIMARY KEY);
CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE blindly (id text COLLATE blind PRIMARY KEY);
"""
CHANGES = r"""
INSERT INTO one VALUES (10, 'new'); UPDATE one SET v = 'w' WHERE id = 1; UPDATE one SET id = 20 WHERE id = 2;
DELETE FROM one WHERE id = 3;
INSERT INTO two VALUES (E'q"\\,{}''\n', '2024-01-01 12:00+02', 1);
INSERT INTO two VALUES ('NULL', 'infinity', 2), ('', '-infinity', 3), ('', 'epoch', 4);
INSERT INTO whole VALUES (1); TRUNCATE emptied; INSERT INTO altered VALUES (1);
ALTER TABLE altered ADD COLUMN v int; INSERT INTO altered VALUES (2); INSERT INTO many SELECT generate_series(1, 50);
INSERT INTO long VALUES (repeat('x', 2500), 1); INSERT INTO chosen VALUES (5, 6);
INSERT INTO vague VALUES (1); INSERT INTO blindly VALUES ('a');
"""


@pytest.fixture(scope="module")
def changed(postgres):
    """A database, and what its changes have touched."""
    url = postgres.database()
    run_sql(url, TABLES)
    with contextlib.closing(SqlSlot(url, "touched")) as slot:
        run_sql(url, CHANGES)
        run_sql(url, "UPDATE long SET v = 2")
        messages = [*slot.messages()]
    return url, messages


def test_rows_are_named_by_their_keys_before_and_after(changed, monkeypatch):
    _, messages = changed
    monkeypatch.setattr(module, "MOST_KEYS", 49)
    touched = {name: rows for (_, name), rows in touched_rows(messages).items()}
    assert touched["one"].columns == ("id",)
    assert touched["one"].keys == {(key,) for key in (b"10", b"1", b"2", b"20", b"3")}
    assert {key[0] for key in touched["two"].keys} == {b"q\"\\,{}'\n", b"NULL", b""}
    assert touched["long"].keys == {(b"x" * 2500,)}
    assert (touched["chosen"].columns, touched["chosen"].keys) == (("n",), {(b"5",)})
    assert {name: rows.reason for name, rows in touched.items() if rows.reason} == {
        "whole": "the log does not name its rows by a key",
        "emptied": "it was truncated",
        "altered": "its definition has changed",
        "many": "more than 49 of its rows were written",
    }
    assert "untouched" not in touched


def test_rows_are_read_by_the_keys_of_the_log(changed):
    url, messages = changed
    touched = touched_rows(messages)
    with live_rows(parse_url(url)) as rows:
        inexact = [
            name
            for (_, name), table in touched.items()
            if not rows.has_exact_keys("public", name, table.columns)
        ]
        assert sorted(inexact) == ["blindly", "vague"]
        for name, expected in (("one", 3), ("two", 4), ("long", 1), ("chosen", 1), ("many", 50)):
            table = touched["public", name]
            assert rows.digest_with_keys("public", name, table.columns, list(table.keys)).rows == expected
        whole = rows.digests(TablesRequest(2, lambda *_: None)).digests
    others = RowsDigest()
    run_sql(url, "DELETE FROM one WHERE id NOT IN (10, 1, 20)")
    remaining = live_tables(url)["public", "one"]
    with live_rows(parse_url(url)) as rows:
        keys = list(touched["public", "one"].keys)
        assert rows.digest_with_keys("public", "one", ("id",), keys) == remaining
    assert whole["public", "one"] - remaining != others
    assert (whole["public", "one"] - remaining).rows == 6
