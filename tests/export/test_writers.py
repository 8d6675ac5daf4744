"""Many writers move money about while the database leaves: the bundle holds one moment of it.

Each transaction takes an amount from one account, gives it to another, and adds a line to a log that is only ever
appended to. In the bundle the sum must be exact, and every account must be what its log lines make of it. Each writer's
lines must be the first ones it wrote: none is missing in between, none was written after the snapshot.
"""

import os
import random
import threading
import time
from collections import Counter

import psycopg
import pyarrow.parquet as pq
import pymysql
import pytest

import exporters.mysql.chunk_plan as mysql_plan
import exporters.postgres.chunk_plan as postgres_plan
from migrate.bundle import layout
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres
from tests.tools.bundles import read_bundle

ACCOUNTS, START = 200, 1000
WRITERS = 16
PAUSE_SECONDS = 0.005
MANY = int(os.environ.get("MOVEOUT_RUNS", "40"))
TABLES = (
    "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, pad char(200) NOT NULL)",
    "CREATE TABLE log (writer int, number int, source int, destination int, amount int, PRIMARY KEY (writer, number))",
)
MOVE = (
    "UPDATE accounts SET balance = balance + CASE WHEN id = {source} THEN -{amount} ELSE {amount} END"
    " WHERE id IN ({source}, {destination})"
)
LOG = "INSERT INTO log VALUES ({writer}, {number}, {source}, {destination}, {amount})"


class Postgres:
    """Transactions by psycopg."""

    export = staticmethod(postgres.export_database)
    run = staticmethod(postgres.run_sql)

    @staticmethod
    def session(url):
        return psycopg.connect(url, autocommit=True)

    retried = (psycopg.errors.DeadlockDetected,)

    @staticmethod
    def transact(connection, statements):
        connection.execute(";".join(["BEGIN", *statements, "COMMIT"]))

    @staticmethod
    def undo(connection):
        connection.execute("ROLLBACK")


class Mariadb:
    """Transactions by PyMySQL."""

    export = staticmethod(mysql.export_database)
    run = staticmethod(mysql.run_sql)
    retried = (pymysql.OperationalError,)

    @staticmethod
    def session(url):
        return mysql.open_database(url)

    @staticmethod
    def transact(connection, statements):
        with connection.cursor() as cursor:
            for statement in ("BEGIN", *statements, "COMMIT"):
                cursor.execute(statement)

    @staticmethod
    def undo(connection):
        connection.rollback()


ENGINES = {"postgres": Postgres, "mariadb": Mariadb}


class Writers:
    """Threads that write until they are stopped. ``acknowledged``: how many lines of each writer are committed."""

    def __init__(self, engine, url):
        self.engine, self.url = engine, url
        self.acknowledged = Counter()
        self.errors = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(WRITERS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + 20
        while min(self.acknowledged[n] for n in range(WRITERS)) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, writer):
        chance = random.Random(writer)
        try:
            with self.engine.session(self.url) as connection:
                number = 0
                while not self._stop.is_set():
                    number += 1
                    self._one(connection, writer, number, chance)
                    self.acknowledged[writer] = number
        except Exception as exc:
            self.errors.append(exc)

    def _one(self, connection, writer, number, chance):
        source, destination = chance.sample(range(ACCOUNTS), 2)
        values = {
            "writer": writer,
            "number": number,
            "source": source,
            "destination": destination,
            "amount": chance.randrange(100),
        }
        while True:
            try:
                self.engine.transact(connection, [MOVE.format(**values), LOG.format(**values)])
            except self.engine.retried:
                self.engine.undo(connection)
            else:
                time.sleep(PAUSE_SECONDS)  # they share two processors with the export
                return


def read(reader, name):
    (row,) = (row for row in reader.catalog() if row.name == name)
    rows = []
    for part in row.details["parts"]:
        with reader.open(layout.source_file("app", part["name"])) as file:
            rows += pq.read_table(file).to_pylist()
    return rows


def check(reader, before, after):
    """``before`` and ``after``: the lines that were acknowledged when the export began and when it had ended."""
    balances = {row["id"]: row["balance"] for row in read(reader, "accounts")}
    log = read(reader, "log")
    assert len(balances) == ACCOUNTS
    assert sum(balances.values()) == ACCOUNTS * START
    expected = Counter(dict.fromkeys(range(ACCOUNTS), START))
    for row in log:
        expected[row["source"]] -= row["amount"]
        expected[row["destination"]] += row["amount"]
    assert balances == dict(expected)
    for writer in range(WRITERS):
        numbers = sorted(row["number"] for row in log if row["writer"] == writer)
        assert numbers == list(range(1, len(numbers) + 1)), "the log is no prefix"
        assert before[writer] <= len(numbers) <= after[writer] + 1


def move_money(engine, server, location, monkeypatch):
    """Export a fresh database: the log grows all the time, and each further export of it would take longer."""
    for plan in (postgres_plan, mysql_plan):
        monkeypatch.setattr(plan, "CHUNK_BYTES", 16 * 2**10)
    url = server.database()
    for statement in TABLES:
        engine.run(url, statement)
    values = ", ".join(f"({n}, {START}, 'x')" for n in range(ACCOUNTS))
    engine.run(url, f"INSERT INTO accounts VALUES {values}")
    with Writers(engine, url) as writers:
        before = Counter(writers.acknowledged)
        outcome = engine.export(url, location)
        assert outcome.complete, outcome.sources
        check(read_bundle(location), before, Counter(writers.acknowledged))
    assert not writers.errors
    assert sum(writers.acknowledged.values()) > WRITERS * 2


@pytest.mark.parametrize("kind", ["postgres", pytest.param("mariadb", marks=pytest.mark.torture)])
def test_the_money_is_all_there_while_it_moves(kind, request, tmp_path, monkeypatch):
    move_money(ENGINES[kind], request.getfixturevalue(kind), tmp_path / "bundle", monkeypatch)


@pytest.mark.torture
@pytest.mark.parametrize("kind", ENGINES)
def test_the_money_is_all_there_many_times(kind, request, tmp_path, monkeypatch):
    for number in range(MANY):
        move_money(ENGINES[kind], request.getfixturevalue(kind), tmp_path / str(number), monkeypatch)
