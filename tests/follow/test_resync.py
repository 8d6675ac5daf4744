"""``moveout resync`` reads tables of a followed database again while it is written to, and following goes on."""

import json

from tests.cli.conftest import call
from tests.exporters.postgres.databases import fetch, run_sql
from tests.follow.test_cutover import Application, move
from tests.tools.waiting import eventually

__all__ = ["move"]  # a fixture


def test_tables_are_read_again_while_the_source_is_written_to(move):
    old, new = move
    case = ("-c", "moveout.toml")
    assert call("export", *case, "--follow").code == 0
    assert call("restore", *case).code == 0
    run_sql(new, "DELETE FROM accounts WHERE id = 7; UPDATE accounts SET balance = 0 WHERE id = 9")
    application = Application(old)
    try:
        eventually(lambda: application.acknowledged >= 20)
        stopped = call("follow", *case, "--until-caught-up")
        assert stopped.code == 3
        assert "moveout resync" in " ".join(stopped.out.split())
        refused = call("resync", *case, "app:public.keyless")
        assert (refused.code, "REPLICA IDENTITY FULL" in refused.err) == (2, True)
        run_sql(old, "ALTER TABLE keyless REPLICA IDENTITY FULL; CREATE TABLE late (id int PRIMARY KEY)")
        run_sql(old, "INSERT INTO late VALUES (1)")
        run_sql(new, "CREATE TABLE late (id int PRIMARY KEY)")
        words = [f"app:public.{name}" for name in ("accounts", "keyless", "late")]
        again = call("resync", *case, *words, "--json")
        assert again.code == 0, again
        assert [table["repaired"]["table"] for table in again.json["result"]["tables"]] == [
            f'"public"."{name}"' for name in ("accounts", "keyless", "late")
        ]
        run_sql(old, "INSERT INTO late VALUES (2)")
        before = application.acknowledged
        eventually(lambda: application.acknowledged >= before + 20)
    finally:
        application.end()
    followed = call("follow", *case, "--until-caught-up", "--json")
    assert followed.code == 0, json.dumps(followed.json)
    for table in ("accounts", "keyless", "late", "log"):
        query = f"SELECT * FROM {table} ORDER BY 1"
        assert fetch(new, query) == fetch(old, query)
    assert call("cutover", *case, "--hold", "--yes").code == 0
