"""Whether triggers, rules and event triggers fire comes back, also of triggers that a server makes for constraints."""

from tests.exporters.postgres.databases import export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from, restore_whole

SCRIPT = """
CREATE TABLE p (a int PRIMARY KEY); INSERT INTO p VALUES (1), (2);
CREATE TABLE c (a int REFERENCES p ON DELETE CASCADE, b int UNIQUE DEFERRABLE); INSERT INTO c VALUES (1, 1);
CREATE TABLE parted (k int PRIMARY KEY, up int REFERENCES parted) PARTITION BY RANGE (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
CREATE TABLE child (k int REFERENCES parted);
ALTER TABLE p DISABLE TRIGGER ALL; ALTER TABLE c DISABLE TRIGGER ALL; ALTER TABLE child DISABLE TRIGGER ALL;
ALTER TABLE ONLY parted_2 DISABLE TRIGGER ALL;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TABLE w (a int);
CREATE TRIGGER t1 AFTER INSERT ON w EXECUTE FUNCTION f(); ALTER TABLE w DISABLE TRIGGER t1;
CREATE TRIGGER t2 AFTER INSERT ON w EXECUTE FUNCTION f(); ALTER TABLE w ENABLE REPLICA TRIGGER t2;
CREATE TRIGGER t3 AFTER INSERT ON parted FOR EACH ROW EXECUTE FUNCTION f();
ALTER TABLE parted_1 DISABLE TRIGGER t3; ALTER TABLE parted_2 ENABLE ALWAYS TRIGGER t3;
CREATE RULE r1 AS ON UPDATE TO w DO ALSO NOTHING; ALTER TABLE w DISABLE RULE r1;
CREATE RULE r2 AS ON DELETE TO w DO ALSO NOTHING; ALTER TABLE w ENABLE REPLICA RULE r2;
CREATE FUNCTION ef() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER e1 ON sql_drop EXECUTE FUNCTION ef(); ALTER EVENT TRIGGER e1 DISABLE;
CREATE EVENT TRIGGER e2 ON sql_drop EXECUTE FUNCTION ef(); ALTER EVENT TRIGGER e2 ENABLE ALWAYS;
"""
STATES = """
SELECT tgrelid::regclass::text, CASE WHEN tgisinternal THEN tgfoid::regproc::text ELSE tgname::text END,
  (SELECT conrelid::regclass::text FROM pg_constraint k WHERE k.oid = tgconstraint), tgenabled::text FROM pg_trigger
UNION ALL SELECT ev_class::regclass::text, rulename, '', ev_enabled::text FROM pg_rewrite WHERE ev_class = 'w'::regclass
UNION ALL SELECT '', evtname, '', evtenabled::text FROM pg_event_trigger
"""


def test_what_does_not_fire_at_the_source_does_not_fire_at_the_destination(
    postgres, other_postgres, tmp_path
):
    url, destination, ordinary = postgres.database(), other_postgres.database(), other_postgres.database()
    run_sql(url, SCRIPT)
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    restore_whole(reader, "app", destination, workers=2)
    assert sorted(fetch(destination, STATES), key=str) == sorted(fetch(url, STATES), key=str)
    run_sql(destination, "DELETE FROM p")
    assert fetch(destination, "SELECT a FROM c") == [(1,)]

    make = "DROP ROLE IF EXISTS {0}; CREATE ROLE {0} LOGIN CREATEROLE PASSWORD 'p'; GRANT ALL ON SCHEMA public TO {0};"
    run_sql(ordinary, make.format("firing_plain"))
    run_sql(ordinary, f"GRANT ALL ON DATABASE {ordinary.rpartition('/')[2]} TO firing_plain")
    restored = restore_from(
        reader, "app", ordinary.replace("postgres@", "firing_plain@"), workers=2, password="p"
    )
    assert restored.findings == ()
    assert (
        'constraint "c_a_fkey" of "public"."c": its triggers on "public"."p" were disabled at the source, and fire'
        " here: only a superuser may change that"
    ) in restored.left_out
