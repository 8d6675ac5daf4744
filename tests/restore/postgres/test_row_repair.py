"""What a repair of a PostgreSQL database does where its server goes away, or refuses what it writes."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from exporters.errors import SourceUnreachableError
from migrate.case.model import Endpoint
from migrate.repair.live_repair import repair_from_source
from migrate.restore.postgres import destination
from migrate.restore.postgres.row_repair import open_repair
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.waiting import eventually

END_WAITING = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'SELECT pg_try_advisory_lock%'
"""


def test_a_server_that_goes_away_while_a_repair_begins_cannot_be_reached(postgres):
    url = postgres.database()

    def begin():
        with open_repair(url, {}):
            pass

    with psycopg.connect(url, autocommit=True) as other, ThreadPoolExecutor(1) as threads:
        other.execute("SELECT pg_advisory_lock(%s)", (destination._LOCK,))
        begun = threads.submit(begin)
        eventually(lambda: other.execute(END_WAITING).fetchall())
        with pytest.raises(SourceUnreachableError):
            begun.result()


def test_a_publication_that_refuses_to_delete_rows_keeps_none(postgres, other_postgres):
    """Nothing identifies the rows of these tables, so the server would take no DELETE that it has to publish."""
    source, destination = postgres.database(), other_postgres.database()
    for url in (source, destination):
        run_sql(
            url,
            "CREATE TABLE loose (a int, b text); INSERT INTO loose SELECT n, 'b' FROM generate_series(1, 9) n;"
            " CREATE TABLE whole (a int) PARTITION BY LIST (a); CREATE TABLE part PARTITION OF whole DEFAULT;"
            " INSERT INTO whole VALUES (1), (2); CREATE PUBLICATION every FOR ALL TABLES;"
            " CREATE PUBLICATION few FOR TABLE loose, whole WITH (publish = 'insert, delete')",
        )
    run_sql(
        source,
        "DROP PUBLICATION every, few; DELETE FROM loose WHERE a > 3; UPDATE loose SET b = 'c';"
        " DELETE FROM whole WHERE a = 1",
    )
    published = "SELECT pubname, pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication ORDER BY 1"
    before = fetch(destination, published)
    repaired = repair_from_source(Endpoint(source), Endpoint(destination))
    assert [table.reason for table in repaired.tables] == ["", ""]
    for table in ("loose", "whole"):
        query = f"SELECT * FROM {table} ORDER BY 1"
        assert fetch(destination, query) == fetch(source, query)
    assert fetch(destination, published) == before


def test_a_publication_of_tables_that_the_role_may_not_see_refuses_nothing(other_postgres, monkeypatch):
    source, destination = other_postgres.database(), other_postgres.database()
    monkeypatch.setenv("PGPASSWORD", other_postgres.password)
    for url in (source, destination):
        run_sql(url, "CREATE TABLE loose (a int); INSERT INTO loose VALUES (1), (2)")
    run_sql(source, "DELETE FROM loose WHERE a = 2")
    run_sql(
        destination,
        f"DROP ROLE IF EXISTS row_mender; CREATE ROLE row_mender LOGIN PASSWORD '{other_postgres.password}';"
        " ALTER TABLE loose OWNER TO row_mender; GRANT ALL ON SCHEMA public TO row_mender; CREATE SCHEMA hidden;"
        " CREATE TABLE hidden.t (a int); CREATE PUBLICATION every FOR TABLE hidden.t",
    )
    run_sql(destination, f"GRANT ALL ON DATABASE {destination.rpartition('/')[2]} TO row_mender")
    row_mender = destination.replace("postgres@", "row_mender@", 1)
    repaired = repair_from_source(
        Endpoint(source), Endpoint(row_mender), chosen=lambda label: "loose" in label
    )
    assert [table.reason for table in repaired.tables] == [""]
    assert fetch(destination, "SELECT a FROM loose") == [(1,)]


@pytest.mark.timeout(60, func_only=True)
def test_a_rule_that_acts_on_replicas_is_named_and_waits_for_nobody(postgres, other_postgres):
    """To disable it takes a lock that the repair's own readers keep away."""
    source, destination = postgres.database(), other_postgres.database()
    for url in (source, destination):
        run_sql(
            url,
            "CREATE TABLE kept (a int); CREATE RULE forever AS ON DELETE TO kept DO INSTEAD NOTHING;"
            " CREATE TABLE noted (a int); CREATE RULE noting AS ON INSERT TO noted DO INSTEAD NOTHING;"
            " ALTER TABLE kept ENABLE ALWAYS RULE forever; ALTER TABLE noted ENABLE ALWAYS RULE noting",
        )
    assert repair_from_source(Endpoint(source), Endpoint(destination)).tables == [], "both are equal"
    run_sql(destination, "INSERT INTO kept VALUES (1)")
    run_sql(source, "COPY noted FROM PROGRAM 'echo 7'")
    repaired = repair_from_source(Endpoint(source), Endpoint(destination))
    (reason,) = [table.reason for table in repaired.tables if table.reason]
    assert 'ALTER TABLE "public"."kept" DISABLE RULE "forever"' in reason
    assert fetch(destination, "SELECT * FROM noted") == [(7,)]
    run_sql(destination, "ALTER TABLE kept DISABLE RULE forever")
    assert [table.reason for table in repair_from_source(Endpoint(source), Endpoint(destination)).tables] == [
        ""
    ]
    assert fetch(destination, "SELECT * FROM kept") == []


def test_rows_of_a_table_with_a_per_cent_sign_in_its_name_are_removed(postgres, other_postgres):
    source, destination = postgres.database(), other_postgres.database()
    for url in (source, destination):
        run_sql(url, 'CREATE TABLE "100 %s" (a int); INSERT INTO "100 %s" VALUES (1), (2)')
    run_sql(source, 'DELETE FROM "100 %s" WHERE a = 1')
    assert [table.reason for table in repair_from_source(Endpoint(source), Endpoint(destination)).tables] == [
        ""
    ]
    assert fetch(destination, 'SELECT * FROM "100 %s"') == [(2,)]
