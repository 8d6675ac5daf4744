"""What a restore left out comes with the same command once the destination can have it, also if that is killed."""

import os
import sqlite3
from contextlib import closing
from itertools import count

import pytest

from tests.cli.conftest import call
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgresql
from tests.exporters.sqlite import databases as sqlite
from tests.restore.killed import killed, spread

POSTGRES = """
CREATE EXTENSION dblink; CREATE TABLE kept AS SELECT 1 AS x;
CREATE SEQUENCE counted; CREATE TABLE keys (n int DEFAULT nextval('counted') PRIMARY KEY, key dblink_pkey_results);
INSERT INTO keys (key) SELECT ROW(n, md5(n::text))::dblink_pkey_results FROM generate_series(1, 500) n;
COMMENT ON TABLE keys IS 'of an extension'; CREATE INDEX ON keys (((key).colname));
CREATE TABLE parts (n int, key dblink_pkey_results) PARTITION BY RANGE (n);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (100); INSERT INTO parts VALUES (1, (1, 'a'));
CREATE TABLE child (n int REFERENCES keys); INSERT INTO child VALUES (7);
CREATE VIEW names AS SELECT (key).colname FROM keys; CREATE MATERIALIZED VIEW sums AS SELECT sum(n) AS s FROM keys;
CREATE INDEX ON sums (s); CREATE FUNCTION tight(int) RETURNS bool LEAKPROOF LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER fires AFTER INSERT ON keys FOR EACH ROW EXECUTE FUNCTION seen();
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER watches ON ddl_command_end EXECUTE FUNCTION watch()
"""
CONTENT = """
SELECT (SELECT count(*) FROM keys), (SELECT count(*) FROM parts), (SELECT sum(s) FROM sums),
  (SELECT last_value FROM counted),
  (SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid > 16384),
  (SELECT count(*) FROM pg_constraint WHERE oid > 16384), (SELECT count(*) FROM pg_trigger WHERE oid > 16384),
  (SELECT count(*) FROM pg_proc WHERE oid > 16384), (SELECT count(*) FROM pg_event_trigger),
  obj_description('keys'::regclass)
"""
MARIADB = """
CREATE TABLE kept AS SELECT 1 AS x; CREATE TABLE gone (a INT); CREATE VIEW broken AS SELECT a FROM gone;
CREATE VIEW above AS SELECT a FROM broken; DROP TABLE gone
"""


@pytest.fixture
def tenant(other_postgres, monkeypatch):
    """A fresh database of a role that may make no extension, leakproof function or event trigger."""
    monkeypatch.setenv("TENANT", other_postgres.password)
    return database_of(other_postgres, "again_tenant")


def database_of(server, name: str, options: str = "") -> str:
    url = postgresql.login(server, name, options)
    postgresql.run_sql(
        url,
        f"ALTER DATABASE {url.rpartition('/')[2]} OWNER TO {name}; ALTER SCHEMA public OWNER TO {name};"
        f" GRANT SET ON PARAMETER session_replication_role TO {name}",
    )
    return url


def subjects(result) -> set[str]:
    return {sentence.partition(":")[0] for sentence in result["left_out"]}


def command(bundle, url):
    """Give the command; return its exit code and what it says of the source."""
    environment = {"PGPASSWORD": os.environ.get("TENANT")}
    ended = call("restore", bundle, f"app={url}", "--json", "--quiet", env=environment)
    (restored,) = ended.json["result"]["restored"]
    assert restored["findings"] == [], ended.err
    return ended.code, restored


def test_an_extension_is_installed_after_the_restore(postgres, tenant, tmp_path):
    source, bundle = postgres.database(), tmp_path / "bundle"
    postgresql.run_sql(source, POSTGRES)
    assert postgresql.export_database(source, bundle).complete
    destination = postgresql.as_role(tenant, "again_tenant")
    code, first = command(bundle, destination)
    assert code == 3
    assert subjects(first) >= {
        "EXTENSION dblink",
        "TABLE public.keys",
        "VIEW public.names",
        "EVENT TRIGGER watches",
    }
    code, again = command(bundle, destination)
    assert (code, subjects(again), again["size_bytes"]) == (3, subjects(first), 0)
    postgresql.run_sql(tenant, "CREATE EXTENSION dblink")
    assert killed(bundle, destination, pattern=r"COPY [^(]*\bkeys\b|done. VALUES \(.*keys")
    code, came = command(bundle, destination)
    assert code == 3
    assert subjects(came) == {
        "COMMENT EXTENSION dblink",
        "FUNCTION public.tight(integer)",
        "EVENT TRIGGER watches",
    }
    postgresql.run_sql(tenant, "ALTER ROLE again_tenant SUPERUSER")
    code, all_there = command(bundle, destination)
    assert (code, all_there["left_out"]) == (0, [])
    assert any("now it is there: " in note and "EVENT TRIGGER watches" in note for note in all_there["notes"])
    for result in (first, came, all_there):
        assert any(note.startswith("owners were left out") for note in result["notes"])
    assert first["computed_items"] == again["computed_items"] == 0
    postgresql.run_sql(tenant, "ALTER SCHEMA public OWNER TO pg_database_owner")
    assert postgresql.dump(tenant, "--no-owner") == postgresql.dump(source, "--no-owner")
    assert command(bundle, destination)[0] == 0


def test_roles_without_a_password_are_named_as_long_as_they_have_none(
    postgres, other_postgres, tmp_path, monkeypatch
):
    monkeypatch.setenv("TENANT", other_postgres.password)
    source, bundle, roles = postgres.database(), tmp_path / "bundle", "janitor, again_landlord"
    postgresql.run_sql(
        source,
        f"DROP ROLE IF EXISTS {roles}; CREATE ROLE janitor LOGIN; CREATE ROLE again_landlord; CREATE TABLE t (a int);"
        "GRANT SELECT ON t TO janitor; ALTER TABLE t OWNER TO again_landlord;"
        "CREATE SCHEMA own AUTHORIZATION again_landlord;"
        "CREATE FUNCTION own.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "ALTER FUNCTION own.watch() OWNER TO again_landlord;"
        "CREATE EVENT TRIGGER watches ON ddl_command_end EXECUTE FUNCTION own.watch()",
    )
    assert postgresql.export_database(source, bundle).complete
    tenant = database_of(other_postgres, "again_landlord", "CREATEROLE")
    destination = postgresql.as_role(tenant, "again_landlord")
    made = "these roles were made and have no password yet: janitor"
    try:
        for _ in range(2):
            code, left = command(bundle, destination)
            assert (code, subjects(left), made in left["notes"]) == (3, {"EVENT TRIGGER watches"}, True)
        postgresql.run_sql(tenant, "ALTER ROLE again_landlord SUPERUSER; ALTER ROLE janitor PASSWORD 'x'")
        code, came = command(bundle, destination)
        assert (code, came["left_out"]) == (0, [])
        assert not [note for note in came["notes"] if "janitor" in note]
    finally:
        postgresql.run_sql(tenant, "DROP OWNED BY janitor; DROP ROLE janitor")


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_it_is_killed_before_statements_all_over_it(postgres, other_postgres, tenant, tmp_path):
    source, bundle = postgres.database(), tmp_path / "bundle"
    postgresql.run_sql(source, POSTGRES)
    assert postgresql.export_database(source, bundle).complete
    destination = postgresql.as_role(tenant, "again_tenant")
    assert command(bundle, destination)[0] == 3
    postgresql.run_sql(tenant, "CREATE EXTENSION dblink; ALTER ROLE again_tenant SUPERUSER")
    names = (other_postgres.database().rpartition("/")[2] for _ in count())

    def copy() -> str:
        name, copied = next(names), destination.rpartition("/")[2]
        for statement in (f"DROP DATABASE {name}", f"CREATE DATABASE {name} TEMPLATE {copied}"):
            postgresql.run_sql(other_postgres.url, statement)
        return destination.replace(copied, name)

    numbers = spread(bundle, copy(), tmp_path)
    kills = 0
    for number in numbers:
        url = copy()
        kills += killed(bundle, url, number)
        code, came = command(bundle, url)
        assert (code, came["left_out"]) == (0, []), number
        server_url = url.replace("again_tenant@", "postgres@")
        assert postgresql.fetch(server_url, CONTENT) == postgresql.fetch(source, CONTENT), number
        assert postgresql.fetch(server_url, "SELECT to_regnamespace('moveout_restore')") == [(None,)]
    assert kills >= len(numbers) - 2, "threads make statements in no fixed order, but as many of them"


def test_a_view_of_mariadb_finds_its_table(mariadb, other_mariadb, tmp_path):
    source, destination = mariadb.database(), other_mariadb.database()
    mysql.run_sql(source, MARIADB)
    assert mysql.export_database(source, tmp_path / "bundle").complete
    for _ in range(2):
        code, first = command(tmp_path / "bundle", destination)
        assert (code, subjects(first)) == (3, {"view `broken`", "view `above`"})
    mysql.run_sql(destination, "CREATE TABLE gone (a INT)")
    assert killed(tmp_path / "bundle", destination, pattern="CREATE.*above")
    code, came = command(tmp_path / "bundle", destination)
    assert (code, came["left_out"]) == (0, [])
    assert mysql.fetch(destination, "SELECT * FROM above") == []
    assert command(tmp_path / "bundle", destination)[0] == 0


def test_locked_accounts_are_named_again_with_what_came(mariadb, other_mariadb, tmp_path):
    source, destination, copy = mariadb.database(), other_mariadb.database(), other_mariadb.database()
    try:
        mysql.run_sql(source, f"{MARIADB}; CREATE USER concierge")
        mysql.run_sql(source, f"GRANT SELECT ON {source.rpartition('/')[2]}.* TO concierge")
        assert mysql.export_database(source, tmp_path / "bundle").complete
        assert command(tmp_path / "bundle", destination)[0] == 3
        mysql.run_sql(destination, "CREATE TABLE gone (a INT)")
        code, came = command(tmp_path / "bundle", destination)
        assert (code, came["left_out"]) == (0, [])
        assert any("now it is there: " in note for note in came["notes"])
        assert any("are locked" in note and "concierge" in note for note in came["notes"])
        assert command(tmp_path / "bundle", copy)[0] == 3
        mysql.run_sql(copy, "ALTER USER concierge IDENTIFIED BY 'x' ACCOUNT UNLOCK")
        for statement in ("DO 0", "CREATE TABLE gone (a INT)"):
            mysql.run_sql(copy, statement)
            _, unlocked = command(tmp_path / "bundle", copy)
            assert not [note for note in unlocked["notes"] if "concierge" in note], statement
    finally:
        for url in (source, destination):
            mysql.run_sql(url, "DROP USER IF EXISTS concierge")


def test_databases_that_need_one_another_come_by_one_command(mariadb, other_mariadb, tmp_path):
    one, two = mariadb.database("needs_two"), mariadb.database("needs_one")
    mysql.run_sql(two, "CREATE TABLE p (id INT PRIMARY KEY); INSERT INTO p VALUES (1)")
    mysql.run_sql(
        one,
        "CREATE TABLE c (id INT PRIMARY KEY, CONSTRAINT up FOREIGN KEY (id) REFERENCES needs_one.p (id));"
        "INSERT INTO c VALUES (1); CREATE VIEW v AS SELECT id FROM needs_one.p;"
        "CREATE VIEW needs_one.w AS SELECT id FROM v; CREATE VIEW vv AS SELECT id FROM needs_one.w",
    )
    sources = [f"one={one}", f"two={two}"]
    assert call("export", *sources, "--to", tmp_path / "bundle").code == 0
    destinations = [
        f"{name}={other_mariadb.url_of(url.rpartition('/')[2])}" for name, url in (("one", one), ("two", two))
    ]
    first = call("restore", tmp_path / "bundle", destinations[0], "--create", "--json")
    assert (first.code, "that are missing on this server: `up` of `c`" in first.out) == (3, True)
    mysql.run_sql(other_mariadb.url, "DROP DATABASE needs_two")
    ended = call("restore", tmp_path / "bundle", *destinations, "--create", "--json")
    restored = ended.json["result"]["restored"]
    assert (ended.code, [result["left_out"] for result in restored]) == (0, [[], []]), ended
    assert not [
        note for result in restored for note in result["notes"] if "missing" in note or "left" in note
    ]
    assert mysql.fetch(other_mariadb.url_of("needs_two"), "SELECT id FROM vv") == [(1,)]


def own_collation(path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.create_collation("own", lambda a, b: (a > b) - (a < b))
    return connection


def test_the_application_makes_an_index_of_sqlite(tmp_path):
    path, destination, bundle = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "bundle"
    with closing(own_collation(path)) as connection:
        connection.executescript(
            "CREATE TABLE t (a); INSERT INTO t VALUES ('x'); CREATE INDEX i ON t (a COLLATE own)"
        )
    assert sqlite.export_file(path, bundle).complete
    for _ in range(2):
        code, first = command(bundle, sqlite.url_of(destination))
        assert (code, subjects(first)) == (3, {"the index i could not be made"})
    with closing(own_collation(destination)) as connection:
        connection.execute("CREATE INDEX i ON t (a COLLATE own)")
    verified = call("verify", bundle, "--against", f"app={sqlite.url_of(destination)}")
    assert (verified.code, "not equal" in verified.out) == (3, False), verified
    code, came = command(bundle, sqlite.url_of(destination))
    assert (code, came["left_out"]) == (0, [])
    assert (
        "an earlier restore left it out, and now it is there: the index i could not be made" in came["notes"]
    )
    assert not destination.with_name("b.db-moveout.json").exists()
