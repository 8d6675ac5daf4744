"""``status`` says when a cutover can begin: now, in a while, or not at the speed of now."""

from pathlib import Path

import pytest

from exporters.postgres.changes.log import PostgresChangeLog
from exporters.postgres.sessions import connection
from migrate.follow import status
from migrate.progress import server_contact
from migrate.progress.server_contact import ContactTimeouts
from scripts.process import free_port
from tests.cli.conftest import call
from tests.exporters.postgres.databases import run_sql
from tests.follow.move_case import write_move_case
from tests.tools.processes import stopped


@pytest.fixture(scope="module")
def moved(postgres, other_postgres, tmp_path_factory):
    """A database whose base is at the new one, and the folder of its case."""
    old, folder = postgres.database(), tmp_path_factory.mktemp("moved")
    run_sql(old, "CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note int)")
    write_move_case(folder, old, other_postgres.database(), name="ready")
    for step in ("export", "restore"):
        assert call(step, "-c", "moveout.toml", cwd=folder).code == 0
    yield old, folder
    call("clean", "--changes", "-c", "moveout.toml", "--yes", cwd=folder)


@pytest.fixture
def old(moved, monkeypatch):
    old, folder = moved
    monkeypatch.chdir(folder)
    return old


def cutover_seconds():
    """After how long a cutover can begin, as ``status`` says."""
    (location,) = call("status", "-c", "moveout.toml", "--json").json["result"]["locations"]
    return location["followed"][0]["cutover_seconds"]


def test_a_cutover_can_begin_where_nothing_waits_and_not_where_the_rest_stays(old, monkeypatch):
    assert call("follow", "-c", "moveout.toml", "--until-caught-up").code == 0
    assert cutover_seconds() == 0
    assert "moveout cutover can begin now" in " ".join(call("status", "-c", "moveout.toml").out.split())
    run_sql(old, "INSERT INTO notes (note) SELECT generate_series(1, 1000)")
    monkeypatch.setattr(status, "_DRAINED_SECONDS", 0)
    monkeypatch.setattr(status, "_SPEED_SECONDS", 0)
    asked, ask = [], PostgresChangeLog.state
    monkeypatch.setattr(PostgresChangeLog, "state", lambda *words: asked.append(words) or ask(*words))
    assert cutover_seconds() is None
    assert len(asked) == 2, "what status has asked is the first of two measurements"
    shown = " ".join(call("status", "-c", "moveout.toml").out.split())
    assert "cutover can begin" not in shown
    assert "NOT running" in shown
    assert "→ moveout follow -c moveout.toml goes on" in shown
    assert "→ moveout status -c CASE asks its server" in call("status", "bundle").out


def test_a_silent_server_is_named_and_left_out(old, postgres, monkeypatch):
    monkeypatch.setattr(server_contact, "LOOKING", ContactTimeouts(0.5, 0.5, 1.0, 0.0, limit_seconds=2.0))
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 2)
    with stopped(postgres):
        ended = call("status", "-c", "moveout.toml")
    assert f"{old.rpartition('/')[0]} has not answered since" in ended.err
    assert "no answer from the server" in " ".join(ended.out.split())


def test_a_dead_destination_is_named(old):
    assert call("follow", "-c", "moveout.toml", "--until-caught-up").code == 0
    case = Path("moveout.toml").read_text()
    before = case.rpartition('url = "')[0]
    Path("dead.toml").write_text(f'{before}url = "postgresql://me@127.0.0.1:{free_port()}/app"\n')
    shown = " ".join(call("status", "-c", "dead.toml").out.split())
    assert "! how far the changes were applied is not known: postgresql://me@127.0.0.1:" in shown
    assert "onnection refused" in shown


def test_the_rest_is_reckoned_by_how_fast_it_becomes_less():
    assert status._seconds_left(900, 300, 4) == 2
    assert status._seconds_left(300, 300, 4) is None
