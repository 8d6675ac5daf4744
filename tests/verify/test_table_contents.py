"""Values in tables: what Parquet holds against what the catalog says, by part, by chunk and by table."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader
from migrate.bundle.table_comparison import TableDigest
from migrate.case.model import Endpoint
from migrate.cli.common.sources import open_sources
from migrate.engines import registry
from migrate.export.run import export
from migrate.runtime.progress import OF_NO_SOURCE, Silent, SourceTask
from migrate.storage.api import StoreWrapper
from migrate.storage.registry import open_location
from migrate.verify import table_contents
from migrate.verify.run import Level, verify
from migrate.verify.table_contents import READ_ONCE_BYTES, CheckedPart
from tests.tools.bundles import put_in_place_of

PART = "data/app/tables/1/"


class Counted(Silent):
    """Counts items and bytes, of all that there are."""

    def __init__(self) -> None:
        self.total, self.done, self.notes = Counter[str](), Counter[str](), []

    def begin(self, what: str, *, items: int, size_bytes: int, of: SourceTask = OF_NO_SOURCE) -> None:
        self.grow(items=items, size_bytes=size_bytes)

    def grow(self, *, items: int = 0, size_bytes: int = 0) -> None:
        self.total.update(items=items, size_bytes=size_bytes)

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        self.done.update(items=items, size_bytes=size_bytes)

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """Two tables of the same shape, one in chunks of several parts, and an empty one."""
    directory = tmp_path_factory.mktemp("tables")
    with closing(sqlite3.connect(directory / "app.db")) as db, db:
        for name, first in (("people", 0), ("others", 9)):
            db.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, name TEXT)")
            rows = [(number, f"name {number + first}") for number in range(50)]
            db.executemany(f"INSERT INTO {name} VALUES (?, ?)", rows)
        db.execute("CREATE TABLE nobody (id INTEGER)")
    with open_sources({"app": Endpoint(f"sqlite:///{directory}/app.db")}) as sources:
        assert export(
            sources, open_location(str(directory / "bundle")), workers=1, progress=Silent()
        ).complete
    return directory / "bundle"


@pytest.fixture
def reader(bundle) -> BundleReader:
    return BundleReader(open_location(str(bundle)))


def look(reader: BundleReader, rows: list[CatalogRow]) -> tuple[list[str], dict[str, int]]:
    """Return the findings, and the rows of each table that was read whole."""
    checked = list(table_contents.check(reader, rows, workers=2))
    digests = [each for each in checked if isinstance(each, TableDigest)]
    parts = [each for each in checked if isinstance(each, CheckedPart)]
    findings = [f"{finding.key}: {finding.what}" for part in parts for finding in part.findings]
    assert all(len(digest.digest) == 32 for digest in digests)
    return findings, {digest.name: digest.rows for digest in digests}


def test_whole_tables_have_no_findings(reader):
    assert look(reader, reader.catalog()) == ([], {"people": 50, "others": 50, "nobody": 0})


def changed(reader: BundleReader, **changes: object) -> list[CatalogRow]:
    """The catalog's row of ``people`` with other values."""
    (row,) = [row for row in reader.catalog() if row.name == "people"]
    return [replace(row, **changes)]


def test_tables_of_an_engine_that_is_not_installed_are_left_to_whoever_has_it(reader, monkeypatch):
    monkeypatch.setattr(registry, "find", lambda _: None)
    assert look(reader, reader.catalog()) == ([], {})


def test_another_digest_or_number_of_rows_is_named(reader):
    (row,) = changed(reader)
    name, directory = (
        f"app: {row.schema}.people" if row.schema else "app: people",
        f"data/app/{row.directory}/",
    )
    differs = f"the digest of {name} differs: its values are not those that were exported"
    (part,) = row.details["parts"]
    key = f"data/app/{part['name']}"
    assert look(reader, changed(reader, items=49)) == (
        [f"data/catalog.parquet: rows of {name}"],
        {"people": 50},
    )
    assert look(reader, changed(reader, digest="0" * 32))[0] == [f"{directory}: {differs}"]
    for rows in (49, 51):
        wrong_part = {**row.details, "parts": [{**part, "rows": rows}]}
        assert look(reader, changed(reader, details=wrong_part))[0] == [f"{key}: rows of {name}"]
    digests = row.digest, "0" * 31 + "1", "f" * 32
    chunks = [{"parts": [part["name"]], "digest": digest} for digest in digests]
    wrong_chunk = {**row.details, "chunks": chunks}
    assert look(reader, changed(reader, details=wrong_chunk, digest="0" * 32))[0] == [
        f"{directory}: {differs}",
        f"{key}: the difference is in chunk 1 of {name}",
        f"{key}: the difference is in chunk 2 of {name}",
    ]
    assert look(reader, changed(reader, details=wrong_chunk))[0] == []


@pytest.mark.parametrize("chunks", [3, [{"parts": ["other"], "digest": ""}], [{"digest": ""}]])
def test_a_malformed_list_of_chunks_is_a_finding(reader, chunks):
    (row,) = changed(reader)
    rows = changed(reader, details={**row.details, "chunks": chunks}, digest="0" * 32)
    assert look(reader, rows)[0][1].endswith("people has no list of chunks")


@pytest.mark.parametrize("parts", [3, None, [{}], [{"name": "x", "rows": "many"}]])
def test_a_malformed_list_of_parts_is_a_finding_and_other_tables_are_read(reader, parts):
    (row,) = changed(reader, details={"parts": parts})
    (other,) = [row for row in reader.catalog() if row.name == "others"]
    (finding,), read = look(reader, [row, other])
    assert finding.endswith("people has no list of parts")
    assert read == {"others": 50}


def test_a_table_that_lost_its_list_of_parts_is_named(reader):
    (row,) = changed(reader)
    findings, read = look(reader, changed(reader, details={**row.details, "parts": []}))
    assert findings[0].startswith("data/catalog.parquet: rows of app: ")
    assert read == {"people": 0}


def test_a_part_that_cannot_be_read_is_named_and_its_table_was_not_read(reader):
    (row,) = changed(reader)
    (part,) = row.details["parts"]
    details = {**row.details, "parts": [part, {"name": "tables/9/gone.parquet", "rows": 1}]}
    assert look(reader, changed(reader, details=details)) == (
        ["data/app/tables/9/gone.parquet: is missing; it is in the catalog"],
        {},
    )
    (script,) = [file.key for file in reader.manifest() if file.key.endswith("duckdb.sql")]
    details = {**row.details, "parts": [{"name": script.removeprefix("data/app/"), "rows": 1}]}
    assert look(reader, changed(reader, details=details)) == (
        [f"{script}: cannot be read as Parquet"],
        {},
    )


class CountingReads(StoreWrapper):
    """Counts the bytes that are read of each file."""

    def __init__(self, store) -> None:
        super().__init__(store)
        self.read_bytes: Counter[str] = Counter()

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        data = super().read(key, start, length)
        self.read_bytes[key] += len(data)
        return data


@pytest.mark.parametrize("in_memory_bytes", [READ_ONCE_BYTES, 0])
def test_a_full_verification_reads_each_part_of_a_table_once_where_it_fits_into_memory(
    bundle, monkeypatch, in_memory_bytes
):
    monkeypatch.setattr("migrate.verify.table_contents.READ_ONCE_BYTES", in_memory_bytes)
    store = CountingReads(open_location(str(bundle)))
    progress = Counted()
    outcome = verify(store, Level.FULL, workers=2, progress=progress)
    parts = {info.key: info.size_bytes for info in store.list("data/app/tables/")}
    times = {store.read_bytes[key] / size_bytes for key, size_bytes in parts.items()}
    assert outcome.findings == []
    assert times == ({1.0} if in_memory_bytes else {2.0})
    files = [info.size_bytes for info in store.list("data/")]
    assert progress.done == progress.total == {"items": len(files), "size_bytes": sum(files)}
    assert progress.notes == []


def test_a_part_that_is_gone_is_named_and_other_tables_are_read(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    part = next((copy / "data/app/tables").glob("*people*/*.parquet"))
    part.unlink()
    outcome = verify(open_location(str(copy)), Level.FULL, workers=2, progress=Silent())
    key = str(part.relative_to(copy))
    missing = [finding.what for finding in outcome.findings if finding.key == key]
    assert missing == ["is missing; it is in the catalog", "is missing; it is in the manifest"]
    assert {digest.name for digest in outcome.tables} == {"others", "nobody"}


def test_a_part_that_only_the_catalog_knows_is_named(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    part = next((copy / "data/app/tables").glob("*people*/*.parquet"))
    key = str(part.relative_to(copy))
    put_in_place_of(copy, key, key.replace(".parquet", ".parquet2"), part.read_bytes())
    outcome = verify(open_location(str(copy)), Level.FULL, workers=2, progress=Silent())
    assert [finding.what for finding in outcome.findings if finding.key == key] == [
        "is missing; it is in the catalog"
    ]


def test_a_damaged_part_that_is_read_once_is_named_with_its_hash(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    part = next((copy / "data/app/tables").glob("*/*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    problems = verify(open_location(str(copy)), Level.FULL, workers=2, progress=Silent()).findings
    key = str(part.relative_to(copy))
    assert "its SHA-256 differs" in {finding.what for finding in problems if finding.key == key}
