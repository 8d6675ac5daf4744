"""Blocks that SQLite puts together hold what its rows hold, value by value."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.sqlite.catalog import read_catalog
from exporters.sqlite.rows.group_concat_blocks import Blocks
from exporters.sqlite.rows.row_batches import read_batches
from exporters.sqlite.rows.value_text import RawText, digest_columns, value_text

INTEGERS = st.integers(-(2**63), 2**63 - 1)
REALS = st.floats(allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
ANY = st.none() | INTEGERS | REALS | TEXTS | st.binary()
ROWS = st.lists(
    st.tuples(
        st.none() | INTEGERS,
        st.none() | TEXTS,
        st.none() | st.binary(),
        st.none() | REALS,
        st.integers(-9, 9) | st.just("5") | st.just(5.0) | st.just(b"5"),
        ANY,
    ),
    max_size=12,
)
CLASSES = [int, int, str, bytes, float, int, str]


def table_of(connection, rows, declared="a, b, c, d, e, f"):
    connection.execute(f"CREATE TABLE t ({declared})")
    for row in rows:
        marks = ", ".join("CAST(? AS TEXT)" if type(value) is RawText else "?" for value in row)
        connection.execute(f"INSERT INTO t VALUES ({marks})", row)
    return read_catalog(connection).tables[0]


@settings(max_examples=25, deadline=None)
@given(ROWS, st.integers(1, 5))
def test_blocks_hold_the_rows(rows, most):
    with closing(sqlite3.connect(":memory:")) as connection:
        table = table_of(connection, rows)
        blocks = list(Blocks(connection, table, CLASSES).read((None, None), most))
    rows_read = [row for columns in blocks for row in zip(*(c.to_list() for c in columns), strict=True)]
    assert [list(map(value_text, row)) for row in rows_read] == [
        list(map(value_text, (number, *row))) for number, row in enumerate(rows, 1)
    ]
    assert all(columns[0].rows <= most for columns in blocks)
    assert sum(digest_columns(columns, columns[0].rows).rows for columns in blocks) == len(rows)


def statements(connection, table, classes, most=100):
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    columns = list(Blocks(connection, table, classes).read((None, None), most))
    connection.set_trace_callback(None)
    return columns, [first for text in seen if (first := text.split()[1]) != "rowid"]


def test_values_are_fetched_one_by_one_only_from_columns_that_need_it():
    rows = [(n, f"text {n}", b"blob", n / 3, n, None) for n in range(250)]
    rows[120] = (*rows[120][:4], "another class", None)
    with closing(sqlite3.connect(":memory:")) as connection:
        table = table_of(connection, rows)
        columns, seen = statements(connection, table, [int, int, str, bytes, int, int, str])
        assert seen == ["count(*),", '"d"', "count(*),", '"d",', "count(*),", '"d",']
        assert columns[1][5].values == [*range(100, 120), "another class", *range(121, 200)]
        _, seen = statements(connection, table, [int, int, str, bytes, float, float, float])
        assert seen == ["count(*),", '"d",'] * 3


def test_every_rowid_lies_in_exactly_one_block():
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
        numbers = [-(2**63), -5, -1, 0, 1, 7, 2**63 - 2, 2**63 - 1]
        connection.executemany("INSERT INTO t VALUES (?, 'v')", [(number,) for number in numbers])
        table = read_catalog(connection).tables[0]

        def ids(*bounds, most):
            blocks = Blocks(connection, table, [int, str]).read(bounds, most)
            return [number for columns in blocks for number in columns[0].to_list()]

        for most in range(1, 10):
            assert ids(None, None, most=most) == numbers
            assert ids(None, 0, most=most) + ids(0, 7, most=most) + ids(7, None, most=most) == numbers


def test_columns_may_be_called_as_columns_of_the_query_are():
    rows = [(n, 50 - n, f"text {n}", n) for n in range(50)]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (k INT, c2 INTEGER PRIMARY KEY, c1 TEXT, c0 INT)")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        table = read_catalog(connection).tables[0]
        blocks = Blocks(connection, table, [int, int, str, int]).read((None, None), 7)
        rows_read = [row for columns in blocks for row in zip(*(c.to_list() for c in columns), strict=True)]
    assert rows_read == rows[::-1]


@pytest.mark.parametrize("odd", [b"\xff", b"a\x00\xc3", b"\xed\xa0\x80"])
def test_text_that_is_not_valid_is_found(odd):
    with closing(sqlite3.connect(":memory:")) as connection:
        table = table_of(connection, [(1, "good"), (2, RawText(odd))][::-1], "a INT, b TEXT")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"text {n}") for n in range(20)])
        for largest_bytes in (100, 2**20):  # in blocks, and row by row
            (batch,) = read_batches(connection, table, (None, None), largest_bytes=largest_bytes)
            assert batch.columns[2].to_list()[0] == RawText(odd)
            assert type(batch.columns[2].to_list()[0]) is RawText


def test_long_texts_end_where_they_end():
    texts = ["", "x" * 1023, "y" * 1024, None, "z" * 100_000, 'a\0"\n,é', ""]
    with closing(sqlite3.connect(":memory:")) as connection:
        table = table_of(connection, [(n, text) for n, text in enumerate(texts)], "a INT, b TEXT")
        (columns,) = Blocks(connection, table, [int, int, str]).read((None, None), 100)
        assert columns[2].to_list() == texts
        (batch,) = read_batches(connection, table, (None, None), largest_bytes=100)
        assert batch.columns[2].octets == sum(len((text or "").encode()) for text in texts)
