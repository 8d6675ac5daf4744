"""The small parts: lines and digests, cuts, scripts, URLs, plans."""

from itertools import pairwise

import pyarrow as pa
import pytest
from xxhash import xxh3_128_intdigest

from exporters.errors import SourceUsageError
from exporters.postgres.catalog import PostgresColumn, PostgresTable
from exporters.postgres.changed_chunks import is_continued, nothing_happened, query
from exporters.postgres.chunk_plan import BY_TID_SHARE, CHUNK_BYTES, cut, largest_chunk, make_plan
from exporters.postgres.identifiers import quote_literal, quote_name
from exporters.postgres.rows import csv_rows
from exporters.postgres.rows.column_types import SqlType, kind_of
from exporters.postgres.rows.csv_rows import block_of, digest_block, parse_block, split_lines
from exporters.postgres.sessions.connection import parse_url
from exporters.row_digest import MODULUS, RowsDigest
from exporters.sql.chunk_plan import Plan
from exporters.sql.columns import Layout
from migrate.restore.postgres.definitions.dump_script import plain_sql
from migrate.restore.postgres.definitions.roles import create_role


def column(name: str, sql_type: str, *, generated: bool = False) -> PostgresColumn:
    kind = kind_of(SqlType(sql_type, built_in=True, modifier=-1))
    return PostgresColumn(
        name, sql_type, kind, not_null=False, generated=generated, identity="", collation=""
    )


def table(
    name: str, *, pages: int = 0, heap: bool = True, filenode: int = 1, tid_ranges: bool = True
) -> PostgresTable:
    return PostgresTable(
        oid=1,
        schema="public",
        name=name,
        foreign=False,
        persistence="p",
        filenode=filenode,
        heap=heap,
        estimate=0,
        size_bytes=pages * 8192,
        heap_bytes=pages * 8192,
        readable=True,
        tablespace="",
        columns=(column("a", "int4"),),
        tid_ranges=tid_ranges,
    )


@pytest.mark.parametrize(
    ("block", "lines"),
    [
        (b"1,2\n3,4\n", [b"1,2", b"3,4"]),
        (b'"a\nb",1\n2,3\n', [b'"a\nb",1', b"2,3"]),
        (b'"a""\n""b"\n\n', [b'"a""\n""b"', b""]),
        (b'"a""b",2\n"",\n', [b'"a""b",2', b'"",']),
        (b'"\n\n","\n"\n', [b'"\n\n","\n"']),
        (b"", []),
    ],
)
def test_lines_end_at_newlines_outside_of_quotes(block, lines, monkeypatch):
    assert split_lines(block) == lines
    monkeypatch.setattr(csv_rows, "_LARGE_BYTES", 0)  # as large blocks are split
    assert split_lines(block) == lines


def test_the_digest_is_the_sum_of_the_lines_hashes_in_any_order():
    expected = (xxh3_128_intdigest(b"1,x") + xxh3_128_intdigest(b"2,")) % MODULUS
    assert digest_block(b"1,x\n2,\n") == digest_block(b"2,\n1,x\n") == RowsDigest(2, expected)


def test_a_byte_order_mark_at_the_start_of_a_block_is_a_value():
    layout = Layout.of([column("a", "text"), column("b", "int4")])
    block = "\ufeffx,1\n".encode()
    typed = parse_block(block, layout)
    assert typed.columns[0].to_pylist() == ["\ufeffx"]
    assert block_of(layout.batch(typed)) == block


def test_generated_columns_are_rendered_only_on_request():
    layout = Layout.of([column("a", "int4"), column("b", "int4", generated=True)])
    batch = layout.batch(parse_block(b"1,2\n", layout))
    assert block_of(batch) == b"1,2\n"
    assert block_of(batch, generated=False) == b"1\n"


def test_side_columns_hold_only_what_the_type_cannot():
    layout = Layout.of([column("d", "date"), column("i", "int4")])
    block = b"2020-01-01,1\ninfinity,2\n,3\n"
    typed = parse_block(block, layout)
    batch = layout.batch(typed)
    assert batch.schema.names == ["d", "i", "d$exact"]
    assert batch.column(2).to_pylist() == [None, "infinity", None]
    assert batch.column(0).null_count == 2
    assert block_of(batch) == block


def test_a_lone_text_column_tells_null_from_empty_and_from_the_end_marker():
    layout = Layout.of([column("t", "text")])
    block = b'\n""\n"\\."\n\\\n'
    batch = layout.batch(parse_block(block, layout))
    assert batch.column(0).to_pylist() == [None, "", "\\.", "\\"]
    assert block_of(batch) == block


def test_ranges_cover_a_table_once_and_the_last_is_open():
    ranges = cut(table("t", pages=50_000), CHUNK_BYTES)
    assert len(ranges) == 4
    assert len(cut(table("t", pages=50_000, tid_ranges=False), CHUNK_BYTES)) == 4 * BY_TID_SHARE
    assert ranges[0][0] == 0
    assert ranges[-1][1] is None
    assert all(before[1] == after[0] for before, after in pairwise(ranges))


def test_a_table_that_cannot_be_cut_is_one_chunk():
    assert cut(table("t", pages=40_000, heap=False), CHUNK_BYTES) == ((0, None),)


def test_a_database_that_is_mostly_one_table_has_a_chunk_for_each_worker():
    tables = [table("large", pages=5_000), table("small", pages=500)]
    chunks = {
        workers: [len(cut(t, largest_chunk(tables, workers))) for t in tables] for workers in (1, 2, 4, 64)
    }
    assert chunks == {1: [1, 1], 2: [2, 1], 4: [4, 1], 64: [5, 1]}
    assert largest_chunk([table("large", pages=500_000)], 2) == CHUNK_BYTES


def test_a_plan_is_kept_where_tables_are_the_same_and_numbers_stay():
    first = make_plan([table("a"), table("b", pages=40_000)], None, 2)
    grown = [table("0"), table("a", filenode=2), table("b", pages=80_000)]
    second = make_plan(grown, Plan.load(first.dump()), 2)
    assert {t.name: t.number for t in second.tables} == {"a": 1, "b": 2, "0": 3}
    assert second.tables[1] == first.tables[1]
    assert second.tables[0] != first.tables[0]


def test_snapshots_are_the_same_only_if_their_text_is():
    assert nothing_happened("10:12:11", "10:12:11")
    assert not nothing_happened("10:12:11", "12:12:")
    assert not nothing_happened("", "")
    assert nothing_happened("10:10:", "10:10:")
    assert not nothing_happened("10:12:", "10:12:"), "a standby does not say which run"


def test_a_log_that_went_back_or_belongs_to_another_history_is_not_continued():
    now = {"history": "00000002 1.5", "lsn": "A/20"}
    assert is_continued({"history": "00000002 1.5", "lsn": "A/1F"}, now)
    assert not is_continued({"history": "00000002 1.5", "lsn": "B/0"}, now), "put back"
    assert not is_continued({"history": "00000001 1.5", "lsn": "A/1F"}, now), "another timeline"
    assert not is_continued({"lsn": "A/1F"}, now), "a record of an earlier version"


def test_nobody_can_tell_a_change_once_transaction_numbers_came_around():
    assert query(table("t"), (0, None), "10:10:", f"{2**31 + 10}:{2**31 + 10}:") is None
    assert query(table("t"), (0, None), "nonsense", "10:10:") is None


@pytest.mark.parametrize("name", ['a"b', "A b", "select"])
def test_names_are_quoted(name):
    assert quote_name(name) == '"' + name.replace('"', '""') + '"'


def test_literals_mean_the_same_with_any_setting():
    assert quote_literal("it's") == "'it''s'"
    assert quote_literal("a\\b").strip() == "E'a\\\\b'"


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(SourceUsageError) as caught:
        parse_url("postgresql://me:hunter2@host:1/db")
    assert "hunter2" not in str(caught.value) + caught.value.next_step
    assert "PGPASSWORD" in caught.value.next_step


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_urls_are_shown_as_they_were_given(scheme):
    address = parse_url(f"{scheme}://me@host:5433/my%20db?sslmode=require")
    assert address.url == "postgresql://me@host:5433/my%20db?sslmode=require"


def test_psqls_commands_and_unknown_settings_are_taken_out_of_a_script():
    body = b"\n-- Name: f; Type: FUNCTION\nSELECT '\n\\restrict x\nSET new_thing = 1;\n';\n"
    script = (
        b"\\restrict k\nSET statement_timeout = 0;\nSET new_thing = 0;\n" + body + b"\n\\unrestrict k\n\n"
    )
    assert plain_sql(script, {"statement_timeout"}) == b"SET statement_timeout = 0;\n" + body + b"\n"


def test_a_bootstrap_superuser_becomes_a_role_without_power():
    role = {"name": "postgres", "bootstrap": True, "superuser": True}
    assert create_role(role, superuser=True) == 'CREATE ROLE "postgres" NOLOGIN'


def test_an_arrow_table_of_no_columns_still_has_lines():
    batch = pa.RecordBatch.from_arrays(
        [pa.array([1, 2])],
        schema=pa.schema(
            [pa.field("g", pa.int64(), metadata={b"moveout.kind": b"int", b"moveout.generated": b"1"})]
        ),
    )
    assert block_of(batch, generated=False) == b"\n\n"
