"""Random databases leave and come back, as many as MOVEOUT_SCHEMAS says; MOVEOUT_SEED repeats a run.

What is there and what came back is compared by what the server itself says: all of information_schema, every value of
every row, the engine's checksums, where sequences stand. Of the other flavour everything is there or named.
"""

import os
import random
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from migrate.progress import Silent
from migrate.restore.mysql.database import restore_database
from migrate.store import open_place
from tests.mysql.databases import definitions, export_database, read_bundle
from tests.torture.random_databases.likeness import Look, differences
from tests.torture.random_databases.maker import make_database

pytestmark = pytest.mark.torture

SCHEMAS = int(os.environ.get("MOVEOUT_SCHEMAS", "8"))


def seeds() -> list[int]:
    first = int(os.environ.get("MOVEOUT_SEED") or random.SystemRandom().randrange(10**6))
    sys.stderr.write(f"MOVEOUT_SEED={first}\n")
    return list(range(first, first + SCHEMAS))


def moved(url: str, target: str, seed: int, place: Path, *, mariadb: bool):
    """Make a database, export it, restore it; return the outcome and what its ledger names."""
    run = make_database(url, seed, mariadb=mariadb)
    assert run.count > 20, run.refused
    assert export_database(url, place / "bundle").complete
    kept = open_place(str(place / "kept"))
    reader = read_bundle(place / "bundle")
    outcome = restore_database(reader, "app", target, workers=2, progress=Silent(), account=kept)
    losses = pq.read_table(place / "kept/app/losses.parquet").to_pylist() if outcome.account else []
    return outcome, [loss["item"] for loss in losses]


def is_alike(url: str, target: str) -> list[str]:
    source, copy = Look(url), Look(target)
    try:
        return differences(source, copy)
    finally:
        source.close()
        copy.close()


def test_mariadb_to_mariadb(mariadb, other_mariadb, tmp_path):
    for seed in seeds():
        url, target = mariadb.database(), other_mariadb.database()
        outcome, _ = moved(url, target, seed, tmp_path / str(seed), mariadb=True)
        assert (seed, outcome.findings, outcome.left_out) == (seed, (), ())
        assert (seed, is_alike(url, target)) == (seed, [])


def test_mysql_to_mysql(mysql, other_mysql, tmp_path):
    for seed in seeds():
        url, target = mysql.database(), other_mysql.database()
        outcome, _ = moved(url, target, seed, tmp_path / str(seed), mariadb=False)
        assert (seed, outcome.findings, outcome.left_out) == (seed, (), ())
        assert (seed, is_alike(url, target)) == (seed, [])


def test_mariadb_to_mysql(mariadb, mysql, tmp_path):
    for seed in seeds():
        url, target = mariadb.database(), mysql.database()
        outcome, losses = moved(url, target, seed, tmp_path / str(seed), mariadb=True)
        made = {(one["kind"], one["name"]) for one in definitions(target)}
        named = " ".join([*outcome.left_out, *losses])
        lost = [one for one in definitions(url) if (one["kind"], one["name"]) not in made]
        assert (seed, [one["name"] for one in lost if one["name"].replace("`", "``") not in named]) == (
            seed,
            [],
        )
