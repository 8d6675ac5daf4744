"""What the source defines after the base is named by follow, status and cutover before it costs anything."""

import re
from contextlib import closing

import psycopg
import pytest

from exporters.postgres.definitions.object_access import (
    ACCESS,
    TRANSACTION,
    digests_of,
    read_access,
    state_at,
    without_newer,
)
from migrate.changes.remainder import BothSides
from migrate.restore.postgres.changes.definition_gaps import _Definition, _differs, definition_gaps
from scripts.postgres_versions import find_postgres_of
from tests.cli.conftest import call
from tests.exporters.postgres.databases import fetch, run_sql
from tests.exporters.postgres.test_charset import make_databases, run_bytes
from tests.follow.move_case import write_move_case

BASE = """
CREATE TABLE fees (id int PRIMARY KEY, a text, b text); INSERT INTO fees VALUES (1, 'a', 'b');
CREATE TABLE notes (id int PRIMARY KEY, note varchar(10), size int); CREATE TABLE old_name (a int);
CREATE TYPE mood AS ENUM ('good'); CREATE TABLE moods (id int PRIMARY KEY, v mood);
CREATE TABLE printed_otherwise (a varchar(5) CHECK (a IN ('x', 'y')), b char(3) DEFAULT 'z');
CREATE INDEX of_some ON printed_otherwise (a) WHERE a IN ('x', 'y');
CREATE VIEW of_those AS SELECT a FROM printed_otherwise WHERE a NOT IN ('x', 'y');
CREATE VIEW guarded WITH (check_option = local, security_barrier = true) AS SELECT id FROM fees;
CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere OPTIONS (host 'a', dbname 'b');
CREATE PUBLICATION "Sent out" FOR TABLE fees WITH (publish = 'insert'); CREATE EXTENSION hstore;
"""
LATER = {
    "schema later": "CREATE SCHEMA later",
    "table later.made": "CREATE TABLE later.made (id int PRIMARY KEY)",
    "table public.keyless": "CREATE TABLE keyless (a int)",
    "table public.new_name": "ALTER TABLE old_name RENAME TO new_name",
    "column public.notes.extra (text)": "ALTER TABLE notes ADD COLUMN extra text",
    "column public.notes.size (bigint)": "ALTER TABLE notes ALTER size TYPE bigint",
    "index public.by_note": "CREATE INDEX by_note ON notes (note)",
    "constraint small of public.notes": "ALTER TABLE notes ADD CONSTRAINT small CHECK (size < 100)",
    "label 'bad' of public.mood": "ALTER TYPE mood ADD VALUE 'bad'",
    "type public.positive": "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    "sequence public.counter": "CREATE SEQUENCE counter",
    "view public.seen": "CREATE VIEW seen AS SELECT 1 AS a",
    "function public.f(a integer)": "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a'",
    "rule quiet of public.moods": "CREATE RULE quiet AS ON DELETE TO moods DO ALSO NOTIFY moods",
    "policy mine of public.notes": "CREATE POLICY mine ON notes USING (true)",
    "user mapping for PUBLIC on server far": "CREATE USER MAPPING FOR PUBLIC SERVER far",
    "publication namespace later in publication Sent out": 'ALTER PUBLICATION "Sent out" ADD TABLES IN SCHEMA later',
}
ROWS = """
INSERT INTO later.made VALUES (1); INSERT INTO keyless VALUES (1); INSERT INTO moods VALUES (1, 'bad');
INSERT INTO notes VALUES (1, 'a', 3, 'x'); INSERT INTO new_name VALUES (1); SELECT nextval('counter');
"""


REDEFINED = """
CREATE TABLE bills (id int PRIMARY KEY, total int DEFAULT 1, CONSTRAINT low CHECK (total < 10));
CREATE FUNCTION tax(n int) RETURNS int LANGUAGE sql AS 'SELECT n / 5';
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER stamped BEFORE INSERT ON bills FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE VIEW due AS SELECT id FROM bills; CREATE INDEX by_total ON bills (total);
CREATE TABLE days (day int PRIMARY KEY) PARTITION BY RANGE (day);
CREATE TABLE early PARTITION OF days FOR VALUES FROM (0) TO (9);
CREATE TABLE place (id int PRIMARY KEY); CREATE TABLE town (PRIMARY KEY (id)) INHERITS (place);
CREATE TYPE pair AS (a int, b int); CREATE SEQUENCE steps;
CREATE TRIGGER sent AFTER UPDATE ON bills FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE DOMAIN rate AS int CHECK (VALUE < 100); CREATE POLICY all_of_it ON bills USING (true);
CREATE POLICY of_some ON bills USING (true); CREATE VIEW shown AS SELECT id FROM bills;
CREATE TABLE spelled (id int PRIMARY KEY, name text COLLATE "C"); CREATE PUBLICATION mailed FOR TABLE spelled;
CREATE AGGREGATE together(int) (SFUNC = int4pl, STYPE = int);
CREATE FUNCTION cheap() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FOREIGN TABLE distant (a int) SERVER far OPTIONS (name 'a'); CREATE FOREIGN TABLE away (a int) SERVER far;
CREATE FOREIGN TABLE apart (a int) SERVER far; CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY); CREATE SCHEMA more;
CREATE FUNCTION heard() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER heard ON ddl_command_end EXECUTE FUNCTION heard();
CREATE TABLE kept (id int PRIMARY KEY, v text, w text, x text); CREATE STATISTICS many ON v, w FROM kept;
CREATE TABLE packed (id int PRIMARY KEY); CREATE SEQUENCE owned;
"""
AGAIN = {
    "column public.bills.total (integer)": "ALTER TABLE bills ALTER total SET DEFAULT 2",
    "constraint low of public.bills": "ALTER TABLE bills DROP CONSTRAINT low, ADD CONSTRAINT low CHECK (total < 20)",
    "function public.tax(n integer)": "CREATE OR REPLACE FUNCTION tax(n int) RETURNS int LANGUAGE sql AS 'SELECT n/4'",
    "index public.by_total": "DROP INDEX by_total; CREATE UNIQUE INDEX by_total ON bills (total)",
    "policy all_of_it of public.bills": "ALTER POLICY all_of_it ON bills USING (total > 0)",
    "table public.early": "ALTER TABLE days DETACH PARTITION early",
    "table public.town": "ALTER TABLE town NO INHERIT place",
    "table public.bills": "ALTER TABLE bills ENABLE ROW LEVEL SECURITY",
    "trigger stamped of public.bills": "DROP TRIGGER stamped ON bills;"
    " CREATE TRIGGER stamped AFTER INSERT ON bills FOR EACH ROW EXECUTE FUNCTION stamp()",
    "type public.pair": "ALTER TYPE pair ADD ATTRIBUTE c int",
    "sequence public.steps": "ALTER SEQUENCE steps INCREMENT BY 10",
    "trigger sent of public.bills": "ALTER TABLE bills DISABLE TRIGGER sent",
    "type public.rate": "ALTER DOMAIN rate SET DEFAULT 3",
    "index public.of_some": "DROP INDEX of_some;"
    " CREATE INDEX of_some ON printed_otherwise (a) WHERE a IN ('x', 'z')",
    "view public.due": "CREATE OR REPLACE VIEW due AS SELECT id FROM bills WHERE total > 0",
    "policy of_some of public.bills": "ALTER POLICY of_some ON bills TO pg_monitor",
    "view public.shown": "ALTER VIEW shown SET (security_barrier)",
    "column public.spelled.name (text)": 'ALTER TABLE spelled ALTER name TYPE text COLLATE "POSIX"',
    "publication mailed": "ALTER PUBLICATION mailed SET (publish = 'insert')",
    "publication relation public.fees in publication Sent out": 'ALTER PUBLICATION "Sent out" SET TABLE fees (id)',
    "function public.together(integer)": "DROP AGGREGATE together(int);"
    " CREATE AGGREGATE together(int) (SFUNC = int4mul, STYPE = int, INITCOND = '1')",
    "function public.cheap()": "ALTER FUNCTION cheap() COST 7",
    "server far": "ALTER SERVER far OPTIONS (SET host 'b')",
    "foreign table public.distant": "ALTER FOREIGN TABLE distant OPTIONS (SET name 'b')",
    "foreign table public.away": "ALTER FOREIGN TABLE away ADD b int",
    "event trigger heard": "ALTER EVENT TRIGGER heard DISABLE",
    "foreign table public.apart": "ALTER FOREIGN TABLE apart ALTER a OPTIONS (name 'b')",
    "table public.fleeting": "ALTER TABLE fleeting SET LOGGED",
    "extension hstore": "ALTER EXTENSION hstore SET SCHEMA more",
    "table public.kept": "ALTER TABLE kept CLUSTER ON kept_pkey",
    "table public.packed": "ALTER TABLE packed SET (fillfactor = 50)",
    "column public.kept.v (text)": "ALTER TABLE kept ALTER v SET STATISTICS 700",
    "column public.kept.w (text)": "ALTER TABLE kept ALTER w SET STORAGE EXTERNAL",
    "column public.kept.x (text)": "ALTER TABLE kept ALTER x SET (n_distinct = 5)",
    "sequence public.owned": "ALTER SEQUENCE owned OWNED BY kept.id",
    "statistics object public.many": "ALTER STATISTICS many SET STATISTICS 7",
}


EXCHANGED = "ALTER TABLE fees RENAME a TO c; ALTER TABLE fees RENAME b TO a; ALTER TABLE fees RENAME c TO b"


HANDED = """
CREATE TABLE bills (id int PRIMARY KEY, total int); CREATE VIEW due AS SELECT id FROM bills; CREATE SEQUENCE steps;
CREATE FUNCTION tax(n int) RETURNS int LANGUAGE sql AS 'SELECT n / 5'; CREATE SCHEMA sales; CREATE DOMAIN rate AS int;
COMMENT ON TABLE bills IS 'open'; COMMENT ON COLUMN bills.total IS 'in cents'; COMMENT ON VIEW due IS 'of today';
CREATE TABLE gone (id int PRIMARY KEY); GRANT SELECT ON gone TO {role}; GRANT SELECT ON due TO {role};
"""
CHANGED_ACCESS = {
    "comment on index public.bills_pkey": "COMMENT ON INDEX bills_pkey IS 'the number'",
    "comment on table column public.bills.total": "COMMENT ON COLUMN bills.total IS 'in euros'",
    "comment on view public.due": "COMMENT ON VIEW due IS NULL",
    "owner of function public.tax(integer)": "ALTER FUNCTION tax OWNER TO {role}",
    "owner of table public.bills": "ALTER TABLE bills OWNER TO {role}",
    "privileges of default acl for role {owner} in schema sales on tables": "ALTER DEFAULT PRIVILEGES IN SCHEMA sales"
    " GRANT SELECT ON TABLES TO {role}",
    "privileges of function public.tax(integer)": "REVOKE EXECUTE ON FUNCTION tax FROM PUBLIC",
    "privileges of schema sales": "GRANT USAGE ON SCHEMA sales TO {role}",
    "privileges of sequence public.steps": "GRANT USAGE ON SEQUENCE steps TO {role}",
    "privileges of table column public.bills.total": "GRANT UPDATE (total) ON bills TO PUBLIC",
    "privileges of table public.bills": "GRANT SELECT ON bills TO PUBLIC",
    "privileges of type public.rate": "REVOKE USAGE ON DOMAIN rate FROM PUBLIC",
    "privileges of view public.due": "REVOKE SELECT ON due FROM {role}",
    "role {role}": "ALTER ROLE {role} CONNECTION LIMIT 7",
    "settings of role {role} in the database": "ALTER ROLE {role} IN DATABASE {database} SET work_mem = '9MB'",
    "settings of the database": "ALTER DATABASE {database} SET work_mem = '8MB'",
}


def run_apart(url, scripts):
    """Run each script in a transaction of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        for script in scripts:
            connection.execute(script.encode())


@pytest.fixture
def move(postgres, other_postgres, tmp_path, monkeypatch):
    """The old and the new database, the base between them."""
    monkeypatch.setattr("migrate.follow.all_cutovers._QUIET_SECONDS", 0.5)
    old, new = postgres.database(), other_postgres.database()
    run_sql(old, BASE)
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, old, new, name="defined")
    for step in ("export", "restore"):
        assert call(step, "-c", "moveout.toml").code == 0
    yield old, new
    call("clean", "--changes", "-c", "moveout.toml", "--yes")


def test_what_was_defined_since_the_base_is_named_before_it_costs(move):
    old, new = move
    calm = call("follow", "-c", "moveout.toml", "--until-caught-up", "--json")
    assert (calm.code, calm.json["result"]["sources"][0]["undefined"]) == (0, []), calm
    run_apart(old, LATER.values())
    followed = call("follow", "-c", "moveout.toml", "--until-caught-up", "--json")
    assert followed.code == 3, followed
    assert sorted(followed.json["result"]["sources"][0]["undefined"]) == sorted(LATER)
    status = " ".join(call("status", "-c", "moveout.toml").out.split())
    foreseen = " ".join(call("cutover", "-c", "moveout.toml", "--dry-run").out.split())
    for thing in LATER:
        assert thing in status
        assert f"would switch app without {thing}" in foreseen
    run_sql(old, "ALTER TABLE moods DROP CONSTRAINT moods_pkey")
    unidentified = call("follow", "-c", "moveout.toml", "--until-caught-up", "--json").json["result"][
        "sources"
    ][0]
    assert [table["name"] for table in unidentified["refusing"]] == ['"public"."moods"']
    remedy = 'ALTER TABLE "public"."moods" REPLICA IDENTITY FULL;'
    assert remedy in " ".join(call("status", "-c", "moveout.toml").out.split())
    run_sql(old, remedy)
    run_sql(old, ROWS)
    stopped = call("follow", "-c", "moveout.toml", "--until-caught-up")
    assert (stopped.code, "STOPPED" in stopped.out) == (3, True), stopped
    shown = " ".join(call("status", "-c", "moveout.toml").out.split())
    assert re.search(r"about \d+ changes?, [\d,.]+ k?B of the log, wait to be applied, for ", shown), shown
    assert "moveout follow applies it, or says why it stopped" in shown
    assert "cutover can begin" not in shown, shown
    refused = call("cutover", "-c", "moveout.toml")
    assert refused.code == 6, refused
    run_apart(new, LATER.values())
    resynced = call("resync", "-c", "moveout.toml", "app:later.made")
    assert resynced.code == 0, resynced
    again = call("follow", "-c", "moveout.toml", "--until-caught-up")
    assert again.code == 0, again
    run_sql(new, "DROP VIEW seen")
    switched = call("cutover", "-c", "moveout.toml")
    assert (switched.code, "view public.seen is MISSING at the new side" in switched.out) == (3, True), (
        switched
    )
    run_sql(new, "SELECT nextval('counter')")
    for table in ("later.made", "keyless", "moods", "notes", "new_name"):
        assert fetch(new, f"SELECT * FROM {table}") == fetch(old, f"SELECT * FROM {table}")


def test_what_was_defined_otherwise_since_the_base_is_named(move, postgres, other_postgres):
    """The application was deployed meanwhile: the new side would go on with what it was before."""
    old, new = move
    for url in move:
        run_sql(url, REDEFINED)
    calm = call("follow", "-c", "moveout.toml", "--until-caught-up", "--json")
    assert (calm.code, calm.json["result"]["sources"][0]["undefined"]) == (0, []), calm
    run_apart(old, [*AGAIN.values(), EXCHANGED])
    followed = call("follow", "-c", "moveout.toml", "--until-caught-up", "--json")
    assert followed.code == 3, followed
    undefined = followed.json["result"]["sources"][0]["undefined"]
    anew = [f"values of column public.fees.{name} (text), which was made anew" for name in "ab"]
    order = "order of the columns of table public.fees"
    assert undefined == [*(f"{thing} as it is defined now" for thing in sorted(AGAIN)), order, *anew]
    switched = call("cutover", "-c", "moveout.toml")
    for thing in ("function public.tax(n integer) as it is defined now", order):
        assert f"{thing} is MISSING at the new side" in " ".join(switched.out.split()), switched
    assert switched.code == 3, switched
    assert call("cutover", "-c", "moveout.toml", "--undo").code == 0
    run_apart(new, [*AGAIN.values(), EXCHANGED])
    resynced = call("resync", "-c", "moveout.toml", "app:public.fees")
    assert resynced.code == 0, resynced
    followed = call("follow", "-c", "moveout.toml", "--until-caught-up", "--json")
    assert followed.json["result"]["sources"][0]["undefined"] == []
    again = call("cutover", "-c", "moveout.toml")
    assert again.code == 0, again


def test_a_view_is_another_one_only_where_the_destination_prints_its_query_otherwise(postgres):
    """As between servers of two versions, which print the same query differently."""
    url = postgres.database()
    run_sql(url, "CREATE TABLE t (id int); CREATE VIEW v AS SELECT id FROM t WHERE id > 3")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = ''")
        ((present,),) = connection.execute("SELECT pg_get_viewdef('public.v'::regclass)")
        for query, differs in {
            "SELECT t.id FROM public.t WHERE ((t.id > 3));": False,
            "SELECT t.id FROM public.t WHERE ((t.id > 4));": True,
            "SELECT t.id FROM public.t WHERE public.lacking(t.id);": True,
        }.items():
            sides = _Definition("", query, is_new=True), _Definition("", present, is_new=False)
            assert _differs(("view", "public.v"), *sides, connection) is differs
        assert not _differs(("view", "public.v"), sides[0]._replace(is_new=False), sides[1], connection)
    assert fetch(url, "SELECT count(*) FROM pg_class WHERE relname = 'moveout_printed'") == [(0,)]


def test_a_rule_is_another_one_only_where_the_destination_prints_it_otherwise(postgres):
    url = postgres.database()
    rule = "CREATE RULE r AS ON INSERT TO public.t WHERE (new.id < 3) DO INSTEAD NOTHING"
    run_sql(url, f"CREATE TABLE t (id int); {rule}")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = ''")
        ((present,),) = connection.execute("SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE rulename = 'r'")
        for made, differs in {rule: False, rule.replace("3", "4"): True}.items():
            sides = _Definition("", made, is_new=True), _Definition("", present, is_new=False)
            assert _differs(("rule", "r of public.t"), *sides, connection) is differs
        assert connection.execute(
            "SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE rulename = 'r'"
        ).fetchone() == (present,)


def test_names_that_the_server_gives_by_itself_are_not_missing(postgres):
    """Those of keys of partitions differ between versions, and no dump has an operator that is only named."""
    old, new = postgres.database(), postgres.database()
    for url in (old, new):
        run_sql(
            url,
            "CREATE TABLE months (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE bills (month int,"
            " CONSTRAINT of_month FOREIGN KEY (month) REFERENCES months); CREATE TABLE may PARTITION OF months"
            " FOR VALUES IN (5); CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, PROCEDURE = int4eq)",
        )
    run_sql(new, "UPDATE pg_constraint SET conname = conname || '_' WHERE conparentid <> 0 AND contype = 'f'")
    run_sql(
        old,
        "DROP OPERATOR === (int, int); CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, PROCEDURE = int4eq,"
        " NEGATOR = =!=)",
    )
    assert definition_gaps(BothSides(old, {}, new, {}), (), {TRANSACTION: 3}) == []


@pytest.mark.torture
def test_a_procedure_is_the_same_where_a_newer_server_prints_it_otherwise(servers, postgres):
    older = servers.postgres("before-14", find_postgres_of(13))
    urls = [server.database() for server in (older, postgres)]
    try:
        for url in urls:
            run_sql(url, "CREATE PROCEDURE pay(a int, INOUT b text) LANGUAGE plpgsql AS 'BEGIN END'")
        assert definition_gaps(BothSides(urls[0], {}, urls[1], {}), (), {TRANSACTION: 3}) == []
    finally:
        servers.end(older)


def test_owners_privileges_comments_and_settings_that_changed_since_the_base_are_named(
    postgres, other_postgres, tmp_path, monkeypatch
):
    monkeypatch.setattr("migrate.follow.all_cutovers._QUIET_SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)
    old, new = postgres.database(), other_postgres.database()
    role = f"app_{old.rpartition('/')[2][-8:]}"
    words = {"role": role, "owner": fetch(old, "SELECT current_user")[0][0]}

    def change(url):
        database = url.rpartition("/")[2].partition("?")[0]
        run_apart(url, [text.format(database=database, **words) for text in CHANGED_ACCESS.values()])

    def undefined():
        followed = call("follow", "-c", "moveout.toml", "--until-caught-up", "--json")
        return followed.code, followed.json["result"]["sources"][0]["undefined"]

    run_sql(old, f"CREATE ROLE {role} LOGIN; {HANDED.format(**words)}")
    write_move_case(tmp_path, old, new, name="handed")
    try:
        for step in ("export", "restore"):
            assert call(step, "-c", "moveout.toml").code == 0
        assert undefined() == (0, [])
        change(old)
        run_sql(old, "DROP TABLE gone")
        named = sorted(f"{label.format(**words)} as it is now" for label in CHANGED_ACCESS)
        assert undefined() == (3, [*named, "DROP TABLE public.gone"])
        switched = call("cutover", "-c", "moveout.toml", "--json")
        assert switched.code == 6, switched  # a table that only one side has
        run_sql(new, "DROP TABLE gone")
        switched = call("cutover", "-c", "moveout.toml", "--hold", "--yes", "--json")
        missing = switched.json["result"]["sources"][0]["carried"]["missing"]
        assert (switched.code, missing) == (3, named), switched
        assert call("cutover", "-c", "moveout.toml", "--undo").code == 0
        change(new)
        assert undefined() == (0, [])
    finally:
        call("clean", "--changes", "-c", "moveout.toml", "--yes")
        for url in (old, new):
            run_sql(url, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


LABELS = """
SET allow_system_table_mods = on;
INSERT INTO pg_seclabel (objoid, classoid, objsubid, provider, label)
  VALUES ('bills'::regclass, 'pg_class'::regclass, 0, 'dummy', 'secret'),
    ('bills'::regclass, 'pg_class'::regclass, 2, 'dummy', 'x');
INSERT INTO pg_shseclabel (objoid, classoid, provider, label)
  SELECT oid, 'pg_database'::regclass, 'dummy', 'of it' FROM pg_database WHERE datname = current_database()
"""


def test_security_labels_that_were_given_since_the_base_are_named(postgres, other_postgres):
    old, new = postgres.database(), other_postgres.database()
    for url in (old, new):
        run_sql(url, "CREATE TABLE bills (id int PRIMARY KEY, total int)")
    with psycopg.connect(old) as connection:
        log = {ACCESS: digests_of(read_access(connection))}
    assert definition_gaps(BothSides(old, {}, new, {}), (), log) == []
    run_sql(old, LABELS)
    assert definition_gaps(BothSides(old, {}, new, {}), (), log) == [
        "security label on table column public.bills.total as it is now",
        "security label on table public.bills as it is now",
        "security label on the database as it is now",
    ]
    run_sql(new, LABELS)
    assert definition_gaps(BothSides(old, {}, new, {}), (), log) == []


def test_what_a_transaction_has_defined_that_was_open_at_the_snapshot_is_named(postgres):
    """It had its number before the snapshot, which does not have what it wrote."""
    old, new = postgres.database(), postgres.database()
    for url in (old, new):
        run_sql(
            url, "CREATE TABLE bills (id int PRIMARY KEY, total int); CREATE VIEW due AS SELECT id FROM bills"
        )
    with psycopg.connect(old) as connection:
        connection.execute("CREATE OR REPLACE VIEW due AS SELECT id FROM bills WHERE total > 0")
        run_sql(old, "SELECT txid_current()")
        [(snapshot,)] = fetch(old, "SELECT txid_current_snapshot()::text")
    defined = state_at(old, {}, {"snapshot": snapshot})
    assert definition_gaps(BothSides(old, {}, new, {}), (), defined) == [
        "view public.due as it is defined now"
    ]


def test_values_that_a_statement_has_computed_anew_are_named_until_the_table_was_read_again(make_followed):
    """No log has them, and the type of the column is as before."""
    followed = make_followed(
        "CREATE TABLE bills (id int PRIMARY KEY, total int, paid int, note text); INSERT INTO bills VALUES (1, 5, 5)"
    )
    old, new = followed.source.url, followed.destination.url
    run_sql(old, "ALTER TABLE bills ALTER total TYPE int USING total * 100")
    named = ("values of column public.bills.total (integer), which may have been computed anew",)
    assert followed.definition_gaps(()) == named
    run_sql(new, "ALTER TABLE bills ALTER total TYPE int USING total * 100")
    assert followed.definition_gaps(()) == named
    with closing(followed.open_writer()) as writer:
        writer.end_again(["public.bills"], followed.base)
    assert followed.definition_gaps(()) == ()


def test_a_table_that_was_only_rewritten_has_the_same_values(make_followed):
    followed = make_followed("CREATE TABLE bills (id int PRIMARY KEY, total int, note varchar(9))")
    for statements in (
        ["VACUUM FULL bills", "ALTER TABLE bills ALTER total SET DEFAULT 1"],
        ["TRUNCATE bills", "ALTER TABLE bills ALTER note TYPE text"],
        ["ALTER TABLE bills ADD made timestamptz DEFAULT clock_timestamp(), ALTER total TYPE bigint"],
    ):
        for statement in statements:
            for side in (followed.source, followed.destination):
                with psycopg.connect(side.url, autocommit=True) as connection:
                    connection.execute(statement)
        assert followed.definition_gaps(()) == ()


def test_a_privilege_that_older_servers_do_not_have_is_no_difference():
    label = "privileges of table public.t"
    granted = 'PUBLIC SELECT f, "a ""b, c" MAINTAIN t, "a ""b, c" SELECT t, app MAINTAIN f'
    assert without_newer({label: granted, "comment on x": "app MAINTAIN f"}) == {
        label: 'PUBLIC SELECT f, "a ""b, c" SELECT t',
        "comment on x": "app MAINTAIN f",
    }


def test_names_that_are_no_characters_are_compared_as_bytes(postgres, other_postgres):
    source, destination = urls = make_databases("SQL_ASCII", postgres, other_postgres)
    for url in urls:
        run_bytes(url, b'CREATE TABLE "\xe9" (a int); COMMENT ON TABLE "\xe9" IS \'\xe8\'')
    assert definition_gaps(BothSides(source, {}, destination, {}), (), {ACCESS: {}}) == []
    run_bytes(source, b'CREATE VIEW "\xe8" AS SELECT * FROM "\xe9"')
    assert definition_gaps(BothSides(source, {}, destination, {}), (), None) == ['view public."\\xe8"']
