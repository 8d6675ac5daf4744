"""Writers at a MySQL or MariaDB server that transfer money and note each transfer, until the database refuses it."""

import contextlib
import secrets
import threading

import pymysql

from exporters.mysql.connection import parse_url
from tests.exporters.mysql.databases import fetch, run_sql

WRITERS, ACCOUNTS = 8, 50
BANK = f"""
CREATE TABLE accounts (id INT PRIMARY KEY, balance DECIMAL(12,2) NOT NULL);
INSERT INTO accounts VALUES {", ".join(f"({number}, 100)" for number in range(1, ACCOUNTS + 1))};
CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, writer INT, number INT, note TEXT, UNIQUE (writer, number));
CREATE TABLE keyless (writer INT, number INT);
"""


class Application:
    """Transfers money until the database refuses it. ``acknowledged``: the last number of each writer. ``comes_back``:
    where the server goes away, a writer waits, and goes on after what was committed.
    """

    def __init__(self, server, url, *, comes_back=False):
        self._comes_back = comes_back
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
        while not self._stop.wait(0.2):
            with contextlib.suppress(pymysql.Error):
                self._write_until_refused(writer)
            if not self._comes_back:
                return

    def _write_until_refused(self, writer):
        with pymysql.connect(
            host=self._server.host, port=self._server.port, user=self._user, password=self._server.password,
            database=self._database, ssl_disabled=True,
        ) as connection, connection.cursor() as cursor:  # fmt: skip
            cursor.execute(f"SELECT COALESCE(MAX(number), 0) FROM log WHERE writer = {writer}")
            committed = cursor.fetchone()[0]
            assert 0 <= committed - self.acknowledged[writer] <= 1, "the old server has lost a commit"
            self.acknowledged[writer] = committed
            while not self._stop.wait(0.1):
                number = self.acknowledged[writer] + 1
                accounts = sorted({writer, (writer * 7 + number) % ACCOUNTS + 1})
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
                    return  # the hold refuses it, or the server has gone
                self.acknowledged[writer] = number

    def end_coming_back(self):
        """From now on a writer ends where the database refuses it."""
        self._comes_back = False

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


def check_transfers(old, new, application):
    """All that was acknowledged is at the new database, once, and no money came or went."""
    assert fetch(new, "SELECT SUM(balance) FROM accounts")[0][0] == 100 * ACCOUNTS
    for table in ("log", "keyless"):
        query = (
            f"SELECT writer, COUNT(*), MAX(number) FROM {table} WHERE writer < 99 GROUP BY writer ORDER BY 1"
        )
        arrived = fetch(new, query)
        assert arrived == fetch(old, query)
        for writer, count, last in arrived:
            # a transaction whose answer the hold cut off may have been committed
            assert count == last
            assert 0 <= last - application.acknowledged[writer] <= 1
