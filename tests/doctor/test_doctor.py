"""Every finding names its consequence and a fix; the fix is applied as it is printed, and the finding is gone."""

import json
import os
import re
import secrets
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from exporters.doctor import ExamineRequest, Finding, gather
from exporters.mysql.doctor import examine as examine_mysql
from migrate.case.model import Endpoint
from migrate.doctor.hold_rights import hold_findings
from migrate.storage.s3.access.minio_accounts import Policies
from migrate.storage.s3.client import parse
from scripts.process import free_port
from tests.cli.conftest import call
from tests.exporters.mysql import databases as mysql_databases
from tests.exporters.postgres.databases import as_role, fetch, login, run_sql
from tests.tools.clients import boto_client
from tests.tools.http_proxy import HttpProxy, refusal
from tests.tools.profiles import extra_profile


@dataclass(frozen=True)
class Report:
    """What the command printed as JSON."""

    code: int
    examined: list

    def findings(self, name, *, kind="source", severity=("blocks", "loses", "slow")):
        """The findings of one thing by object."""
        [one] = [one for one in self.examined if (one["kind"], one["name"]) == (kind, name)]
        return {finding["object"]: finding for finding in one["findings"] if finding["severity"] in severity}

    def fixes(self, name, **more):
        return {item: finding["fix"]["text"] for item, finding in self.findings(name, **more).items()}


def doctor(*words, env=None):
    done = call("doctor", *words, "--json", env=env)
    assert "result" in done.json, done.err
    return Report(done.code, done.json["result"]["examined"])


def case_of(path, sources, destinations=(), bundle="./bundle", deadline=""):
    """Write a case file."""
    lines = ["[case]", 'name = "acme"', *([f"deadline = {deadline}"] if deadline else [])]
    for name, url in sources:
        lines += ["[[source]]", f'name = "{name}"', f'url = "{url}"']
    for name, url in destinations:
        lines += ["[[destination]]", f'source = "{name}"', f'url = "{url}"']
    lines += ["[bundle]", f'location = "{bundle}"']
    path.write_text("\n".join(lines))
    return path


def test_what_a_role_may_not_read_is_named_and_the_script_mends_it(other_postgres, tmp_path):
    url = login(other_postgres, "doctor_reader")
    run_sql(
        url,
        """
        CREATE TABLE seen (id int PRIMARY KEY); CREATE TABLE "un.seen ""x" (id int); CREATE SEQUENCE counted;
        CREATE TABLE filtered (id int); ALTER TABLE filtered ENABLE ROW LEVEL SECURITY;
        CREATE SCHEMA "hid.den"; CREATE TABLE "hid.den".t (id int); CREATE SEQUENCE "hid.den"."s.1";
        CREATE TABLE parted (id int) PARTITION BY RANGE (id); SELECT lo_create(0);
        GRANT SELECT ON seen, filtered TO doctor_reader;
        """,
    )
    words = [f"app={as_role(url, 'doctor_reader')}", "--to", tmp_path / "bundle"]
    env = {"PGPASSWORD": other_postgres.password, "PGPASSFILE": "/dev/null"}
    first = doctor(*words, "--fixes", tmp_path / "fixes", env=env)
    assert first.code == 3
    assert first.findings("app").keys() == {
        '"public"."un.seen ""x"',
        '"public"."filtered"',
        '"hid.den"."t"',
        '"public"."parted"',
        'sequence "public"."counted"',
        'sequence "hid.den"."s.1"',
        "large objects",
    }
    script = tmp_path / "fixes" / f"{other_postgres.host}-{other_postgres.port}.sql"
    assert "-- ALTER SYSTEM SET wal_level = logical;" in script.read_text().splitlines()
    done = subprocess.run(
        [
            other_postgres.bin_dir / "psql",
            "-v",
            "ON_ERROR_STOP=1",
            "-qX",
            "-d",
            other_postgres.url,
            "-f",
            script,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    second = doctor(*words, env=env)
    assert (second.code, second.findings("app")) == (0, {})
    assert not (tmp_path / "bundle").exists()


def test_many_tables_that_may_not_be_read_have_one_fix(other_postgres):
    url = login(other_postgres, "doctor_many")
    if int(fetch(url, "SHOW server_version_num")[0][0]) < 140000:
        pytest.skip("there is no pg_read_all_data")
    env = {"PGPASSWORD": other_postgres.password, "PGPASSFILE": "/dev/null"}
    source = f"app={as_role(url, 'doctor_many')}"
    grant = 'GRANT pg_read_all_data TO "doctor_many";'
    run_sql(url, "CREATE TABLE t0 (id serial); CREATE TABLE t1 (id int)")
    few = doctor(source, env=env).fixes("app")
    assert few['"public"."t0"'].split("\n") == [
        'GRANT SELECT ON TABLE "public"."t0" TO "doctor_many";',
        f"-- Or for all tables and sequences: {grant}",
    ]
    assert few['"public"."t1"'] == 'GRANT SELECT ON TABLE "public"."t1" TO "doctor_many";'
    run_sql(url, "".join(f"CREATE TABLE t{number} (id serial);" for number in range(2, 9)))
    (many,) = doctor(source, env=env).findings("app").values()
    assert "may not read 17 tables and sequences (" in many["problem"]
    assert many["fix"]["text"] == grant
    run_sql(url, grant)
    assert doctor(source, env=env).findings("app") == {}
    run_sql(url, "REVOKE pg_read_all_data FROM doctor_many")


def test_a_locked_table_and_a_prepared_transaction_are_named(postgres, tmp_path):
    url = postgres.database()
    run_sql(url, "CREATE TABLE busy (id int PRIMARY KEY)")
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE busy IN ACCESS EXCLUSIVE MODE")
        result = doctor(f"app={url}", "--to", tmp_path / "bundle")
        assert result.code == 3
        run_sql(url, result.fixes("app")['"public"."busy"'])
        with pytest.raises(psycopg.OperationalError):
            holder.execute("SELECT 1")
        holder.close()
    assert doctor(f"app={url}", "--to", tmp_path / "bundle").code == 0


def test_a_destination_that_is_missing_or_of_another_encoding_is_made_by_the_fix(
    postgres, other_postgres, tmp_path
):
    url, new = postgres.database(), f"db_{secrets.token_hex(6)}"
    run_sql(url, "CREATE TABLE t (id int PRIMARY KEY)")
    latin = f"latin_{secrets.token_hex(6)}"
    other_postgres.execute(
        f"CREATE DATABASE {latin} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    full = other_postgres.database()
    run_sql(full, "CREATE TABLE foreign_one (id int)")
    case = case_of(
        tmp_path / "case.toml",
        [("gone", url), ("latin", url), ("full", url)],
        [
            ("gone", other_postgres.url_of(new)),
            ("latin", other_postgres.url_of(latin)),
            ("full", full),
        ],
    )
    result = doctor("-c", case)
    assert result.code == 3
    [create] = result.fixes("gone", kind="destination").values()
    [again] = result.fixes("latin", kind="destination").values()
    for statement in [create, *again.splitlines()]:
        other_postgres.execute(statement)
    assert "foreign_one" in result.findings("full", kind="destination")[urlsplit(full).path[1:]]["problem"]
    mended = doctor("-c", case)
    assert mended.findings("gone", kind="destination") == {}
    assert mended.findings("latin", kind="destination") == {}
    assert mended.code == 3


def test_an_extension_that_needs_a_superuser_is_made_by_the_fix(postgres, other_postgres, tmp_path):
    url = postgres.database()
    run_sql(url, "CREATE EXTENSION file_fdw; CREATE EXTENSION hstore")
    new = login(other_postgres, "doctor_owner", "CREATEDB")
    run_sql(new, f"ALTER DATABASE {urlsplit(new).path[1:]} OWNER TO doctor_owner")
    run_sql(new, "ALTER SCHEMA public OWNER TO doctor_owner")
    case = case_of(tmp_path / "case.toml", [("app", url)], [("app", as_role(new, "doctor_owner"))])
    passwords = tmp_path / "pgpass"
    line = f"{other_postgres.host}:{other_postgres.port}:*:doctor_owner:{other_postgres.password}\n"
    passwords.write_text(Path(os.environ["PGPASSFILE"]).read_text() + line)
    passwords.chmod(0o600)
    env = {"PGPASSFILE": str(passwords)}
    result = doctor("-c", case, env=env)
    fixes = result.fixes("app", kind="destination")
    assert list(fixes) == ["extension file_fdw"]
    run_sql(new, fixes["extension file_fdw"])
    assert doctor("-c", case, env=env).code == 0


def test_an_extension_that_the_server_does_not_have_is_said_with_the_package(
    postgres, other_postgres, tmp_path
):
    from exporters.doctor import ExamineRequest
    from migrate.doctor.postgres_destination import examine

    needs = {"extensions": [{"name": "vector", "version": "0.8.0"}, {"name": "own_one", "version": "1"}]}
    examined = examine(ExamineRequest(other_postgres.database(), needs=needs))
    assert [(finding.severity, finding.object) for finding in examined.findings] == [
        ("loses", "extension vector"),
        ("loses", "extension own_one"),
    ]
    package, advice = (finding.fix for finding in examined.findings)
    assert (package.kind, package.text[-9:], advice.kind) == ("shell", "-pgvector", "advice")


@pytest.mark.parametrize("kind", ["mariadb", pytest.param("mysql", marks=pytest.mark.torture)])
def test_what_an_account_may_not_read_is_named_and_the_fixes_mend_it(request, kind, tmp_path):
    mariadb, other_mariadb = request.getfixturevalue(kind), request.getfixturevalue(f"other_{kind}")
    url, new = mariadb.database(), f"db_{secrets.token_hex(6)}"
    name = urlsplit(url).path[1:]
    with mariadb.connect(name) as connection, connection.cursor() as cursor:
        for statement in (
            "CREATE TABLE unseen (id int PRIMARY KEY)",
            "CREATE TABLE seen (id int PRIMARY KEY, CONSTRAINT k FOREIGN KEY (id) REFERENCES unseen (id))",
            "CREATE VIEW looked AS SELECT 1",
            "DROP USER IF EXISTS doctor_reader",
            f"CREATE USER doctor_reader IDENTIFIED BY '{mariadb.password}'",
            f"GRANT SELECT ON `{name}`.seen TO doctor_reader",
            f"GRANT SELECT ON `{name}`.looked TO doctor_reader",
        ):
            cursor.execute(statement)
    source = mariadb.url_of(name, "doctor_reader")
    case = case_of(tmp_path / "case.toml", [("shop", source)], [("shop", other_mariadb.url_of(new))])
    first = doctor("-c", case)
    assert first.code == 3
    items = first.findings("shop")
    assert {f"database `{name}`", f"views of `{name}`", f"triggers of `{name}`", "routines"} <= items.keys()
    assert "foreign key `k` of `seen`" in items[f"`{name}`.`unseen`"]["problem"]
    assert items[f"{mariadb.host}:{mariadb.port}"]["severity"] == "slow"
    with mariadb.connect() as connection, connection.cursor() as cursor:
        for text in first.fixes("shop").values():
            for statement in text.splitlines():
                cursor.execute(statement)
    with other_mariadb.connect() as connection, connection.cursor() as cursor:
        [create] = first.fixes("shop", kind="destination").values()
        cursor.execute(create)
    second = doctor("-c", case)
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("DROP USER doctor_reader")
    assert (second.code, second.findings("shop")) == (0, {})
    facts = next(one["facts"] for one in second.examined if one["kind"] == "source")
    assert facts["snapshot"] == "exact"


def test_a_table_of_mariadb_whose_only_key_is_spatial_is_named(followed_mariadb):
    url = followed_mariadb.database()
    database = urlsplit(url).path[1:]
    for statement in (
        "CREATE TABLE spots (p POINT NOT NULL, SPATIAL KEY (p))",
        "CREATE TABLE places (id INT PRIMARY KEY, p POINT NOT NULL, SPATIAL KEY (p))",
    ):
        mysql_databases.run_sql(url, statement)
    examined = examine_mysql(ExamineRequest(url, follow=True))
    [finding] = [finding for finding in examined.findings if finding.check == "changes"]
    assert (finding.severity, finding.object) == ("slow", f"database `{database}`")
    assert finding.problem.startswith("1 table cannot be followed: spots (no primary key")
    assert finding.fix.text == f"ALTER TABLE `{database}`.`spots` ADD PRIMARY KEY (…);"
    assert examined.facts["changes"].startswith("possible")


@pytest.fixture
def narrow(minio, monkeypatch, tmp_path):
    """A profile of a user of MinIO who may do what ``narrow.put`` says, and nothing else."""
    admin = Policies(parse(f"s3://any?profile={minio.profile}"))
    user, word = f"user-{secrets.token_hex(4)}", secrets.token_urlsafe(20)
    admin._admin.user_add(user, word)
    profile = extra_profile(monkeypatch, tmp_path, minio, access_key=user, secret_key=word)
    yield Narrow(profile, user, admin)
    admin._admin.user_remove(user)


@dataclass
class Narrow:
    profile: str
    user: str
    admin: Policies

    def allow(self, policy):
        name = f"policy-{secrets.token_hex(4)}"
        self.admin.put(name, policy)
        self.admin.attach(self.user, name)


def test_a_policy_that_is_too_narrow_is_mended_by_the_one_that_is_written(minio, bucket, narrow, tmp_path):
    client = boto_client(minio.profile)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"one", b"two"):
        client.put_object(Bucket=bucket, Key="photos/1", Body=body)
    arn = f"arn:aws:s3:::{bucket}"
    nothing = doctor(f"media=s3://{bucket}?profile={narrow.profile}")
    assert nothing.code == 4
    [refused] = nothing.fixes("media").values()
    assert json.loads(refused)["Statement"] == [
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [arn]}
    ]
    actions = ["s3:ListBucket", "s3:GetObject"]
    statement = {"Effect": "Allow", "Action": actions, "Resource": [arn, f"{arn}/*"]}
    narrow.allow({"Version": "2012-10-17", "Statement": [statement]})
    words = [f"media=s3://{bucket}?profile={narrow.profile}", "--to", tmp_path / "bundle"]
    first = doctor(*words, "--fixes", tmp_path / "fixes")
    assert first.code == 3
    assert f"settings of {bucket}" in first.findings("media")
    assert f"tags of objects of {bucket}" in first.findings("media")
    narrow.allow(json.loads((tmp_path / "fixes" / f"{narrow.profile}.json").read_text()))
    second = doctor(*words)
    assert (second.code, second.findings("media")) == (0, {})


def test_a_restore_needs_no_more_rights_than_doctor_writes(minio, make_bucket, narrow, tmp_path):
    """Of tags, and of objects that go in parts."""
    client, old, new = boto_client(minio.profile), make_bucket(minio), make_bucket(minio)
    client.put_object(Bucket=old, Key="tagged", Body=b"x", Tagging="a=b")
    client.put_object(Bucket=old, Key="large", Body=bytes(33 * 2**20))
    url = f"s3://{new}?profile={narrow.profile}"
    case = case_of(
        tmp_path / "case.toml", [("media", f"s3://{old}?profile={minio.profile}")], [("media", url)]
    )
    for _ in range(2):
        for text in doctor("-c", case).fixes("media", kind="destination").values():
            narrow.allow(json.loads(text))
    assert doctor("-c", case).findings("media", kind="destination") == {}
    assert call("export", "-c", case).code == 0
    done = call("restore", "-c", case, "--json")
    assert (done.code, done.json["result"]["restored"][0]["left_out"]) == (0, []), done.err
    assert client.get_object_tagging(Bucket=new, Key="tagged")["TagSet"] == [{"Key": "a", "Value": "b"}]


class NoVersions(HttpProxy):
    """An S3 server that lists no versions to these credentials."""

    def handle(self, asked):
        return refusal(403, "AccessDenied") if "versions" in asked.query else self.forward(asked)


def test_a_bucket_whose_versions_may_not_be_listed_loses_them(minio, bucket, monkeypatch, tmp_path):
    client = boto_client(minio.profile)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    client.put_object(Bucket=bucket, Key="k", Body=b"x")
    with NoVersions(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        result = doctor(f"media=s3://{bucket}?profile={profile}", "--to", tmp_path / "bundle")
    assert result.code == 3
    finding = result.findings("media")[f"versions of {bucket}"]
    assert "s3:ListBucketVersions" in json.loads(finding["fix"]["text"])["Statement"][0]["Action"]


def test_dead_servers_and_wrong_passwords_stop_nobody(postgres, other_postgres, tmp_path):
    url = postgres.database()
    run_sql(url, "CREATE TABLE t (id int PRIMARY KEY)")
    case = case_of(
        tmp_path / "case.toml",
        [
            ("app", url),
            ("dead", f"postgresql://me@127.0.0.1:{free_port()}/app"),
            ("locked", as_role(url, "nobody_at_all")),
            ("file", f"sqlite://{tmp_path}/none.db"),
        ],
        [("app", other_postgres.database())],
        deadline="2030-11-29T06:00:00",
    )
    result = doctor("-c", case)
    assert result.code == 5
    assert result.findings("app") == {}
    [dead] = result.findings("dead").values()
    assert (dead["severity"], dead["check"], dead["consequence"]) == (
        "blocks",
        "unreachable",
        "Nothing of it leaves.",
    )
    [locked] = result.findings("locked").values()
    assert locked["check"] == "not-allowed"
    [gone] = result.findings("file").values()
    assert gone["check"] == "gone"
    [zone] = result.findings("deadline", kind="deadline", severity=("info",)).values()
    assert "no time zone" in zone["problem"]
    shown = call("doctor", "-c", case, env={"COLUMNS": "60"})
    assert "blocks source dead" in shown.out
    assert "Traceback" not in shown.out + shown.err


def test_a_location_without_room_is_named_and_left_as_it_was(tiny_disk, tmp_path):
    import sqlite3

    database = tmp_path / "large.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE t (v blob)")
        connection.execute("INSERT INTO t VALUES (zeroblob(6000000))")
    long_name = f"{'long_name_' * 5}=sqlite://{database}"
    shown = call("doctor", long_name, "--to", tiny_disk / "bundle", env={"COLUMNS": "80"})
    assert re.match(r"source +server +TLS +rights +snapshot +changes +worst", shown.out), shown.out
    result = doctor(f"file=sqlite://{database}", "--to", tiny_disk / "bundle")
    assert result.code == 3
    [room] = result.findings("bundle", kind="location").values()
    assert "MB free" in room["problem"]
    assert list(tiny_disk.iterdir()) == []


def test_a_sealed_bundle_and_a_missing_directory_of_a_destination(tmp_path):
    import sqlite3

    database, bundle = tmp_path / "a.db", tmp_path / "bundle"
    sqlite3.connect(database).execute("CREATE TABLE t (v)").connection.close()
    assert call("export", f"a=sqlite://{database}", "--to", bundle).code == 0
    case = case_of(
        tmp_path / "case.toml",
        [("a", f"sqlite://{database}")],
        [("a", f"sqlite://{tmp_path}/new/deep/a.db")],
        bundle,
    )
    result = doctor("-c", case)
    assert result.code == 3
    [sealed] = result.findings("bundle", kind="location", severity=("info",)).values()
    assert "complete" in sealed["problem"]
    [fix] = result.fixes("a", kind="destination").values()
    subprocess.run(fix, shell=True, check=True)
    assert doctor("-c", case).code == 0


def test_what_the_restore_makes_is_printed_twice_and_then_counted(minio, other_minio, make_bucket, tmp_path):
    sources = [(f"media-{i}", f"s3://{make_bucket(minio)}?profile={minio.profile}") for i in range(4)]
    case = case_of(tmp_path / "case.toml", sources)
    moved = f'[[destination]]\nfrom = "s3://?profile={minio.profile}"\nto = "s3://?profile={other_minio.profile}"\n'
    case.write_text(f"{case.read_text()}\n{moved}")
    printed = call("doctor", "-c", case)
    assert printed.out.count("The restore makes it.") == 2
    assert "and 2 more like these" in printed.out


def test_a_bucket_that_may_be_empty_is_no_finding(minio, make_bucket, tmp_path):
    url = f"s3://{make_bucket(minio)}?profile={minio.profile}"
    case = case_of(tmp_path / "case.toml", [("media", url)])
    assert len(doctor("-c", case).findings("media", severity=("info",))) == 1
    case.write_text(case.read_text().replace(url + '"', url + '"\nmay_be_empty = true'))
    assert doctor("-c", case).findings("media", severity=("info",)) == {}


def test_a_check_that_fails_is_a_finding_and_the_others_still_run():
    tables, clock = (Finding("info", check, "shop", "it is so", "") for check in ("rights", "clock"))

    def failing():
        yield tables
        raise OSError("no\nanswer")

    findings = gather([("rights", failing()), ("clock", [clock])], name="shop", errors=(OSError,))
    failed = Finding(
        "info", "rights", "shop", "could not be examined: no answer", "Nothing is known about it."
    )
    assert findings == [tables, failed, clock]


def test_what_a_followed_source_lacks_for_the_hold_of_a_cutover_is_named(other_postgres, tmp_path):
    url = login(other_postgres, "doctor_holder", "CREATEROLE")
    path, name = tmp_path / "case.toml", url.rpartition("/")[2]
    run_sql(url, f'ALTER ROLE postgres IN DATABASE "{name}" SET default_transaction_read_only = off')

    def hold(follow: str) -> dict[str, Finding]:
        case = case_of(path, [("app", as_role(url, "doctor_holder"))])
        case.write_text(case.read_text().replace("[case]", f"[case]\nfollow = {follow}"))
        with psycopg.connect(url):
            done = doctor("-c", case, env={"PGPASSWORD": other_postgres.password})
        return {one["problem"]: one for one in done.examined[0]["findings"] if one["check"] == "hold"}

    assert hold("false") == {}
    findings = hold("true")
    assert findings.keys() == {
        "only the owner of the database, postgres, may make it read-only",
        "only a superuser may change the settings of postgres: each has a default_transaction_read_only of its own",
        'the role "doctor_holder" may not see and end the sessions of postgres',
    }
    assert all("cutover --hold" in one["consequence"] for one in findings.values())
    for one in [*findings.values()][:2]:
        assert one["severity"] == "slow"
        run_sql(url, one["fix"]["text"].removesuffix("; as a superuser"))
    assert len(hold("true")) == 1


@pytest.mark.torture
def test_what_an_account_lacks_for_the_hold_of_a_cutover_is_named(mysql):
    url, account = mysql.database(), f"hold_{secrets.token_hex(4)}"
    name = url.rpartition("/")[2]
    mysql_databases.run_sql(url, "CREATE EVENT tick ON SCHEDULE EVERY 1 DAY DO SELECT 1")
    mysql_databases.run_sql(url, f"CREATE USER {account} IDENTIFIED BY '{mysql.password}'")
    mysql_databases.run_sql(url, f"GRANT SELECT, EVENT ON {name}.* TO {account}")
    lack_alter, lack_definer = hold_findings(Endpoint(mysql.url_of(name, account), follow=True))
    assert "it has no ALTER" in lack_alter.problem
    assert "events of other accounts: tick" in lack_definer.problem
    mysql_databases.run_sql(url, lack_alter.fix.text)
    mysql_databases.run_sql(url, lack_definer.fix.text.partition(";")[0])
    assert hold_findings(Endpoint(mysql.url_of(name, account), follow=True)) == []
    mysql_databases.run_sql(url, f"DROP USER {account}")


def test_that_a_cutover_would_hold_the_whole_server_is_named(mariadb):
    url, _ = (mariadb.database() for _ in range(2))
    [whole] = hold_findings(Endpoint(url, follow=True))
    assert "cannot make one database read-only" in whole.problem
    assert "--whole-server" in whole.fix.text


def test_wrong_keys_are_not_mended_by_a_policy(minio, bucket, monkeypatch, tmp_path):
    profile = extra_profile(monkeypatch, tmp_path, minio, secret_key="another-secret")
    url = f"s3://{bucket}?profile={profile}"
    case = case_of(
        tmp_path / "case.toml",
        [("media", url)],
        [("media", url)],
        bundle=f"s3://{bucket}/b?profile={profile}",
    )
    done = doctor("-c", case)
    assert done.code == 4
    findings = [one for entry in done.examined for one in entry["findings"]]
    fixes = [one["fix"] for one in findings if (one["severity"], one["check"]) == ("blocks", "rights")]
    assert len(fixes) >= 2, fixes
    assert {(fix["kind"], "check aws_secret_access_key" in fix["text"]) for fix in fixes} == {
        ("advice", True)
    }
