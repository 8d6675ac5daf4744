"""Rows hashed by the server, and rows with their places, so that only those that may differ leave the server.

The hash is over the record's text, as the server prints a record of the columns' canonical values. It has two halves of
64 bits by ``hashtextextended`` with two seeds (PostgreSQL 11 and later): one says the bucket, the other one is summed.
Servers of all versions and of one byte order compute the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
from msgspec.structs import replace

from exporters.engine import Texts
from exporters.postgres.catalog import PostgresColumn, PostgresTable
from exporters.postgres.chunk_plan import rows_of
from exporters.postgres.rows.text_codec.codecs import codec_of
from exporters.sql.columns import Kind

HASH_VERSION = 110000
HASH_NAME = "hashtextextended"
_TID = PostgresColumn(
    name="ctid",
    sql_type="tid",
    kind=Kind(codec_of("text"), pa.string(), pa.string()),
    not_null=True,
    generated=False,
    identity="",
    collation="",
)
_LONE_END = b"\\."
"""What the server quotes in the only column of a row, and in no other (CopyAttributeOutCSV)."""


def located(table: PostgresTable) -> PostgresTable:
    """Return a table whose first column is the place of its rows."""
    return replace(table, columns=(_TID, *table.columns))


def split_located(lines: Sequence[bytes], columns: int) -> tuple[Texts, Texts]:
    """Return the texts of rows, which have so many columns, and their places from lines that begin with these."""
    texts, places = [], []
    for line in lines:
        end = line.index(b'"', 1)
        text = line[end + 2 :]
        texts.append(b'"\\."' if columns == 1 and text == _LONE_END else text)
        places.append(line[1:end])
    return texts, places


def bucket_sums(table: PostgresTable, buckets: int) -> str:
    """Return a query for bucket, rows, sum of hashes and bytes of a table's rows."""
    return (
        f"SELECT {_bucket('t', buckets)}, count(*), pg_catalog.sum({_hash('t', 1)}),"
        f" pg_catalog.sum(pg_catalog.length(t)) FROM (SELECT {_text(table)} AS t {rows_of(table)} OFFSET 0) AS rows"
        " GROUP BY 1"
    )


def rows_in_buckets(table: PostgresTable, buckets: int, among: Collection[int]) -> str:
    """Return a query for the rows of some buckets, with their places."""
    names = [f"c{number}" for number in range(len(table.columns))]
    values = ["ctid AS place", *(f"{c.expression} AS {n}" for c, n in zip(table.columns, names, strict=True))]
    numbers = ",".join(map(str, sorted(among)))
    return (
        f"SELECT {', '.join(['place', *names])} FROM (SELECT {', '.join(values)}, {_text(table)} AS t {rows_of(table)}"
        f" OFFSET 0) AS rows WHERE {_bucket('t', buckets)} IN"
        f" (SELECT pg_catalog.unnest('{{{numbers}}}'::pg_catalog.int8[]))"
    )


def _text(table: PostgresTable) -> str:
    columns = ", ".join(column.expression for column in table.columns)
    return f'ROW({columns})::pg_catalog.text COLLATE pg_catalog."C"'


def _hash(text: str, seed: int) -> str:
    return f"pg_catalog.hashtextextended({text}, {seed})"


def _bucket(text: str, buckets: int) -> str:
    return f"{_hash(text, 0)} & {buckets - 1}"
