"""The same for MariaDB and SQLite: SIGKILL at random moments of export and restore, then the same command again."""

import pytest

from tests.torture.bundles import export_killed, tables_of
from tests.torture.command import moveout, must
from tests.torture.databases import Database, OnMariadb, OnSqlite
from tests.torture.test_kills import KILLS, WORKERS

pytestmark = pytest.mark.torture

ROUNDS = range(-(-KILLS // 2))
"""Kills of each engine; half of them of exports, half of restores."""


@pytest.fixture(scope="module", params=["mariadb", "sqlite"])
def database(request, tmp_path_factory) -> Database:
    if request.param == "sqlite":
        return OnSqlite.seeded(tmp_path_factory.mktemp("databases"))
    server, other = (request.getfixturevalue(name) for name in ("mariadb", "other_mariadb"))
    return OnMariadb.seeded(server, other)


@pytest.fixture(scope="module")
def whole(database, tmp_path_factory):
    location = tmp_path_factory.mktemp("whole") / "bundle"
    seconds = must("export", f"app={database.source}", "--to", location).seconds
    return location, seconds


@pytest.mark.parametrize("number", ROUNDS)
def test_an_export_that_was_killed_goes_on(number, database, whole, moments, tmp_path):
    bundle, seconds = whole
    location = tmp_path / "bundle"
    moment = moments(f"export {type(database).__name__}", seconds, len(ROUNDS))[number]
    export_killed(
        ("export", f"app={database.source}", "--to", location, "--workers", WORKERS), location, moment
    )
    assert tables_of(location) == tables_of(bundle)
    must("verify", location, "--level", "full")


@pytest.mark.parametrize("number", ROUNDS)
def test_a_restore_that_was_killed_goes_on(number, database, whole, moments, restore_seconds):
    destination = database.destination()
    words = ("restore", whole[0], f"app={destination}", "--workers", WORKERS)
    moment = moments(f"restore {type(database).__name__}", restore_seconds, len(ROUNDS))[number]
    moveout(*words, kill_after=moment)
    must(*words)
    database.compare(destination)
