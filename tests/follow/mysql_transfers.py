"""Writers at a MySQL or MariaDB server that transfer money and note each transfer, until the database refuses it."""

import secrets

import pymysql

from exporters.mysql.connection import parse_url
from tests.exporters.mysql.databases import fetch, run_sql
from tests.follow.money_writers import MoneyWriters

WRITERS, ACCOUNTS = 8, 50
BANK = f"""
CREATE TABLE accounts (id INT PRIMARY KEY, balance DECIMAL(12,2) NOT NULL);
INSERT INTO accounts VALUES {", ".join(f"({number}, 100)" for number in range(1, ACCOUNTS + 1))};
CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, writer INT, number INT, note TEXT, UNIQUE (writer, number));
CREATE TABLE keyless (writer INT, number INT);
"""
DEADLOCK = 1213


class Application(MoneyWriters):
    """The writers, by an account of their own."""

    refusals = (pymysql.Error,)

    def __init__(self, server, url, *, writers=WRITERS, comes_back=False):
        self._server, self._database = server, parse_url(url).database
        self._user = f"app_{secrets.token_hex(4)}"
        account = f"{self._user}@'127.0.0.1'"
        run_sql(
            url,
            f"CREATE USER {account} IDENTIFIED BY '{server.password}'; GRANT ALL ON {self._database}.* TO {account}",
        )
        super().__init__(writers, comes_back=comes_back)

    def _write_until_refused(self, writer):
        with pymysql.connect(
            host=self._server.host, port=self._server.port, user=self._user, password=self._server.password,
            database=self._database, ssl_disabled=True,
        ) as connection, connection.cursor() as cursor:  # fmt: skip
            cursor.execute(f"SELECT COALESCE(MAX(number), 0) FROM log WHERE writer = {writer}")
            self._begin_after(writer, cursor.fetchone()[0])
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
                    if exc.args[0] != DEADLOCK:
                        raise
                    connection.rollback()
                    continue
                self.acknowledged[writer] = number


def check_transfers(old, new, application):
    """All that was acknowledged is at the new database, once, and no money came or went."""
    assert fetch(new, "SELECT SUM(balance) FROM accounts")[0][0] == 100 * ACCOUNTS
    application.check_arrived(fetch, old, new, "writer < 99")
