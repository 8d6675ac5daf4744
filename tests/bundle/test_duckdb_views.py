"""Every source has a script that shows its tables in DuckDB, under their names."""

import json
import os
import subprocess
import sys
from contextlib import closing

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.duckdb_views import schemas_of, script, views_of
from migrate.bundle.reader import BundleReader
from migrate.storage.registry import open_location
from tests.cli.conftest import call
from tests.tools.clients import boto_client

MIXED = """
CREATE TABLE "Mixed" (id INTEGER PRIMARY KEY, v REAL);
INSERT INTO "Mixed" VALUES (1, 1.5), (2, 'text'), (3, NULL);
CREATE TABLE "a""b'; DROP TABLE x; --" (n);
INSERT INTO "a""b'; DROP TABLE x; --" VALUES (7);
CREATE TABLE "select" (n);
CREATE TABLE "line
.shell touch obeyed" (n);
"""


def table(number, schema, name, directory=None, exact=()):
    directory = directory or f"tables/{number:04d}"
    details = {
        "columns": [{}],
        "exact": list(exact),
        "parts": [{"name": f"{directory}/0.parquet", "rows": 1}],
    }
    return CatalogRow("app", "table", number, schema, name, directory, 1, 0, "", {}, details)


def views(folder, text):
    """What is read of every view that the script makes, by schema and name."""
    code = """if True:
        import duckdb, json, sys
        duckdb.execute(sys.stdin.read())
        names = duckdb.sql("SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        quoted = ['"' + name.replace('"', '""') + '"' for _, name in names]
        rows = [duckdb.sql(f'FROM "{schema}".{name}').fetchall()
                for (schema, _), name in zip(names, quoted)]
        print(json.dumps([[*name, some] for name, some in zip(names, rows)]))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {(schema, name): rows for schema, name, rows in json.loads(done.stdout)}


def test_every_table_has_a_view_of_another_name(tmp_path):
    """DuckDB keeps some names for itself, and takes names for equal that differ by case only."""
    names = {
        ("social", "Posts"): ("social", "Posts"),
        ("social", "posts"): ("social", "posts_0002"),
        ("Social", "POSTS_0002"): ("social", "POSTS_0002_0003"),
        ("pg_catalog", "pg_largeobject"): ("pg_catalog_", "pg_largeobject"),
        ("TEMP", "t"): ("TEMP_", "t"),
        ("memory", "t"): ("memory_", "t"),
        ("", "t"): ("main", "t"),
        ("", ""): ("main", "_"),
        ('sch"ema', "a'b;\n-- c\x85"): ('sch"ema', "a'b;_-- c_"),
        ("social", "x_0012"): ("social", "x_0012"),
        ("social", "X"): ("social", "X"),
        ("social", "x"): ("social", "x_0012_"),
    }
    rows = [table(number, *name) for number, name in enumerate(names, 1)]
    for row in rows:
        path = tmp_path / layout.source_file("app", row.details["parts"][0]["name"])
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"n": [row.number]}), path)
    text = script("app", rows).decode()
    assert len(text.splitlines()) == 2 + len(names) + len({schema.lower() for schema, _ in names}) - 1 + 1
    view_rows = views(tmp_path, text.replace('"sch""ema"', '"odd"'))
    expected = {("odd" if schema == 'sch"ema' else schema, name) for schema, name in names.values()}
    assert set(view_rows) == expected
    assert [rows for _, rows in sorted(view_rows.items(), key=lambda one: one[1])] == [
        [[n]] for n in range(1, 13)
    ]


def test_a_table_that_shares_its_directory_is_read_file_by_file(tmp_path):
    """Not every part needs a side column."""
    (tmp_path / "data/app/shared").mkdir(parents=True)
    parts = [{"name": f"shared/{number}.parquet", "rows": 1} for number in range(3)]
    for number, part in enumerate(parts):
        columns = {"n": [number]} | ({"n$exact": ["one"]} if number else {})
        pq.write_table(pa.table(columns), tmp_path / layout.source_file("app", part["name"]))
    row = table(1, "", "t", exact=["n"])
    row.details["parts"] = parts[:2]
    text = script("app", [replace(row, directory="")]).decode()
    assert views(tmp_path, text) == {("main", "t"): [[0, None], [1, "one"]]}


def test_what_has_no_columns_or_no_parts_has_no_view():
    without = table(1, "s", "t")
    without.details["parts"].clear()
    no_columns = table(2, "s", "u")
    no_columns.details["columns"].clear()
    assert b"VIEW" not in script("app", [without, no_columns])
    assert [view.name for view in views_of([without, no_columns, table(3, "s", "v")])] == ["v"]


def test_views_of_several_bundles_are_told_apart_by_their_catalog():
    (view,) = views_of([table(1, "s", "t")])
    assert schemas_of([view], "bundle") == ['CREATE SCHEMA IF NOT EXISTS "bundle"."s";']
    one, two = (view.create(files, "bundle") for files in (["a"], ["a", "b'"]))
    assert one == """CREATE OR REPLACE VIEW "bundle"."s"."t" AS SELECT * FROM read_parquet('a');"""
    assert two.endswith("read_parquet(['a', 'b''']);")
    assert (
        replace(view, row=table(1, "s", "t", exact=["n"])).create(["a"]).endswith("union_by_name => true);")
    )


@pytest.fixture(scope="module")
def bundle(minio, make_bucket, tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    import sqlite3

    with closing(sqlite3.connect(folder / "app.db")) as connection, connection:
        connection.executescript(MIXED)
    name = make_bucket(minio)
    boto_client(minio.profile).put_object(Bucket=name, Key="a/b", Body=b"body")
    sources = [f"app=sqlite://{folder}/app.db", f"media=s3://{name}?profile={minio.profile}"]
    assert call("export", *sources, "--to", folder / "bundle").code == 0
    return folder / "bundle"


def test_the_scripts_are_sealed_and_show_values_and_exact_texts(bundle):
    keys = [file.key for file in BundleReader(open_location(str(bundle))).files()]
    assert {"data/app/duckdb.sql", "data/media/duckdb.sql"} <= set(keys)
    view_rows = views(bundle, (bundle / "data/app/duckdb.sql").read_text())
    assert view_rows["main", "Mixed"] == [[1, 1.5, None], [2, None, "ttext"], [3, None, None]]
    assert view_rows["main", "a\"b'; DROP TABLE x; --"] == [[1, 7]]
    assert view_rows["main", "select"] == view_rows["main", "line_.shell touch obeyed"] == []


def test_the_script_runs_from_elsewhere_and_shows_a_bucket(bundle):
    with duckdb.connect() as connection:
        connection.execute(f"SET file_search_path = '{bundle}'")
        connection.execute((bundle / "data/media/duckdb.sql").read_text())
        assert connection.sql("SELECT key, size FROM objects").fetchall() == [("a/b", 4)]
    assert not os.path.lexists("obeyed")
