"""Who may use a database, and what is set for them and for all of it, comes back; secrets do not even leave."""

import pytest

from migrate.restore.postgres.definitions.roles import setting
from tests.cli.conftest import call
from tests.exporters.postgres.databases import as_role, export_database, fetch, login, run_sql
from tests.tools.bundles import read_bundle, restore_from, restore_whole

SCRIPT = """
DROP ROLE IF EXISTS club, member, "over ""it", tuned;
CREATE ROLE club; CREATE ROLE member LOGIN CREATEDB; CREATE ROLE "over ""it"; CREATE ROLE tuned;
GRANT club TO member WITH ADMIN OPTION; GRANT "over ""it" TO club; COMMENT ON ROLE member IS E'it''s \\ me';
CREATE TABLE t AS SELECT 1 AS a; ALTER TABLE t OWNER TO club;
ALTER ROLE member SET search_path TO "$user", public, 'A b,"c'; ALTER ROLE member SET role TO club;
ALTER ROLE member SET "my.app" TO E'it''s \\ x'; ALTER ROLE member SET my.api_token TO 'hidden!';
ALTER DATABASE {db} SET default_transaction_read_only TO on; ALTER DATABASE {db} SET search_path TO '';
ALTER DATABASE {db} SET "app.jwt_secret" TO 'hidden!'; ALTER DATABASE {db} SET bytea_output = escape;
ALTER DATABASE {db} SET idle_in_transaction_session_timeout = 50;
ALTER ROLE tuned IN DATABASE {db} SET timezone TO 'Asia/Tokyo';
"""
ROLES = """
SELECT rolname, rolcanlogin, rolcreatedb, shobj_description(r.oid, 'pg_authid'),
  ARRAY(SELECT one FROM unnest(rolconfig) AS one WHERE one !~ 'token'),
  ARRAY(SELECT roleid::regrole::text || admin_option FROM pg_auth_members WHERE member = r.oid)
FROM pg_roles r WHERE rolname IN ('club', 'member', 'over "it', 'tuned') ORDER BY 1
"""
SETTINGS = """
SELECT setrole::regrole::text, ARRAY(SELECT one FROM unnest(setconfig) AS one WHERE one !~ 'secret|read_only')
FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = current_database() ORDER BY 1
"""


def test_roles_and_settings_come_back_without_what_is_secret(postgres, other_postgres, tmp_path):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(url, SCRIPT.replace("{db}", url.rpartition("/")[2]))
    try:
        assert export_database(url, tmp_path / "bundle").complete
        reader = read_bundle(tmp_path / "bundle")
        restore_whole(reader, "app", destination)
        assert fetch(destination, ROLES) == fetch(url, ROLES)
        assert fetch(destination, SETTINGS) == fetch(url, SETTINGS)
        assert len(fetch(destination, ROLES)) == 4
    finally:
        for one in (url, destination):
            run_sql(
                one,
                "SET default_transaction_read_only = off; BEGIN; SET TRANSACTION READ WRITE; DROP TABLE public.t;"
                f"ALTER ROLE tuned IN DATABASE {one.rpartition('/')[2]} RESET ALL;"
                'DROP ROLE member, club, "over ""it", tuned; COMMIT',
            )
    assert {loss.reason.partition(" ")[0] for _, loss in reader.losses() if loss.property == "setting"} == {
        "app.jwt_secret",
        "default_transaction_read_only",
        "my.api_token",
    }
    files = [file for file in (tmp_path / "bundle").rglob("*.*") if file.is_file()]
    assert not [file for file in files if b"hidden!" in file.read_bytes()]


def test_what_only_a_superuser_gives_a_role_is_left_out_by_name(
    postgres, other_postgres, tmp_path, monkeypatch
):
    make = "DROP ROLE IF EXISTS freeholder; CREATE ROLE freeholder LOGIN CREATEROLE PASSWORD '{}'"
    for server in (postgres, other_postgres):
        run_sql(server.url, make.format(server.password))
    url, destination = postgres.database(), other_postgres.database()
    run_sql(
        url,
        "DROP ROLE IF EXISTS seer; CREATE ROLE seer BYPASSRLS; CREATE SCHEMA s AUTHORIZATION freeholder;"
        "CREATE TABLE s.t AS SELECT 1 AS x; ALTER TABLE s.t OWNER TO freeholder; GRANT SELECT ON s.t TO seer",
    )
    run_sql(destination, f"ALTER DATABASE {destination.rpartition('/')[2]} OWNER TO freeholder")
    try:
        assert export_database(url, tmp_path / "bundle").complete
        monkeypatch.setenv("PGPASSWORD", other_postgres.password)
        where = destination.replace("postgres@", "freeholder@")
        reader = read_bundle(tmp_path / "bundle")
        outcome = restore_from(reader, "app", where)
        assert outcome.left_out == ('BYPASSRLS of role "seer": only a superuser gives that',)
        assert fetch(destination, "SELECT has_table_privilege('seer', 's.t', 'SELECT')") == [(True,)]
    finally:
        monkeypatch.delenv("PGPASSWORD", raising=False)
        for one, server in ((url, postgres), (destination, other_postgres)):
            run_sql(one, "DROP SCHEMA IF EXISTS s CASCADE; DROP ROLE IF EXISTS seer")
            run_sql(
                one, f"ALTER DATABASE {one.rpartition('/')[2]} OWNER TO postgres; DROP OWNED BY freeholder"
            )
            run_sql(server.url, "DROP ROLE freeholder")


def test_what_a_role_lacks_that_was_there_before_is_named(postgres, other_postgres, tmp_path):
    """Somebody has made it with its password, and knows nothing of its settings."""
    url, destination = postgres.database(), other_postgres.database()
    run_sql(
        url,
        "DROP ROLE IF EXISTS roomer, landlord; CREATE ROLE landlord;"
        "CREATE ROLE roomer LOGIN CREATEDB IN ROLE landlord VALID UNTIL '2040-01-01 00:00+00';"
        "ALTER ROLE roomer SET search_path TO shop, public; CREATE TABLE t AS SELECT 1 AS a;"
        "GRANT SELECT ON t TO roomer",
    )
    run_sql(destination, "DROP ROLE IF EXISTS roomer, landlord; CREATE ROLE roomer LOGIN PASSWORD 'x'")
    try:
        assert export_database(url, tmp_path / "bundle").complete
        reader = read_bundle(tmp_path / "bundle")
        outcome = restore_from(reader, "app", destination)
    finally:
        for one in (url, destination):
            run_sql(one, "DROP OWNED BY roomer; DROP ROLE roomer, landlord")
    words = 'role "roomer" was there, and stays as it is; at the source it also had: CREATEDB, VALID UNTIL'
    settings = """'2040-01-01 00:00:00+00', SET search_path=shop, public, membership in "landlord\""""
    assert [note for note in outcome.notes if "roomer" in note] == [f"{words} {settings}"]
    assert outcome.left_out == ()


def test_settings_with_which_sessions_begin_otherwise_are_named(postgres, other_postgres, tmp_path):
    """Without a definition of the database's own: now() of a table without time zones would be another hour."""
    url, destination = postgres.database(), other_postgres.database()
    same = "ALTER DATABASE {} SET search_path = shop, public"
    run_sql(url, f"CREATE TABLE t AS SELECT 1 AS a; {same.format(url.rpartition('/')[2])}")
    run_sql(destination, f"ALTER DATABASE {destination.rpartition('/')[2]} SET timezone = 'Asia/Tokyo'")
    ((there,),) = fetch(url, "SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'")
    assert export_database(url, tmp_path / "bundle").complete
    outcome = restore_from(read_bundle(tmp_path / "bundle"), "app", destination, workers=1)
    (note,) = [note for note in outcome.notes if "sessions begin" in note]
    assert note.endswith(f"results: timezone = Asia/Tokyo (there {there})")


def test_privileges_that_the_destination_grants_on_all_that_is_made_are_named(
    postgres, other_postgres, tmp_path
):
    """What nobody could read at the source, everybody reads here."""
    url, destination = postgres.database(), other_postgres.database()
    run_sql(
        url, "CREATE TABLE secret AS SELECT 1 AS a; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC"
    )
    assert export_database(url, tmp_path / "bundle").complete
    run_sql(destination, "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    for there, named in ((destination, 1), (other_postgres.database(), 0)):
        outcome = restore_from(read_bundle(tmp_path / "bundle"), "app", there, workers=1)
        notes = [
            note
            for note in outcome.notes
            if note.startswith('tables of "postgres" may have other privileges')
        ]
        acl = "SELECT relacl FROM pg_class WHERE relname = 'secret'"
        query = f"SELECT count(*) FROM aclexplode(({acl})) WHERE grantee = 0"
        assert (len(notes), fetch(there, query)) == (named, [(named,)])


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        ("work_mem=7MB", "\"work_mem\" TO '7MB'"),
        ('search_path="$user", public, "a,""b"', "\"search_path\" TO '$user', 'public', 'a,\"b'"),
        ('search_path=""', "\"search_path\" TO ''"),
        ("my.app=a, b", '"my"."app" TO \'a, b\''),
    ],
)
def test_a_setting_is_written_as_it_was_said(stored, written):
    name, _, value = stored.partition("=")
    assert setting(name, value) == written


OWN = """
DROP ROLE IF EXISTS titleholder, leaser; CREATE ROLE titleholder; CREATE ROLE leaser;
CREATE TABLE t AS SELECT 1 AS a; COMMENT ON DATABASE {db} IS E'it''s \\ ours';
ALTER DATABASE {db} OWNER TO titleholder; ALTER DATABASE {db} CONNECTION LIMIT 7;
REVOKE CONNECT ON DATABASE {db} FROM PUBLIC; GRANT CONNECT ON DATABASE {db} TO leaser WITH GRANT OPTION;
"""
DATABASE = """
SELECT datdba::regrole::text, replace(datacl::text, session_user, ''), datconnlimit,
  shobj_description(oid, 'pg_database')
FROM pg_database WHERE datname = current_database()
"""


def test_a_new_database_gets_the_owner_and_privileges_of_the_source_and_another_keeps_its_own(
    postgres, other_postgres, tmp_path
):
    url, new, other = postgres.database(), other_postgres.database(), other_postgres.database()
    run_sql(url, OWN.replace("{db}", url.rpartition("/")[2]))
    run_sql(other, f"COMMENT ON DATABASE {other.rpartition('/')[2]} IS 'mine'")
    kept = fetch(other, DATABASE)
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    outcome = restore_from(reader, "app", new)
    assert (outcome.left_out, fetch(new, DATABASE)) == ((), fetch(url, DATABASE))
    assert fetch(new, DATABASE)[0][0] == "titleholder"
    outcome = restore_from(reader, "app", other)
    assert (outcome.left_out, fetch(other, DATABASE)) == ((), kept)
    (note,) = [note for note in outcome.notes if "of its own" in note]
    assert "owner titleholder" in note
    assert "connection limit 7" in note


def test_a_role_that_may_not_give_its_database_away_keeps_it_and_says_so(
    postgres, other_postgres, tmp_path, monkeypatch
):
    url, destination = login(postgres, "mortgagee"), login(other_postgres, "mortgagee", "CREATEDB")
    for server in (postgres, other_postgres):
        run_sql(server.url, "DROP ROLE IF EXISTS seller; CREATE ROLE seller")
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS a; ALTER TABLE t OWNER TO mortgagee")
    run_sql(url, f"ALTER DATABASE {url.rpartition('/')[2]} OWNER TO seller")
    run_sql(destination, f"ALTER DATABASE {destination.rpartition('/')[2]} OWNER TO mortgagee")
    assert export_database(url, tmp_path / "bundle").complete
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    outcome = restore_from(read_bundle(tmp_path / "bundle"), "app", as_role(destination, "mortgagee"))
    assert outcome.left_out == ()
    assert fetch(destination, DATABASE)[0][0] == "mortgagee"
    assert [note for note in outcome.notes if "at the source: owner seller" in note]


def test_privileges_of_a_database_are_given_also_without_its_owner_and_those_not_given_are_named(
    postgres, other_postgres, tmp_path, monkeypatch
):
    """To a GRANT of a role that may use an object, and not grant it, the server answers with a warning alone."""
    url, destination = postgres.database(), login(other_postgres, "allottee")
    for server in (postgres, other_postgres):
        run_sql(server.url, "DROP ROLE IF EXISTS visitor; CREATE ROLE visitor")
    database = url.rpartition("/")[2]
    run_sql(
        url,
        f"CREATE EXTENSION hstore; GRANT EXECUTE ON FUNCTION akeys(hstore) TO visitor; CREATE TABLE t AS SELECT 1 AS a;"
        f"GRANT SELECT ON t TO visitor; REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;"
        f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO visitor",
    )
    assert export_database(url, tmp_path / "bundle").complete
    run_sql(destination, f"ALTER DATABASE {destination.rpartition('/')[2]} OWNER TO allottee")
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    words = ("restore", tmp_path / "bundle", f"app={as_role(destination, 'allottee')}", "--json")
    (result,) = call(*words).json["result"]["restored"]
    assert result["left_out"] == []
    (note,) = [note for note in result["notes"] if note.startswith("privileges that could not be given, ")]
    assert 'LANGUAGE plpgsql: no privileges could be revoked for "plpgsql"' in note
    assert 'akeys(public.hstore): no privileges were granted for "akeys"' in note
    monkeypatch.delenv("PGPASSWORD")
    assert call(*words).code != 0
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    for _ in range(2):  # a failed restore in between has not lost it
        (again,) = call(*words).json["result"]["restored"]
        (line,) = [line for line in again["notes"] if line.endswith(note)]
        assert line.startswith("noted at ")
    assert fetch(destination, DATABASE)[0][1] == "{=T/allottee,allottee=CTc/allottee,visitor=c/allottee}"
    assert fetch(destination, "SELECT has_table_privilege('visitor', 't', 'SELECT')") == [(True,)]


def passwordless(reader, destination):
    outcome = restore_from(reader, "app", destination)
    assert outcome.left_out == ()
    return [note for note in outcome.notes if "password" in note]


def test_a_restore_whose_end_nobody_saw_says_again_which_roles_have_no_password(
    postgres, other_postgres, tmp_path
):
    url, destination = postgres.database(), other_postgres.database()
    run_sql(
        url, "DROP ROLE IF EXISTS inquiline; CREATE ROLE inquiline LOGIN; CREATE TABLE t AS SELECT 1 AS a"
    )
    run_sql(url, "GRANT SELECT ON t TO inquiline")
    export_database(url, tmp_path / "bundle")
    reader = read_bundle(tmp_path / "bundle")
    assert passwordless(reader, destination) == ["these roles were made and have no password yet: inquiline"]
    assert passwordless(reader, destination) == ["these roles have no password: inquiline"]
    run_sql(destination, "ALTER ROLE inquiline PASSWORD 'x'")
    assert passwordless(reader, destination) == []


def test_one_who_cannot_see_passwords_keeps_which_roles_were_made(
    postgres, other_postgres, tmp_path, monkeypatch
):
    url = postgres.database()
    run_sql(url, "DROP ROLE IF EXISTS subtenant, lessor; CREATE ROLE subtenant LOGIN; CREATE ROLE lessor")
    run_sql(
        url, "CREATE TABLE t AS SELECT 1 AS a; ALTER TABLE t OWNER TO lessor; GRANT SELECT ON t TO subtenant"
    )
    export_database(url, tmp_path / "bundle")
    destination = login(other_postgres, "lessor", "CREATEROLE")
    run_sql(destination, f"ALTER DATABASE {destination.rpartition('/')[2]} OWNER TO lessor")
    reader = read_bundle(tmp_path / "bundle")
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    try:
        words = ["these roles were made and have no password yet: subtenant"]
        for _ in range(2):
            assert passwordless(reader, as_role(destination, "lessor")) == words
    finally:
        run_sql(destination, "DROP OWNED BY subtenant; DROP ROLE subtenant")


def test_a_role_of_another_database_whose_name_is_no_text_here_stops_no_restore(
    postgres, other_postgres, tmp_path
):
    for name, encoding in (("of_latin", "LATIN1"), ("of_ascii", "SQL_ASCII")):
        clauses = f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        run_sql(other_postgres.url, f"CREATE DATABASE {name} {clauses}")
    url, latin, destination = postgres.database(), *map(other_postgres.url_of, ("of_latin", "of_ascii"))
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS a")
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    run_sql(latin, 'CREATE ROLE "grün"')
    try:
        restore_whole(reader, "app", destination)
    finally:
        run_sql(latin, 'DROP ROLE "grün"')
