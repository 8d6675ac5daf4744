"""Tables whose index calls code that refuses to run for a plan: COPY reads them by their names."""

from tests.cli.conftest import call
from tests.exporters.postgres.databases import column, export_database, fetch, run_sql, table
from tests.tools.bundles import read_bundle, restore_from, restore_whole

SCRIPT = """
DROP ROLE IF EXISTS app_owner; CREATE ROLE app_owner LOGIN PASSWORD '{0}'; GRANT CREATE ON SCHEMA public TO app_owner;
CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  IF current_user <> 'app_owner' THEN RAISE EXCEPTION 'f(%) called by %', $1, current_user; END IF; RETURN $1; END $$;
CREATE TABLE t (a int, r real, s text);
INSERT INTO t VALUES (1, 0.1, 'x,"y'), (2, NULL, E'two\\nlines'), (3, 'Infinity', ''), (4, -0.0, NULL), (5, 1e-30, 'z');
CREATE TABLE made (a int, b int GENERATED ALWAYS AS (a + 1) STORED); INSERT INTO made VALUES (1), (2);
CREATE TABLE other (a int); CREATE INDEX ON other ((a + 1)); INSERT INTO other VALUES (1);
ALTER TABLE t OWNER TO app_owner; ALTER TABLE made OWNER TO app_owner; ALTER TABLE other OWNER TO app_owner;
CREATE INDEX ON t ((f(a) + f(0))); CREATE INDEX ON made ((f(a) + f(0)));
"""
VIEW = """
SET ROLE app_owner; CREATE MATERIALIZED VIEW v AS SELECT a FROM other; CREATE INDEX ON v ((f(a) + f(0))); RESET ROLE;
"""


def test_rows_come_without_a_plan_and_what_cannot_be_compared_is_named(
    postgres, other_postgres, tmp_path, monkeypatch
):
    url, destinations = postgres.database(), [other_postgres.database(), other_postgres.database()]
    run_sql(url, SCRIPT.format(postgres.password))
    assert export_database(url, tmp_path / "refused").complete
    refused = read_bundle(tmp_path / "refused")
    assert column(refused, "t", "s") == ['x,"y', "two\nlines", "", None, "z"]
    assert [loss.item for _, loss in refused.losses() if loss.item != "roles"] == ['"public"."made"."b"']
    restore_whole(refused, "app", destinations[0], workers=2)
    run_sql(destinations[0], "DROP INDEX made_expr_idx")
    assert fetch(destinations[0], "SELECT a, b FROM made") == [(1, 2), (2, 3)]
    assert call("verify", tmp_path / "refused", "--against", f"app={url}", "-q").code == 0

    run_sql(url, VIEW)
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSWORD", postgres.password)
        assert export_database(url.replace("postgres@", "app_owner@"), tmp_path / "bundle").complete
    bundle = read_bundle(tmp_path / "bundle")
    assert table(bundle, "t").digest == table(refused, "t").digest
    for _ in range(2):
        restored = restore_from(bundle, "app", destinations[1], workers=2)
        assert restored.findings == ()
        assert [one.partition(": ")[0] for one in restored.left_out] == [
            'the comparison of "public"."v"',
            'the values of "public"."made"."b"',
        ]
    run_sql(destinations[1], "DROP TABLE made")
    bundle_without = call("verify", tmp_path / "bundle", "--against", f"app={destinations[1]}")
    assert bundle_without.code == 6
    assert '"public"."v": could not be compared' in bundle_without.out
