"""Sixteen writers move money while it is exported, many times over (MOVEOUT_RUNS): every export is of one moment.

Each transfer is one transaction with its line in a log. So the exported log has no holes, and done again from the
beginning it gives exactly the exported balances.
"""

import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

import pyarrow.parquet as pq
import pytest

from exporters.mysql import chunk_plan as plans
from migrate.bundle import layout
from tests.exporters.mysql.databases import export_database, run_sql
from tests.tools.bundles import read_bundle

pytestmark = pytest.mark.torture

RUNS = int(os.environ.get("MOVEOUT_RUNS", "20"))
WRITERS, PROCESSES = 16, 4
ACCOUNTS, EACH = 2000, 100

_WRITERS = """
import os, random, sys, threading, time
import pymysql
from tests.exporters.mysql.databases import open_database

def write(writer):
    dice, n = random.Random(writer), 0
    with open_database(sys.argv[1]) as connection, connection.cursor() as cursor:
        os.write(1, b"ready\\n")
        while True:
            a, b = sorted(dice.sample(range({accounts}), 2))
            amount = dice.choice((-1, 1)) * dice.randrange(1, 50)
            try:
                cursor.execute(
                    f"BEGIN; UPDATE account SET amount = amount - {{amount}} WHERE id = {{a}};"
                    f" UPDATE account SET amount = amount + {{amount}} WHERE id = {{b}};"
                    f" INSERT INTO log VALUES ({{writer}}, {{n}}, {{a}}, {{b}}, {{amount}}); COMMIT"
                )
                while cursor.nextset():
                    pass
            except pymysql.err.OperationalError as exc:
                if exc.args[0] not in {{1213, 1205}}:
                    raise
                connection.rollback()
            else:
                n += 1
            time.sleep(0.01)

for writer in range(int(sys.argv[2]), int(sys.argv[3])):
    threading.Thread(target=write, args=(writer,)).start()
"""


@pytest.fixture
def bank(mariadb) -> str:
    url = mariadb.database()
    run_sql(
        url,
        "CREATE TABLE account (id INT PRIMARY KEY, amount DECIMAL(12,2), note VARCHAR(200));"
        f"INSERT INTO account SELECT seq, {EACH}, REPEAT('n', 150) FROM seq_0_to_{ACCOUNTS - 1};"
        "CREATE TABLE log (writer INT, n INT, a INT, b INT, amount INT, PRIMARY KEY (writer, n));"
        "ANALYZE TABLE account",
    )
    return url


def rows_of(reader, name: str) -> list[dict]:
    row = next(row for row in reader.catalog() if row.name == name)
    parts = [reader.open(layout.source_file("app", part["name"])) for part in row.details["parts"]]
    return [one for part in parts for one in pq.ParquetFile(part).read().to_pylist()]


def test_every_export_is_of_one_moment(bank, tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "CHUNK_BYTES", 40_000)
    share = WRITERS // PROCESSES
    with ExitStack() as stack:
        for first in range(0, WRITERS, share):
            command = [
                sys.executable,
                "-c",
                _WRITERS.format(accounts=ACCOUNTS),
                bank,
                str(first),
                str(first + share),
            ]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            for _ in range(share):
                assert process.stdout.readline() == b"ready\n"
        seen = [check(bank, tmp_path / f"bundle-{number}") for number in range(RUNS)]
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def check(url: str, location) -> int:
    """Export and check one bundle; return how many transfers it has."""
    outcome = export_database(url, location)
    assert outcome.complete, outcome
    reader = read_bundle(location)
    assert reader.catalog()[0].position["consistency"] == "global read lock"
    accounts = {row["id"]: int(row["amount"]) for row in rows_of(reader, "account")}
    log = rows_of(reader, "log")
    assert len(next(row for row in reader.catalog() if row.name == "account").details["parts"]) > 3
    assert (len(accounts), sum(accounts.values())) == (ACCOUNTS, ACCOUNTS * EACH)
    for writer in range(WRITERS):
        numbers = sorted(row["n"] for row in log if row["writer"] == writer)
        assert numbers == list(range(len(numbers))), f"the log of writer {writer} is no prefix"
    expected = Counter(dict.fromkeys(accounts, EACH))
    for row in log:
        expected[row["a"]] -= row["amount"]
        expected[row["b"]] += row["amount"]
    assert dict(expected) == accounts
    return len(log)
