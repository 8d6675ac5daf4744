"""Parquet of a few kilobytes that claims gigabytes is refused, or read a little at a time; honest rows come whole."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters.objects.index_rows import INDEX
from exporters.sql.bounded_parquet import FREE_BYTES, RATIO, rows_of
from exporters.sql.whole_parquet import reading
from migrate.bundle import catalog
from migrate.bundle.catalog import CatalogRow, read_catalog, write_catalog
from migrate.errors import DamageError

MIB = 2**20


@pytest.fixture
def pool() -> Iterator[pa.MemoryPool]:
    """What Arrow takes meanwhile."""
    before, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    yield counted
    pa.set_memory_pool(before)


def written(table: pa.Table, **options: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", store_schema=False, **options)
    return out.getvalue()


def same_text(text: str, rows: int) -> pa.Array:
    """A column of one long text, which a file holds once."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([text]))


def long_page() -> bytes:
    """One text that unpacks to 80 MiB."""
    return written(pa.table({"key": ["0" * (80 * MIB)]}), use_dictionary=False)


def long_list() -> bytes:
    """One row with a list of eight million numbers."""
    numbers = pa.repeat(pa.scalar(7, pa.int64()), 2**23)
    lists = pa.ListArray.from_arrays(pa.array([0, len(numbers)], pa.int32()), numbers)
    return written(pa.table({"key": lists}))


def long_prefixes() -> bytes:
    """Texts that are written as what they have in common with the one before."""
    texts = pa.array(["0" * MIB] * 64)
    return written(pa.table({"key": texts}), use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY")


def many_rows() -> bytes:
    """Eight million rows without a value."""
    return written(pa.table({"key": pa.nulls(2**23, pa.string())}))


def wide_nulls() -> bytes:
    """Values that are not there, of a type whose values take a megabyte each."""
    return written(pa.table({"key": pa.nulls(16, pa.binary(MIB))}))


@pytest.mark.parametrize("make", [long_page, long_list, long_prefixes, many_rows, wide_nulls])
def test_a_small_file_that_unpacks_to_much_is_damage_before_it_is_unpacked(
    make: Callable[[], bytes], pool: pa.MemoryPool
) -> None:
    data = make()
    made = pool.max_memory()
    with (
        pytest.raises(DamageError, match=r"data/x: expected rows, found something else"),
        reading("data/x", "rows"),
    ):
        for _ in rows_of(io.BytesIO(data), 10_000):
            pass
    assert pool.max_memory() <= max(made, 16 * MIB)


def test_a_text_that_many_rows_have_is_refused_where_their_own_would_take_too_much(
    pool: pa.MemoryPool,
) -> None:
    data = written(pa.table({"key": same_text("0" * MIB, 20_000)}))
    assert len(data) < 100_000
    with pytest.raises(ValueError, match="unpack to more than the"):
        list(rows_of(io.BytesIO(data), 10_000))
    assert pool.max_memory() < 2 * FREE_BYTES


def test_rows_with_long_texts_come_few_at_a_time_as_they_are() -> None:
    """So also the texts within lists, of which nobody knows how many a row has."""
    text = "ä" * 30_000
    tags = [[("a", text)], [], None, [("b", text), ("c", None)]] * 1000
    table = pa.table(
        {
            "key": pa.array([text, "", None, "b"] * 1000),
            "tags": pa.array(tags, INDEX.field("tags").type),
            "size": pa.array(range(4000)),
        }
    )
    data = written(table)
    batches = list(rows_of(io.BytesIO(data), 4000))
    assert len(batches) > 1
    assert pa.Table.from_batches(batches).cast(table.schema) == table


def test_rows_that_are_counted_up_behind_a_long_prefix_are_honest() -> None:
    """Nothing of ours unpacks to more."""
    keys = pa.array([f"{'photos/' * 140}{number:08d}" for number in range(150_000)])
    data = written(pa.table({"key": keys}), row_group_size=150_000)
    assert FREE_BYTES < 150_000 * 988 < FREE_BYTES + RATIO * len(data) / 2
    assert sum(batch.num_rows for batch in rows_of(io.BytesIO(data), 10_000)) == 150_000


def empty_table(name: str, details: str) -> CatalogRow:
    return CatalogRow("app", "table", 1, "", name, "", 0, 0, "", {}, {"x": details})


def test_tables_of_many_tenants_that_differ_in_a_name_are_an_honest_catalog() -> None:
    """They unpack to more than a row group may. Where nothing differs, their definitions take memory once."""
    columns = "integer not null, " * 1500
    rows = [empty_table(f"t{number}", f"{columns} nextval('t{number}_id_seq')") for number in range(2600)]
    rows += [empty_table(f"u{number}", columns) for number in range(2600)]
    out = io.BytesIO()
    write_catalog(out, rows)
    assert 2600 * len(columns) > FREE_BYTES > 1000 * len(out.getvalue())
    read = read_catalog(out, "data/catalog.parquet")
    assert read == rows
    assert read[-1].details is read[-2].details


def test_a_catalog_whose_texts_take_too_much_memory_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "FREE_BYTES", MIB)
    monkeypatch.setattr(catalog, "_RATIO", 1)
    out = io.BytesIO()
    write_catalog(out, [empty_table("t", "0" * 2 * MIB)] * 9)
    with pytest.raises(DamageError, match="its texts unpack to more than they may"):
        read_catalog(out, "data/catalog.parquet")
    out = io.BytesIO()
    write_catalog(out, [empty_table(f"t{number}", "0" * (MIB // 2)) for number in range(9)])
    assert len(read_catalog(out, "data/catalog.parquet")) == 9
    out = io.BytesIO()
    write_catalog(out, (empty_table(f"t{number}", f"{number}" + "0" * (MIB // 2)) for number in range(3)))
    with pytest.raises(DamageError, match=r"data/catalog\.parquet: .*its texts unpack to more than they may"):
        read_catalog(out, "data/catalog.parquet")


def test_columns_and_row_groups_that_are_not_asked_for_are_not_read() -> None:
    table = pa.table({"key": [str(number) for number in range(30)], "size": range(30), "other": ["x"] * 30})
    file = io.BytesIO(written(table, row_group_size=10))
    batches = list(rows_of(file, 4, ["key", "size"], chosen=lambda group: group.ends("key") == ("10", "19")))
    assert [batch.num_rows for batch in batches] == [4, 4, 2]
    assert (
        pa.Table.from_batches(batches).to_pydict() == table.slice(10, 10).select(["key", "size"]).to_pydict()
    )


@pytest.mark.parametrize("page", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd"])
def test_whoever_wrote_it_honest_rows_come_as_they_are(page: str, codec: str) -> None:
    table = pa.table({"key": ["a", None, "b" * 300] * 100, "on": [True, None, False] * 100})
    for use_dictionary in (True, False):
        out = io.BytesIO()
        pq.write_table(table, out, compression=codec, data_page_version=page, use_dictionary=use_dictionary)
        assert pa.Table.from_batches(rows_of(out, 100)).cast(table.schema) == table
