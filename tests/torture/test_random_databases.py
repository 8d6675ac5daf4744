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

from migrate.storage.registry import open_location
from tests.exporters.mysql.databases import export_database, fetch
from tests.tools.bundles import read_bundle, restore_from
from tests.torture.random_databases.likeness import Look, differences
from tests.torture.random_databases.maker import make_database
from tests.torture.random_databases.naming import other_rows, unnamed

pytestmark = pytest.mark.torture

SCHEMAS = int(os.environ.get("MOVEOUT_SCHEMAS", "8"))


def seeds() -> list[int]:
    first = int(os.environ.get("MOVEOUT_SEED") or random.SystemRandom().randrange(10**6))
    sys.stderr.write(f"MOVEOUT_SEED={first}\n")
    return list(range(first, first + SCHEMAS))


def moved(url: str, destination: str, location: Path):
    """Export a database, restore it; return the outcome and the rows of its ledgers."""
    assert export_database(url, location / "bundle").complete
    kept = open_location(str(location / "kept"))
    reader = read_bundle(location / "bundle")
    outcome = restore_from(reader, "app", destination, workers=2, report=kept)
    losses = pq.read_table(location / "kept/app/losses.parquet").to_pylist() if outcome.report else []
    return outcome, [*losses, *({"item": loss.item, "reason": loss.reason} for _, loss in reader.losses())]


def is_alike(url: str, destination: str) -> list[str]:
    source, copy = Look(url), Look(destination)
    try:
        return differences(source, copy)
    finally:
        source.close()
        copy.close()


def is_mariadb(url: str) -> bool:
    return "mariadb" in fetch(url, "SELECT VERSION()")[0][0].lower()


def problems(url: str, destination: str, seed: int, location: Path) -> list[str]:
    """Move a random database; return in what it has not come whole, to the other flavour what of that is not named."""
    mariadb, to_mariadb = (is_mariadb(one) for one in (url, destination))
    run = make_database(url, seed, mariadb=mariadb)
    assert run.count > 20, run.refused
    outcome, losses = moved(url, destination, location)
    if mariadb == to_mariadb:
        return [*outcome.findings, *outcome.left_out, *is_alike(url, destination)]
    named = [" ".join(f"{one['item']}: {one['reason']}".split()) for one in losses]
    left_out = [" ".join(one.split()) for one in outcome.left_out]
    return [*outcome.findings, *unnamed(url, destination, [*left_out, *named]), *other_rows(url, destination)]


DIRECTIONS = (
    ("mariadb", "other_mariadb"),
    ("mysql", "other_mysql"),
    ("mariadb", "mysql"),
    ("mysql", "mariadb"),
)


@pytest.mark.parametrize(("source", "destination"), DIRECTIONS)
def test_random_databases_come_whole_or_by_name(source, destination, request, tmp_path):
    old, new = request.getfixturevalue(source), request.getfixturevalue(destination)
    for seed in seeds():
        assert (seed, problems(old.database(), new.database(), seed, tmp_path / str(seed))) == (seed, [])
