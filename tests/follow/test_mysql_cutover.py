"""What a cutover of MySQL or MariaDB compares before the hold and under it, and how it finds a row that differs."""

import re
from functools import partial

import pytest

from migrate.follow.cutover import Cutover
from tests.cli.conftest import call
from tests.exporters.mysql.databases import fetch, open_database, run_sql
from tests.follow.move_case import write_move_case
from tests.tools.waiting import eventually

KEPT = ["accounts", "goods", "log", "parents", "still"]
TABLES = f"""
CREATE TABLE accounts (id INT PRIMARY KEY, balance INT) SELECT 1 AS id, 100 AS balance UNION SELECT 2, 100;
CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, note TEXT);
CREATE TABLE still (id INT PRIMARY KEY); INSERT INTO still VALUES (1);
CREATE TABLE goods (id SMALLINT UNSIGNED, code VARCHAR(20), n INT, PRIMARY KEY (code, id)) CHARSET=latin1;
INSERT INTO goods VALUES {", ".join(f"({number + 40_000}, 'é{number}', {number})" for number in range(1, 3001))};
CREATE TABLE keyless (note TEXT); CREATE TABLE labelled (id ENUM ('a', 'b') PRIMARY KEY, n INT);
INSERT INTO labelled VALUES ('a', 1); CREATE TABLE emptied (id INT PRIMARY KEY); INSERT INTO emptied VALUES (1);
CREATE TABLE altered (id INT PRIMARY KEY); CREATE TABLE parents (id INT PRIMARY KEY); INSERT INTO parents VALUES (1);
CREATE TABLE children (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE);
INSERT INTO children VALUES (1, 1);
"""
SALES = f"""
UPDATE goods SET n = -n WHERE id % 10 = 1; UPDATE goods SET code = 'É7' WHERE id = 40007;
DELETE FROM goods WHERE id = 40009;
INSERT INTO goods VALUES {", ".join(f"({number + 40_000}, 'late', {number})" for number in range(3001, 5501))};
TRUNCATE emptied; INSERT INTO keyless VALUES ('a'); UPDATE labelled SET n = 2; ALTER TABLE altered COMMENT 'new';
BEGIN; INSERT INTO log (note) VALUES ('taken back'); ROLLBACK; INSERT INTO log (note) VALUES ('kept');
DELETE FROM parents;
"""
CUTOVER = ("cutover", "-c", "moveout.toml", "--hold", "--whole-server", "--yes", "--json")
UNCOUNTED = {
    "mariadb": "somebody else may have written to tables of the destination's server",
    "mysql": "somebody else may have written to it at the destination",
}


QUIET = """
SELECT MAX(UPDATE_TIME) < NOW() - INTERVAL 2 SECOND FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()
"""


@pytest.fixture(params=["mariadb", pytest.param("mysql", marks=pytest.mark.torture)])
def flavour(request):
    return request.param


@pytest.fixture
def move(flavour, request, tmp_path, monkeypatch):
    """A database that was brought over: the old and the new URL."""
    if flavour == "mysql":
        old = request.getfixturevalue("servers").mysql("mysql-early", settings=["binlog-row-metadata=FULL"])
        new = request.getfixturevalue("other_mysql")
    else:
        old, new = (request.getfixturevalue(name) for name in ("followed_mariadb", "other_mariadb"))
    old, new = old.database(), new.database()
    run_sql(old, TABLES)
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, old, new, follow=False)
    assert call("export", "-c", "moveout.toml", "--follow").code == 0
    assert call("restore", "-c", "moveout.toml").code == 0
    yield old, new
    call("hold", "undo", "moveout-cutover.json", "--yes")


def after(monkeypatch, method, step):
    """Do something whenever a cutover has done something of its own."""
    original = getattr(Cutover, method)

    def both(self, *words):
        result = original(self, *words)
        step(self)
        return result

    monkeypatch.setattr(Cutover, method, both)


def is_quiet(url):
    return fetch(url, QUIET) == [(1,)]


def wait_until_quiet(*urls):
    """Wait until nobody can write within the second of a table's last write, for a server's time of it has no parts."""
    for url in urls:
        eventually(partial(is_quiet, url))


def compared(code, *differences, words=()):
    """Switch; return what was compared, once the result is as expected."""
    result = call(*CUTOVER, *words)
    assert result.code == code, result
    (source,) = result.json["result"]["sources"]
    assert [finding["key"] for finding in source["differences"]] == [*differences]
    return source


def test_a_wrong_row_is_found_whoever_made_it(move, flavour, monkeypatch):
    """Before the comparison before the hold; after it in a row that the log names; in one that it does not name."""
    old, new = move
    wait_until_quiet(old, new)
    with monkeypatch.context() as patch:

        def spoil_uncounted(cutover):
            if cutover._early and ("", "goods") in cutover._early.written:
                run_sql(new, "UPDATE goods SET n = 5 WHERE id = 40004")
                cutover._early.written["", "goods"] += 1
                cutover._early.written_of_server += flavour == "mariadb"

        run_sql(new, "UPDATE accounts SET balance = 7 WHERE id = 2")
        after(
            patch,
            "compare_early",
            lambda _: run_sql(old, "UPDATE goods SET n = 6 WHERE id IN (40003, 40004)"),
        )
        after(patch, "_apply", spoil_uncounted)
        source = compared(6, "accounts", "goods")
    assert source["read_whole"]["accounts"] == "it was not the same on both sides before the hold"
    assert re.fullmatch(
        "its rows with code = .*, id = 40004 are not the same on both sides", source["read_whole"]["goods"]
    )
    # MariaDB counts the writes of the whole server, those of its own statistics included.
    always = {"log", "still"} if flavour == "mysql" else {"log"}
    assert always <= {*source["compared_early"]}, source["read_whole"]
    run_sql(new, "UPDATE accounts SET balance = 100; UPDATE goods SET n = 6 WHERE id = 40004")

    def write_both(_):
        run_sql(old, "UPDATE accounts SET balance = 99 WHERE id = 1")
        run_sql(new, "UPDATE accounts SET balance = 7 WHERE id = 2; UPDATE still SET id = 2")

    with monkeypatch.context() as patch:
        after(patch, "compare_early", write_both)
        source = compared(6, "accounts", "still")
    assert [source["read_whole"][name] for name in ("accounts", "still")] == [UNCOUNTED[flavour]] * 2
    assert "parents" in source["compared_early"], source["read_whole"]


def test_what_no_log_has_is_found_where_all_is_compared_under_the_hold(move, monkeypatch):
    old, _ = move
    unlogged = "SET sql_log_bin = 0; UPDATE accounts SET balance = 7 WHERE id = 2; SET sql_log_bin = 1"
    logged = "UPDATE accounts SET balance = 99 WHERE id = 1"
    after(monkeypatch, "catch_up", lambda _: run_sql(old, f"{unlogged}; {logged}"))
    source = compared(6, "accounts", words=["--compare-all"])
    assert source["compared_early"] == []


def test_only_rows_that_were_written_to_are_compared_under_the_hold(move, flavour, monkeypatch):
    """Where the log does not name them the table is read whole, and the output says why."""
    old, new = move
    wait_until_quiet(old)
    after(monkeypatch, "compare_early", lambda _: run_sql(old, SALES))
    source = compared(3)
    assert source["carried"]["missing"] == ["table `altered` as it is defined now"]
    has_logged_keys = flavour == "mysql"  # what foreign keys did is in the log from 9.6 on
    assert source["compared_early"] == sorted([*KEPT, *(["children"] if has_logged_keys else [])])
    assert source["read_whole"] == {
        "altered": "its definition has changed",
        "emptied": "it was truncated",
        "keyless": "the log does not name its rows by a key",
        "labelled": "rows are not looked up by a key of such a type",
    } | ({} if has_logged_keys else {"children": "not all of its changes are in the log"})
    assert source["compared_by_key"]["goods"] == 2803
    assert source["tables"]["goods"][0] == 5499
    assert fetch(new, "SELECT COUNT(*) FROM goods") == [(5499,)]
    undone = call("cutover", "-c", "moveout.toml", "--undo")
    assert (
        "nothing was written at the new side" in undone.out
    )  # the digests of the record are those of the rows


@pytest.mark.parametrize(
    "statements",
    [
        ["BEGIN", "UPDATE still SET id = 2"],
        pytest.param(["TRUNCATE still"], marks=pytest.mark.torture),
        pytest.param(["ALTER TABLE still TRUNCATE PARTITION p0"], marks=pytest.mark.torture),
    ],
)
def test_what_somebody_does_at_the_destination_is_seen(move, flavour, statements, monkeypatch):
    """Also a transaction that had written before the comparison, and is committed after it; and what counts no row."""
    old, new = move
    if "PARTITION" in statements[0]:
        for url in move:
            run_sql(url, "ALTER TABLE still PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN MAXVALUE)")
    with open_database(new) as session, session.cursor() as cursor:

        def finish(_):
            run_sql(old, "INSERT INTO still VALUES (5)")
            if len(statements) == 1:
                cursor.execute(statements[0])
            else:
                session.commit()

        if len(statements) > 1:
            monkeypatch.setattr("exporters.mysql.live_reader._SETTLED_SECONDS", 1)
            for statement in statements:
                cursor.execute(statement)
        after(monkeypatch, "compare_early", finish)
        source = compared(6, "still")
    expected = (
        "a server does not say whether it was written to"
        if len(statements) > 1
        else "somebody else may have written to tables of the destination's server"
    )
    assert source["read_whole"]["still"] == expected
    assert source["compared_early"] == []
    assert flavour
