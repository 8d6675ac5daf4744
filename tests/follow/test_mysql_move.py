"""A whole move of a MariaDB database under writers: nothing that was acknowledged is lost, and one can go back."""

import secrets
import threading

import pymysql
import pytest

from exporters.mysql.connection import parse_url
from tests.cli.conftest import call
from tests.exporters.mysql.databases import fetch, run_sql

WRITERS = 8
BANK = """
CREATE TABLE accounts (id INT PRIMARY KEY, balance DECIMAL(12,2) NOT NULL);
INSERT INTO accounts SELECT seq, 100 FROM seq_1_to_50;
CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, writer INT, number INT, note TEXT, UNIQUE (writer, number));
CREATE TABLE keyless (writer INT, number INT);
CREATE TABLE plain (id INT AUTO_INCREMENT PRIMARY KEY, v VARBINARY(20), KEY (v)) ENGINE=MyISAM;
INSERT INTO plain (v) VALUES ('a'), (NULL), (X'00FF');
CREATE TABLE plain_audit (id INT);
CREATE TRIGGER plain_noted AFTER INSERT ON plain FOR EACH ROW INSERT INTO plain_audit VALUES (1);
CREATE SEQUENCE numbers; SELECT NEXTVAL(numbers);
CREATE TABLE ticks (id INT AUTO_INCREMENT PRIMARY KEY);
CREATE EVENT tick ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO INSERT INTO ticks VALUES ();
"""


EVENT = "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()"


class Application:
    """Transfers money until the database refuses it. ``acknowledged``: the last number of each writer."""

    def __init__(self, server, url):
        self.acknowledged = dict.fromkeys(range(1, WRITERS + 1), 0)
        self._server, self._database = server, parse_url(url).database
        self._user = f"app_{secrets.token_hex(4)}"
        self._stop = threading.Event()
        account = f"{self._user}@'127.0.0.1'"
        run_sql(
            url,
            f"CREATE USER {account} IDENTIFIED BY '{server.password}'; GRANT ALL ON {self._database}.* TO {account}",
        )
        self._threads = [threading.Thread(target=self._write, args=(writer,)) for writer in self.acknowledged]
        for thread in self._threads:
            thread.start()

    def _write(self, writer):
        with pymysql.connect(
            host=self._server.host, port=self._server.port, user=self._user, password=self._server.password,
            database=self._database, ssl_disabled=True,
        ) as connection, connection.cursor() as cursor:  # fmt: skip
            while not self._stop.wait(0.1):
                number = self.acknowledged[writer] + 1
                accounts = sorted({writer, (writer * 7 + number) % 50 + 1})
                try:
                    for account, amount in zip(accounts, (-1, 1), strict=False):
                        if len(accounts) == 2:
                            cursor.execute(
                                f"UPDATE accounts SET balance = balance + {amount} WHERE id = {account}"
                            )
                    cursor.execute(f"INSERT INTO log (writer, number, note) VALUES ({writer}, {number}, 'é')")
                    cursor.execute(f"INSERT INTO keyless VALUES ({writer}, {number})")
                    connection.commit()
                except pymysql.Error as exc:
                    if exc.args[0] == 1213:  # a deadlock
                        connection.rollback()
                        continue
                    return  # the hold refuses it
                self.acknowledged[writer] = number

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def move(followed_mariadb, other_mariadb, tmp_path, monkeypatch):
    """The case file of a database; the old and the new URL."""
    old, new = followed_mariadb.database(), other_mariadb.database()
    run_sql(old, BANK)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moveout.toml").write_text(
        f'[case]\nname = "bank"\n[[source]]\nname = "app"\nurl = "{old}"\n[bundle]\nlocation = "bundle"\n'
        f'[[destination]]\nsource = "app"\nurl = "{new}"\n'
    )
    yield old, new
    call("hold", "undo", "moveout-cutover.json", "--yes")


def test_nothing_that_was_acknowledged_is_lost_and_one_can_go_back(move, followed_mariadb):
    old, new = move
    followed_mariadb.database()  # so the server has another one
    application = Application(followed_mariadb, old)
    try:
        exported = call("export", "-c", "moveout.toml", "--follow")
        assert exported.code == 0, exported
        assert "changes do not follow of plain: MyISAM has no transactions" in " ".join(exported.err.split())
        assert call("restore", "-c", "moveout.toml").code == 0
        followed = call("follow", "-c", "moveout.toml", "--until-caught-up")
        assert followed.code == 0, followed
        status = call("status", "-c", "moveout.toml")
        assert status.code == 0, status
        assert "binlog.0000" in status.out
        again = call("restore", "-c", "moveout.toml")
        assert "has changes of the source since" in again.out
        run_sql(
            old, "INSERT INTO plain (v) VALUES ('b'); SELECT NEXTVAL(numbers); INSERT INTO ticks VALUES (70)"
        )
        run_sql(
            old,
            "DELETE FROM ticks; ALTER TABLE ticks AUTO_INCREMENT = 100; CREATE VIEW late AS SELECT 1 AS x",
        )
        refused = call("cutover", "-c", "moveout.toml", "--hold", "--yes")
        assert (refused.code, "--whole-server" in refused.err) == (2, True), refused
        before = dict(application.acknowledged)
        switched = call("cutover", "-c", "moveout.toml", "--hold", "--whole-server", "--yes", "--json")
        assert switched.code == 0, switched
    finally:
        application.end()
    assert all(application.acknowledged[writer] > before[writer] > 0 for writer in before)
    (source,) = switched.json["result"]["sources"]
    assert source["carried"]["counts"]["tables"] == 1
    assert source["carried"]["counts"]["AUTO_INCREMENT counters"] >= 1
    assert source["carried"]["notes"] == ["view `late` is not at the destination"]
    check_arrived(old, new, application)

    back = call("cutover", "-c", "moveout.toml", "--undo")
    assert back.code == 0, back
    assert ".ticks: was written to since" in back.out
    assert fetch(old, EVENT) == [("ENABLED",)]
    run_sql(old, "INSERT INTO log (writer, number) VALUES (99, 1)")
    cleaned = call("clean", "--changes", "-c", "moveout.toml", "--yes")
    assert cleaned.code == 0, cleaned
    assert fetch(new, "SHOW TABLES LIKE 'moveout%'") == []


def check_arrived(old, new, application):
    """All that was acknowledged is at the new database, once, and what no log has."""
    assert fetch(new, "SELECT SUM(balance) FROM accounts")[0][0] == 5000
    for table in ("log", "keyless"):
        query = f"SELECT writer, COUNT(*), MAX(number) FROM {table} GROUP BY writer ORDER BY writer"
        arrived = fetch(new, query)
        assert arrived == fetch(old, query)
        for writer, count, last in arrived:
            assert count == last
            assert 0 <= last - application.acknowledged[writer] <= 1
    assert fetch(new, "SELECT HEX(v) FROM plain ORDER BY id") == [("61",), (None,), ("00FF",), ("62",)]
    run_sql(new, "INSERT INTO plain (v) VALUES ('c'); INSERT INTO ticks VALUES ()")
    assert fetch(new, "SELECT COUNT(*) FROM plain_audit") == [(2,)]
    assert fetch(new, "SELECT MAX(id) FROM ticks") == [(100,)]
    assert fetch(new, "SELECT NEXTVAL(numbers)")[0][0] > 1
    assert fetch(new, EVENT) == [("ENABLED",)]
