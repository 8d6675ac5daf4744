"""Rows that violate the definition of their table: a program has changed that, or an index is damaged."""

import sqlite3
from contextlib import closing
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from migrate.restore.sqlite.definitions import without_requirements
from tests.exporters.sqlite.databases import everything, export_file, restore_file, schema_of

OTHER = "CREATE TABLE other (a); INSERT INTO other VALUES (1);"
REDEFINED = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = '{}' WHERE name = 't'"


def make(path, script):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OTHER + script)
        connection.commit()
    return path


NULL = "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, NULL), (2, 3);" + REDEFINED.format(
    "CREATE TABLE t (a, b NOT NULL ON CONFLICT IGNORE CHECK (b NOT NULL))"
)
OTHER_TYPES = """
CREATE TABLE t (a INT PRIMARY KEY, any ANY NOT NULL, c ANY) STRICT, WITHOUT ROWID;
INSERT INTO t VALUES (1, '1', '2'), (2, 1.0, X'00'); ALTER TABLE t ADD COLUMN d BLOB DEFAULT 'd';
ALTER TABLE t ADD COLUMN e INT DEFAULT 'd'; ALTER TABLE t ADD COLUMN f TEXT DEFAULT 5
"""


@pytest.mark.parametrize("script", [NULL, OTHER_TYPES])
def test_rows_that_violate_their_definition_come_as_they_were(script, tmp_path):
    source = make(tmp_path / "old.db", script)
    export_file(source, tmp_path / "bundle")
    outcome = restore_file(tmp_path / "bundle", tmp_path / "new.db")
    assert (outcome.findings, outcome.left_out) == ((), ())
    assert everything(tmp_path / "new.db") == everything(source)
    assert schema_of(tmp_path / "new.db") == schema_of(source)


def test_of_several_rows_of_one_key_the_others_are_left_out_and_named(tmp_path):
    rows = "CREATE TABLE t (a PRIMARY KEY, b); INSERT INTO t VALUES (1, 1), (2, 1), (3, 2);"
    source = make(tmp_path / "old.db", rows + REDEFINED.format("CREATE TABLE t (a, b PRIMARY KEY)"))
    export_file(source, tmp_path / "bundle")
    for _ in range(2):
        outcome = restore_file(tmp_path / "bundle", tmp_path / "new.db")
        (refused,) = outcome.left_out
        assert "1 of 3 rows" in refused
        assert refused.endswith("UNIQUE constraint failed: t.b")
        assert outcome.findings == ('"main"."t": expected 3 rows, found 2',)
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        assert connection.execute("SELECT * FROM other").fetchall() == [(1,)]
        assert connection.execute("SELECT * FROM t NOT INDEXED").fetchall() == [(1, 1), (3, 2)]


def test_a_row_that_its_definition_refuses_comes_also_where_another_is_left_out_for_its_key(tmp_path):
    rows = "CREATE TABLE t (a PRIMARY KEY, b, c); INSERT INTO t VALUES (1, 1, 1), (2, 1, 1), (3, 2, NULL);"
    source = make(
        tmp_path / "old.db", rows + REDEFINED.format("CREATE TABLE t (a, b PRIMARY KEY, c NOT NULL)")
    )
    export_file(source, tmp_path / "bundle")
    assert "1 of 3 rows" in restore_file(tmp_path / "bundle", tmp_path / "new.db").left_out[0]
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        assert connection.execute("SELECT * FROM t NOT INDEXED").fetchall() == [(1, 1, 1), (3, 2, None)]
    assert schema_of(tmp_path / "new.db") == schema_of(source)


@pytest.mark.parametrize(
    ("definition", "relaxed"),
    [
        (
            "CREATE TABLE t(a NOT NULL, b NOT/**/NULL ON CONFLICT FAIL UNIQUE)",
            "CREATE TABLE t(a , b  UNIQUE)",
        ),
        (
            'CREATE TABLE t(x ANY, \'ANY\' ANY, "NOT" "NULL", CHECK(x NOT NULL)) STRICT',
            'CREATE TABLE t(x BLOB, \'ANY\' BLOB, "NOT" "NULL", CHECK(x NOT NULL))',
        ),
        (
            "CREATE TABLE t(a ANY PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE t(a ANY PRIMARY KEY) WITHOUT ROWID",
        ),
    ],
)
def test_only_what_is_required_of_rows_goes_from_a_definition(definition, relaxed):
    assert without_requirements(definition) == relaxed


VALUES = (pa.array([Decimal(1)]), pa.array([2**64 - 1], pa.uint64()), pa.array([2**62], pa.timestamp("ns")))


@pytest.mark.parametrize("values", VALUES)
def test_a_part_with_values_that_sqlite_does_not_have_is_damage_and_the_rest_comes(tmp_path, values):
    source = make(tmp_path / "old.db", "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    export_file(source, tmp_path / "bundle")
    (part,) = (tmp_path / "bundle/data").rglob("*.t/part-*.parquet")
    table = pq.read_table(part)
    number = table.schema.get_field_index("a")
    field = pa.field("a", values.type, metadata=table.schema.field(number).metadata)
    pq.write_table(table.set_column(number, field, values), part)
    outcome = restore_file(tmp_path / "bundle", tmp_path / "new.db")
    assert any(part.name in str(finding) for finding in outcome.findings), outcome
    assert everything(tmp_path / "new.db")["other"] == everything(source)["other"]


@pytest.mark.parametrize("name", ["nope", "b"])
def test_a_part_with_a_column_that_its_table_has_not_or_twice_is_damage_and_the_rest_comes(tmp_path, name):
    source = make(tmp_path / "old.db", "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)")
    export_file(source, tmp_path / "bundle")
    (part,) = (tmp_path / "bundle/data").rglob("*.t/part-*.parquet")
    table = pq.read_table(part)
    columns = [
        field.with_name(name if field.name == "a" else field.name).with_metadata(field.metadata)
        for field in table.schema
    ]
    pq.write_table(pa.Table.from_arrays(table.columns, schema=pa.schema(columns)), part)
    outcome = restore_file(tmp_path / "bundle", tmp_path / "new.db")
    assert any(part.name in finding and repr(name) in finding for finding in outcome.findings), outcome
    assert everything(tmp_path / "new.db")["other"] == everything(source)["other"]
