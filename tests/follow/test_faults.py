"""What passes is waited for. What is lost stops one source, with a name and a next step; the others are followed."""

import re
import time

import msgspec
import psycopg
import pytest

from exporters.postgres.changes import replication
from exporters.postgres.live_digests import live_tables
from migrate.case.model import Endpoint
from migrate.case.secrets import Secret
from migrate.changes import retained_log
from migrate.follow import follower as following_one
from migrate.storage.registry import open_location
from tests.exporters.postgres.databases import fetch, run_sql
from tests.follow.test_follower import following
from tests.tools.waiting import eventually

TABLE = "CREATE TABLE t (id int PRIMARY KEY)"


def count(url):
    return fetch(url, "SELECT count(*) FROM t")[0][0]


def test_a_location_that_is_away_passes_and_a_lost_log_stops_its_source_only(
    make_followed, tmp_path, monkeypatch
):
    monkeypatch.setattr(retained_log, "_POLL_SECONDS", 0.5)
    sources = [make_followed(TABLE, name) for name in ("slot", "publication", "other")]
    slot, publication, other = sources
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    with following(open_location(str(home)), *sources) as (followers, notes):
        for number in (1, 2):  # the first time there is no segment yet
            home.rename(away)
            home.mkdir()  # as where a disk is not mounted
            for source in sources:
                run_sql(source.source.url, f"INSERT INTO t VALUES ({number})")
            eventually(lambda number=number: sum("has no folder" in note for note in notes) >= 3 * number)
            home.rmdir()  # nothing was written there
            away.rename(home)
            for source in sources:
                eventually(lambda source=source, number=number: count(source.destination.url) == number)
        drop_slot(slot.source.url, slot.log["slot"])
        run_sql(publication.source.url, f'DROP PUBLICATION "{publication.log["publication"]}"')
        for source in sources:
            run_sql(source.source.url, "INSERT INTO t VALUES (3)")
        eventually(lambda: followers[0].is_ended and followers[1].is_ended)
        eventually(lambda: count(other.destination.url) == 3)
        errors = [follower.state().stopped for follower in followers]
        assert not followers[2].is_ended
    assert errors[2] == ()
    for stopped, words in zip(errors, ("the replication slot", "the publication"), strict=False):
        (error,) = stopped
        assert words in str(error)
        assert "does not exist any more" in str(error)
        assert re.search("after [0-9A-F]+/[0-9A-F]+ ", str(error))
        assert "export --follow" in error.next_step
    assert all(follower.is_done for follower in followers)


def drop_slot(url, name):
    """Drop a slot by hand, as soon as its reader is gone."""

    def is_dropped():
        fetch(
            url,
            f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{name}'",
        )
        try:
            return fetch(url, f"SELECT pg_drop_replication_slot('{name}')")
        except psycopg.errors.ObjectInUse:
            return False

    eventually(is_dropped)


@pytest.mark.torture
def test_a_network_that_drops_packets_without_a_word_is_noticed(
    make_followed, tmp_path, toxiproxy, postgres, monkeypatch
):
    """Its connections stay open. An idle server, which answers, is not taken for one."""
    monkeypatch.setattr(replication, "_PING_SECONDS", 1.0)
    monkeypatch.setattr(replication, "_SILENCE_SECONDS", 6.0)
    monkeypatch.setattr(following_one, "_STALE_SECONDS", 5.0)
    monkeypatch.setenv("OLD_PASSWORD", postgres.password)
    direct = make_followed(TABLE)
    proxy = toxiproxy.proxy(direct.source.url)
    url = direct.source.url.replace(f":{postgres.port}/", f":{proxy.port}/")
    followed = msgspec.structs.replace(direct, source=Endpoint(url, {"password": Secret("env:OLD_PASSWORD")}))
    with following(open_location(str(tmp_path)), followed) as ((follower,), notes):
        run_sql(direct.source.url, "INSERT INTO t VALUES (1)")
        eventually(lambda: count(direct.destination.url) == 1)
        time.sleep(8)
        assert notes == []
        toxic = proxy.add("timeout", timeout=0)
        run_sql(direct.source.url, "INSERT INTO t VALUES (2)")
        eventually(lambda: any("the server has sent nothing for" in note for note in notes))
        assert follower.state().lag_bytes is None
        proxy.remove(toxic)
        eventually(lambda: live_tables(direct.destination.url) == live_tables(direct.source.url))
        assert follower.state().stopped == ()
