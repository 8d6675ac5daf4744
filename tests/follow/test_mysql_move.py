"""A whole move of a MariaDB database under writers: nothing that was acknowledged is lost, and one can go back."""

import pytest

from tests.cli.conftest import call
from tests.exporters.mysql.databases import fetch, run_sql
from tests.follow.move_case import write_move_case
from tests.follow.mysql_transfers import BANK, Application, check_transfers
from tests.restore.mysql.killed_repair import kill_repair

OTHERS = """
CREATE TABLE plain (id INT AUTO_INCREMENT PRIMARY KEY, v VARBINARY(20), KEY (v)) ENGINE=MyISAM;
INSERT INTO plain (v) VALUES ('a'), (NULL), (X'00FF');
CREATE TABLE plain_audit (id INT);
CREATE TRIGGER plain_noted AFTER INSERT ON plain FOR EACH ROW INSERT INTO plain_audit VALUES (1);
CREATE SEQUENCE numbers; SELECT NEXTVAL(numbers);
CREATE TABLE ticks (id INT AUTO_INCREMENT PRIMARY KEY);
CREATE TABLE still (id INT PRIMARY KEY) SELECT 1 AS id;
CREATE TABLE children (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES still (id) ON DELETE CASCADE);
CREATE TRIGGER log_removed AFTER DELETE ON log FOR EACH ROW INSERT INTO ticks VALUES ();
CREATE EVENT tick ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO INSERT INTO ticks VALUES ();
"""


EVENT = "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()"


@pytest.fixture
def move(followed_mariadb, other_mariadb, tmp_path, monkeypatch):
    """The case file of a database; the old and the new URL."""
    old, new = followed_mariadb.database(), other_mariadb.database()
    run_sql(old, BANK + OTHERS)
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, old, new, follow=False)
    yield old, new
    call("hold", "undo", "moveout-cutover.json", "--yes")


@pytest.mark.torture
def test_nothing_that_was_acknowledged_is_lost_and_one_can_go_back(move, followed_mariadb):
    old, new = move
    followed_mariadb.database()  # so the server has another one
    application = Application(followed_mariadb, old)
    try:
        exported = call("export", "-c", "moveout.toml", "--follow")
        assert exported.code == 0, exported
        assert "the changes of plain cannot be followed: MyISAM has no transactions" in " ".join(
            exported.err.split()
        )
        assert call("restore", "-c", "moveout.toml").code == 0
        followed = call("follow", "-c", "moveout.toml", "--until-caught-up")
        assert followed.code == 0, followed
        status = call("status", "-c", "moveout.toml")
        assert status.code == 0, status
        assert "binlog.0000" in status.out
        again = call("restore", "-c", "moveout.toml")
        assert "has changes of the source since" in again.out
        run_sql(
            old, "INSERT INTO plain (v) VALUES ('b'); SELECT NEXTVAL(numbers); INSERT INTO ticks VALUES (70)"
        )
        run_sql(
            old,
            "DELETE FROM ticks; ALTER TABLE ticks AUTO_INCREMENT = 100; CREATE VIEW late AS SELECT 1 AS x",
        )
        refused = call("cutover", "-c", "moveout.toml", "--hold", "--yes")
        assert (refused.code, "--whole-server" in refused.err) == (2, True), refused
        kill_repair(new, "log")
        before = dict(application.acknowledged)
        switched = call("cutover", "-c", "moveout.toml", "--hold", "--whole-server", "--yes", "--json")
        assert switched.code == 3, switched
    finally:
        application.end()
    assert all(application.acknowledged[writer] > before[writer] > 0 for writer in before)
    (source,) = switched.json["result"]["sources"]
    assert source["carried"]["counts"]["tables"] == 1
    early = {*source["compared_early"]}
    assert early >= {"still", "accounts", "log"}
    assert not early & {"keyless", "plain"}
    assert source["carried"]["counts"]["AUTO_INCREMENT counters"] >= 1
    assert source["carried"]["missing"] == ["view `late`"]
    triggers = "SHOW TRIGGERS LIKE 'log'"
    assert [row[:4] for row in fetch(new, triggers)] == [row[:4] for row in fetch(old, triggers)]
    check_arrived(old, new, application)

    back = call("cutover", "-c", "moveout.toml", "--undo")
    assert back.code == 3, back
    assert "  ticks: was written to since" in back.out
    assert (fetch(old, EVENT), fetch(new, EVENT)) == ([("ENABLED",)], [("DISABLED",)])
    run_sql(old, "INSERT INTO log (writer, number) VALUES (99, 1)")
    cleaned = call("clean", "--changes", "-c", "moveout.toml", "--yes")
    assert cleaned.code == 0, cleaned
    assert fetch(new, "SHOW TABLES LIKE 'moveout%'") == []
    assert fetch(new, EVENT) == [("ENABLED",)]


def check_arrived(old, new, application):
    """All that was acknowledged is at the new database, once, and what no log has."""
    check_transfers(old, new, application)
    assert fetch(new, "SELECT HEX(v) FROM plain ORDER BY id") == [("61",), (None,), ("00FF",), ("62",)]
    run_sql(new, "INSERT INTO plain (v) VALUES ('c'); INSERT INTO ticks VALUES ()")
    assert fetch(new, "SELECT COUNT(*) FROM plain_audit") == [(2,)]
    assert fetch(new, "SELECT MAX(id) FROM ticks") == [(100,)]
    assert fetch(new, "SELECT NEXTVAL(numbers)")[0][0] > 1
    assert fetch(new, EVENT) == [("ENABLED",)]
