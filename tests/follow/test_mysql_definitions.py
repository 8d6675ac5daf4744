"""What a MySQL or MariaDB source defines after the base is named by follow, status and cutover, as PostgreSQL's is."""

from contextlib import closing

import pytest

from exporters.mysql.connection import connect, parse_url
from migrate.follow.cutover import Cutover
from migrate.restore.mysql.changes.definition_gaps import compare_definitions, definition_state
from tests.cli.conftest import call
from tests.exporters.mysql.databases import fetch, run_sql
from tests.follow.move_case import write_move_case

BASE = """
CREATE TABLE bills (id INT PRIMARY KEY, total INT DEFAULT 1, note VARCHAR(20), KEY by_total (total));
CREATE TABLE places (id INT PRIMARY KEY, v INT, CONSTRAINT low CHECK (v < 10));
CREATE VIEW due AS SELECT id FROM bills;
CREATE PROCEDURE tax() SELECT 1; CREATE FUNCTION rate() RETURNS INT DETERMINISTIC RETURN 5;
CREATE TRIGGER stamped BEFORE INSERT ON bills FOR EACH ROW SET NEW.total = 3;
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO SELECT 1;
CREATE EVENT waiting ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DISABLE DO SELECT 1;
"""
NOW = " as it is defined now"
AGAIN = {
    "view `late`": "CREATE VIEW late AS SELECT 1 AS x",
    "trigger `late_too`": "CREATE TRIGGER late_too AFTER DELETE ON bills FOR EACH ROW SET @a = 1",
    "table `bills`" + NOW: "ALTER TABLE bills ALTER total SET DEFAULT 2, COMMENT 'paid'",
    "table `places`" + NOW: "ALTER TABLE places DROP CONSTRAINT low, ADD KEY by_v (v)",
    "view `due`" + NOW: "CREATE OR REPLACE VIEW due AS SELECT id FROM bills WHERE total > 0",
    "procedure `tax`" + NOW: "DROP PROCEDURE tax; CREATE PROCEDURE tax() COMMENT 'of the year' SELECT 1",
    "function `rate`" + NOW: "ALTER FUNCTION rate SQL SECURITY INVOKER",
    "trigger `stamped`" + NOW: "DROP TRIGGER stamped;"
    " CREATE TRIGGER stamped BEFORE INSERT ON bills FOR EACH ROW SET NEW.total = 4",
    "event `nightly`" + NOW: "ALTER EVENT nightly COMMENT 'at night'",
}
CASE = ("-c", "moveout.toml")
CUTOVER = ("cutover", *CASE, "--hold", "--whole-server", "--yes", "--json")


@pytest.fixture(params=["mariadb", pytest.param("mysql", marks=pytest.mark.torture)])
def move(request, tmp_path, monkeypatch):
    """A database that was brought over, with an account of the application: the old and the new URL, the account."""
    if request.param == "mysql":
        old = request.getfixturevalue("servers").mysql("mysql-early", settings=["binlog-row-metadata=FULL"])
        new = request.getfixturevalue("other_mysql")
    else:
        old, new = (request.getfixturevalue(name) for name in ("followed_mariadb", "other_mariadb"))
    old, new = old.database(), new.database()
    account = f"'app_{old.rpartition('/')[2][-8:]}'@'%'"
    run_sql(
        old,
        f"{BASE} CREATE USER {account} IDENTIFIED BY 'Secret-1'; GRANT SELECT ON {name_of(old)}.* TO {account}",
    )
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, old, new, follow=False)
    assert call("export", *CASE, "--follow").code == 0
    assert call("restore", *CASE).code == 0
    yield old, new, account
    call("hold", "undo", "moveout-cutover.json", "--yes")
    for url in (old, new):
        run_sql(url, f"DROP USER IF EXISTS {account}")


def name_of(url):
    return f"`{url.rpartition('/')[2].partition('?')[0]}`"


def undefined():
    """Return what follow names, with its exit code."""
    followed = call("follow", *CASE, "--until-caught-up", "--json")
    return followed.code, followed.json["result"]["sources"][0]["undefined"]


def switched():
    """Return what a cutover names, with its exit code."""
    result = call(*CUTOVER)
    return result.code, result.json["result"]["sources"][0]["carried"]["missing"]


def test_what_was_defined_since_the_base_is_named_until_the_new_side_has_it(move):
    old, new, _ = move
    assert undefined() == (0, [])
    for statement in AGAIN.values():
        run_sql(old, statement)
    assert (code_and_names := undefined())[0] == 3
    assert sorted(code_and_names[1]) == sorted(AGAIN)
    assert f"NOT at the destination: {', '.join(code_and_names[1][:1])}" in " ".join(
        call("status", *CASE).out.split()
    )
    assert switched() == code_and_names
    assert call("cutover", *CASE, "--undo").code == 0
    for statement in AGAIN.values():
        run_sql(new, statement)
    assert undefined() == (0, [])
    assert switched() == (0, [])


def test_privileges_that_changed_since_the_base_are_named(move):
    old, new, account = move
    late = f"{account[:5]}late{account[5:]}"
    privileges = {account: "INSERT, UPDATE", late: "SELECT"}
    run_sql(old, f"CREATE USER {late} IDENTIFIED BY 'Secret-1'")
    try:
        for name, what in privileges.items():
            run_sql(old, f"GRANT {what} ON {name_of(old)}.* TO {name}")
        run_sql(old, f"REVOKE SELECT ON {name_of(old)}.* FROM {account}")
        named = [f"privileges of {name} as they are now" for name in sorted(privileges)]
        assert undefined() == (3, named)
        assert switched() == (3, named)
        assert call("cutover", *CASE, "--undo").code == 0
        pattern = name_of(new).replace("_", "\\_")  # as the restore has granted it
        run_sql(new, f"CREATE USER {late}; REVOKE SELECT ON {pattern}.* FROM {account}")
        for name, what in privileges.items():
            run_sql(new, f"GRANT {what} ON {pattern}.* TO {name}")
        assert undefined() == (0, [])
    finally:
        for url in (old, new):
            run_sql(url, f"DROP USER IF EXISTS {late}")


def test_an_account_that_was_dropped_since_the_base_is_named(move):
    """At the new side somebody could still log in by it."""
    old, new, account = move
    run_sql(old, f"DROP USER {account}")
    named = [f"DROP USER {account}"]
    assert undefined() == (3, named)
    assert switched() == (3, named)
    assert call("cutover", *CASE, "--undo").code == 0
    run_sql(new, f"DROP USER {account}")
    assert undefined() == (0, [])


def test_events_run_at_the_new_side_that_ran_at_the_old_one_before_the_switch(move, monkeypatch):
    """Also where the first cutover has held the old side, and then died."""
    old, new, _ = move
    run_sql(old, "ALTER EVENT nightly DISABLE; ALTER EVENT waiting ENABLE")
    with monkeypatch.context() as patch:
        patch.setattr(Cutover, "prove", died)
        assert call(*CUTOVER).code != 0
    assert switched() == (0, [])
    statuses = (
        "SELECT EVENT_NAME, STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE() ORDER BY 1"
    )
    assert fetch(new, statuses) == [("nightly", "DISABLED"), ("waiting", "ENABLED")]


def died(_):
    raise KeyboardInterrupt


def test_what_an_account_that_sees_no_other_may_do_elsewhere_belongs_to_the_move(
    followed_mariadb, other_mariadb
):
    """As the right to hold the source, which a cutover asks for after the export."""
    old, new = followed_mariadb.database(), other_mariadb.database()
    account, secrets = f"mover_{old.rpartition('/')[2][-8:]}", {"password": "Secret-1"}
    for url in (old, new):
        run_sql(
            url,
            f"CREATE USER {account} IDENTIFIED BY 'Secret-1'; GRANT SELECT ON {name_of(url)}.* TO {account}",
        )
    address = parse_url(old.replace("moveout@", f"{account}@"), secrets)
    log = definition_state(address.url, secrets, None, "")
    named = []
    for right in (f"READ_ONLY ADMIN ON *.* TO {account}", f"INSERT ON {name_of(old)}.* TO {account}"):
        run_sql(old, f"GRANT {right}")
        with closing(connect(address)) as reader, closing(connect(parse_url(new))) as writer:
            named.append(compare_definitions(reader, writer, skipped=(), log=log).missing)
    for url in (old, new):
        run_sql(url, f"DROP USER {account}")
    assert named == [[], [f"privileges of '{account}'@'%' as they are now"]]
