"""Row groups made of pieces: the values, and what the footer says of them, are those of a group written at once."""

import io
import math
import uuid
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporters.postgres.rows.column_types import SqlType, kind_of
from exporters.sql import parquet_write
from exporters.sql.columns import KIND, Layout, Typed, small_type
from exporters.sql.parquet_read import READ_ERRORS, open_part, rows_of
from exporters.sql.parquet_write import GroupedFile, PartWriter, encoded, with_few_values
from tests.exporters.sql.test_long_values import Column, ToDirectory, typed

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
MOMENTS = st.datetimes()
VALUES = [
    (pa.bool_(), st.booleans()),
    (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint8(), st.integers(0, 255)),
    (pa.uint32(), st.integers(0, 2**32 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.float64(), st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0])),
    (pa.float16(), st.floats(width=16)),
    (pa.decimal128(7, 2), st.decimals(Decimal(-99999), Decimal(99999), places=2)),
    (pa.decimal128(18, 0), st.integers(-(10**18) + 1, 10**18 - 1).map(Decimal)),
    (pa.decimal128(38, 5), st.integers(-(10**30), 10**30).map(Decimal)),
    (pa.decimal256(60, 0), st.integers(-(10**60) + 1, 10**60 - 1).map(Decimal)),
    (pa.date32(), st.dates()),
    (pa.time64("us"), st.times()),
    (pa.timestamp("us"), MOMENTS),
    (pa.timestamp("us", "UTC"), MOMENTS),
    (pa.string(), TEXT),
    (pa.binary(), st.binary(max_size=5)),
    (pa.binary(16), st.binary(min_size=16, max_size=16)),
    (pa.uuid(), st.uuids().map(lambda one: one.bytes)),
    (pa.list_(pa.int32()), st.lists(st.none() | st.integers(-9, 9), max_size=3)),
    (pa.struct([("a", pa.string()), ("b", pa.uint8())]), st.fixed_dictionaries({"a": TEXT, "b": st.none()})),
    (pa.list_(pa.uuid()), st.none()),
    (pa.map_(pa.string(), pa.string()), st.lists(st.tuples(TEXT, st.none() | TEXT), max_size=2)),
]


def array(data_type, values):
    if not any(value is not None for value in values):
        return pa.nulls(len(values), data_type)
    if isinstance(data_type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(data_type, pa.array(values, data_type.storage_type))
    return pa.array(values, data_type)


def pieces_of(values):
    return st.lists(st.lists(st.none() | values, min_size=1, max_size=6), min_size=1, max_size=4)


def written(tables):
    stream = io.BytesIO()
    file = GroupedFile(stream, tables[0].schema)
    for table in tables:
        file.write(table)
    file.finish()
    return stream.getvalue()


def told(file):
    """What the footer says of the one row group, apart from what hangs on encodings and sizes in the file."""
    group = pq.ParquetFile(pa.BufferReader(file)).metadata.row_group(0)
    chunks = [group.column(i).to_dict() for i in range(group.num_columns)]
    statistics = [chunk["statistics"] for chunk in chunks]
    for one in statistics:
        if one is not None and one["null_count"] == one["num_values"] + one["null_count"]:
            one.update(has_min_max=False)
    return [
        (chunk["path_in_schema"], chunk["num_values"], chunk["physical_type"], repr(chunk["statistics"]))
        for chunk in chunks
    ]


@pytest.mark.parametrize(("data_type", "values"), VALUES, ids=[str(one) for one, _ in VALUES])
def test_the_group_is_the_one_that_is_written_at_once(data_type, values):
    field = pa.field("a.b", data_type, metadata={"moveout.kind": "it"})

    @settings(max_examples=4, deadline=None)
    @given(pieces_of(values))
    @example([[None], [None, None]])
    def same(pieces):
        tables = [pa.table([array(data_type, piece)], pa.schema([field])) for piece in pieces]
        few = with_few_values(tables[0]) if len(tables) > 1 else []
        whole = encoded(pa.concat_tables(tables).combine_chunks(), dictionaries=few)
        file = written(tables)
        back, wanted = pq.read_table(pa.BufferReader(file)), pq.read_table(whole)
        assert back.schema.equals(wanted.schema, check_metadata=True)
        assert repr(back.column(0).to_pylist()) == repr(wanted.column(0).to_pylist())
        assert pq.ParquetFile(pa.BufferReader(file)).num_row_groups == 1
        if data_type != pa.float16() and not str(data_type).startswith(("fixed_size_binary", "extension")):
            assert told(file) == told(whole)

    same()


@pytest.mark.parametrize(
    ("known", "without"), [("b", ["a" * 5000]), ("b", ["a" * 5000, None]), (1.0, [math.nan])]
)
def test_one_piece_without_minimum_and_the_group_has_none(known, without):
    """Arrow writes none of values above 4 kB or of NaN alone; what the other pieces have is not the group's."""
    file = written([pa.table({"t": piece}) for piece in ([known], without, [None])])
    assert repr(pq.read_table(pa.BufferReader(file)).column("t").to_pylist()) == repr([known, *without, None])
    statistics = pq.ParquetFile(pa.BufferReader(file)).metadata.row_group(0).column(0).statistics
    assert statistics is None or not statistics.has_min_max


def test_columns_of_few_values_have_one_dictionary_for_all_pieces():
    rows, pieces = 40_000, 3
    tables = [
        pa.table(
            {
                "flag": pa.array([f"{(i + piece) % 7}" for i in range(rows)]),
                "price": pa.array([Decimal(i % 11) for i in range(rows)], pa.decimal128(12, 2)),
                "null": pa.nulls(rows, pa.string()),
                "id": pa.array([uuid.UUID(int=i).bytes for i in range(rows)], pa.binary()),
            }
        )
        for piece in range(pieces)
    ]
    file = written(tables)
    group = pq.ParquetFile(pa.BufferReader(file)).metadata.row_group(0)
    assert group.num_rows == rows * pieces
    dictionaries = [group.column(i).has_dictionary_page for i in range(4)]
    assert dictionaries == [True, True, True, False]
    assert [group.column(i).is_stats_set for i in range(4)] == [False, True, False, True]
    assert group.total_byte_size == sum(group.column(i).total_uncompressed_size for i in range(4))
    whole = pa.concat_tables(tables)
    assert pq.read_table(pa.BufferReader(file)).equals(whole)
    import polars as pl  # not by every process that collects tests

    assert pl.read_parquet(io.BytesIO(file)).to_arrow().cast(whole.schema).equals(whole)


def test_a_column_that_is_never_null_is_written_as_that_with_a_dictionary_too():
    schema = pa.schema(
        [pa.field("flag", pa.int32(), nullable=False), pa.field("n", pa.int64(), nullable=False)]
    )
    tables = [
        pa.table([pa.array([piece] * 50, pa.int32()), pa.array(range(50))], schema) for piece in range(3)
    ]
    file = written(tables)
    assert pq.ParquetFile(pa.BufferReader(file)).metadata.row_group(0).column(0).has_dictionary_page
    assert pq.read_table(pa.BufferReader(file)).equals(pa.concat_tables(tables))


def test_other_readers_skip_by_its_statistics(tmp_path):
    tables = [pa.table({"n": pa.array(range(start, start + 1000), pa.int64())}) for start in (5000, 0, 9000)]
    path = tmp_path / "a.parquet"
    path.write_bytes(written(tables))
    (lowest, highest), *_ = duckdb.sql(
        f"SELECT stats_min_value, stats_max_value FROM parquet_metadata('{path}')"
    ).fetchall()
    assert (int(lowest), int(highest)) == (0, 9999)
    assert duckdb.sql(f"SELECT count(*), sum(n) FROM '{path}' WHERE n >= 5999").fetchall() == [
        (1001, 5999 + sum(range(9000, 10000)))
    ]


def test_a_group_ends_at_its_size_or_where_too_much_is_held(tmp_path, monkeypatch):
    layout = Layout.of([Column("n", typed("int8")), Column("t", typed("text"))])
    monkeypatch.setattr(parquet_write, "_PIECE_BYTES", 100)
    monkeypatch.setattr(parquet_write, "_LEAF_BYTES", 1)

    def groups(held_bytes, group_bytes):
        monkeypatch.setattr(parquet_write, "_HELD_BYTES", held_bytes)
        monkeypatch.setattr(parquet_write, "GROUP_BYTES", group_bytes)
        with PartWriter(layout, ToDirectory(tmp_path), "a") as writer:
            for i in range(8):
                columns = (pa.array(range(i * 50, i * 50 + 50), pa.int64()), pa.array([str(i)] * 50))
                writer.add(Typed(columns, {}, 50), 100)
        file = pq.ParquetFile(tmp_path / "a.parquet")
        assert file.read().column("n").to_pylist() == list(range(400))
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]

    assert groups(2**20, 2**20) == [400]
    assert groups(2**20, 300) == [150, 150, 100]
    assert groups(1, 2**20) == [50] * 8


@pytest.mark.parametrize("blocks", [1, 5])
def test_columns_of_smaller_types_become_the_same_file(tmp_path, monkeypatch, blocks):
    """Some blocks have a column in a smaller type, some in the field's: those that were typed exactly."""
    kind = SqlType("numeric", built_in=True, modifier=((9 << 16) | 2) + 4)
    layout = Layout.of([Column("few", kind_of(kind)), Column("many", kind_of(kind))])
    monkeypatch.setattr(parquet_write, "_PIECE_BYTES", 1)
    monkeypatch.setattr(parquet_write, "_LEAF_BYTES", 1)

    def file(*, is_small):
        with PartWriter(layout, ToDirectory(tmp_path), "a") as writer:
            for block in range(blocks):
                data_type = pa.decimal128(9, 2)
                numbers = [[Decimal(i % n) for i in range(block, block + 2000)] for n in (7, 9999)]
                to = small_type(data_type) if is_small(block) else data_type
                writer.add(Typed(tuple(pa.array(values, to) for values in numbers), {}, 2000), 100)
        return (tmp_path / "a.parquet").read_bytes()

    plain = file(is_small=lambda _: False)
    assert pq.read_schema(pa.BufferReader(plain)).types == [pa.decimal128(9, 2)] * 2
    assert file(is_small=lambda _: True) == plain
    assert file(is_small=lambda block: block % 2) == plain


@pytest.mark.parametrize(("rows", "compression"), [(100, "UNCOMPRESSED"), (10_000, "ZSTD")])
def test_only_a_file_that_is_larger_than_some_blocks_of_a_disk_is_compressed(rows, compression):
    table = pa.table({"n": pa.array(range(rows), pa.int64())})
    out = pa.BufferOutputStream()
    file = GroupedFile(out, table.schema)
    file.write(table)
    file.finish()
    written = pq.ParquetFile(out.getvalue())
    assert written.metadata.row_group(0).column(0).compression == compression
    assert written.read().equals(table)


def test_a_text_that_is_no_utf8_is_not_read():
    _, offsets, data = pa.array([b"a\x8d\xf92", b"good"]).buffers()
    fields = [
        pa.field("n", pa.int64(), metadata={KIND: "int"}),
        pa.field("text", pa.string(), metadata={KIND: "text"}),
    ]
    text = pa.StringArray.from_buffers(2, offsets, data)
    table = pa.Table.from_arrays([pa.array([1, 2]), text], schema=pa.schema(fields))
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    with pytest.raises(READ_ERRORS, match="UTF8"):
        list(rows_of(open_part(pa.BufferReader(out.getvalue()))))
