"""Any value of any class in any column comes back as it was, and its digest is the same by every way."""

import sqlite3
import struct
from contextlib import closing

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.sqlite.catalog import read_catalog
from exporters.sqlite.rows.row_batches import digest_table
from exporters.sqlite.rows.typed_columns import KINDS, from_typed, to_typed
from exporters.sqlite.rows.value_text import (
    RawText,
    SqliteColumn,
    digest_columns,
    digest_few,
    row_texts,
    value_text,
)
from tests.exporters.sqlite.databases import (
    everything,
    export_file,
    fetch,
    insert_all,
    losses_of,
    restore_file,
    run_sql,
)

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(max_size=50),
    st.binary(min_size=1, max_size=9).map(lambda data: RawText(data + b"\xff")),
)
ONE_CLASS = st.sampled_from(
    [st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(), st.binary()]
)
COLUMNS = st.one_of(
    st.lists(VALUES, max_size=30), ONE_CLASS.flatmap(lambda one: st.lists(st.none() | one, max_size=30))
)


def exact(value):
    """Equal only for equal class and bits."""
    return (type(value), struct.pack("<d", value) if type(value) is float else value)


@given(COLUMNS, st.sampled_from(sorted(KINDS)))
def test_a_column_comes_back_from_any_type(values, kind):
    main, side = to_typed(SqliteColumn.of_values(values), kind)
    back = from_typed(main, side, kind).to_list()
    assert list(map(exact, back)) == list(map(exact, values))


@given(COLUMNS)
def test_texts_of_many_values_are_those_of_each(values):
    column = SqliteColumn.of_values(values)
    assert row_texts([column, column]) == [value_text(v) + b"," + value_text(v) for v in values]
    rows = [(value, value) for value in values]
    assert digest_columns([column, column], len(values)) == digest_few(rows)


@given(VALUES, VALUES)
def test_different_values_have_different_texts(one, other):
    assert (value_text(one) == value_text(other)) == (exact(one) == exact(other))


def test_what_is_equal_in_python_is_not_the_same_here():
    values = [1, 1.0, "1", b"1", RawText(b"1"), 0, 0.0, -0.0, "", b"", None]
    assert len({value_text(value) for value in values}) == len(values)


@pytest.mark.parametrize(
    "encoding",
    ["UTF-8", *(pytest.param(name, marks=pytest.mark.torture) for name in ("UTF-16le", "UTF-16be"))],
)
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), min_size=1, max_size=20))
def test_a_file_of_any_values_makes_the_round_trip(encoding, tmp_path_factory, rows):
    directory = tmp_path_factory.mktemp("any")
    path = run_sql(
        directory / "a.db", f"PRAGMA encoding = '{encoding}'; CREATE TABLE t (a INTEGER, b REAL, c TEXT, d)"
    )
    insert_all(path, "t", rows)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE t SET c = CAST(x'00d8' AS TEXT) WHERE rowid = 1")
    assert export_file(path, directory / "bundle").complete
    assert restore_file(directory / "bundle", directory / "b.db").findings == ()
    assert everything(directory / "b.db") == everything(path)


@pytest.mark.parametrize("encoding", ["UTF-16le", pytest.param("UTF-16be", marks=pytest.mark.torture)])
def test_text_that_sqlite_changes_on_its_way_to_utf_16_comes_back(encoding, tmp_path):
    """U+FFFE and U+FFFF, which it takes for U+FFFD in what it is handed in UTF-8; also in long rows."""
    path = run_sql(
        tmp_path / "a.db", f"PRAGMA encoding = '{encoding}'; CREATE TABLE t (a TEXT, b TEXT PRIMARY KEY, c)"
    )
    odd = "a\ufffeb\uffffc\ufdd0".encode(encoding.replace("16", "16-"))
    with closing(sqlite3.connect(path)) as connection, connection:
        for number, literal in enumerate((odd.hex(), "00d8", "6100")):
            connection.execute(
                f"INSERT INTO t VALUES (CAST(x'{literal}' AS TEXT), CAST(x'{literal}{odd.hex()}' AS TEXT), ?)",
                (number,),
            )
        connection.execute("INSERT INTO t SELECT a, b || 'x', ? FROM t WHERE c = 1", (bytes(9 << 20),))
        connection.execute(f"INSERT INTO t VALUES (CAST(x'{odd.hex() * (600 << 10)}' AS TEXT), 'long', NULL)")
    assert export_file(path, tmp_path / "bundle").complete
    assert restore_file(tmp_path / "bundle", tmp_path / "b.db").findings == ()
    query = (
        "SELECT hex(CAST(a AS BLOB)), hex(CAST(b AS BLOB)), typeof(a), typeof(b), length(c) FROM t ORDER BY 2"
    )
    assert fetch(tmp_path / "b.db", query) == fetch(path, query)


def test_integers_beside_reals_can_be_read_as_numbers_and_are_known_for_integers():
    main, side = to_typed(SqliteColumn.of_values([0.5, 2, 2**60]), "real")
    assert main.to_pylist() == [0.5, 2.0, None]
    assert side.to_pylist() == [None, "i2", f"i{2**60}"]
    assert pa.types.is_float64(main.type)


def test_a_large_value_and_many_columns(tmp_path):
    """Values of 9 MB; as many columns as there can be, without room for rowids: a loss names that."""
    with closing(sqlite3.connect(":memory:")) as connection:
        limit = connection.getlimit(sqlite3.SQLITE_LIMIT_COLUMN)
    names = ", ".join(f"c{n}" for n in range(limit))
    path = run_sql(
        tmp_path / "a.db",
        f"CREATE TABLE wide ({names}); INSERT INTO wide (c0, c{limit - 1}) VALUES (1, 'z');"
        "CREATE TABLE large (v); INSERT INTO large VALUES (randomblob(9000000)), (1), (printf('%.*c', 9000000, 'x'))",
    )
    assert export_file(path, tmp_path / "bundle").complete
    assert losses_of(tmp_path / "bundle") == {"rowids"}
    assert restore_file(tmp_path / "bundle", tmp_path / "b.db").findings == ()
    assert fetch(tmp_path / "b.db", "SELECT * FROM large") == fetch(path, "SELECT * FROM large")
    assert fetch(tmp_path / "b.db", "SELECT * FROM wide") == fetch(path, "SELECT * FROM wide")


def test_the_digest_of_a_row_is_as_specified(tmp_path):
    from xxhash import xxh3_128_intdigest

    path = run_sql(
        tmp_path / "a.db", "CREATE TABLE t (a, b, c, d, e); INSERT INTO t VALUES (-7, 1.0, 'ä', x'00', NULL)"
    )
    connection = sqlite3.connect(path)
    (table,) = read_catalog(connection).tables
    table_digest = digest_table(connection, table, largest_bytes=100)
    connection.close()
    assert table_digest.digest == xxh3_128_intdigest(b"1,-7,r4607182418800017408,t2:\xc3\xa4,b1:\x00,")
