"""``clean --changes`` after ``kill -9`` at any moment of following: nothing of ours stays at either server."""

import secrets
import time

import pytest

from tests.cli.conftest import call
from tests.exporters.postgres.databases import fetch, run_sql
from tests.follow.move_case import write_move_case
from tests.tools.processes import forked
from tests.tools.waiting import eventually

TABLES = """
CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE keyless (n int);
INSERT INTO t SELECT g, md5(g::text) || repeat(md5((g * 7)::text), 10) FROM generate_series(1, 5000) g;
"""
OURS = """
SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE '%moveout%'
UNION ALL SELECT 'relation ' || relname FROM pg_class WHERE relname LIKE '%moveout%'
UNION ALL SELECT 'publication ' || pubname FROM pg_publication
UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
UNION ALL SELECT 'setting ' || array_to_string(setconfig, ',') FROM pg_db_role_setting s
  JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database()
UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proname LIKE '%moveout%'
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE '%moveout%'
"""
MOMENTS = ("export", "restore", "follow", "resync", "cutover")


@pytest.fixture
def sides(postgres, other_postgres, tmp_path, monkeypatch):
    old, new = postgres.database(), other_postgres.database()
    run_sql(old, TABLES)
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, old, new, name=f"clean-{secrets.token_hex(4)}")
    return old, new


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        pytest.param(
            moment, seconds, marks=[] if (moment, seconds) == ("export", 0.1) else pytest.mark.torture
        )
        for moment in MOMENTS
        for seconds in (0.1, 0.6, 1.5, 2.5)
    ],
)
def test_nothing_of_ours_stays(sides, tmp_path, moment, seconds):
    old, new = sides
    case = ("-c", "moveout.toml")
    words = {
        "export": ["export", *case, "--bwlimit", "30K"],
        "restore": ["restore", *case, "--bwlimit", "100K"],
        "follow": ["follow", *case],
        "resync": ["resync", *case, "app:public.t"],
        "cutover": ["cutover", *case, "--hold", "--yes"],
    }[moment]
    before = [step for step in ("export", "restore") if MOMENTS.index(step) < MOMENTS.index(moment)]
    for step in before:
        assert call(step, *case).code == 0
    run_sql(old, "UPDATE t SET v = 'x'")

    def has_slot():
        return any(word.startswith("slot") for (word,) in fetch(old, OURS))

    with forked(words, tmp_path):
        eventually(has_slot)
        time.sleep(seconds)
    if moment == "cutover":
        released = call("cutover", *case, "--undo")
        assert released.code in {0, 2, 7}, released
    eventually(lambda: not fetch(old, "SELECT FROM pg_replication_slots WHERE active"))
    cleaned = call("clean", *case, "--changes", "--yes")
    assert cleaned.code == 0, cleaned
    assert fetch(old, OURS) == [], cleaned
    unfinished = call("clean", *case, "--changes", "--dry-run", "--json").json["result"]["unfinished"]
    assert moment == "restore" or unfinished == []
    for restore in unfinished:
        run_sql(new, restore["removal"])
    assert fetch(new, OURS) == [], cleaned
