"""The tables of the catalog are read as they were written, also in several batches."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from exporters.api import CatalogEntry, Gap, Loss
from migrate.bundle import catalog
from migrate.bundle.catalog import catalog_row
from migrate.errors import DamageError


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_BATCH", 2)


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_losses_and_gaps_of_several_batches_are_read_as_they_were_written(count):
    losses = [("app", Loss(f"t{number}", "owner", "why")) for number in range(count)]
    gaps = [("app", Gap(f"t{number}", "failed", "why")) for number in range(count)]
    files = BytesIO(), BytesIO()
    assert catalog.write_losses(files[0], iter(losses)) == count
    assert catalog.write_gaps(files[1], iter(gaps)) == count
    assert list(catalog.read_losses(files[0], "losses")) == losses
    assert list(catalog.read_gaps(files[1], "gaps")) == gaps
    assert pq.read_schema(files[0]).equals(catalog.losses_schema())
    assert not any(field.nullable for file in files for field in pq.read_schema(file))


def rows(*directories: str) -> Iterator[catalog.CatalogRow]:
    for number, directory in enumerate(directories):
        parts = [{"name": f"{directory}/part-{part}.parquet", "rows": 1} for part in range(2)]
        entry = CatalogEntry("table", number, "public", f"t{number}", 3, 4, "0" * 32, {"parts": parts})
        yield catalog_row("app", entry, {"lsn": "0/1"})


def test_a_catalog_is_read_as_it_was_written_with_the_directory_of_each_table():
    written = list(rows("data/app/tables/1", "data/app/tables/2", "data/app/tables/3"))
    assert [row.directory for row in written] == [f"data/app/tables/{number}" for number in (1, 2, 3)]
    file = BytesIO()
    catalog.write_catalog(file, written)
    assert catalog.read_catalog(file, "catalog") == written


def test_parts_in_two_directories_have_none_in_common():
    entry = CatalogEntry("table", 1, "", "t", 1, 1, "", {"parts": [{"name": "a/1"}, {"name": "b/1"}]})
    assert catalog_row("app", entry, {}).directory == ""
    assert catalog_row("app", CatalogEntry("table", 1, "", "t", 1, 1, "", {}), {}).directory == ""


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "view"},
        {"number": -1},
        {"items": -1},
        {"size_bytes": -1},
        {"digest": "g" * 32},
        {"details": "[]"},
        {"position": "1"},
        {"details": "{"},
        {"directory": "data/../.."},
        {"name": b"\xff"},
    ],
)
def test_a_catalog_with_other_values_is_damage_of_that_file(change):
    file = BytesIO()
    catalog.write_catalog(file, rows("data/app/tables/1"))
    table = pq.read_table(file)
    for name, value in change.items():
        table = table.set_column(table.column_names.index(name), name, pa.array([value]))
    changed = BytesIO()
    pq.write_table(table, changed)
    with pytest.raises(DamageError, match="catalog"):
        catalog.read_catalog(changed, "catalog")


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.torture)], ids=["some", "all"])
def test_no_damaged_byte_makes_tables_vanish(step):
    """Where the header of a page is damaged, Arrow may return no rows, and no error: a restore would then restore
    nothing, and call it done.
    """
    file = BytesIO()
    catalog.write_catalog(file, rows("data/app/tables/1", "data/app/tables/2"))
    whole, vanished = file.getvalue(), 0
    for at in range(0, len(whole), step):
        damaged = BytesIO(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            assert len(catalog.read_catalog(damaged, "catalog")) == 2, at
        except DamageError as exc:
            vanished += "rows can be read" in exc.found
    assert vanished


@pytest.mark.parametrize(
    ("word", "question"),
    [("publik.t0", "did you mean public.t0? "), ("T1", "did you mean public.t1? "), ("elsewhere", "")],
)
def test_the_table_that_was_meant_is_asked_for(word, question):
    assert catalog.did_you_mean(word, list(rows("a", "b"))) == question


@pytest.mark.parametrize(
    "details",
    [
        {"parts": "x"},
        {"parts": [1]},
        {"parts": [{"name": "p"}]},
        {"parts": [{"name": 1, "rows": 1}]},
        {"parts": [{"name": "p", "rows": "1"}]},
        {"parts": [{"name": "p", "rows": -1}]},
        {"parts": [{"name": "../../p", "rows": 1}]},
        {"parts": [{"name": "p", "rows": 1}, {"name": "p", "rows": 1}]},
        {"columns": [{"type": "int"}]},
        {"columns": [1]},
        {"ancestors": "public.t"},
        {"history": ["from"]},
    ],
)
def test_details_that_are_none_are_damage(details):
    entry = CatalogEntry("table", 1, "public", "t", 3, 4, "0" * 32, {})
    file = BytesIO()
    catalog.write_catalog(file, [replace(catalog_row("app", entry, {}), details=details)])
    with pytest.raises(DamageError, match=r"data/catalog"):
        catalog.read_catalog(file, "data/catalog.parquet")


def test_a_table_that_is_there_twice_is_damage():
    file = BytesIO()
    (row,) = rows("data/app/tables/1")
    catalog.write_catalog(file, [row, replace(row, details={})])
    with pytest.raises(DamageError, match=r"expected each table once, found public\.t0 of app 2 times"):
        catalog.read_catalog(file, "catalog")


def test_tables_are_two_whose_names_differ_only_in_where_the_schema_ends():
    file = BytesIO()
    (row,) = rows("data/app/tables/1")
    pair = [
        replace(row, schema="a.b", name="c", details={}),
        replace(row, schema="a", name="b.c", details={}),
    ]
    catalog.write_catalog(file, pair)
    assert [(read.schema, read.name) for read in catalog.read_catalog(file, "catalog")] == [
        ("a.b", "c"),
        ("a", "b.c"),
    ]


def test_an_engine_of_another_package_may_list_the_names_of_columns_alone():
    file = BytesIO()
    (row,) = rows("data/app/tables/1")
    catalog.write_catalog(file, [replace(row, details={"columns": ["id", "name"]})])
    (read,) = catalog.read_catalog(file, "catalog")
    assert read.details["columns"] == read.column_names == ["id", "name"]


def test_a_table_without_columns_in_the_catalog_is_damage_where_they_are_asked_for():
    (row,) = rows("data/app/tables/1")
    with pytest.raises(
        DamageError, match=r"data/catalog\.parquet: expected the columns of public\.t0, found none"
    ):
        row.column_names  # noqa: B018
