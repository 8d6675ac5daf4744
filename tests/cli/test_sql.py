"""``moveout sql``: the tables of a bundle answer queries, at any location, and give away nothing else."""

import contextlib
import io
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from migrate.browse import sql_query
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.cli.sql import Selected
from migrate.errors import DamageError
from migrate.storage.registry import open_location
from tests.cli.conftest import call, result
from tests.export.test_real_sources import forge
from tests.tools.clients import boto_client
from tests.tools.terminal import console_in_memory

POSTS = 3000
VALUES = """SELECT [1, 2.5] AS l, {'a': 'x'} AS s, 'nan'::DOUBLE AS d, 0.1::DOUBLE AS e, 1.50::DECIMAL(4,2) AS c,
  'ab'::BLOB AS b, TIMESTAMPTZ '2024-01-01 01:00:00+01' AS t, DATE 'infinity' AS i, NULL AS n, true AS y"""


def database(path, name="posts"):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f'CREATE TABLE "{name}" (id INTEGER PRIMARY KEY, title TEXT, score REAL)')
        rows = ((n, f"post {n}", n / 4 if n else "none") for n in range(POSTS))
        connection.executemany(f'INSERT INTO "{name}" VALUES (?, ?, ?)', rows)
        connection.execute("CREATE TABLE empty (n)")
        connection.commit()
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A bundle of one source."""
    folder = tmp_path_factory.mktemp("alone")
    database(folder / "app.db")
    assert call("export", f"app=sqlite://{folder}/app.db", "--to", folder / "bundle").code == 0
    return folder / "bundle"


@pytest.fixture(scope="module")
def several(minio, make_bucket, tmp_path_factory):
    """A bundle of two databases and a bucket, at a MinIO; one of them is called like a catalog of DuckDB's."""
    folder, name = tmp_path_factory.mktemp("several"), make_bucket(minio)
    boto_client(minio.profile).put_object(Bucket=name, Key="posts/7", Body=b"seven")
    sources = [f"{one}=sqlite://{database(folder / one)}" for one in ("app", "temp")]
    location = f"s3://{make_bucket(minio)}/bundle?profile={minio.profile}"
    assert call("export", *sources, f"media=s3://{name}?profile={minio.profile}", "--to", location).code == 0
    return location


def test_a_query_is_answered_as_table_json_and_csv(alone):
    query = 'SELECT id, title, score, "score$exact" FROM Posts WHERE id < 2 ORDER BY id'
    answer = result("sql", alone, query)
    assert [column["name"] for column in answer["columns"]] == ["id", "title", "score", "score$exact"]
    assert (answer["rows"], answer["more"]) == (
        [[0, "post 0", None, "tnone"], [1, "post 1", 0.25, None]],
        False,
    )
    shown = call("sql", alone, query).out
    assert "score$exact" in shown
    assert "2 rows" in shown
    written = call("sql", alone, query, "--csv").out
    assert written.splitlines() == ["id,title,score,score$exact", "0,post 0,,tnone", "1,post 1,0.25,"]


def test_rows_are_limited_unless_they_are_written_as_csv(alone):
    answer = result("sql", alone, "FROM posts", "--limit", 5)
    assert (len(answer["rows"]), answer["more"]) == (5, True)
    assert len(result("sql", alone, "FROM posts")["rows"]) == 1000
    assert "--limit N shows them" in call("sql", alone, "FROM posts").out
    assert len(call("sql", alone, "FROM posts", "--csv").out.splitlines()) == POSTS + 1
    assert len(call("sql", alone, "FROM posts", "--csv", "--limit", 3).out.splitlines()) == 4


def test_values_are_what_json_can_hold(alone):
    (row,) = result("sql", alone, VALUES)["rows"]
    text = "2024-01-01 00:00:00+00"
    assert row == [[1.0, 2.5], {"a": "x"}, "nan", 0.1, "1.50", "YWI=", text, "infinity", None, True]


def test_sources_are_catalogs_and_a_location_on_s3_is_read_through_our_storage(several):
    join = """SELECT a.title, o.size FROM app.main.posts a JOIN temp_.posts t USING (id)
      JOIN media.objects o ON o.key = 'posts/' || a.id"""
    assert result("sql", several, join)["rows"] == [["post 7", 5]]
    names = result("sql", several, "SELECT database, name FROM (SHOW ALL TABLES) ORDER BY ALL")["rows"]
    tables = [[source, name] for source in ("app", "temp_") for name in ("empty", "posts")]
    assert names == sorted([*tables, ["media", "objects"]])


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('{bundle}/data/catalog.parquet')",
        "SELECT * FROM read_text('bundle://../stray')",
        "SELECT * FROM read_blob('bundle://meta/bundle.json')",
        "SELECT * FROM read_parquet('bundle://data/app/tables/stray.parquet')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM sys",
        "COPY (SELECT 1) TO '{bundle}/data/written.csv'",
        "CREATE TABLE t AS SELECT 1",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "ATTACH '{bundle}/new.db'",
        "SELECT 1; SELECT 2",
        "SELECT 1) AS a, (SELECT 2",
        "",
    ],
)
def test_nothing_but_the_bundle_is_read_and_nothing_is_written(alone, query):
    stray = alone / "data/app/tables/stray.parquet"
    pq.write_table(pa.table({"n": [1]}), stray)
    before = sorted(alone.rglob("*"))
    try:
        ended = call("sql", alone, query.format(bundle=alone))
        if ended.code == 0:  # a pattern that finds nothing is no error in DuckDB
            assert "0 rows" in ended.out
        else:
            assert ended.code == 2, ended.err
            assert "→" in ended.err
        assert sorted(alone.rglob("*")) == before
    finally:
        stray.unlink()


def test_no_statement_opens_what_is_closed(alone):
    """Settings are locked by the time the query runs, whoever gets past the check of its kind."""
    with sql_query.connected(BundleReader(open_location(str(alone))), "SELECT 1") as (duck, _):
        for statement in (
            "SET enable_external_access = true",
            "SET allowed_directories = ['/']",
            "LOAD httpfs",
        ):
            with pytest.raises(duckdb.Error, match=r"locked|disabled"):
                duck.execute(statement)


def test_a_damaged_part_is_damage_and_is_named(alone, tmp_path):
    files = {str(path.relative_to(alone)): path.read_bytes() for path in alone.rglob("*") if path.is_file()}
    (key,) = [one for one in files if "posts/part" in one and one.endswith("000.parquet")]
    store = open_location(str(tmp_path / "damaged"))
    for name, data in {**files, key: files[key][:-8] + b"\0" * 8}.items():
        store.put(name, data)
    ended = call("sql", tmp_path / "damaged", "FROM posts")
    assert (ended.code, key in ended.err) == (6, True), ended.err
    store.delete(key)
    ended = call("sql", tmp_path / "damaged", "FROM posts")
    assert (ended.code, f"{key}: expected a file, found none" in ended.err) == (6, True), ended.err
    assert call("sql", tmp_path / "damaged", "FROM empty").code == 0


def test_a_catalog_cannot_name_files_that_the_manifest_does_not_have(alone, tmp_path):
    files = {str(path.relative_to(alone)): path.read_bytes() for path in alone.rglob("*") if path.is_file()}
    catalog = pq.read_table(io.BytesIO(files[layout.CATALOG]))
    details = [text.replace('"tables/', '"elsewhere/') for text in catalog["details"].to_pylist()]
    at = catalog.schema.get_field_index("details")
    catalog = catalog.set_column(at, catalog.schema.field(at), pa.array(details, pa.string()))
    out = io.BytesIO()
    pq.write_table(catalog, out)
    store = open_location(str(tmp_path / "forged"))
    forge(store, {**files, layout.CATALOG: out.getvalue()})
    with pytest.raises(DamageError, match="that are in the manifest"), contextlib.ExitStack() as stack:
        stack.enter_context(sql_query.run(BundleReader(store), "FROM posts", as_json=False))


def test_a_row_that_is_wider_than_the_terminal_is_shown_by_a_line_for_each_value():
    rows = [("1", "x" * 30, None), ("2", "two\nlines", "")]
    selected = Selected("here", ["id", "title", "score"], ["BIGINT"] * 3, rows, more=False)
    console, written = console_in_memory(40)
    selected.draw(console)
    assert written.getvalue().splitlines() == [
        *("row 1", "id     1", f"title  {'x' * 30}", "score  NULL"),
        *("row 2", "id     2", "title  two\\nlines", "score  ", "2 rows"),
    ]
    wide, shown = console_in_memory(80)
    selected.draw(wide)
    assert "row 1" not in shown.getvalue()


def test_a_misspelled_table_is_an_error_with_a_suggestion(alone):
    ended = call("sql", alone, "FROM psots")
    assert (ended.code, "posts" in ended.err, "moveout ls" in ended.err) == (2, True, True)


def test_without_duckdb_the_error_says_how_to_install_it(alone):
    code = "import sys; sys.modules['duckdb'] = None; from migrate.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "sql", alone, "SELECT 1"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "duckdb" in done.stderr, "pip install 'moveout[sql]'" in done.stderr) == (
        2,
        True,
        True,
    )


def test_a_long_query_ends_with_ctrl_c(alone):
    """DuckDB looks at signals by itself, and ended minutes later, as a defect."""

    def stop(*_):
        raise KeyboardInterrupt

    reader = BundleReader(open_location(str(alone)))
    query = "SELECT count(*) FROM range(100000000000)"
    before = signal.signal(signal.SIGINT, stop)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt), contextlib.ExitStack() as stack:
            stack.enter_context(sql_query.run(reader, query, as_json=False))
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
