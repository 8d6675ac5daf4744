"""Very many tables."""

import resource
import sys
import time

import pytest

from migrate.progress import Silent
from migrate.restore.postgres.database import restore_database
from migrate.verify.database import compare_database
from tests.postgres.databases import export_database, read_bundle, run_sql

MANY = 10_000


def say(what: str, began: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stderr.write(f"{what}: {time.monotonic() - began:.0f} s, at most {peak} MB so far\n")


@pytest.mark.torture
def test_ten_thousand_tables_leave_and_come_back(postgres, other_postgres, tmp_path):
    url, target = postgres.database(), other_postgres.database()
    for start in range(0, MANY, 1000):
        run_sql(
            url,
            f"DO $$ BEGIN FOR n IN {start}..{start + 999} LOOP"
            " EXECUTE format('CREATE TABLE t_%s (id int PRIMARY KEY, t text)', n);"
            " EXECUTE format('INSERT INTO t_%s VALUES (%s, ''x'')', n, n); END LOOP; END $$",
        )
    began = time.monotonic()
    outcome = export_database(url, tmp_path / "bundle")
    assert outcome.complete, outcome.sources
    say("export", began)
    reader = read_bundle(tmp_path / "bundle")
    assert len(reader.catalog()) == MANY
    began = time.monotonic()
    restored = restore_database(reader, "app", target, workers=2, progress=Silent())
    assert (restored.findings, restored.left_out) == ((), ())
    say("restore", began)
    began = time.monotonic()
    assert compare_database(reader, "app", target, workers=2, progress=Silent()) == []
    say("verify --against", began)
