"""``clean --changes`` after ``kill -9`` at any moment of following, MySQL and MariaDB: nothing of ours stays at either
server.
"""

import secrets
import subprocess
import time

import pytest

from tests.cli.conftest import call
from tests.exporters.mysql.databases import fetch, run_sql
from tests.follow.move_case import write_move_case
from tests.tools.waiting import eventually
from tests.torture.command import MOVEOUT

pytestmark = pytest.mark.torture

TABLES = """
CREATE TABLE t (id INT PRIMARY KEY, v TEXT); CREATE TABLE keyless (n INT); CREATE TABLE noted (id INT);
CREATE TRIGGER noted_change AFTER UPDATE ON t FOR EACH ROW INSERT INTO noted VALUES (NEW.id);
CREATE EVENT tick ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO DELETE FROM keyless;
INSERT INTO t WITH RECURSIVE numbers (g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM numbers WHERE g < 900)
  SELECT g, REPEAT(SHA2(g, 256), 30) FROM numbers;
"""
THINGS = """
SELECT CONCAT('table ', TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()
UNION ALL SELECT CONCAT('trigger ', TRIGGER_NAME) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()
UNION ALL SELECT CONCAT('routine ', ROUTINE_NAME) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE()
UNION ALL SELECT CONCAT('event ', EVENT_NAME, ' ', STATUS) FROM information_schema.EVENTS
  WHERE EVENT_SCHEMA = DATABASE()
UNION ALL SELECT CONCAT('account ', User) FROM mysql.user
  WHERE User LIKE '%moveout%' AND User <> SUBSTRING_INDEX(CURRENT_USER(), '@', 1)
UNION ALL SELECT CONCAT('database ', SCHEMA_NAME) FROM information_schema.SCHEMATA
  WHERE SCHEMA_NAME LIKE '%moveout%'
UNION ALL SELECT CONCAT('reader ', COUNT(*)) FROM information_schema.PROCESSLIST
  WHERE COMMAND LIKE 'Binlog Dump%'
UNION ALL SELECT CONCAT('read only ', @@read_only)
ORDER BY 1
"""
CASE = ("-c", "moveout.toml")
MOMENTS = ("export", "restore", "follow", "resync", "cutover")
_SETTINGS = ["binlog-format=ROW", "binlog-row-metadata=FULL"]


def kill(words, seconds):
    process = subprocess.Popen([MOVEOUT, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.kill()
    process.wait()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_nothing_of_ours_stays(flavour, servers, tmp_path, monkeypatch):
    start = getattr(servers, flavour)
    sides = [start(f"{flavour}-follow-{side}", settings=_SETTINGS) for side in ("old", "new")]
    hold = ["--hold", *(["--whole-server"] if flavour == "mariadb" else [])]
    for moment in MOMENTS:
        for seconds in (0.7, 1.2, 2.0, 3.0):
            old, new = (server.database() for server in sides)
            run_sql(old, TABLES)
            folder = tmp_path / f"{moment}-{seconds}"
            folder.mkdir()
            monkeypatch.chdir(folder)
            write_move_case(folder, old, new, name=f"clean-{secrets.token_hex(4)}")
            check_cleaned(old, new, moment, seconds, hold)


def check_cleaned(old, new, moment, seconds, hold):
    """Kill one command, clean, and compare both sides with how they were. A restore that was killed keeps its progress
    at the new side, for the next one; clean says what removes it.
    """
    words = {
        "export": ["export", *CASE, "--bwlimit", "30K"],
        "restore": ["restore", *CASE, "--bwlimit", "500K"],
        "follow": ["follow", *CASE],
        "resync": ["resync", *CASE, "app:t"],
        "cutover": ["cutover", *CASE, *hold, "--yes"],
    }[moment]
    for step in ("export", "restore"):
        if MOMENTS.index(step) < MOMENTS.index(moment):
            done = call(step, *CASE)
            assert done.code == 0, done
    before = fetch(old, THINGS)
    run_sql(old, "UPDATE t SET v = 'x' WHERE id < 5")
    kill(words, seconds)
    if moment == "cutover":
        released = call("cutover", *CASE, "--undo")
        assert released.code in {0, 2, 7}, released
    cleaned = call("clean", *CASE, "--changes", "--yes")
    assert cleaned.code == 0, (moment, seconds, cleaned)
    eventually(lambda: fetch(old, THINGS) == before)
    run_sql(old, "INSERT INTO keyless VALUES (1)")
    assert "called after" not in cleaned.out, "nothing is made at the old server, so nothing is named there"
    if moment in MOMENTS[2:]:
        assert {("event tick ENABLED",), ("trigger noted_change",)} <= {*fetch(new, THINGS)}, (
            moment,
            seconds,
        )
        status = " ".join(call("status", *CASE).out.split())
        assert "where moveout clean --changes has removed it" in status, status
    unfinished = call("clean", *CASE, "--changes", "--dry-run", "--json").json["result"]["unfinished"]
    assert moment == "restore" or unfinished == []
    for restore in unfinished:
        run_sql(new, restore["removal"])
    assert [thing for (thing,) in fetch(new, THINGS) if "moveout" in thing] == [], (moment, seconds, cleaned)
