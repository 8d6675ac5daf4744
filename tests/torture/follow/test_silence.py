"""Nobody writes for a long time while ``moveout follow`` runs with the settings that servers have: it goes on, and what
is written then arrives. ``MOVEOUT_SILENCE`` says how long, in seconds; 3600 is the hour of a night.
"""

import os
import time

import pytest

from tests.follow.move_case import write_move_case
from tests.tools.waiting import eventually
from tests.torture.command import followed_by_process, moveout, must
from tests.torture.follow.followed_engines import ENGINES

SILENCE = int(os.environ.get("MOVEOUT_SILENCE", "60"))
pytestmark = [pytest.mark.torture, pytest.mark.timeout(SILENCE + 600)]


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_nobody_writes_for_long(engine, servers, tmp_path, monkeypatch):
    pair = [engine.start(servers, f"{engine.name}-silent-{side}") for side in ("old", "new")]
    try:
        old, new = (server.database() for server in pair)
        engine.run_sql(old, "CREATE TABLE t (id int PRIMARY KEY)")
        monkeypatch.chdir(tmp_path)
        write_move_case(tmp_path, old, new, name="silence")
        must("export", "-c", "moveout.toml")
        must("restore", "-c", "moveout.toml")
        with followed_by_process() as process:
            for number in (1, 2):
                engine.run_sql(old, f"INSERT INTO t VALUES ({number})")
                eventually(lambda number=number: len(engine.fetch(new, "SELECT id FROM t")) == number)
                if number == 1:
                    time.sleep(SILENCE)
                assert process.poll() is None
        switched = moveout("cutover", "-c", "moveout.toml", "--hold", *engine.hold_words, "--yes")
        assert switched.code == 0, switched.said
    finally:
        for server in pair:
            engine.end(servers, server)
