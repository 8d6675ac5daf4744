"""``moveout follow`` from an export to equal databases, killed and given again; what it says, and its exit codes."""

import contextlib
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from exporters.postgres.changes.log import open_change_log
from exporters.postgres.live_digests import live_tables
from migrate.case.model import Case, Endpoint
from migrate.changes.delta_record import DeltaRecord
from migrate.cli import follow
from migrate.cli.follow import Followed, _is_news
from migrate.cli.moves.followed_move import FollowedMove
from migrate.errors import BusyError
from migrate.follow.delta import DeltaState
from migrate.follow.followed import recorded_bases
from migrate.follow.follower import Follower
from tests.cli.conftest import call
from tests.exporters.postgres.databases import fetch, run_sql
from tests.follow.test_follower import SCRIPT, transferring
from tests.tools.bundles import read_bundle
from tests.tools.processes import forked
from tests.tools.waiting import be_impatient, eventually


@contextlib.contextmanager
def exported(postgres, folder):
    """Export a source to be followed: its URL, and the bundle."""
    source, bundle = postgres.database(), folder / "bundle"
    run_sql(source, SCRIPT)
    call("export", f"app={source}", "--to", bundle, "--follow")
    yield source, bundle
    base = read_bundle(bundle).newest_position("app")["follow"]
    open_change_log(source, {}, base["name"]).drop(base["log"])


@pytest.fixture
def move(postgres, other_postgres, tmp_path):
    """A source that was exported to be followed: its URL, the bundle, and a database to restore to."""
    with exported(postgres, tmp_path) as (source, bundle):
        yield source, bundle, other_postgres.database()


@pytest.fixture(scope="module")
def unchanged(postgres, tmp_path_factory):
    """The same, for tests that do not write to the source."""
    with exported(postgres, tmp_path_factory.mktemp("unchanged")) as made:
        yield made


def test_delta_passes_are_news_where_they_brought_rows_or_ended():
    state, reported = DeltaState("app"), {}
    news = [_is_news(state, reported), _is_news(state, reported)]
    for rows in (0, 0, 3, 0):
        state.passes, state.rows = state.passes + 1, state.rows + rows
        news.append(_is_news(state, reported))
    state.stopped.append(BusyError("the destination is in use"))
    assert [*news, _is_news(state, reported)] == [False, False, True, False, True, False, True]


def test_what_a_delta_pass_cannot_change_is_named_with_who_can():
    record = DeltaRecord("app", passes=1, unequal=["a: it keeps the history of its rows", "b: no columns"])
    (line,) = Followed("bundle", [DeltaState("app", record, passes=1)], 1.0).summary()
    assert line.happened == "not made equal: a: it keeps the history of its rows, b: no columns"
    assert line.next_step.startswith("moveout cutover brings over histories, ")


def test_a_move_without_a_destination_does_not_look_for_its_switch():
    case = Case("app", None, {"app": Endpoint("sqlite:///app.db")}, None, None, {})
    move = FollowedMove(SimpleNamespace(), Endpoint("s3://away"), case, keeps_following=False)
    assert (move.record, move.names, move.with_later_changes()) == (None, [], set())


def test_a_followed_database_comes_up_with_what_was_written_since(move, tmp_path):
    source, bundle, destination = move
    words = ["follow", bundle, f"app={destination}", "--quiet"]
    with transferring(source):
        with forked(words, tmp_path):
            call("restore", bundle, f"app={destination}")
            eventually(lambda: applied(destination) > 0)
        before = applied(destination)
        with forked(words, tmp_path):
            eventually(lambda: applied(destination) > before)
        assert fetch(destination, "SELECT sum(money), count(*) FROM accounts") == [(2000, 20)]
    done = call("follow", bundle, f"app={destination}", "--until-caught-up", "--json")
    assert done.code == 0, done.err
    (state,) = json.loads(done.out)["result"]["sources"]
    assert (state["caught_up"], state["stopped"]) == (True, [])
    assert state["lag_bytes"] < 100_000  # as its own records, those of autovacuum
    assert live_tables(destination) == live_tables(source)
    again = call("restore", bundle, f"app={destination}")
    assert "has changes of the source since" in again.out
    part = call("restore", bundle, f"app={destination}", "--only", "accounts")
    assert (part.code, "older than the others" in part.err) == (2, True)
    repair = call("verify", bundle, "--against", f"app={destination}", "--repair")
    assert (repair.code, "a repair would undo them" in repair.err) == (2, True)
    run_sql(source, "ALTER TABLE accounts ADD COLUMN name text; UPDATE accounts SET name = 'x' WHERE id = 1")
    stopped = call("follow", bundle, f"app={destination}", "--until-caught-up")
    assert stopped.code == 3
    assert 'ALTER TABLE "public"."accounts" ADD COLUMN "name" text' in " ".join(stopped.out.split())
    run_sql(destination, "ALTER TABLE accounts ADD COLUMN name text")
    call("follow", bundle, f"app={destination}", "--until-caught-up")
    assert live_tables(destination) == live_tables(source)


def test_a_destination_to_which_nothing_was_applied_yet_can_be_repaired_from_the_bundle(
    unchanged, other_postgres
):
    (source, bundle), destination = unchanged, other_postgres.database()
    call("restore", bundle, f"app={destination}")
    assert call("follow", bundle, f"app={destination}", "--until-caught-up").code == 0
    run_sql(destination, "UPDATE accounts SET money = money + 1 WHERE id = 1")
    repair = call("verify", bundle, "--against", f"app={destination}", "--repair")
    assert repair.code == 0, repair
    assert live_tables(destination) == live_tables(source)


def applied(destination):
    """How many moves of money have arrived; 0 where there is no such table yet."""
    with psycopg.connect(destination) as connection, contextlib.suppress(psycopg.errors.UndefinedTable):
        return connection.execute("SELECT count(*) FROM entries").fetchone()[0]
    return 0


def test_a_command_that_is_to_end_does_not_wait_for_ever(
    move, postgres, other_postgres, toxiproxy, monkeypatch
):
    """Neither for a destination that refuses or does not answer, nor for a location that is away."""
    source, bundle, destination = move
    away = bundle.with_name("away")
    proxy = toxiproxy.proxy(destination)
    silent = destination.replace(f":{other_postgres.port}/", f":{proxy.port}/")
    refusing = destination.replace(f":{other_postgres.port}/", ":9/")
    assert call("restore", bundle, f"app={destination}").code == 0
    run_sql(source, "UPDATE accounts SET money = 7 WHERE id = 1")
    be_impatient(monkeypatch)
    monkeypatch.setattr(follow, "_LIMIT_SECONDS", 1.0)
    start = Follower.start

    def follow_after(url, breaking):
        monkeypatch.setattr(Follower, "start", lambda follower: (breaking(), start(follower)))
        ended = call("follow", bundle, f"app={url}", "--until-caught-up", "--json")
        assert ended.code == 5, ended
        (error, *_) = ended.json["result"]["sources"][0]["stopped"]
        assert error["code"] == "unreachable"
        assert error["next"]
        return error["message"]

    assert ":9/" in follow_after(refusing, lambda: None)
    assert f":{proxy.port}/" in follow_after(silent, lambda: proxy.add("timeout", timeout=0))
    assert str(bundle) in follow_after(destination, lambda: bundle.rename(away))
    away.rename(bundle)
    monkeypatch.undo()
    assert call("follow", bundle, f"app={destination}", "--until-caught-up").code == 0
    assert live_tables(destination) == live_tables(source)


def test_mistakes_are_named(unchanged, other_postgres, tmp_path):
    (source, bundle), destination = unchanged, other_postgres.database()
    plain = tmp_path / "plain"
    call("export", f"app={source}", "--to", plain)
    refused = call("follow", plain, f"app={destination}")
    assert (refused.code, "export --follow" in refused.err) == (2, True)
    assert call("follow", bundle).code == 2
    slot = "SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()"
    with forked(["follow", bundle, f"app={destination}"], tmp_path) as waiting:
        eventually(lambda: fetch(source, slot) == [(1,)])
        os.kill(waiting.process.pid, signal.SIGINT)
        ended, errors = waiting.end(), waiting.err.read_text()
    assert (ended, "Traceback" in errors) == (0, False), errors


def test_an_incomplete_bundle_stays_while_its_bases_do(postgres, tmp_path):
    """A source that waits for another one keeps its base. One that is read again gets another, the bundle a new id."""
    source, bundle = postgres.database(), tmp_path / "bundle"
    run_sql(source, "CREATE TABLE a (x int PRIMARY KEY); CREATE TABLE b (x int PRIMARY KEY)")
    words = ("export", f"app={source}", f"late=sqlite://{tmp_path}/late.db", "--to", bundle, "--follow")
    seen = []

    def export():
        done = call(*words)
        assert done.code == 3, done
        reader = read_bundle(bundle)
        (base,) = recorded_bases(reader.store)
        assert reader.newest_position("app")["follow"]["position"] == base.position
        seen.append((reader.info.id, base.position))

    run_sql(source, "CHECKPOINT")
    [(directory, name)] = fetch(source, "SELECT current_setting('data_directory'), pg_relation_filepath('b')")
    table = Path(directory, name)
    away = table.rename(table.with_name("away"))
    export()
    export()
    away.rename(table)
    export()
    export()
    assert [seen[number] != seen[number + 1] for number in range(3)] == [True, True, False]
    base = read_bundle(bundle).newest_position("app")["follow"]
    open_change_log(source, {}, base["name"]).drop(base["log"])
