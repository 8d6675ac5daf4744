"""Blocks that the compiled core fetches hold what ``sqlite3`` reads: values, classes, digest, errors."""

import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters import _rows
from exporters.row_digest import RowsDigest
from exporters.sqlite.catalog import read_catalog, select
from exporters.sqlite.files import immutable_file
from exporters.sqlite.files.backup import open_file
from exporters.sqlite.rows.row_batches import FIRST_ROWS, Batch, fetched_blocks, read_batches
from exporters.sqlite.rows.typed_columns import KINDS, to_typed
from exporters.sqlite.rows.value_text import RawText, SqliteColumn, digest_columns, digest_few
from tests.exporters.sqlite.databases import export_file, insert_all, run_sql
from tests.tools.bundles import read_bundle
from tests.tools.tally import count

FUZZED = 20
"""Examples of each property in a usual run."""
TABLES = int(os.environ.get("MOVEOUT_TABLES", "5000"))
"""Tables of the long test."""

needs_core = pytest.mark.skipif(
    _rows.core is None, reason="NOT TESTED: the compiled core is not built here (no compiler, or turned off)"
)
INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 0, -1, 2**53 + 1])
REALS = st.floats(allow_nan=False) | st.sampled_from([float("inf"), float("-inf"), -0.0, 5e-324, 1.0])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["a\0b", ":", "r1", "é" * 9]
)
INVALID = st.binary(min_size=1, max_size=19).map(lambda data: RawText(data + b"\xff"))
BLOBS = st.binary(max_size=30)
CLASSES = {"integer": INTEGERS, "real": REALS, "text": TEXTS, "blob": BLOBS}
ANY = st.none() | INTEGERS | REALS | TEXTS | INVALID | BLOBS


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[tuple]]:
    """The kinds that columns are expected to have, and rows; some columns have other classes, too."""
    kinds = draw(st.lists(st.sampled_from(sorted(CLASSES)), min_size=1, max_size=6))
    others = st.sampled_from([st.nothing(), st.nothing(), st.nothing(), INTEGERS | REALS, ANY])
    columns = [st.none() | CLASSES[kind] | draw(others) for kind in kinds]
    rows = draw(st.lists(st.tuples(*columns), max_size=12))
    return kinds, rows * draw(st.sampled_from([1, 1, 60]))


def file_of(path, rows, columns):
    names = ", ".join(f"c{number}" for number in range(columns))
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"CREATE TABLE t ({names})")
        for row in rows:
            marks = ", ".join("CAST(? AS TEXT)" if type(value) is RawText else "?" for value in row)
            connection.execute(f"INSERT INTO t VALUES ({marks})", row)
        connection.commit()
    return path


def exact(row):
    return [(type(value), struct.pack("<d", value) if type(value) is float else value) for value in row]


def check_rows(path, kinds, rows, most):
    with closing(open_file(path, immutable=True)) as file:
        (table,) = read_catalog(file).tables
        blocks = list(fetched_blocks(file, select(table), [int, *(KINDS[kind] for kind in kinds)], most))
    rows_read = [row for block in blocks for row in zip(*(c.to_list() for c in block.columns), strict=True)]
    expected = [(number, *row) for number, row in enumerate(rows, 1)]
    assert list(map(exact, rows_read)) == list(map(exact, expected))
    assert sum((block.digest for block in blocks), RowsDigest()) == digest_few(expected)
    assert [block.digest.rows for block in blocks[1:-1]] == [most] * len(blocks[1:-1])
    for block in blocks:
        assert digest_columns(block.columns, block.digest.rows) == block.digest
        for column, kind in zip(block.columns, ["integer", *kinds], strict=True):
            check_column(column, SqliteColumn.of_values(column.to_list()), kind)
    count("generated tables")


def check_column(column, plain, kind):
    """A column in another form is measured, cut and typed like its values."""
    assert (column.octets, column.rows) == (plain.octets, plain.rows)
    assert column.head(2).to_list() == plain.head(2).to_list()
    for array, expected in zip(to_typed(column, kind), to_typed(plain, kind), strict=True):
        assert array == expected or array.equals(expected)


@needs_core
@settings(
    max_examples=FUZZED,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tables(), st.integers(1, 30))
def test_the_core_fetches_what_the_table_holds(tmp_path, table, most):
    kinds, rows = table
    check_rows(file_of(tmp_path / "a.db", rows, len(kinds)), kinds, rows, most)


@needs_core
@pytest.mark.torture
@settings(
    max_examples=TABLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tables(), st.integers(1, 300))
def test_the_core_fetches_what_many_tables_hold(tmp_path, table, most):
    kinds, rows = table
    check_rows(file_of(tmp_path / "a.db", rows, len(kinds)), kinds, rows, most)


SCHEMA = """
CREATE TABLE keyed (k TEXT PRIMARY KEY, v, w GENERATED ALWAYS AS (v || '!') VIRTUAL) WITHOUT ROWID;
INSERT INTO keyed (k, v) VALUES ('b', 1), ('a', 2.5), ('c', x'00ff'), ('d', CAST(x'ff' AS TEXT));
CREATE TABLE computed (a, b AS (a * 2), c TEXT AS (printf('%.*c', a, 'x')) STORED);
INSERT INTO computed (a) VALUES (1), (9007199254740993), (NULL);
CREATE TABLE mixed (a INTEGER, b REAL, c TEXT, d BLOB, e NUMERIC);
INSERT INTO mixed VALUES (1, 1, 1, 1, 1), ('x', 'x', 'x', 'x', 'x'), (1.5, 1.5, 1.5, 1.5, 1.5),
 (x'', x'', x'', x'', x''), (9e999, 9e999, 9e999, 9e999, 9e999), (NULL, NULL, NULL, NULL, NULL),
 (zeroblob(5), '', 'a' || char(0) || 'b', -0.0, '5');
CREATE TABLE rowid (rowid, oid, _rowid_); INSERT INTO rowid VALUES (3, 2, 1);
CREATE TABLE empty (a TEXT);
"""


def batches(path, monkeypatch, *, by_core):
    """All rows of all tables, and their digests; of blocks there are as many as there are tables with rows."""
    with monkeypatch.context() as patched, closing(open_file(path, immutable=True)) as file:
        if not by_core:
            patched.setattr(_rows, "core", None)
        return {
            table.name: [
                (
                    list(map(exact, zip(*(column.to_list() for column in batch.columns), strict=True))),
                    batch.digest(),
                )
                for batch in read_batches(file, table, (None, None), largest_bytes=1000)
            ]
            for table in read_catalog(file).tables
        }


@needs_core
def test_tables_of_every_kind_are_read_as_without_the_core(tmp_path, monkeypatch):
    path = run_sql(tmp_path / "a.db", SCHEMA)
    compiled = batches(path, monkeypatch, by_core=True)
    assert compiled == batches(path, monkeypatch, by_core=False)
    assert {name: len(found) for name, found in compiled.items()} == dict.fromkeys(compiled, 1) | {"empty": 0}


@needs_core
def test_only_ranges_of_rowids_are_fetched(tmp_path):
    path = run_sql(tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    numbers = [-(2**63), -5, 0, 1, 7, 2**63 - 1]
    insert_all(path, "t", [(number,) for number in numbers])
    with closing(open_file(path, immutable=True)) as file:
        (table,) = read_catalog(file).tables
        found = [
            number
            for bounds in ((None, 0), (0, 7), (7, None))
            for batch in read_batches(file, table, bounds, largest_bytes=100)
            for number in batch.columns[0].to_list()
        ]
    assert found == numbers


@needs_core
def test_large_rows_end_a_block(tmp_path):
    path = run_sql(tmp_path / "a.db", "CREATE TABLE t (v BLOB)")
    insert_all(path, "t", [(bytes([number]) * (3 << 20),) for number in range(7)])
    with closing(open_file(path, immutable=True)) as file:
        blocks = list(fetched_blocks(file, "SELECT v FROM t", [bytes], 100))
    assert [block.digest.rows for block in blocks] == [3, 3, 1]
    assert [value[0] for block in blocks for value in block.columns[0].to_list()] == list(range(7))


@needs_core
def test_an_error_is_the_one_that_python_s_module_raises(tmp_path):
    path = run_sql(tmp_path / "a.db", "CREATE TABLE t (a TEXT)")
    insert_all(path, "t", [(f"text {number:0500}",) for number in range(2000)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40960] = b"\xff" * 40960
    path.write_bytes(data)
    query = "SELECT a FROM t"
    with closing(open_file(path, immutable=True)) as file:
        with pytest.raises(sqlite3.DatabaseError) as by_module:
            file.execute(query).fetchall()
        with pytest.raises(sqlite3.DatabaseError) as by_core:
            list(fetched_blocks(file, query, [str], 100))
    assert by_core.value.sqlite_errorname == by_module.value.sqlite_errorname
    assert str(by_core.value) == str(by_module.value)


@needs_core
def test_what_the_core_cannot_prepare_is_left_to_python_s_module(tmp_path):
    path = run_sql(tmp_path / "a.db", "CREATE TABLE t (a TEXT)")
    with closing(open_file(path, immutable=True)) as file:
        file.create_function("own", 1, str)
        assert list(fetched_blocks(file, "SELECT own(a) FROM t", [str], 100)) == [None]


def test_without_the_library_rows_are_read_all_the_same(tmp_path, monkeypatch):
    path = run_sql(tmp_path / "a.db", SCHEMA)
    expected = batches(path, monkeypatch, by_core=False)
    monkeypatch.setattr(immutable_file, "_library", lambda: None)
    assert batches(path, monkeypatch, by_core=True) == expected


@needs_core
def test_a_file_can_be_removed_after_its_connection_is_closed(tmp_path):
    path = run_sql(tmp_path / "a.db", "CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('x')")
    file = open_file(path, immutable=True)
    blocks = fetched_blocks(file, "SELECT a FROM t", [str], 100)
    assert next(blocks).columns[0].to_list() == ["x"]
    file.close()
    assert list(blocks) == []
    assert path not in [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]


@needs_core
def test_what_the_core_is_given_wrongly_is_refused(tmp_path):
    assert _rows.core is not None
    with pytest.raises(ValueError, match="a statement and six functions"):
        _rows.core.sqlite_rows(b"short", b"l\0\0", 1)
    path = run_sql(tmp_path / "a.db", "CREATE TABLE t (a)")
    with closing(open_file(path, immutable=True)) as file, file.prepared("SELECT a FROM t") as pointers:
        for kinds in (b"l", b"sx\0", b"s\0\0"):
            with pytest.raises(ValueError, match="three bytes for each column"):
                _rows.core.sqlite_rows(pointers, kinds, 1)
        for kinds, most in ((b"", 1), (b"l\0\0", -1)):
            with pytest.raises(ValueError, match="a statement and six functions"):
                _rows.core.sqlite_rows(pointers, kinds, most)
        assert _rows.core.sqlite_rows(pointers, b"l\0\0", 2**40) == (None, False)


@needs_core
def test_a_chunk_is_proved_with_the_first_block_as_the_core_digests_it(tmp_path, monkeypatch):
    path = run_sql(tmp_path / "a.db", "CREATE TABLE t (a INTEGER)")
    insert_all(path, "t", [(number,) for number in range(FIRST_ROWS + 10)])
    monkeypatch.setattr(Batch, "digest", lambda batch: RowsDigest(batch.rows, 1))
    export_file(path, tmp_path / "bundle")
    (gap,) = read_bundle(tmp_path / "bundle").gaps()
    assert gap[1].reason == f"0 of {FIRST_ROWS + 10} rows were exported"
