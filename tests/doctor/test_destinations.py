"""What a destination lacks of what its source needs; fixes are applied, and the findings are gone."""

import secrets
import sqlite3
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from exporters.doctor import ExamineRequest
from exporters.mysql.doctor import examine as examine_mysql
from migrate.doctor import mysql_destination, postgres_destination
from tests.cli.conftest import call
from tests.exporters.postgres.databases import as_role, login, run_sql
from tests.tools.clients import boto_client
from tests.tools.mysql_settings import kept_settings
from tests.tools.profiles import extra_profile


def by_object(examination):
    return {finding.object: finding for finding in examination.findings}


def test_a_postgresql_that_is_older_and_whose_role_may_do_little(other_postgres):
    url = login(other_postgres, "doctor_poor")
    owner = f"owner_{secrets.token_hex(4)}"
    needs = {
        "version": 990000,
        "encoding": "UTF8",
        "locale": {"provider": "libc", "locale": "de_DE.utf8"},
        "collations": [{"name": "xx_XX", "provider": "c", "locale": "xx_XX.utf8"}],
        "owners": [owner],
    }
    secret = {"password": other_postgres.password}
    request = ExamineRequest(as_role(url, "doctor_poor"), secrets=secret, needs=needs)
    first = by_object(postgres_destination.examine(request))
    database, server = urlsplit(url).path[1:], f"{other_postgres.host}:{other_postgres.port}"
    assert first.keys() == {database, server, 'collation "xx_XX"'}
    findings = postgres_destination.examine(request).findings
    assert [(f.check, f.severity) for f in findings] == [
        ("rights", "loses"),
        ("rights", "loses"),
        ("collations", "info"),
        ("collations", "loses"),
        ("version", "loses"),
        ("roles", "info"),
        ("changes", "info"),
    ]
    for finding in findings:
        if finding.fix.kind == "sql" and "DROP DATABASE" not in finding.fix.text:
            for statement in finding.fix.text.splitlines():
                run_sql(url, statement)
    left = {f.check for f in postgres_destination.examine(request).findings}
    assert left == {"collations", "version"}
    run_sql(url, f"DROP ROLE {owner}; REVOKE SET ON PARAMETER session_replication_role FROM doctor_poor")


def test_a_mariadb_whose_account_and_settings_do_not_do(other_mariadb):
    name = urlsplit(other_mariadb.database()).path[1:]
    with other_mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE OR REPLACE USER doctor_poor IDENTIFIED BY '{other_mariadb.password}'")
        cursor.execute(f"GRANT SELECT ON `{name}`.* TO doctor_poor")
        needs = {
            "collations": ["utf8mb4_bin", "utf8mb4_0900_ai_ci"],
            "engines": ["InnoDB", "TokuDB"],
            "code": 1,
            "max_allowed_packet": 2**30,
        }
        request = ExamineRequest(other_mariadb.url_of(name, "doctor_poor"), needs=needs)
        first = mysql_destination.examine(request).findings
        assert [(f.check, f.severity) for f in first] == [
            ("rights", "blocks"),
            ("rights", "loses"),
            ("collations", "loses"),
            ("engines", "loses"),
            ("code", "loses"),
            ("packets", "loses"),
            ("changes", "info"),
        ]
        names = ["log_bin_trust_function_creators", "max_allowed_packet"]
        with kept_settings(other_mariadb.url, names=names):
            for finding in first:
                if finding.fix:
                    cursor.execute(finding.fix.text)
            left = mysql_destination.examine(request).findings
        assert [f.check for f in left] == ["collations", "engines"]
        assert first[-1].fix.text == "GRANT BINLOG REPLAY ON *.* TO 'doctor_poor'@'%';"


def test_a_bucket_that_holds_something_is_refused_before_the_restore(minio, bucket, tmp_path):
    boto_client(minio.profile).put_object(Bucket=bucket, Key="mine", Body=b"x")
    url = f"s3://{bucket}?profile={minio.profile}"
    case = tmp_path / "case.toml"
    case.write_text(
        f'[[source]]\nname = "media"\nurl = "{url.replace("?", "/old?")}"\n'
        f'[[destination]]\nsource = "media"\nurl = "{url}"\n[bundle]\nlocation = "{tmp_path / "bundle"}"\n'
    )
    done = call("doctor", "-c", case, "--json")
    assert done.code == 3
    [destination] = [one for one in done.json["result"]["examined"] if one["kind"] == "destination"]
    assert [finding["check"] for finding in destination["findings"] if finding["severity"] == "blocks"] == [
        "contents"
    ]
    keys = [one["Key"] for one in boto_client(minio.profile).list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["mine"]
    record = ".moveout-sync/e3b0c44298fc1c14/report.json"
    boto_client(minio.profile).put_object(Bucket=bucket, Key=record, Body=b"{}")
    boto_client(minio.profile).delete_object(Bucket=bucket, Key="mine")
    [destination] = [
        one
        for one in call("doctor", "-c", case, "--json").json["result"]["examined"]
        if one["kind"] == "destination"
    ]
    assert not any(finding["severity"] == "blocks" for finding in destination["findings"]), (
        "the record of a sync is nobody's object"
    )


@pytest.mark.parametrize(
    ("bundle", "destination", "words"),
    [
        pytest.param("bundle", "", "lies in it", marks=pytest.mark.torture),
        ("x/bundle", "x", "lies in it"),
        ("bundle", "bundle/new", "it lies in"),
        ("x", "x2", ""),
    ],
)
def test_a_bundle_and_a_destination_within_each_other_are_refused(
    minio, make_bucket, tmp_path, bundle, destination, words
):
    """Whatever profile leads there. Two prefixes next to each other are good."""
    old, new = make_bucket(minio), make_bucket(minio)
    boto_client(minio.profile).put_object(Bucket=old, Key="a", Body=b"x")
    case = tmp_path / "case.toml"
    with pytest.MonkeyPatch.context() as patch:
        profile = extra_profile(patch, tmp_path, minio)
        case.write_text(
            f'[[source]]\nname = "media"\nurl = "s3://{old}?profile={minio.profile}"\n'
            f'[[destination]]\nsource = "media"\nurl = "s3://{new}/{destination}?profile={profile}"\n'
            f'[bundle]\nlocation = "s3://{new}/{bundle}?profile={minio.profile}"\n'
        )
        examined = call("doctor", "-c", case, "--json").json["result"]["examined"]
        [findings] = [one["findings"] for one in examined if one["kind"] == "destination"]
        blocking = [(one["check"], one["problem"]) for one in findings if one["severity"] == "blocks"]
        assert [check for check, _ in blocking] == (["address"] if words else [])
        assert all(words in problem for _, problem in blocking)
        assert call("export", "-c", case).code == 0
        restored = call("restore", "-c", case)
        assert restored.code == (2 if words else 0), restored.err
        assert words in restored.err
        assert call("restore", "-c", case, "--dry-run").code == (3 if words else 0)
        assert call("restore", "-c", case, "--merge", "--dry-run").code == 0
        assert call("restore", "-c", case, "--merge").code == 0


def test_a_bundle_that_is_written_into_its_destination_is_noted_at_once(minio, make_bucket, tmp_path):
    bucket = make_bucket(minio)
    sqlite3.connect(tmp_path / "a.db").execute("CREATE TABLE t (i)").connection.close()
    case = tmp_path / "case.toml"
    case.write_text(
        f'[[source]]\nname = "a"\nurl = "sqlite://{tmp_path}/a.db"\n'
        f'[[source]]\nname = "media"\nurl = "s3://{make_bucket(minio)}?profile={minio.profile}"\n'
        f'[[destination]]\nsource = "media"\nurl = "s3://{bucket}?profile={minio.profile}"\n'
        f'[bundle]\nlocation = "{tmp_path}/bundle"\n'
        f'[transfer]\nlocation = "s3://{bucket}/copy?profile={minio.profile}"\n'
    )
    for command in ("export", "transfer"):
        done = call(command, "-c", case, *(["--allow-empty"] if command == "export" else []))
        assert (done.code, "lies in the destination of media" in done.err) == (0, True), done.err


def test_run_begins_with_it_and_a_source_that_is_gone_does_not_stop_the_others(mariadb, tmp_path):
    """The plan has what the examination saw of destinations; alone it would not know the source's character set."""
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE doctor_latin CHARACTER SET latin1")
    latin = mariadb.database().rpartition("/")[0]
    database = tmp_path / "a.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE t (v)")
        connection.execute("INSERT INTO t VALUES (1)")
    case = tmp_path / "case.toml"
    case.write_text(
        f'[[source]]\nname = "a"\nurl = "sqlite://{database}"\n'
        f'[[source]]\nname = "b"\nurl = "sqlite://{tmp_path}/none.db"\n[bundle]\nlocation = "bundle"\n'
        f'[[source]]\nname = "c"\nurl = "{latin}/doctor_latin"\n'
        f'[[destination]]\nsource = "c"\nurl = "{latin}/doctor_none"\n'
    )
    done = call("run", "-c", case, "--json")
    assert done.code == 3, done.err
    steps = {step["step"]: step for step in done.json["result"]["steps"]}
    assert next(iter(steps)) == "doctor"
    examined = {one["name"]: one for one in steps["doctor"]["result"]["examined"]}
    assert (examined["a"]["error"], examined["b"]["error"]) == (None, "gone")
    [restore] = steps["plan"]["result"]["restores"]
    [warning] = restore["warnings"]
    assert "CREATE DATABASE `doctor_none` CHARACTER SET latin1" in warning
    assert steps["export"]["exit_code"] == 3


def test_what_keeps_a_followed_source_from_arriving_is_a_warning(other_postgres, tmp_path):
    """Without ``follow = true`` the same findings are ``info``, and the exit code is 0."""
    url = other_postgres.database()
    run_sql(url, "CREATE TABLE keyless (id int)")
    login(other_postgres, "doctor_new", "CREATEDB")
    new = as_role(other_postgres.url_of(f"db_{secrets.token_hex(6)}"), "doctor_new")

    def changes(follow: str) -> list:
        case = tmp_path / "case.toml"
        case.write_text(
            f'[case]\nfollow = {follow}\n[[source]]\nname = "app"\nurl = "{url}"\n'
            f'[[destination]]\nsource = "app"\nurl = "{new}"\n[bundle]\nlocation = "{tmp_path}/bundle"\n'
        )
        done = call("doctor", "-c", case, "--json", env={"PGPASSWORD": other_postgres.password})
        findings = [finding for one in done.json["result"]["examined"] for finding in one["findings"]]
        return [finding for finding in findings if finding["check"] == "changes"]

    assert {finding["severity"] for finding in changes("false")} == {"info"}
    problems = {finding["problem"]: finding for finding in changes("true")}
    assert {problem: finding["severity"] for problem, finding in problems.items()} == {
        "wal_level is replica": "slow",
        '1 table cannot be followed ("public"."keyless"): it has no primary key and no replica identity: once'
        " published, it refuses UPDATE and DELETE": "slow",
        'the role "doctor_new" may not keep triggers and foreign keys from firing': "loses",
    }
    assert "delta passes" in problems["wal_level is replica"]["consequence"]
    assert all("follow = true" in finding["consequence"] and finding["fix"] for finding in problems.values())


@pytest.mark.torture
def test_a_mysql_that_counts_no_writes_for_the_account_is_named(mysql):
    name = urlsplit(mysql.database()).path[1:]
    with mysql.connect() as connection, connection.cursor() as cursor:
        cursor.execute("DROP USER IF EXISTS doctor_counts")
        cursor.execute(f"CREATE USER doctor_counts IDENTIFIED BY '{mysql.password}'")
        cursor.execute(f"GRANT ALL ON `{name}`.* TO doctor_counts")
        cursor.execute("GRANT BINLOG_ADMIN, SET_ANY_DEFINER ON *.* TO doctor_counts")
        request = ExamineRequest(mysql.url_of(name, "doctor_counts"), follow=True)
        [finding] = mysql_destination.examine(request).findings
        assert (finding.check, finding.severity) == ("changes", "slow")
        assert finding.fix.text == "GRANT SELECT ON performance_schema.* TO 'doctor_counts'@'%';"
        cursor.execute(finding.fix.text)
        assert mysql_destination.examine(request).findings == []
        cursor.execute("DROP USER doctor_counts")


@pytest.mark.torture
def test_settings_are_kept_over_a_restart_where_the_server_can(mysql):
    """MySQL writes them down itself."""
    [fix] = settings_of(mysql)
    with (
        kept_settings(mysql.url, names=["binlog_row_metadata"]),
        mysql.connect() as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(fix)
        try:
            cursor.execute("SELECT variable_name, variable_value FROM performance_schema.persisted_variables")
            assert ("binlog_row_metadata", "FULL") in cursor.fetchall()
            assert settings_of(mysql) == []
        finally:
            cursor.execute("RESET PERSIST binlog_row_metadata")


def test_settings_that_a_restart_forgets_are_named_for_the_option_file(mariadb):
    [fix] = settings_of(mariadb)
    assert (
        "SET GLOBAL binlog_row_metadata = 'FULL'; -- a restart forgets it: write into the option file" in fix
    )
    assert fix.endswith("binlog_row_metadata = FULL")


def settings_of(server):
    """Return the statements that let a database be followed."""
    findings = examine_mysql(ExamineRequest(server.database(), follow=True)).findings
    return [f.fix.text for f in findings if f.check == "changes" and "SET " in f.fix.text]
