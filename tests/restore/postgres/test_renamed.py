"""A database under another name: what names the old one itself is told, by name."""

import pyarrow.parquet as pq
import pytest

from migrate.storage.registry import open_location
from tests.exporters.postgres.databases import export_database, run_sql
from tests.tools.bundles import read_bundle, restore_from

OLD = "Old-Shop"
SCRIPT = f"""
CREATE TABLE goods (id int PRIMARY KEY, n int);
CREATE FUNCTION sum_of() RETURNS bigint LANGUAGE sql AS 'SELECT sum(n) FROM "{OLD}".public.goods';
CREATE FUNCTION innocent() RETURNS bigint LANGUAGE sql AS 'SELECT sum(n) FROM public.goods';
CREATE PROCEDURE sweep() LANGUAGE plpgsql AS $$BEGIN EXECUTE 'DELETE FROM "{OLD}".public.goods'; END$$;
ALTER DATABASE "{OLD}" SET work_mem = '5MB';
ALTER ROLE postgres IN DATABASE "{OLD}" SET app.token = 'hidden!';
"""


@pytest.fixture(scope="module")
def bundle(postgres, tmp_path_factory):
    url = postgres.database(OLD)
    run_sql(url, SCRIPT)
    location = tmp_path_factory.mktemp("renamed") / "bundle"
    assert export_database(url, location).complete
    return read_bundle(location)


def test_what_names_its_database_is_in_the_ledger(bundle, other_postgres, tmp_path):
    kept = open_location(str(tmp_path / "account"))
    destination = other_postgres.database()
    outcome = restore_from(bundle, "app", destination, report=kept)
    assert (outcome.findings, outcome.losses) == ((), 2)
    rows = pq.read_table(tmp_path / "account/app/losses.parquet").to_pylist()
    assert {row["item"] for row in rows} == {"function public.sum_of()", "procedure public.sweep()"}
    assert any(
        "is named by function public.sum_of(), procedure public.sweep()" in note for note in outcome.notes
    )


def test_under_the_same_name_there_is_nothing_to_tell(bundle, other_postgres):
    outcome = restore_from(bundle, "app", other_postgres.database(OLD))
    assert (outcome.findings, outcome.losses) == ((), 0)


def test_a_secret_setting_of_the_database_is_in_the_bundles_ledger(bundle):
    losses = {(loss.property, loss.reason) for _, loss in bundle.losses()}
    settings = {reason for name, reason in losses if name == "setting"}
    assert settings == {"app.token of role postgres looks like a secret; set it again on the destination"}
    assert "hidden!" not in str(losses)
