"""Generated columns whose function was changed since: the destination's values are others, which is said by name."""

import pyarrow.parquet as pq

from migrate.storage.registry import open_location
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.bundles import differences, restore_from

CHANGED = """
CREATE FUNCTION weighed(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE TABLE sound (id int, g int GENERATED ALWAYS AS (id + 1) STORED); INSERT INTO sound VALUES (1), (2);
CREATE TABLE stale (id int, t text, g int GENERATED ALWAYS AS (weighed(id)) STORED) PARTITION BY LIST (id);
CREATE TABLE stale_1 PARTITION OF stale FOR VALUES IN (1); CREATE TABLE stale_2 PARTITION OF stale DEFAULT;
INSERT INTO stale VALUES (1, 'a'), (2, E'b,\\n');
CREATE TABLE alone (id int GENERATED ALWAYS AS (weighed(3)) STORED); INSERT INTO alone DEFAULT VALUES;
CREATE OR REPLACE FUNCTION weighed(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 3';
"""


def test_what_the_destination_computes_otherwise_is_a_loss_by_name(exported, other_postgres, tmp_path):
    _, reader = exported(CHANGED)
    destination = other_postgres.database()
    outcome = restore_from(
        reader, "app", destination, workers=2, report=open_location(str(tmp_path / "kept"))
    )
    assert outcome.findings == ()
    labels = [f'"public".{name}' for name in ('"alone"."id"', '"stale_1"."g"', '"stale_2"."g"')]
    assert [one.partition(":")[0] for one in outcome.left_out] == [f"the values of {one}" for one in labels]
    losses = pq.read_table(tmp_path / "kept/app/losses.parquet").to_pylist()
    assert [loss["item"] for loss in losses if loss["property"] == "generated values"] == labels
    assert fetch(destination, "SELECT g FROM stale ORDER BY id") == [(3,), (6,)]
    differing = {one.key for one in differences(reader, destination)}
    assert differing == {'"public"."alone"', '"public"."stale_1"', '"public"."stale_2"'}


def test_another_difference_is_still_a_finding(exported, other_postgres, monkeypatch):
    _, reader = exported(CHANGED)
    destination = other_postgres.database()
    from migrate.restore.postgres.definitions import after_rows

    real = after_rows.complete

    def and_spoil(job, done):
        script = real(job, done)
        run_sql(destination, "UPDATE stale SET t = 'other' WHERE id = 2")
        return script

    monkeypatch.setattr(after_rows, "complete", and_spoil)
    outcome = restore_from(reader, "app", destination)
    assert [one.partition(":")[0] for one in outcome.findings] == ['"public"."stale_2"']
    assert [one for one in outcome.left_out if "stale_2" in one] == []
