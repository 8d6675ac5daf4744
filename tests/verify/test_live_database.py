"""A bundle's tables against a live database: what differs is named, and what the bundle does not claim is no damage."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from exporters.api import Gap
from exporters.engine import LiveTables
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader
from migrate.errors import UsageError
from migrate.runtime.progress import Silent, SourceTask
from migrate.storage.registry import open_location
from migrate.verify import live_database
from migrate.verify.compare import ComparisonRequest
from migrate.verify.live_database import compare_database
from tests.exporters.sqlite.databases import export_file, url_of

LABEL = '"main"."{}"'.format
TABLES = {"one": 3, "two": 2, "none": 0}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A database with three tables, and its bundle."""
    folder = tmp_path_factory.mktemp("exported")
    path = folder / "app.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        for name, rows in TABLES.items():
            connection.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, note TEXT)")
            connection.executemany(f"INSERT INTO {name} VALUES (?, 'x')", [(row,) for row in range(rows)])
    bundle = folder / "bundle"
    export_file(path, bundle)
    return path, bundle


@pytest.fixture
def live(exported: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the database."""
    copy = tmp_path / "live.db"
    copy.write_bytes(exported[0].read_bytes())
    return copy


class Changed(BundleReader):
    """A bundle of which the catalog says something else of its tables, and which has gaps."""

    def __init__(self, bundle: Path, gaps: Sequence[str] = (), **change: Any) -> None:
        super().__init__(open_location(str(bundle)))
        self.gap_items, self.change = gaps, change

    def tables(self, source: str) -> list[CatalogRow]:
        return [replace(row, **self.change) for row in super().tables(source)]

    def failed(self, source: str) -> Iterator[Gap]:
        assert source == "app"
        return (Gap(LABEL(item), "failed", "it was locked") for item in self.gap_items)


class Notes(Silent):
    """Keeps what is shown and counted."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.begun: list[tuple[str, int, int, SourceTask | None]] = []
        self.ends = self.items = 0

    def note(self, message: str) -> None:
        self.notes.append(message)

    def begin(
        self, step: str, *, items: int, size_bytes: int, of: SourceTask | None = None, **_: Any
    ) -> None:
        self.begun.append((step, items, size_bytes, of))

    def advance(self, *, items: int = 0, size_bytes: int = 0) -> None:
        del size_bytes
        self.items += items

    def end(self, *, stopped: bool = False) -> None:
        del stopped
        self.ends += 1


def request_of(reader: BundleReader, path: Path, **more: Any) -> ComparisonRequest:
    return ComparisonRequest(reader, "app", url_of(path), **{"workers": 1, "progress": Silent(), **more})


def compare(reader: BundleReader, path: Path, **more: Any) -> Sequence[Finding]:
    return compare_database(request_of(reader, path, **more)).findings


def run(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def words(findings: Sequence[Finding]) -> dict[str, tuple[str, str, str, bool]]:
    """Return the findings by the name of their table."""
    return {
        each.key.split('"')[-2]: (each.what, each.expected, each.found, each.incomplete) for each in findings
    }


def test_an_equal_database_has_no_findings_and_its_digests_are_given(exported, live):
    progress = Notes()
    comparison = compare_database(request_of(Changed(exported[1]), live, progress=progress))
    assert list(comparison.findings) == []
    assert {digest.name: digest.rows for digest in comparison.digests} == TABLES
    assert [digest.source for digest in comparison.digests] == ["app"] * 3
    ((step, items, size_bytes, task),) = progress.begun
    assert (step, items, task, progress.items, progress.ends) == ("compare app", 5, SourceTask("app"), 5, 1)
    assert size_bytes > 0
    assert progress.notes == []


def test_each_table_that_differs_is_named_with_its_rows(exported, live):
    run(live, "UPDATE one SET note = 'y' WHERE id = 1", "DELETE FROM two WHERE id = 0", "DROP TABLE none")
    progress = Notes()
    findings = compare(Changed(exported[1]), live, progress=progress)
    by_table = words(findings)
    assert by_table["two"] == ("has another number of rows: 1 only in the bundle", "2", "1", False)
    assert by_table["none"] == ("is missing in the database", "0 rows", "no table", False)
    what, expected, actual, incomplete = by_table["one"]
    assert (what, len(expected), incomplete) == (
        "has other rows (their digest differs): 1 changed",
        32,
        False,
    )
    assert expected != actual
    sides = {each.key: [row.side for row in each.rows] for each in findings}
    assert sides == {LABEL("one"): ["changed"], LABEL("two"): ["only in the bundle"], LABEL("none"): []}
    assert progress.notes == [
        f"app: looking for the rows of {LABEL(name)} that differ" for name in ("one", "two")
    ]


def test_what_an_unfinished_restore_may_still_bring_is_missing_and_what_it_cannot_is_damage(exported, live):
    run(live, "UPDATE one SET note = 'y' WHERE id = 1", "DELETE FROM one WHERE id = 0", "DROP TABLE none")
    by_table = words(compare(Changed(exported[1]), live, unfinished=True))
    assert {name: incomplete for name, (*_, incomplete) in by_table.items()} == {"one": False, "none": True}
    run(live, "UPDATE one SET note = 'x'", "DELETE FROM two")
    by_table = words(compare(Changed(exported[1]), live, unfinished=True))
    assert {name: incomplete for name, (*_, incomplete) in by_table.items()} == dict.fromkeys(TABLES, True)


def test_a_table_that_only_the_database_has_is_named_unless_it_is_empty_and_a_gap(exported, live):
    run(
        live,
        "CREATE TABLE more (a)", "INSERT INTO more VALUES (1), (2)",
        "CREATE TABLE empty (a)",
        "CREATE TABLE gap (a)", "INSERT INTO gap VALUES (1)",
        "CREATE TABLE empty_gap (a)",
    )  # fmt: skip
    assert words(compare(Changed(exported[1], gaps=["gap", "empty_gap"]), live)) == {
        "more": ("is in the database, not in the bundle", "", "2 rows", False),
        "empty": ("is in the database, not in the bundle", "", "0 rows", False),
        "gap": ("is a gap of the bundle, so its rows could not be compared", "", "1 row", True),
    }


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"kind": "materialized view"}, "materialized view"),
        ({"details": {"extension": "postgis"}}, "table of the extension postgis"),
    ],
)
def test_other_rows_of_what_a_server_fills_by_itself_are_no_damage(exported, live, change, kind):
    run(live, "DELETE FROM two WHERE id = 0", "DROP TABLE none")
    by_table = words(compare(Changed(exported[1], **change), live))
    seen = (
        "1 only in the bundle"
        if "kind" in change
        else "the bundle's rows cannot be read (data/catalog.parquet: expected the parts of main.two, found none)"
    )
    separator = ":" if "kind" in change else ";"
    assert by_table == {
        "two": (f"is a {kind} that has another number of rows{separator} {seen}", "2", "1", True),
        "none": (f"is a {kind} that has no rows", "0 rows", "none", True),
    }


def test_nothing_is_missed_where_there_was_nothing_that_is_no_table(exported, live):
    run(live, "DROP TABLE none", "DROP TABLE two")
    assert set(words(compare(Changed(exported[1], number=0), live))) == {"two"}
    assert set(words(compare(Changed(exported[1], number=1), live))) == {
        "none",
        "two",
    }


def test_a_difference_that_is_reported_elsewhere_is_left_out(exported, live):
    run(live, "DELETE FROM one", "DELETE FROM two WHERE id = 0", "DROP TABLE none")
    asked = []

    def accepts(name: tuple[str, str], digest: Any) -> bool:
        asked.append((name[1], None if digest is None else digest.rows))
        return name[1] != "two"

    assert set(words(compare(Changed(exported[1]), live, accepted=[lambda *_: False, accepts]))) == {"two"}
    assert sorted(asked) == [("none", None), ("one", 0), ("two", 1)]


def test_a_table_that_cannot_be_read_was_not_compared_and_says_why(exported, live, monkeypatch):
    class Reader:
        def live_tables(self, url: str, request: Any, *, secrets: Any) -> LiveTables:
            assert request.tolerant
            tables = original(url, request, secrets=secrets)
            digests = {name: digest for name, digest in tables.digests.items() if name[1] != "one"}
            return LiveTables(digests, {("main", "one"): "it is locked"})

    original = live_database.live_reader_of(live_database.registry.engine_for("sqlite:///x", "")).live_tables
    monkeypatch.setattr(live_database, "live_reader_of", lambda _: Reader())
    assert words(compare(Changed(exported[1]), live)) == {
        "one": ("could not be compared: it is locked", "", "", True)
    }


def test_what_is_no_database_cannot_be_compared(exported):
    request = ComparisonRequest(Changed(exported[1]), "app", "s3://bucket", workers=1, progress=Silent())
    with pytest.raises(UsageError, match="compared"):
        compare_database(request)
