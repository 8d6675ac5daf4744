"""Which rows the binary log names, how many it has, and what these rows are on a server."""

import secrets

import pytest

from exporters import touched_rows as module
from exporters.changes import MessageKind
from exporters.engine import TablesRequest
from exporters.mysql.changes.binlog_events import ROWS, EventType, event_type, read_table_map, table_number
from exporters.mysql.changes.log import open_change_log
from exporters.mysql.changes.row_events import count_rows, single_rows, uncompressed
from exporters.mysql.connection import parse_url
from exporters.mysql.live_rows import live_rows
from tests.exporters.mysql.databases import run_sql

KEYS = {
    "tiny": ("TINYINT", ["-128", "0", "127"]),
    "positive": ("MEDIUMINT UNSIGNED", ["0", "16777215"]),
    "filled": ("INT(5) ZEROFILL", ["0", "4294967295"]),
    "big": ("BIGINT", ["-9223372036854775808", "-1", "9223372036854775807"]),
    "numbers": ("DECIMAL(23,11)", ["-123456789012.00000000001", "0", "-0.5", "999999999999.99999999999"]),
    "whole": ("DECIMAL(9,0)", ["-999999999", "7"]),
    "days": ("DATE", ["'0000-00-00'", "'2024-00-00'", "'9999-12-31'"]),
    "moments": (
        "DATETIME(3)",
        ["'0000-00-00 00:00:00'", "'1000-01-01 23:59:59.999'", "'2024-02-30 00:00:00.5'"],
    ),
    "plain": ("DATETIME", ["'2024-02-29 12:34:56'"]),
    "stamps": (
        "TIMESTAMP(6)",
        ["'0000-00-00 00:00:00'", "'1970-01-01 00:00:01.000001'", "'2038-01-19 03:14:07'"],
    ),
    "letters": (
        "VARCHAR(300) COLLATE utf8mb4_general_ci",
        ["''", "'a '", "'É\\'\"\\\\'", "REPEAT('z', 300)"],
    ),
    "fixed": ("CHAR(5)", ["''", "'ab'", "' c'"]),
    "old": ("VARCHAR(9) CHARSET latin1", ["'é'", "'€'"]),
    "bytes": ("BINARY(4)", ["X'00'", "X'FF000000'", "X'20202000'"]),
    "more": ("VARBINARY(300)", ["X''", "X'00'", "X'0000'"]),
}
TABLES = "".join(f"CREATE TABLE {name} (k {kind} PRIMARY KEY, v INT);" for name, (kind, _) in KEYS.items())
OTHERS = """
CREATE TABLE pair (a INT, filler TEXT, b VARCHAR(9), v INT NULL, PRIMARY KEY (b, a));
CREATE TABLE long_key (k VARCHAR(100), v INT, PRIMARY KEY (k(3)));
CREATE TABLE keyless (v INT); CREATE TABLE emptied (id INT PRIMARY KEY); CREATE TABLE altered (id INT PRIMARY KEY);
CREATE TABLE labels (k ENUM ('a', 'b') PRIMARY KEY); CREATE TABLE bits (k BIT(3) PRIMARY KEY);
CREATE TABLE clock (k TIME PRIMARY KEY); CREATE TABLE inexact (k DOUBLE PRIMARY KEY);
CREATE TABLE untouched (id INT PRIMARY KEY); CREATE TABLE many (id INT PRIMARY KEY);
"""
CHANGES = """
INSERT INTO pair VALUES (1, REPEAT('f', 300), 'x', NULL), (2, NULL, 'y', 1), (3, '', 'Z', 2);
UPDATE pair SET v = 3 WHERE a = 1; UPDATE pair SET b = 'z' WHERE a = 3; DELETE FROM pair WHERE a = 2;
INSERT INTO long_key VALUES ('abcdef', 1); INSERT INTO keyless VALUES (1); TRUNCATE emptied;
INSERT INTO altered VALUES (1); ALTER TABLE altered ADD COLUMN v INT; INSERT INTO altered VALUES (2, 2);
INSERT INTO labels VALUES ('a'); INSERT INTO bits VALUES (5); INSERT INTO clock VALUES ('-1:00:00');
INSERT INTO inexact VALUES (0.1); INSERT INTO many VALUES (1), (2), (3), (4), (5), (6);
SET SESSION binlog_row_image = 'MINIMAL'; UPDATE pair SET v = 4 WHERE a = 1;
"""
REFUSED = {
    "keyless": "the log does not name its rows by a key",
    "emptied": "it was truncated",
    "altered": "its definition has changed",
    "many": "more than 5 of its rows were written",
    **dict.fromkeys(["labels", "bits", "clock", "inexact"], "rows are not looked up by a key of such a type"),
}


@pytest.fixture(scope="module", params=["mariadb", pytest.param("mysql", marks=pytest.mark.torture)])
def changed(request):
    """A database, its log, and what that has since it was made."""
    if request.param == "mysql":
        server = request.getfixturevalue("servers").mysql(
            "mysql-touched", settings=["binlog-row-metadata=FULL"]
        )
    else:
        server = request.getfixturevalue("followed_mariadb")
    url = server.database()
    run_sql(url, "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'; " + TABLES + OTHERS)
    log = open_change_log(url, {}, f"case-{secrets.token_hex(4)}")
    with log.open_base() as base:
        pass
    values = [
        f"INSERT INTO {name} VALUES {', '.join(f'({value}, 1)' for value in values)};"
        for name, (_, values) in KEYS.items()
    ]
    settings = "SET SESSION time_zone = '+00:00', sql_mode = 'ALLOW_INVALID_DATES'; "
    run_sql(url, settings + "".join(values) + CHANGES)
    end, messages = log.state(base.log).end, []
    with log.stream(base.log, base.position) as stream:
        while stream.received < end:
            messages += stream.receive(0.2)
    return url, log.touched_rows(base.log, messages), messages, base.log, log


def test_rows_are_named_by_their_keys_before_and_after(changed, monkeypatch):
    _, _, messages, described, log = changed
    monkeypatch.setattr(module, "MOST_KEYS", 5)
    touched = {name: rows for (_, name), rows in log.touched_rows(described, messages).items()}
    assert touched["pair"].columns == ("b", "a")
    assert {(key[0], key[1][0]) for key in touched["pair"].keys} == {
        (b"x", 1),
        (b"y", 2),
        (b"Z", 3),
        (b"z", 3),
    }
    assert {name: rows.reason for name, rows in touched.items() if rows.reason} == REFUSED
    assert "untouched" not in touched


@pytest.mark.parametrize("is_one_moment", [True, pytest.param(False, marks=pytest.mark.torture)])
def test_each_row_is_found_by_its_key_and_no_other_one(changed, is_one_moment):
    url, touched, *_ = changed
    with live_rows(parse_url(url), readers=4, is_one_moment=is_one_moment) as rows:
        whole = rows.digests(TablesRequest(2, lambda *_: None)).digests
        for name, expected in {
            **{name: len(values) for name, (_, values) in KEYS.items()},
            "long_key": 1,
        }.items():
            table = touched["", name]
            assert rows.has_exact_keys("", name, table.columns), name
            keyed_digest = rows.digest_with_keys("", name, table.columns, list(table.keys))
            assert (name, keyed_digest.rows, keyed_digest) == (name, expected, whole["", name])
            for key in table.keys:
                assert rows.digest_with_keys("", name, table.columns, [key]).rows == 1, (name, key)
        assert (
            rows.digest_with_keys("", "pair", ("b", "a"), list(touched["", "pair"].keys)) == whole["", "pair"]
        )
        assert (
            rows.digest_with_keys("", "letters", ("k",), [(b"a",), (b"A ",), ("é'\"\\".encode(),)]).rows == 0
        )
        assert rows.key_text("", "pair", ("b", "a"), (b"x", b"\1\0\0\0")) == "b = x, a = 1"
        assert not rows.has_exact_keys("", "labels", ("k",))
        assert not rows.has_exact_keys("", "pair", ("c",))


def test_rows_are_counted_as_they_are_told_apart(changed):
    messages, maps, total = changed[2], {}, 0
    for kind, _, payload, _ in messages:
        if kind is MessageKind.SHAPE and event_type(payload) == EventType.TABLE_MAP:
            maps[table_number(payload)] = read_table_map(payload)
        elif event_type(payload) in ROWS:
            rows, table = uncompressed(payload), maps[table_number(payload)]
            assert count_rows(rows, table) == len(list(single_rows(rows, table)))
            total += count_rows(rows, table)
    assert total == sum(len(values) for _, values in KEYS.values()) + 3 + 1 + 1 + 1 + 1 + 1 + 2 + 4 + 6 + 1
