"""A move from MariaDB to MySQL, or the other way: changes of the log do not fit, and the command says what does."""

import shutil

import pytest

from tests.cli.conftest import call
from tests.exporters.mysql.databases import fetch, run_sql
from tests.follow.move_case import write_move_case

pytestmark = pytest.mark.torture
CASE = ("-c", "moveout.toml")


@pytest.mark.parametrize("flavours", [("MariaDB", "MySQL"), ("MySQL", "MariaDB")])
def test_a_database_is_kept_up_by_delta_passes_only(flavours, servers, tmp_path, monkeypatch):
    settings = ["binlog-format=ROW", "binlog-row-metadata=FULL"]
    old_server, new_server = (
        getattr(servers, name.lower())(f"{name.lower()}-{side}", settings=settings)
        for name, side in zip(flavours, ("old", "new"), strict=True)
    )
    old, new = old_server.database(), new_server.database()
    run_sql(
        old,
        "CREATE TABLE goods (id INT PRIMARY KEY, note TEXT); INSERT INTO goods VALUES (1, 'é'), (2, NULL)",
    )
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, old, new, follow=False)
    for command in (("export", "--follow"), ("restore",)):
        assert call(*command, *CASE).code == 0
    run_sql(old, "INSERT INTO goods VALUES (3, 'c'); DELETE FROM goods WHERE id = 1")
    cutover = ("cutover", *CASE, "--hold", "--whole-server", "--yes")
    for command, code in ((("follow", *CASE, "--until-caught-up"), 3), (cutover, 6)):
        refused = call(*command)
        assert refused.code == code, refused
        assert f"changes of {flavours[0]} cannot be applied to {flavours[1]}" in refused.err
        assert "moveout follow --delta" in refused.err
    run_sql(old, "INSERT INTO goods VALUES (4, 'nothing is held')")
    shutil.rmtree("bundle")
    run_sql(new, "DROP TABLE goods, moveout_restore_follow")
    for command in (("export",), ("restore",), ("follow", "--delta", "--until-caught-up")):
        ended = call(*command, *CASE)
        assert ended.code == 0, ended
    run_sql(old, "UPDATE goods SET note = 'last' WHERE id = 2")
    switched = call(*cutover)
    assert switched.code == 0, switched
    expected = [(2, "last"), (3, "c"), (4, "nothing is held")]
    assert fetch(new, "SELECT * FROM goods ORDER BY id") == expected
    assert call("cutover", *CASE, "--undo").code == 0
    run_sql(old, "INSERT INTO goods VALUES (5, 'in use again')")
