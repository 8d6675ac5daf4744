"""Small tables: read by one request, typed together, and left to the usual way where that fails."""

from __future__ import annotations

import pytest

from exporters.postgres.catalog import PostgresColumn
from exporters.postgres.live_digests import live_tables
from exporters.postgres.rows.chunk_export import typed_together
from exporters.postgres.rows.column_types import SqlType, kind_of
from exporters.postgres.rows.copy_feed import Feeds, SmallRows
from exporters.postgres.rows.csv_rows import digest_block, parse_block
from exporters.postgres.sessions.connection import parse_url
from exporters.postgres.sessions.snapshot_session import open_snapshot
from exporters.row_digest import RowsDigest
from exporters.sql.columns import Layout
from tests.exporters.postgres.databases import fetch
from tests.parquet import check_parquet


def layout(*types: str, utf8: bool = True) -> Layout:
    kinds = [kind_of(SqlType(name, built_in=True, modifier=-1), utf8=utf8) for name in types]
    return Layout.of(
        [
            PostgresColumn(f"c{i}", name, kind, not_null=False, generated=False, identity="", collation="")
            for i, (name, kind) in enumerate(zip(types, kinds, strict=True))
        ]
    )


CHUNKS = {
    "plain": (layout("int4", "text", "bool"), b"1,one,t\n2,,\n", 2),
    "quoted": (layout("int4", "text", "jsonb"), b'1,"a,""b""\nc","{""x"": 1}"\n,"",\n', 2),
    "no rows": (layout("int4", "text"), b"", 0),
    "one column": (layout("text"), b'"\\."\n\n""\nx\n', 4),
    "times": (layout("timestamptz", "date", "float4"), b"2024-01-01 10:00:00.5+00,2024-02-29,0.5\n", 1),
}
LEFT = {
    "infinite date": (layout("int4", "date"), b"1,infinity\n", 1),
    "no UTF-8": (layout("int4", "json"), b"1,\xff\n", 1),
    "a row is missing": (layout("int4", "text"), b"1,one\n", 2),
    "a value too many": (layout("int4", "text"), b"1,one,two\n", 1),
    "no columns": (layout(), b"\n", 1),
    "no encoding": (layout("int4", "text", utf8=False), b"1,one\n", 1),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_small_chunks_are_typed_as_large_ones(name):
    """Beside others, whose values lie in the same arrays."""
    everything = {**CHUNKS, **LEFT} if name == "plain" else CHUNKS
    parsed = dict(zip(everything, together(everything.values()), strict=True))
    own_layout, block, _ = CHUNKS[name]
    chunk = parsed[name]
    assert chunk is not None
    batch = own_layout.batch(chunk.typed)
    assert chunk.typed.sides == {}
    if block:
        assert batch.equals(own_layout.batch(parse_block(block, own_layout)))
    assert (chunk.digest, chunk.text_bytes) == (digest_block(block), len(block))
    assert chunk.digest.rows == batch.num_rows


def together(chunks):
    return typed_together([(own_layout, SmallRows(block, sent)) for own_layout, block, sent in chunks])


@pytest.mark.parametrize("name", LEFT)
def test_what_does_not_render_to_its_text_is_left_to_the_usual_way(name):
    assert together([*CHUNKS.values(), LEFT[name]])[-1] is None


TABLES = """
CREATE TABLE first AS SELECT n, 'row ' || n AS words FROM generate_series(1, 9) AS s(n);
CREATE TABLE empty (n integer, words text);
CREATE TABLE odd (day date, number real); INSERT INTO odd VALUES ('infinity', 'NaN'), ('2024-01-01', 1.5);
CREATE TABLE last AS SELECT ARRAY[n, n] AS pair, n / 3.0 AS part FROM generate_series(1, 5) AS s(n);
CREATE TABLE parent (n integer); INSERT INTO parent VALUES (1);
CREATE TABLE child (t text) INHERITS (parent); INSERT INTO child VALUES (2, 'a'), (3, 'b'), (4, NULL);
CREATE TABLE doubled (n integer, twice integer GENERATED ALWAYS AS (n * 2) STORED); INSERT INTO doubled VALUES (1);
CREATE MATERIALIZED VIEW seen AS SELECT * FROM last
"""
HIDDEN_CODE = """
CREATE FUNCTION helper(n integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT n';
CREATE FUNCTION shown(n integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT helper(n)';
CREATE TABLE hard (n integer, size real); INSERT INTO hard VALUES (1), (2);
CREATE INDEX ON hard (shown(n))
"""
"""A table that is only read with all schemas in sight: a request for it with others fails."""


@pytest.mark.parametrize("statements", [TABLES, f"{TABLES};{HIDDEN_CODE}"], ids=["together", "one by one"])
def test_small_tables_are_exported_and_compared_as_they_are(exported, statements):
    url, reader = exported(statements)
    tables = [row for row in reader.catalog() if row.kind == "table"]
    assert len(tables) >= 4
    assert check_parquet(reader, tables) == []
    live = live_tables(url)
    assert live == {(row.schema, row.name): RowsDigest(row.items, int(row.digest, 16)) for row in tables}
    assert {name: digest.rows for (_, name), digest in live.items()} == {
        name: fetch(url, f"SELECT count(*) FROM ONLY {name}")[0][0] for _, name in live
    }


def test_a_request_that_fails_leaves_the_feeds_usable(exported):
    url, _ = exported(f"{TABLES};{HIDDEN_CODE}")
    with open_snapshot(parse_url(url)) as (session, tables):
        feeds = Feeds(session, workers=1)
        chunks = [(table, (0, None)) for table in tables]
        assert all(feeds.is_small(table) for table, _ in chunks)
        assert feeds.read_all(chunks) == []
        without = [chunk for chunk in chunks if chunk[0].name != "hard"]
        assert [rows.sent_rows for rows in feeds.read_all(without)] == [3, 1, 0, 9, 5, 2, 1, 5]
        feeds.close()
