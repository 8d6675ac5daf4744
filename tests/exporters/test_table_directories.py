"""The directory of a table is safe and unique, whatever the table is called; readers take it from the catalog."""

import io
import re
import sqlite3
from contextlib import closing
from itertools import starmap

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters.sql.chunk_plan import NAME_CHARACTERS, table_directory
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.errors import DamageError
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.export.test_real_sources import forge
from tests.exporters.sqlite.databases import everything, export_file, restore_file

LONG = "long" * 40
NAMES = {
    ("social", "posts"): "tables/0007.social.posts",
    ("", "posts"): "tables/0007.posts",
    ("Sales", "Order-Lines_2"): "tables/0007.sales.order-lines_2",
    ("", ""): "tables/0007._",
    ("..", "../../etc/passwd"): "tables/0007._._etc_passwd",
    ("a.b", "c."): "tables/0007.a_b.c_",
    ("", "con"): "tables/0007.con",
    ("", "nul.txt"): "tables/0007.nul_txt",
    ("", "x\0\n\x7f\u202ey"): "tables/0007.x_y",
    ("Größe", "Страница"): "tables/0007.gr_e._",
    ("", "\u212a\u0130"): "tables/0007._",  # their small letters are ASCII
    (LONG, "posts"): f"tables/0007.{LONG[:74]}.posts",
    ("social", LONG): f"tables/0007.social.{LONG[:73]}",
    (LONG, LONG): f"tables/0007.{LONG[:24]}.{LONG[:55]}",
}
HOSTILE = [
    "../up",
    "..",
    "",
    "con",
    "aux.",
    "Posts",
    "posts",
    "ÄÖ",
    "a\nb",
    "$(rm -rf)",
    "x" * 300,
    "%41",
    "*",
]


@pytest.mark.parametrize(("schema", "name"), NAMES)
def test_a_name_becomes_a_safe_directory(schema, name):
    assert table_directory(7, schema, name) == NAMES[schema, name]


def test_every_directory_is_a_payload_name_without_odd_ends():
    for directory in starmap(table_directory, ((10_000, *names) for names in NAMES)):
        assert layout.is_payload_name(directory)
        segment = directory.removeprefix("tables/")
        assert re.fullmatch(r"10000\.[a-z0-9_.-]*[a-z0-9_-]", segment)
        assert len(segment.removeprefix("10000.")) <= NAME_CHARACTERS


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A database of odd names, and its bundle."""
    folder = tmp_path_factory.mktemp("hostile")
    with closing(sqlite3.connect(folder / "db.sqlite")) as connection:
        for number, name in enumerate(name for name in HOSTILE if name != "Posts"):
            quoted = '"' + name.replace('"', '""') + '"'
            connection.execute(f"CREATE TABLE {quoted} (n INTEGER)")
            connection.execute(f"INSERT INTO {quoted} VALUES ({number})")
        connection.commit()
    assert export_file(folder / "db.sqlite", folder / "bundle").complete
    return folder


def test_tables_of_odd_names_come_back(hostile, tmp_path):
    store = open_location(str(hostile / "bundle"))
    assert verify(store, Level.FULL, workers=2, progress=Silent()).findings == []
    rows = [row for row in BundleReader(store).catalog() if row.name in HOSTILE]
    assert len({row.directory for row in rows}) == len(HOSTILE) - 1
    for row in rows:
        assert (hostile / "bundle/data/app" / row.directory / "part-000000.parquet").is_file()
    restore_file(hostile / "bundle", tmp_path / "back.sqlite")
    assert everything(tmp_path / "back.sqlite") == everything(hostile / "db.sqlite")


def with_directories(folder, to, change, *, moved=True):
    """The bundle at ``folder``, sealed anew at ``to`` with the directories that ``change`` says; unless ``moved`` only
    a column of the catalog says so.
    """
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    catalog = pq.read_table(io.BytesIO(files[layout.CATALOG]))
    old = catalog["directory"].to_pylist()
    details = catalog["details"].to_pylist()
    for one in old if moved else ():
        details = [text.replace(f'"{one}/', f'"{change(one)}/') for text in details]
    columns = {"directory": [change(one) for one in old], "details": details}
    for name, values in columns.items():
        at = catalog.schema.get_field_index(name)
        catalog = catalog.set_column(at, catalog.schema.field(name), pa.array(values, pa.string()))
    out = io.BytesIO()
    pq.write_table(catalog, out)
    files[layout.CATALOG] = out.getvalue()
    for one in old if moved else ():
        files = {
            key.replace(f"/{one}/", f"/{change(one)}/"): data
            if key != layout.FILES
            else data.replace(f"/{one}/".encode(), f"/{change(one)}/".encode())
            for key, data in files.items()
        }
    forge(open_location(str(to)), files)
    return to


def test_paths_are_taken_from_the_catalog(hostile, tmp_path):
    """Another writer may name the directories as it likes."""
    other = with_directories(hostile / "bundle", tmp_path / "other", lambda name: f"tables/x{name[7:11]}")
    store = open_location(str(other))
    assert verify(store, Level.FULL, workers=2, progress=Silent()).findings == []
    restore_file(other, tmp_path / "back.sqlite")
    assert everything(tmp_path / "back.sqlite") == everything(hostile / "db.sqlite")


@pytest.mark.parametrize("directory", ["..", "/etc", "a b", "'; rm -rf ~ #"])
def test_a_directory_that_no_bundle_has_is_damage(hostile, tmp_path, directory):
    other = with_directories(hostile / "bundle", tmp_path / "other", lambda _: directory, moved=False)
    with pytest.raises(DamageError, match=r"catalog\.parquet.*cannot be a directory of a bundle"):
        BundleReader(open_location(str(other))).catalog()
