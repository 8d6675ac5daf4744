"""Emptiness is not success, and an incomplete bundle stays incomplete in all that is said of it; but it can grow."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from migrate.bundle.reader import BundleReader
from migrate.export import source_export
from migrate.storage.registry import open_location
from scripts.process import free_port
from tests.cli.conftest import call, make_file, make_media, make_shop
from tests.export.sources import fingerprint
from tests.exporters.mysql.databases import run_sql as run_mysql
from tests.exporters.postgres.databases import as_role, fetch, login, run_sql
from tests.tools.clients import boto_client
from tests.tools.http_proxy import HttpProxy, refusal
from tests.tools.moving_address import MovingAddress
from tests.tools.waiting import eventually


def test_what_is_empty_is_said_and_may_be_allowed(postgres, mariadb, media, tmp_path):
    prefix = media.replace("?", "/typo/?")
    sources = [f"pg={postgres.database()}", f"my={mariadb.database()}", f"prefix={prefix}", f"all={media}"]
    ended = call("export", *sources, "--include", "*.nothing", "--to", tmp_path / "bundle", "--json")
    assert ended.code == 3, ended.err
    lines = {line["source"]: line for line in ended.json["result"]["summary"]}
    assert {name: line["word"] for name, line in lines.items()} == dict.fromkeys(lines, "empty")
    assert "there is no table in it" in lines["pg"]["happened"]
    assert "there is no object in it" in lines["prefix"]["happened"]
    assert "all objects in it (5) were excluded" in lines["all"]["happened"]
    allowed = call("export", *sources, "--include", "*.nothing", "--to", tmp_path / "bundle", "--allow-empty")
    assert allowed.code == 0, allowed.err
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[bundle]\nlocation = "other"\n[[source]]\nname = "my"\nurl = "{mariadb.database()}"\nmay_be_empty = true\n'
    )
    assert call("export", "-c", case).code == 0


@pytest.mark.parametrize("glob", ["dir/[", "[a", "x[!"])
def test_a_glob_that_cannot_match_is_refused(media, tmp_path, glob):
    ended = call("export", f"all={media}", "--include", glob, "--to", tmp_path / "bundle")
    assert (ended.code, f"{glob!r} has a [ without its ]" in ended.err) == (2, True), ended.err


def test_every_command_says_that_a_bundle_is_incomplete(tmp_path):
    """Also where the source that is restored lacks nothing but a count."""
    make_file(tmp_path / "a.db")
    bundle, copy, page = tmp_path / "bundle", tmp_path / "copy", tmp_path / "page.html"
    sources = [f"a=sqlite://{tmp_path}/a.db", f"b=sqlite://{tmp_path}/b.db"]
    assert call("export", *sources, "--to", bundle).code == 3
    for words in (
        ("transfer", bundle, copy),
        ("verify", copy),
        ("status", copy),
        ("report", copy, "--out", page),
    ):
        ended = call(*words)
        assert (ended.code, "INCOMPLETE" in ended.out) == (3, True), (words, ended)
    ended = call("restore", copy, f"a=sqlite://{tmp_path}/new.db", f"b=sqlite://{tmp_path}/new2.db")
    assert (ended.code, "not restored: the bundle has nothing of it: b could not" in ended.out) == (
        3,
        True,
    ), ended
    make_file(tmp_path / "b.db")
    assert call("export", *sources, "--to", bundle).code == 0
    for words in (
        ("transfer", bundle, copy),
        ("verify", copy),
        ("status", copy),
        ("report", copy, "--out", page),
    ):
        ended = call(*words)
        assert ended.code == 0, (words, ended)
        if words[0] == "status":
            assert "not: a, b" in ended.out
            assert "the bundle has grown since" in ended.out
            assert "new2.db → restore it again" in " ".join(ended.out.split())


def test_a_source_is_known_by_its_server_and_one_can_be_dropped(postgres, mariadb, tmp_path):
    """Another user and another name of the host lead to the same source; another database of the same name does not."""
    app, shop = postgres.database(), mariadb.database()
    run_sql(app, "CREATE TABLE t AS SELECT 1 AS x")
    with mariadb.connect(shop.rpartition("/")[2]) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t AS SELECT 1 AS x")
    postgres.execute("CREATE ROLE alias SUPERUSER LOGIN PASSWORD 'alias'")
    bundle, missing = tmp_path / "bundle", f"sqlite://{tmp_path}/missing.db"
    words = ["--to", bundle]
    assert call("export", f"app={app}", f"shop={shop}", f"missing={missing}", *words).code == 3
    env = {"PGPASSWORD": "alias", "PGPASSFILE": "/dev/null"}
    app = app.replace("postgres@127.0.0.1", "alias@localhost")
    other = call("export", f"app={app}", f"shop={shop}", f"missing={missing}", *words, env=env)
    assert other.code == 3, other.err
    assert "app      exported: 1 item" in other.out

    swapped = postgres.database()
    refused = call("export", f"app={swapped}", f"shop={shop}", f"missing={missing}", *words)
    assert (refused.code, "is another source" in refused.err) == (2, True), refused.err
    forgotten = call("export", f"app={app}", f"shop={shop}", *words, env=env)
    assert (forgotten.code, "--drop " in forgotten.err) == (2, True), forgotten.err
    unknown = call("export", f"app={app}", *words, "--drop", "nobody", env=env)
    assert (unknown.code, "no source 'nobody'" in unknown.err) == (2, True), unknown.err

    shop = shop.replace("127.0.0.1", "localhost")
    drop = ("export", f"app={app}", f"shop={shop}", *words, "--drop", "missing")
    dropped = call(*drop, env=env)
    assert (dropped.code, "missing  left out on purpose" in dropped.out) == (0, True), dropped
    repeated = call(*drop, env=env)
    assert (repeated.code, "nothing was left to do" in repeated.out) == (0, True), repeated
    assert call("export", f"app={app}", f"shop={shop}", f"missing={missing}", *words, env=env).code == 0
    assert "missing  left out on purpose" in call("status", bundle).out
    info = BundleReader(open_location(str(bundle))).info
    assert ([source.name for source in info.left_out], info.complete) == (["missing"], True)
    assert "missing" in (bundle / "REPORT.html").read_text()
    with psycopg.connect(postgres.url) as connection:
        [[system]] = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchall()
    assert info.source("app").identity.startswith(f"postgresql:{system}/")
    restored = call("restore", bundle, f"app={postgres.database()}", f"missing=sqlite://{tmp_path}/new.db")
    assert (restored.code, "missing was left out" in restored.err) == (0, True), restored


def test_a_bucket_is_known_by_its_server_too(minio, other_minio, tmp_path):
    """Another name of the host leads to the same bucket; one of the same name and owner on another server does not."""
    name = f"twin{tmp_path.name[-8:].replace('_', '-')}"
    for server in (minio, other_minio):
        boto = boto_client(server.profile)
        boto.create_bucket(Bucket=name)
        boto.put_object(Bucket=name, Key="a", Body=b"x")
    missing = f"missing=sqlite://{tmp_path}/missing.db"
    export = ("export", missing, "--to", tmp_path / "bundle")
    assert call(*export, f"app=s3://{name}?profile={minio.profile}").code == 3

    def keys(server, endpoint):
        return {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
        }

    alias = minio.endpoint.replace("127.0.0.1", "localhost")
    again = call(*export, f"app=s3://{name}", env=keys(minio, alias))
    assert (again.code, "app      exported: 1 item" in again.out) == (3, True), again
    refused = call(*export, f"app=s3://{name}", env=keys(other_minio, other_minio.endpoint))
    assert (refused.code, "is another source" in refused.err) == (2, True), refused.err
    into_itself = call(
        "sync", f"a=s3://{name}?profile={minio.profile}", f"b=s3://{name}", env=keys(minio, alias)
    )
    assert (into_itself.code, "overlap" in into_itself.err) == (2, True), into_itself.err


def test_a_database_without_tables_is_not_empty_where_it_has_a_function(postgres, mariadb, tmp_path):
    pg, my = postgres.database(), mariadb.database()
    run_sql(pg, "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    with mariadb.connect(my.rpartition("/")[2]) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE FUNCTION one() RETURNS int DETERMINISTIC RETURN 1")
    assert call("export", f"pg={pg}", f"my={my}", "--to", tmp_path / "bundle").code == 0


def test_a_filter_that_matched_nothing_may_be_corrected(media, tmp_path):
    words = ("export", f"all={media}", "--to", tmp_path / "bundle", "--json")
    assert call(*words, "--include", "*.nothing").code == 3
    corrected = call(*words, "--include", "*.bin")
    assert (corrected.code, corrected.json["result"]["sources"][0]["items"]) == (0, 2), corrected.err


def test_what_could_be_read_later_is_added_to_what_was_restored(postgres, other_postgres, tmp_path):
    """Export and restore are the same commands again; what the new database has stays as it is. What needed the table
    comes with it, with its privileges; a table that came up empty gets its rows.
    """
    old, new = postgres.database(), other_postgres.database()
    run_sql(
        old,
        "CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b (x int PRIMARY KEY); INSERT INTO b VALUES (2);"
        "CREATE TABLE c (x int REFERENCES b); INSERT INTO c VALUES (2);"
        "CREATE TABLE d (x serial PRIMARY KEY); INSERT INTO d DEFAULT VALUES; ALTER TABLE d ENABLE ROW LEVEL SECURITY;"
        "CREATE VIEW v AS SELECT x FROM b; COMMENT ON VIEW v IS 'twos'; GRANT SELECT ON v TO PUBLIC;"
        "CREATE MATERIALIZED VIEW m AS SELECT x FROM b; CREATE INDEX ON m (x);"
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT max(x) FROM b; END",
    )
    run_sql(
        old,
        "CREATE ROLE late_reader LOGIN PASSWORD 'late'; GRANT SELECT ON a, c, d, d_x_seq, m TO late_reader",
    )
    env = {"PGPASSWORD": "late", "PGPASSFILE": "/dev/null"}
    export = ("export", f"app={old.replace('postgres@', 'late_reader@')}", "--to", tmp_path / "bundle")
    incomplete = call(*export, env=env)
    assert (incomplete.code, incomplete.out.count('"public"."b": the role may not read it')) == (3, 1)
    refused = call(*export, env=env | {"PGPASSWORD": "wrong"})
    assert (refused.code, (refused.out + refused.err).count("refuses the login")) == (3, 1), refused
    assert "→ check user and password" in refused.out
    first = call("restore", tmp_path / "bundle", f"app={new}")
    assert (first.code, "left out: VIEW public.v: " in first.out) == (3, True), first
    assert "→ export again, then restore again; mend what the destination refused" in first.out
    assert "if it is refreshed anyway" not in first.out
    left_out = first.out.count("! left out: ")
    assert (left_out > 1, f"; and {left_out - 1} more" in first.out) == (True, True), first
    assert "on the new host: 0 of 1 source up; in part: app" in call("status", tmp_path / "bundle").out
    run_sql(old, "GRANT SELECT ON b TO late_reader; ALTER TABLE d DISABLE ROW LEVEL SECURITY")
    assert call(*export, env=env).code == 0
    added = call("restore", tmp_path / "bundle", f"app={new}")
    assert (added.code, "this adds public." in added.out) == (0, True), added.out
    again = call("restore", tmp_path / "bundle", f"app={new}")
    assert (again.code, "left out" in again.out) == (0, False), again
    compared = call("verify", tmp_path / "bundle", "--against", f"app={new}")
    assert (compared.code, "agree: all rows\n" in compared.out) == (0, True), compared
    with psycopg.connect(new) as connection:
        assert connection.execute("SELECT x, f(), (SELECT x FROM m) FROM v").fetchall() == [(2, 2, 2)]
        described = "SELECT obj_description('v'::regclass), has_table_privilege('pg_monitor', 'v', 'SELECT')"
        assert connection.execute(described).fetchall() == [("twos", True)]
        foreign = "SELECT conname FROM pg_constraint WHERE contype = 'f' AND convalidated"
        assert connection.execute(foreign).fetchall() == [("c_x_fkey",)]
        assert connection.execute("INSERT INTO d DEFAULT VALUES RETURNING x").fetchall() == [(2,)]
        assert connection.execute("SELECT to_regnamespace('moveout_restore')").fetchall() == [(None,)]
        connection.execute("INSERT INTO a VALUES (9); DROP TABLE b CASCADE")
    refused = call("restore", tmp_path / "bundle", f"app={new}")
    assert (refused.code, "is not empty" in refused.err) == (2, True), refused
    against = f"moveout verify file://{tmp_path}/bundle --against app={new}"
    assert f"{against} names what differs by now" in " ".join(refused.err.split())
    assert call(*against.split()[1:]).code == 6


def test_a_view_of_mariadb_comes_with_the_table_that_it_needs(mariadb, other_mariadb, tmp_path):
    old, new = mariadb.database(), other_mariadb.database()
    name = old.rpartition("/")[2]

    def run(server, database, *statements):
        with server.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()

    run(
        mariadb,
        name,
        "CREATE TABLE a AS SELECT 1 AS x",
        "CREATE TABLE b AS SELECT 2 AS x",
        "CREATE TABLE c AS SELECT 3 AS x",
        "CREATE VIEW v AS SELECT x FROM b",
        "CREATE USER late_reader IDENTIFIED BY 'late'",
        *(f"GRANT SELECT, SHOW VIEW ON {name}.{table} TO late_reader" for table in ("a", "v")),
        f"GRANT INSERT ON {name}.c TO late_reader",
    )
    export = ("export", f"app={old.replace('moveout@', 'late_reader@')}", "--to", tmp_path / "bundle")
    assert call(*export, env={"MYSQL_PWD": "late"}).code == 3
    first = call("restore", tmp_path / "bundle", f"app={new}")
    assert (first.code, "left out: view `v`: " in first.out) == (3, True), first
    run(mariadb, name, *(f"GRANT SELECT ON {name}.{table} TO late_reader" for table in ("b", "c")))
    exported = call(*export, env={"MYSQL_PWD": "late"})
    assert exported.code == 0, exported
    added = call("restore", tmp_path / "bundle", f"app={new}")
    assert (added.code, "this adds b, c" in added.out) == (0, True), added.out
    assert call("verify", tmp_path / "bundle", "--against", f"app={new}").code == 0
    assert run(other_mariadb, new.rpartition("/")[2], "SELECT v.x, c.x FROM v, c") == ((2, 3),)


def test_a_table_on_which_the_account_has_no_right_is_named_where_a_foreign_key_needs_it(
    mariadb, other_mariadb, tmp_path
):
    """The server does not list it. With the right, the same commands bring it."""
    old, new = mariadb.database(), other_mariadb.database()
    name = old.rpartition("/")[2]
    run_mysql(
        old,
        "CREATE TABLE parent AS SELECT 1 AS x; ALTER TABLE parent ADD PRIMARY KEY (x);"
        "CREATE TABLE child (x INT, CONSTRAINT of_parent FOREIGN KEY (x) REFERENCES parent (x));"
        "INSERT INTO child VALUES (1); CREATE USER childs_reader IDENTIFIED BY 'child';"
        f"GRANT SELECT, SHOW VIEW ON {name}.child TO childs_reader",
    )
    export = ("export", f"app={old.replace('moveout@', 'childs_reader@')}", "--to", tmp_path / "bundle")
    first = call(*export, env={"MYSQL_PWD": "child"})
    assert (first.code, f"GRANT SELECT ON `{name}`.`parent`" in first.out) == (3, True), first
    restored = call("restore", tmp_path / "bundle", f"app={new}")
    assert (restored.code, "`parent`: " in restored.out) == (3, True), restored
    run_mysql(old, f"GRANT SELECT ON {name}.parent TO childs_reader")
    again = call(*export, env={"MYSQL_PWD": "child"})
    assert again.code == 0, again
    added = call("restore", tmp_path / "bundle", f"app={new}")
    assert (added.code, "this adds parent" in added.out) == (0, True), added
    run_mysql(new, "INSERT INTO child VALUES (1)")


def test_a_table_that_came_up_empty_for_a_gap_is_the_gap_and_no_difference(
    postgres, other_postgres, mariadb, other_mariadb, tmp_path
):
    """Its definition may be read, and its rows may not: row-level security, an account that may only insert."""
    pg, my, new_pg, new_my = (
        server.database() for server in (postgres, mariadb, other_postgres, other_mariadb)
    )
    run_sql(pg, "CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT 2 AS x")
    run_sql(pg, "ALTER TABLE b ENABLE ROW LEVEL SECURITY; CREATE ROLE blind LOGIN PASSWORD 'blind'")
    run_sql(pg, "GRANT SELECT ON a, b TO blind")
    name = my.rpartition("/")[2]
    with mariadb.connect(name) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE a AS SELECT 1 AS x")
        cursor.execute("CREATE TABLE b AS SELECT 2 AS x")
        cursor.execute("CREATE USER blind IDENTIFIED BY 'blind'")
        cursor.execute(f"GRANT SELECT ON {name}.a TO blind")
        cursor.execute(f"GRANT INSERT ON {name}.b TO blind")
    case = tmp_path / "moveout.toml"
    urls = {
        "pg": (pg.replace("postgres@", "blind@"), new_pg),
        "my": (my.replace("moveout@", "blind@"), new_my),
    }
    case.write_text(
        f'[bundle]\nlocation = "{tmp_path}/bundle"\n'
        + "".join(
            f'[[source]]\nname = "{name}"\nurl = "{old}"\npassword = "command:echo blind"\n'
            f'[[destination]]\nsource = "{name}"\nurl = "{new}"\n'
            for name, (old, new) in urls.items()
        )
    )
    ended = call("run", "-c", case, "--json")
    assert ended.code == 3, ended.err
    summary = {row["source"]: row["compared"] for row in ended.json["result"]["summary"]}
    assert summary == {"pg": "in part", "my": "in part"}
    status = call("status", case)
    assert (status.code, "row-level security hides rows" in status.out) == (3, True), status

    run_sql(new_pg, "INSERT INTO b VALUES (3)")
    compared = call("verify", tmp_path / "bundle", "--against", f"pg={new_pg}")
    assert (compared.code, "is a gap of the bundle" in compared.out) == (3, True), compared
    run_sql(new_pg, "CREATE TABLE c AS SELECT 1 AS x")
    compared = call("verify", tmp_path / "bundle", "--against", f"pg={new_pg}")
    assert (compared.code, "is in the database, not in the bundle: found 1 row" in compared.out) == (6, True)


def test_a_partitioned_table_that_the_role_may_not_read_costs_only_itself(postgres, other_postgres, tmp_path):
    old, new = login(postgres, "leaf_reader"), other_postgres.database()
    run_sql(
        old,
        "CREATE TABLE whole (i int PRIMARY KEY); INSERT INTO whole VALUES (1);"
        "CREATE TABLE parted (i int PRIMARY KEY) PARTITION BY RANGE (i);"
        "CREATE TABLE leaf PARTITION OF parted FOR VALUES FROM (0) TO (9); INSERT INTO parted VALUES (2);"
        "GRANT SELECT ON whole, leaf TO leaf_reader",
    )
    words = ("export", f"app={as_role(old, 'leaf_reader')}", "--to", tmp_path / "bundle")
    env = {"PGPASSWORD": postgres.password, "PGPASSFILE": "/dev/null"}
    incomplete = call(*words, env=env)
    assert incomplete.code == 3
    assert '"public"."parted": its definition cannot be read: the role may not read it' in incomplete.out
    assert (tmp_path / "bundle/data/app/schema/pre-data.sql").read_text().count(
        "CREATE TABLE public.whole"
    ) == 1
    run_sql(old, "GRANT SELECT ON parted TO leaf_reader")
    assert call(*words, env=env).code == 0
    restored = call("restore", tmp_path / "bundle", f"app={new}")
    assert restored.code == 0, restored
    with psycopg.connect(new) as connection:
        assert connection.execute("SELECT i FROM whole UNION ALL SELECT i FROM parted").fetchall() == [
            (1,),
            (2,),
        ]


class RefusingProxy(HttpProxy):
    """``with RefusingProxy(server.endpoint) as proxy:`` lets nobody read the object ``plain.txt``."""

    def handle(self, asked):
        is_refused = asked.method == "GET" and asked.path.endswith("/plain.txt")
        return refusal(403, "AccessDenied") if is_refused else self.forward(asked)


@pytest.mark.torture
def test_an_incomplete_bundle_to_which_nothing_comes_stays_as_it_is_and_what_names_it_holds(
    postgres, mariadb, minio, bucket, tmp_path
):
    """One server is dead, and of each other one something is refused. Then the dead one is back."""
    make_media(minio, bucket)
    old, my, port = postgres.database(), mariadb.database(), free_port()
    run_sql(
        old,
        "CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT 2 AS x;"
        "CREATE ROLE kept_reader LOGIN PASSWORD 'kept'; GRANT SELECT ON a TO kept_reader",
    )
    name = my.rpartition("/")[2]
    run_mysql(
        my,
        "CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT 2 AS x;"
        "CREATE USER kept_reader IDENTIFIED BY 'kept';"
        f"GRANT SELECT ON {name}.a TO kept_reader; GRANT INSERT ON {name}.b TO kept_reader",
    )
    late = make_shop(postgres)
    bundle, copy, key = tmp_path / "bundle", tmp_path / "copy", tmp_path / "key"
    with RefusingProxy(minio.endpoint) as proxy:
        env = {
            "PGPASSWORD": "kept",
            "PGPASSFILE": "/dev/null",
            "MYSQL_PWD": "kept",
            "AWS_ENDPOINT_URL": proxy.endpoint,
            "AWS_ACCESS_KEY_ID": minio.access_key,
            "AWS_SECRET_ACCESS_KEY": minio.secret_key,
        }
        sources = (
            f"dead=postgresql://kept_reader@127.0.0.1:{port}/{late.rpartition('/')[2]}",
            f"pg={old.replace('postgres@', 'kept_reader@')}",
            f"my={my.replace('moveout@', 'kept_reader@')}",
            f"media=s3://{bucket}",
        )
        export = ("export", *sources, "--to", bundle)
        first = call(*export, env=env)
        assert (first.code, "Sealed, INCOMPLETE" in first.out) == (3, True), first
        assert call("keys", "init", key).code == 0
        for words in (("sign", bundle), ("transfer", bundle, copy), ("receive", copy, "--to", tmp_path)):
            named = call(*words, *(() if words[0] == "transfer" else ("--key", key)))
            assert named.code in {0, 3}, named
        assert call("transfer", bundle, copy).code == 3
        before, sent = (fingerprint(open_location(str(location))) for location in (bundle, copy))
        for _ in range(2):
            again = call(*export, env=env)
            assert (again.code, "nothing came to it now" in again.out) == (3, True), again
            assert fingerprint(open_location(str(bundle))) == before
        for words, code in (
            (("status", bundle), 3),
            (("verify", bundle), 3),
            (("transfer", bundle, copy), 3),
            (("custody", "verify", copy), 0),
        ):
            ended = call(*words)
            assert ended.code == code, ended
        assert fingerprint(open_location(str(copy))) == sent
        kinds = ("TABLES", "SEQUENCES")
        run_sql(
            late, "".join(f"GRANT SELECT ON ALL {kind} IN SCHEMA public TO kept_reader;" for kind in kinds)
        )
        with MovingAddress(postgres.port, at=port):
            added = call(*export, env=env)
        assert (added.code, "Sealed, INCOMPLETE" in added.out) == (3, True), added
        assert "dead    exported" in added.out
    sent_info, info = (BundleReader(open_location(str(location))).info for location in (copy, bundle))
    assert info.continues == [sent_info.id]
    sent_again = call("transfer", bundle, copy)
    assert (sent_again.code, BundleReader(open_location(str(copy))).info.id) == (3, info.id), sent_again


@pytest.mark.torture
def test_what_was_exported_of_a_server_can_be_restored_after_a_second_run_in_which_it_goes_away(
    postgres, other_postgres, monkeypatch, tmp_path
):
    monkeypatch.setattr(source_export, "RESTART_SECONDS", 1.0)
    old, new, bundle = postgres.database(), other_postgres.database(), tmp_path / "bundle"
    late = [f"late{number}" for number in range(30)]
    rows = "SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 1000) i"
    run_sql(
        old,
        "CREATE TABLE a AS SELECT 1 AS x; CREATE ROLE fading_reader LOGIN PASSWORD 'fading';"
        f"GRANT SELECT ON a TO fading_reader; {';'.join(f'CREATE TABLE {name} AS {rows}' for name in late)}",
    )
    with MovingAddress(postgres.port) as address:
        url = f"postgresql://fading_reader@127.0.0.1:{address.port}/{old.rpartition('/')[2]}"
        words = ("export", f"app={url}", "--to", bundle)
        env = {"PGPASSWORD": "fading", "PGPASSFILE": "/dev/null"}
        assert call(*words, env=env).code == 3
        first = BundleReader(open_location(str(bundle))).info
        run_sql(old, f"GRANT SELECT ON {', '.join(late)} TO fading_reader")
        parts = set(bundle.glob("data/app/tables/*/*"))

        def go_away():
            eventually(lambda: len(set(bundle.glob("data/app/tables/*/*")) - parts) > 2)
            address.move(free_port())

        with ThreadPoolExecutor(1) as threads:
            going = threads.submit(go_away)
            broken = call(*words, "--bwlimit", "300k", env=env)
            going.result()
    assert (broken.code, "Sealed, INCOMPLETE" in broken.out) == (3, True), broken
    info = BundleReader(open_location(str(bundle))).info
    assert info.continues == [first.id]
    assert call("verify", bundle, "--level", "full").code == 3
    restored = call("restore", bundle, f"app={new}")
    assert (restored.code, fetch(new, "SELECT x FROM a")) == (3, [(1,)]), restored
