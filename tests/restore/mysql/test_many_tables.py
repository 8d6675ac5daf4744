"""Many small tables are made by several sessions at once, in whichever order, and their rows are one transaction. What
is refused there is made afterwards.
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from migrate.errors import NotAllowedError
from migrate.restore.mysql.definitions.object_maker import ObjectMaker
from migrate.storage.registry import open_location
from tests.exporters.mysql.databases import fetch, run_sql
from tests.tools.bundles import restore_from, restore_whole

TABLES = 12


@contextmanager
def general_log(url: str) -> Iterator[None]:
    run_sql(url, "SET GLOBAL log_output = 'TABLE'; SET GLOBAL general_log = 1")
    try:
        yield
    finally:
        run_sql(url, "SET GLOBAL general_log = 0; SET GLOBAL log_output = 'FILE'")


@pytest.fixture
def two_meet(monkeypatch):
    """A connection that makes its first table waits for a second one: else one might be quick enough for all."""
    make, threads, met = ObjectMaker.make, set(), threading.Event()

    def make_when_met(maker, definition):
        threads.add(threading.get_ident())
        if len(threads) > 1:
            met.set()
        assert met.wait(120), "one connection makes all tables"
        return make(maker, definition)

    monkeypatch.setattr(ObjectMaker, "make", make_when_met)


@pytest.mark.usefixtures("two_meet")
def test_tables_that_refer_to_each_other_are_made_and_filled_together(
    mariadb, my_exported, other_mariadb, tmp_path
):
    circle = ";".join(
        f"CREATE TABLE at_once_{n} (id INT PRIMARY KEY, next INT, CONSTRAINT to_{(n + 1) % TABLES} FOREIGN KEY (next)"
        f" REFERENCES at_once_{(n + 1) % TABLES} (id)); INSERT INTO at_once_{n} VALUES ({n}, {n + 1})"
        for n in range(TABLES)
    )
    folder = mariadb.directory / "tmp"  # is taken, because both servers are on this machine
    elsewhere = f"CREATE TABLE elsewhere (id INT PRIMARY KEY) ENGINE=MyISAM DATA DIRECTORY='{folder}'"
    filled = "INSERT INTO elsewhere VALUES (1)"
    url, reader = my_exported(f"SET foreign_key_checks = 0; {circle}; {elsewhere}; {filled}")
    destination = other_mariadb.database()
    with general_log(destination):
        kept = open_location(str(tmp_path / "kept"))
        outcome = restore_whole(reader, "app", destination, report=kept)
    assert outcome.losses == 1  # that `elsewhere` does not lie where it lay
    made = fetch(
        destination,
        "SELECT COUNT(*), COUNT(DISTINCT thread_id) FROM mysql.general_log"
        " WHERE argument LIKE 'CREATE TABLE `at_once%'",
    )
    assert (made[0][0], made[0][1] > 1) == (TABLES, True)
    noted = fetch(
        destination,
        "SELECT argument FROM mysql.general_log WHERE argument LIKE 'INSERT INTO `moveout_restore_done`%tables/%'",
    )
    assert sorted(statement.count("at_once") for (statement,) in noted) == [0, TABLES]
    for number in range(TABLES):
        statement = f"SHOW CREATE TABLE at_once_{number}"
        assert fetch(destination, statement) == fetch(url, statement)


def test_what_refuses_every_table_is_not_met_with_each_of_them(my_exported, other_mariadb):
    user = f"few_{secrets.token_hex(4)}"
    _, reader = my_exported(";".join(f"CREATE TABLE {user}_{n} (id INT PRIMARY KEY)" for n in range(TABLES)))
    name = f"db_{user}"
    destination, account = other_mariadb.database(name), f"'{user}'@'127.0.0.1'"
    may = f"GRANT SELECT, INSERT, UPDATE, DELETE, ALTER, DROP ON {name}.* TO {account};" + "".join(
        f"GRANT CREATE ON {name}.moveout_restore{end} TO {account};" for end in ("", "_done", "_left_out")
    )
    run_sql(destination, f"CREATE USER {account} IDENTIFIED BY '{other_mariadb.password}'; {may}")
    with general_log(destination), pytest.raises(NotAllowedError):
        restore_from(reader, "app", other_mariadb.url_of(name, user))
    query = f"SELECT COUNT(*) FROM mysql.general_log WHERE argument LIKE 'CREATE TABLE `{user}%'"
    assert 1 < fetch(destination, query)[0][0] < TABLES
