"""SIGKILL for the export or restore at a random moment, then for the server, which starts again; then the same command.

The snapshot is gone then: an export goes on under another one, and keeps what still holds.
"""

import pytest

from tests.torture.bundles import export_killed, tables_of
from tests.torture.command import moveout, must
from tests.torture.databases import Database, OnMariadb, OnPostgres
from tests.torture.test_kills import KILLS, WORKERS

pytestmark = pytest.mark.torture

ROUNDS = range(-(-KILLS // 4))
"""Kills of each engine; half of them of exports, half of restores."""
ENGINES = ("postgres", "mariadb", "mysql")


@pytest.fixture(scope="module", params=ENGINES)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def pair(kind, servers):
    """Servers of our own: others would not like it."""
    start = getattr(servers, kind)
    started = [start(f"{kind}-killed"), start(f"{kind}-killed-too")]
    yield started
    for server in started:
        server.child.stop()


@pytest.fixture(scope="module")
def database(kind, pair) -> Database:
    made = (OnPostgres if kind == "postgres" else OnMariadb).seeded(*pair)
    restart(pair[0])  # what is not logged is lost before it is read
    return made


def restart(server) -> None:
    server.child.start_again(server.accepts)


@pytest.fixture(scope="module")
def whole(database, tmp_path_factory):
    location = tmp_path_factory.mktemp("whole") / "bundle"
    return location, must("export", f"app={database.source}", "--to", location).seconds


@pytest.mark.parametrize("number", ROUNDS)
def test_an_export_goes_on_under_another_snapshot(number, kind, database, pair, whole, moments, tmp_path):
    bundle, seconds = whole
    location = tmp_path / "bundle"
    moment = moments(f"export {kind} restarted", seconds, len(ROUNDS))[number]
    words = ("export", f"app={database.source}", "--to", location, "--workers", WORKERS)
    export_killed(words, location, moment, between=lambda: restart(pair[0]))
    assert tables_of(location) == tables_of(bundle)
    must("verify", location, "--level", "full")


@pytest.mark.parametrize("number", ROUNDS)
def test_a_restore_goes_on_at_a_server_that_started_again(
    number, kind, database, pair, whole, moments, restore_seconds
):
    destination = database.destination()
    words = ("restore", whole[0], f"app={destination}", "--workers", WORKERS)
    moment = moments(f"restore {kind} restarted", restore_seconds, len(ROUNDS))[number]
    moveout(*words, kill_after=moment)
    restart(pair[1])
    must(*words)
    database.compare(destination)
