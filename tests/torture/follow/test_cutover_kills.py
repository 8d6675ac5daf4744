"""Writers transfer money and append to a log while the move is killed at random moments: nothing is lost or doubled."""

import os
import random
import secrets
import subprocess

import psycopg
import pytest

from tests.exporters.postgres.databases import fetch, run_sql
from tests.follow.money_writers import MoneyWriters
from tests.follow.move_case import write_move_case
from tests.tools.processes import killed_at_end
from tests.tools.tally import count
from tests.torture.command import MOVEOUT, moveout, must

pytestmark = pytest.mark.torture

ROUNDS = range(int(os.environ.get("MOVEOUT_CUTOVERS", "6")))
WRITERS, ACCOUNTS, KILLS = 16, 200, 3
BANK = f"""
CREATE TABLE accounts (id int PRIMARY KEY, balance numeric(12,2) NOT NULL CHECK (balance > -100000), note text);
INSERT INTO accounts SELECT g, 1000, repeat(md5(g::text), 200) FROM generate_series(1, {ACCOUNTS}) g;
CREATE TABLE log (writer int, number int, amount numeric(12,2), at timestamptz DEFAULT clock_timestamp(),
  PRIMARY KEY (writer, number));
CREATE TABLE events (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, writer int, note text);
CREATE TABLE keyless (writer int, number int);
INSERT INTO log SELECT 0, g, g FROM generate_series(1, 20000) g;
"""


class Writers(MoneyWriters):
    """The writers, each by a connection of its own."""

    refusals = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)

    def __init__(self, url, *, writers=WRITERS, comes_back=False):
        self._url = url
        self._choices = {writer: random.Random(writer) for writer in range(1, writers + 1)}
        super().__init__(writers, comes_back=comes_back)

    def _write_until_refused(self, writer):
        chosen = self._choices[writer]
        with psycopg.connect(self._url, autocommit=True) as connection:
            query = "SELECT coalesce(max(number), 0) FROM log WHERE writer = %s"
            ((committed,),) = connection.execute(query, (writer,)).fetchall()
            self._begin_after(writer, committed)
            while not self._stop.wait(0.02):
                number = self.acknowledged[writer] + 1
                one, other = chosen.sample(range(1, ACCOUNTS + 1), 2)
                amount = chosen.randrange(1, 10_000) / 100
                with connection.transaction():
                    for account, change in sorted([(one, -amount), (other, amount)]):
                        query = "UPDATE accounts SET balance = balance + %s::numeric(12,2) WHERE id = %s"
                        connection.execute(query, (change, account))
                    connection.execute("INSERT INTO log VALUES (%s, %s, %s)", (writer, number, amount))
                    connection.execute("INSERT INTO keyless VALUES (%s, %s)", (writer, number))
                    connection.execute("INSERT INTO events (writer, note) VALUES (%s, 'moved')", (writer,))
                    if number % 7 == 0:
                        connection.execute(
                            "DELETE FROM events WHERE id %% 5 = %s AND writer = %s", (number % 5, writer)
                        )
                self.acknowledged[writer] = number


def following():
    """Let ``moveout follow`` run meanwhile; the cutover takes over from it."""
    words = [MOVEOUT, "follow", "-c", "moveout.toml", "--quiet"]
    return killed_at_end(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("number", ROUNDS)
def test_nothing_is_lost_or_doubled(number, postgres, other_postgres, moments, tmp_path, monkeypatch):
    old, new = postgres.database(), other_postgres.database()
    run_sql(old, BANK)
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, old, new, name=f"bank-{secrets.token_hex(4)}", transfer=True)
    writers = Writers(old)
    try:
        steps = ["run"] if number % 2 else ["export", "transfer", "restore"]
        for step in steps:
            for moment in moments(f"{step} {number}", 18 // len(steps), KILLS // len(steps)):
                moveout(step, "-c", "moveout.toml", kill_after=moment)
            must(step, "-c", "moveout.toml")
        for moment in moments(f"follow {number}", 8, KILLS):
            moveout("follow", "-c", "moveout.toml", kill_after=2 + moment)
        words = ("cutover", "-c", "moveout.toml", "--hold", "--yes")
        for moment in moments(f"cutover {number}", 16, KILLS):
            with following():
                moveout(*words, kill_after=1 + moment)
        with following() as follow:
            must(*words)
            assert follow.wait(60) in {0, 2, 5}  # it hands over, or has begun after the cutover or the switch
    finally:
        writers.end()
    check_transfers(old, new, writers)
    count("cutovers")
    must("cutover", "-c", "moveout.toml", "--undo")
    must("clean", "--changes", "-c", "moveout.toml", "--yes")  # a server has ten replication slots


def check_transfers(old, new, writers):
    """All that was acknowledged is at the new database, once, and no money came or went."""
    assert fetch(new, "SELECT sum(balance) FROM accounts") == fetch(old, "SELECT sum(balance) FROM accounts")
    assert fetch(new, "SELECT sum(balance) FROM accounts")[0][0] == 1000 * ACCOUNTS
    writers.check_arrived(fetch, old, new, "writer > 0")
    every_event = "SELECT * FROM events ORDER BY id"
    assert fetch(new, every_event) == fetch(old, every_event)
