"""What a restore leaves out it names each time: when it was killed and goes on, and when it is repeated."""

import pytest

from exporters.postgres import chunk_plan
from migrate.report.after_seal import add_result
from migrate.report.facts import Later
from tests.cli.conftest import call
from tests.export.victims import execute, kill_when
from tests.exporters.postgres.databases import as_role, export_database, run_sql
from tests.exporters.postgres.test_resume import SMALL_CHUNK, parts_done
from tests.tools.bundles import read_bundle, restore_from

SOURCE = """
CREATE FUNCTION tight(int) RETURNS bool LEAKPROOF LANGUAGE sql AS 'SELECT true';
CREATE TABLE parent (a int PRIMARY KEY); CREATE TABLE child (a int CONSTRAINT of_parent REFERENCES parent);
SET session_replication_role = replica; INSERT INTO child VALUES (7); RESET session_replication_role;
CREATE FUNCTION ok(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE TABLE checked (a int CONSTRAINT untrue CHECK (ok(a))); INSERT INTO checked VALUES (5);
CREATE OR REPLACE FUNCTION ok(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE TABLE copies (a int); INSERT INTO copies VALUES (1), (1);
CREATE FUNCTION one() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE TABLE computed (a int, b int GENERATED ALWAYS AS (a + one()) STORED); INSERT INTO computed VALUES (1);
CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2';
CREATE TABLE big AS SELECT n AS id, repeat(md5(n::text), 4) AS t FROM generate_series(1, 20000) n;
CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION f();
"""
BY_STEP = {
    "pre-data": "FUNCTION public.tight(integer)",
    "rows": 'check "untrue" of TABLE public.checked for rows that are there',
    "post-data": "FK CONSTRAINT public.child of_parent for rows that are there",
    "comparison": 'the values of "public"."computed"."b"',
    "last": "EVENT TRIGGER et",
}
_WHILE_ROWS = """
from migrate.restore.postgres.rows import load_rows as sql_rows
from tests.exporters.postgres.test_resume import parts_done
real = sql_rows.RowWriter._copy
def slow(self, attempt, types):
    time.sleep(60 if parts_done(sys.argv[2]) >= 6 else 0.2 * (attempt.part.table.name == "big"))
    real(self, attempt, types)
sql_rows.RowWriter._copy = slow
"""
_WHILE_COMPARING = """
from migrate.restore.postgres import row_steps
def wait(*_, **__):
    Path(sys.argv[3]).touch()
    time.sleep(60)
row_steps.digest_tables = wait
"""
_RESTORE = """
import sys
import time
from pathlib import Path
from migrate.runtime.progress import Silent
from tests.tools.bundles import restore_from
from tests.tools.bundles import read_bundle
{slow}
restore_from(read_bundle(Path(sys.argv[1])), "app", sys.argv[2], workers=2, progress=Silent())
"""


@pytest.fixture(scope="module")
def renter(other_postgres) -> str:
    """A role that may make no leakproof function and no event trigger."""
    run_sql(other_postgres.url, f"CREATE ROLE renter LOGIN PASSWORD '{other_postgres.password}'")
    return "renter"


@pytest.fixture
def destination(other_postgres, renter, monkeypatch) -> str:
    """A fresh database of that role."""
    url = other_postgres.database()
    run_sql(
        url,
        f"ALTER DATABASE {url.rpartition('/')[2]} OWNER TO renter; ALTER SCHEMA public OWNER TO renter;"
        " GRANT SET ON PARAMETER session_replication_role TO renter",
    )
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    return as_role(url, renter)


@pytest.fixture(scope="module")
def bundle(postgres, tmp_path_factory):
    url, location = postgres.database(), tmp_path_factory.mktemp("left-out") / "bundle"
    run_sql(url, SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_plan, "CHUNK_BYTES", SMALL_CHUNK)
        assert export_database(url, location).complete
    return location


def restore(bundle, destination, *only, **options):
    return restore_from(read_bundle(bundle), "app", destination, workers=2, only=only, **options)


def names(outcome) -> list[str]:
    assert outcome.findings == ()
    return sorted(one.partition(":")[0] for one in outcome.left_out)


def test_a_restore_that_was_killed_or_is_repeated_names_what_it_left_out(bundle, destination, tmp_path):
    script = _RESTORE.format(slow=_WHILE_ROWS)
    kill_when(lambda: parts_done(destination) >= 6, execute, script, str(bundle), destination)
    compares = tmp_path / "compares"
    script = _RESTORE.format(slow=_WHILE_COMPARING)
    kill_when(compares.exists, execute, script, str(bundle), destination, str(compares))
    ended = restore(bundle, destination)
    assert names(ended) == sorted(BY_STEP.values())
    again = restore(bundle, destination)
    assert (names(again), again.size_bytes) == (names(ended), 0)
    assert "DROP TABLE moveout_restore.finished" in again.notes[-1]
    run_sql(destination, "INSERT INTO parent VALUES (1)")
    changed = restore(bundle, destination)
    assert changed.findings == ('"public"."parent": expected 0 rows, found 1',)
    assert changed.left_out == ended.left_out


def test_each_part_of_a_database_has_its_own_record_until_it_is_dropped(bundle, destination):
    schema = restore(bundle, destination, "schema")
    assert names(schema) == sorted([BY_STEP["pre-data"], BY_STEP["last"]])
    assert names(restore(bundle, destination, "schema")) == names(schema)
    data = restore(bundle, destination, "data")
    assert names(data) == sorted([BY_STEP["rows"], BY_STEP["comparison"]])
    assert set(names(restore(bundle, destination))) == {*names(schema), *names(data)}
    run_sql(destination, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    assert set(names(restore(bundle, destination))) == set(BY_STEP.values())


def moveout(*words: object) -> tuple[int, dict]:
    ended = call(*words, "--json", "--quiet")
    return ended.code, ended.json["result"]


def test_verify_names_what_a_restore_left_out_instead_of_all_rows_and_objects(bundle, destination, tmp_path):
    account = ["--report-to", tmp_path / "account"]
    code, restored = moveout("restore", bundle, f"app={destination}", *account)
    assert (code, len(restored["restored"][0]["left_out"])) == (3, 5)
    code, again = moveout("restore", bundle, f"app={destination}", *account)
    assert (code, again["restored"][0]["left_out"]) == (3, restored["restored"][0]["left_out"])
    code, verified = moveout("verify", bundle, "--against", f"app={destination}")
    (compared,) = verified["compared"]
    assert (code, compared["findings"]) == (3, [])
    assert compared["left_out"] == restored["restored"][0]["left_out"]
    later = add_result(Later(), "restore", restored, restored["bundle"])
    assert [check.left_out for check in later.checks] == [restored["restored"][0]["left_out"]]
    run_sql(destination, "UPDATE computed SET a = 9; UPDATE big SET t = 'other' WHERE id = 5")
    code, verified = moveout("verify", bundle, "--against", f"app={destination}")
    assert code == 6
    assert [one["key"] for one in verified["compared"][0]["findings"]] == [
        '"public"."big"',
        '"public"."computed"',
    ]


def test_a_repeated_restore_of_definitions_alone_finds_all_of_them(
    postgres, other_postgres, request, tmp_path
):
    """Neither relations nor routines are among them, which tell elsewhere that something is in the way."""
    source, fresh = postgres.database(), other_postgres.database()
    run_sql(
        source,
        "CREATE SCHEMA s; CREATE TYPE s.pair AS (a int, b text); COMMENT ON SCHEMA s IS 'of types';"
        " CREATE OPERATOR s.=== (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int);"
        " CREATE COLLATION s.plain (LOCALE = 'C'); CREATE OPERATOR FAMILY s.many USING btree;"
        " CREATE CONVERSION s.of_latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;"
        " CREATE TEXT SEARCH CONFIGURATION s.words (COPY = simple); CREATE CAST (s.pair AS text) WITH INOUT;"
        " CREATE FOREIGN DATA WRAPPER far; CREATE SERVER there FOREIGN DATA WRAPPER far; CREATE PUBLICATION every",
    )
    assert export_database(source, tmp_path / "bundle").complete
    for _ in range(2):
        outcome = restore(tmp_path / "bundle", fresh, password=other_postgres.password)
        assert names(outcome) == []
    assert any("holds every object" in note for note in outcome.routine), outcome.routine
    destination = request.getfixturevalue("destination")
    as_renter = [restore(tmp_path / "bundle", destination) for _ in range(2)]
    assert names(as_renter[0]) == names(as_renter[1]) != []
    run_sql(fresh, "DROP TYPE s.pair CASCADE")
    assert "SCHEMA s" in names(restore(tmp_path / "bundle", fresh)), (
        "not all is there: what is in the way is named"
    )
