"""``clean`` leaves what a killed restore goes on by, and says what removes it for good. Until it goes on, what has not
come is missing, not damaged.
"""

import psycopg
import pytest

from exporters.mysql.connection import parse_url as parse_mysql_url
from exporters.postgres.sessions.connection import parse_url as parse_postgres_url
from migrate.errors import BusyError
from migrate.restore.mysql import destination as mysql_destination
from migrate.restore.postgres import destination as postgres_destination
from tests.cli.conftest import call
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres
from tests.follow.move_case import write_move_case
from tests.restore.killed import killed

MAKE = "CREATE TABLE t (id int PRIMARY KEY, v varchar(9)); INSERT INTO t VALUES (1, 'x')"
KILLED_BEFORE = {"postgres": "COPY", "mariadb": "INSERT INTO `moveout_restore_done`"}
OURS = {
    "postgres": "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%moveout%'",
    "mariadb": "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"
    " AND TABLE_NAME LIKE '%moveout%'",
}


@pytest.mark.parametrize("kind", [pytest.param("postgres", marks=pytest.mark.torture), "mariadb"])
def test_clean_names_what_a_killed_restore_has_left_and_what_removes_it(request, kind, tmp_path, monkeypatch):
    server, engine = request.getfixturevalue(kind), {"postgres": postgres, "mariadb": mysql}[kind]
    old, new = server.database(), server.database()
    engine.run_sql(old, MAKE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENANT", server.password)
    write_move_case(tmp_path, old, new, follow=False, transfer=True)
    case = ("-c", "moveout.toml")
    assert call("export", *case).code == 0
    assert call("clean", *case, "--changes", "--json").json["result"]["unfinished"] == []
    assert killed(tmp_path / "bundle", new, pattern=KILLED_BEFORE[kind])
    assert engine.fetch(new, OURS[kind])

    compared = call("verify", "bundle", "--against", f"app={new}")
    assert compared.code == 3, compared
    assert "→ give the same moveout restore again" in compared.out

    for words in (("--yes",), ("--changes", "--yes")):
        cleaned = call("clean", *case, *words)
        output = " ".join(cleaned.out.split())
        assert cleaned.code == 0, cleaned
        assert "kept: a restore of app to" in output, output
        assert "→ moveout restore goes on. To give it up, there: DROP " in output, output
    assert engine.fetch(new, OURS[kind]), "a restore may go on by it"
    [unfinished] = call("clean", *case, "--json").json["result"]["unfinished"]
    engine.run_sql(new, unfinished["removal"])
    assert not engine.fetch(new, OURS[kind])
    assert call("clean", *case, "--json").json["result"]["unfinished"] == []


def test_the_session_of_another_restore_is_named_with_what_ends_it(postgres, mariadb, monkeypatch):
    """Its machine may hang, and the server does not notice that."""
    for module in (postgres_destination, mysql_destination):
        monkeypatch.setattr(module, "_LOCK_SECONDS", 0)
    url = postgres.database()
    with psycopg.connect(url) as other:
        query = f"SELECT pg_backend_pid() FROM pg_advisory_lock({postgres_destination._LOCK})"
        (pid,) = other.execute(query).fetchone()
        address = parse_postgres_url(url)
        with pytest.raises(BusyError) as busy, postgres_destination.open_destination(address):
            pass
    assert f"SELECT pg_terminate_backend({pid})" in busy.value.next_step
    address = parse_mysql_url(mariadb.database())
    with mysql_destination.open_destination(address) as holder:
        number = holder.connection.value("SELECT CONNECTION_ID()")
        with pytest.raises(BusyError) as busy, mysql_destination.open_destination(address):
            pass
    assert f"KILL {number}" in busy.value.next_step
