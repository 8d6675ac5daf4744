"""``verify --against`` names the rows that differ, in a table of several chunks, on every engine."""

import hashlib
from contextlib import ExitStack, nullcontext
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

import exporters.mysql.chunk_plan as mysql_plan
import exporters.postgres.chunk_plan as postgres_plan
import exporters.sqlite.chunk_plan as sqlite_plan
from migrate.bundle.findings import Finding
from migrate.errors import DamageError
from migrate.verify import live_database
from migrate.verify.row_diff import DifferingRow, RowDiff
from tests.tools.bundles import differences, read_bundle
from tests.verify.fresh_databases import (
    MariadbDatabase,
    PostgresDatabase,
    SqliteDatabase,
    exported_database,
)

ROWS = 3000
CHUNK_BYTES = 64 * 2**10


class Postgres(PostgresDatabase):
    """A PostgreSQL database with two tables of several chunks, one of them without a key."""

    make = f"""
        CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2), note text);
        INSERT INTO items SELECT n, 'item ' || n, n * 1.25,
          CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE repeat('x', 60) END FROM generate_series(1, {ROWS}) n;
        CREATE TABLE keyless AS SELECT id % 50 AS a, note AS b FROM items;
        ANALYZE
    """
    keyless = ("DELETE FROM keyless WHERE ctid = (SELECT ctid FROM keyless WHERE a = 7 LIMIT 1)",)
    label = '"public"."{}"'.format


class Mariadb(MariadbDatabase):
    """The same in MariaDB."""

    make = f"""
        CREATE TABLE items (id int PRIMARY KEY, name text, price decimal(10,2), note text);
        INSERT INTO items SELECT seq, CONCAT('item ', seq), seq * 1.25,
          CASE seq % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE REPEAT('x', 60) END FROM seq_1_to_{ROWS};
        CREATE TABLE keyless AS SELECT id % 50 AS a, note AS b FROM items;
        ANALYZE TABLE items
    """
    keyless = ("DELETE FROM keyless WHERE a = 7 LIMIT 1",)
    label = "`{}`".format


class Sqlite(SqliteDatabase):
    """The same in a SQLite file."""

    make = f"""
        CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price NUMERIC, note);
        WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {ROWS})
        INSERT INTO items SELECT n, 'item ' || n, n * 1.25,
          CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE printf('%060d', 0) END FROM s;
        CREATE TABLE keyless AS SELECT id % 50 AS a, note AS b FROM items;
    """
    keyless = ("DELETE FROM keyless WHERE rowid = (SELECT rowid FROM keyless WHERE a = 7 LIMIT 1)",)
    label = '"main"."{}"'.format


@pytest.fixture(params=[Postgres, Mariadb, Sqlite], ids=["postgres", "mariadb", "sqlite"])
def database(request, tmp_path, monkeypatch):
    """A fresh database and its bundle; the larger table left in several chunks."""
    for plan in (postgres_plan, mysql_plan, sqlite_plan):
        monkeypatch.setattr(plan, "CHUNK_BYTES", CHUNK_BYTES)
    return exported_database(request, tmp_path)


def compare(database) -> dict[str, Finding]:
    """Return what differs, by table."""
    reader = read_bundle(database.location)
    return {finding.key: finding for finding in differences(reader, database.url)}


def test_rows_that_differ_are_named_with_both_values(database, monkeypatch):
    """One of each kind, those of a table without a key, and the first where every row has changed. Another column is
    named instead of every row.
    """
    reader = read_bundle(database.location)
    (items,) = (row for row in reader.catalog() if row.name == "items")
    assert len(items.details["chunks"]) > 1
    assert sum(chunk["rows"] for chunk in items.details["chunks"]) == ROWS
    assert compare(database) == {}
    check_every_row_changed(database, monkeypatch)
    database.run(
        "UPDATE items SET price = 0.5, note = NULL WHERE id = 2500",
        "DELETE FROM items WHERE id = 17",
        "INSERT INTO items VALUES (9999, 'new', 1.5, 'more')",
        *database.keyless,
    )
    compared = compare(database)
    assert compared.keys() == {database.label("items"), database.label("keyless")}
    check_one_of_each_kind(compared[database.label("items")], items)
    (row,) = compared[database.label("keyless")].rows
    assert row.side == "only in the bundle"
    assert dict(row.expected)["a"] == "7"
    database.run("ALTER TABLE items ADD COLUMN more int")
    finding = compare(database)[database.label("items")]
    assert finding.what == "has other columns"
    assert finding.found == f"{finding.expected}, more"


def check_every_row_changed(database, monkeypatch):
    """Some are named, and the finding says so; afterwards all is as it was."""
    with monkeypatch.context() as patch:
        patch.setattr("migrate.verify.row_diff.MOST_ROWS", 300)
        patch.setattr("migrate.verify.row_diff.KEPT_ROWS", 50)
        database.run("UPDATE items SET price = price + 1")
        compared = compare(database)
    assert compared.keys() == {database.label("items")}
    (finding,) = compared.values()
    assert "many rows, among them" in finding.what
    assert 1 < len(finding.rows) <= 100
    for row in finding.rows:
        assert row.side == "changed"
        assert float(dict(row.found)["price"]) == float(dict(row.expected)["price"]) + 1
    database.run("UPDATE items SET price = price - 1")


def check_one_of_each_kind(finding, items):
    assert "1 changed, 1 only in the bundle, 1 only in the database" in finding.what
    changed, missing, more = finding.rows
    assert (changed.side, dict(changed.key)) == ("changed", {"id": "2500"})
    assert list(dict(changed.expected)) == list(dict(changed.found)) == ["price", "note"]
    assert dict(changed.found)["note"] is None
    assert float(dict(changed.expected)["price"]) == 3125
    assert float(dict(changed.found)["price"]) == 0.5
    assert (missing.side, dict(missing.key)) == ("only in the bundle", {"id": "17"})
    assert "item 17" in dict(missing.expected)["name"]
    assert (more.side, dict(more.key), more.part) == ("only in the database", {"id": "9999"}, "")
    parts = {f"data/app/{name}" for chunk in items.details["chunks"] for name in chunk["parts"]}
    assert {changed.part, missing.part} <= parts
    assert changed.part != missing.part


@pytest.mark.parametrize(
    ("left", "right", "place"),
    [
        (b"abc", b"abd", 2),
        (b"xbc", b"abc", 0),
        (b"abcd", b"abxd", 2),
        (b"abc", b"abcdef", 3),
        (b"", b"a", 0),
        (None, b"a", 0),
    ],
)
def test_of_long_values_what_is_around_their_difference_is_shown(left, right, place):
    assert live_database._first_difference(left, right) == place
    assert live_database._first_difference(right, left) == place


def test_where_long_values_begin_to_differ_is_found_at_every_place():
    for size in range(1, 20):
        for place in range(size):
            left, right = bytearray(size), bytearray(size)
            right[place] = 1
            assert live_database._first_difference(bytes(left), bytes(right)) == place, (size, place)


ROW = DifferingRow(b"1")


@pytest.mark.parametrize(
    ("changed", "left", "right", "whole", "key", "words"),
    [
        (0, 0, 0, True, True, "its rows are the bundle's by now: it changed while it was compared"),
        (2, 0, 0, True, True, "2 changed"),
        (1, 2, 3, True, True, "1 changed, 2 only in the bundle, 3 only in the database"),
        (1, 0, 0, False, True, "many rows, among them 1 changed"),
        (0, 1, 1, True, False, "1 only in the bundle, 1 only in the database (it has no key)"),
        (0, 1, 0, True, False, "1 only in the bundle"),
        (0, 0, 1, True, False, "1 only in the database"),
        (0, 1, 1, True, True, "1 only in the bundle, 1 only in the database"),
    ],
)
def test_how_many_rows_differ_is_said(changed, left, right, whole, key, words):
    diff = RowDiff([(ROW, ROW)] * changed, [ROW] * left, [ROW] * right, whole)
    assert live_database._words(diff, key=key) == words


@pytest.mark.parametrize(
    ("changed", "left", "right", "shown"),
    [(9, 9, 9, "cccbbbddd"), (9, 1, 1, "cccccccbd"), (1, 9, 1, "cbbbdbbbb"), (4, 3, 2, "ccccbbbdd")],
)
def test_some_rows_of_each_kind_are_shown_first(monkeypatch, changed, left, right, shown):
    monkeypatch.setattr(live_database, "SHOWN_ROWS", 9)
    reader = SimpleNamespace(split=lambda text: [text])
    show = live_database._Show(reader, ["id"], ["id"], lambda text: (text,))
    rows = show.rows(RowDiff([(ROW, DifferingRow(b"2"))] * changed, [ROW] * left, [ROW] * right, True))
    assert len(rows) == changed + left + right
    letters = {"changed": "c", "only in the bundle": "b", "only in the database": "d"}
    assert "".join(letters[row.side] for row in rows[:9]) == shown
    assert (rows[0].expected, rows[0].found) == ((("id", "1"),), (("id", "2"),))


FOUND = Finding("t", "has other values")


def search(columns=("id",)) -> live_database.RowSearch:
    """A search in a database whose tables have these columns, each with the row 2."""
    opened = []
    rows = SimpleNamespace(
        columns=lambda *_: columns, key=lambda *_: [], each=lambda *words: words[2]([b"2"])
    )

    def live_rows(url, *, secrets):
        opened.append((url, secrets))
        assert opened == [("x://new", {"password": "p"})], "it is opened once"
        return nullcontext(rows)

    part_reader = SimpleNamespace(read_errors=(ZeroDivisionError,), split=lambda text: [text])
    return live_database.RowSearch(
        SimpleNamespace(live_rows=live_rows), part_reader, None, "x://new", {"password": "p"}, ExitStack()
    )


TABLE = SimpleNamespace(schema="public", name="t", items=1)


def bundle_with(monkeypatch, columns, each=lambda take, parts=None: take([b"1"])):
    rows = SimpleNamespace(columns=columns, each=each, part="data/app/1")
    monkeypatch.setattr(live_database, "BundleRows", lambda *_: rows)
    monkeypatch.setattr(live_database, "key_reader", lambda *_: lambda text: ())


def test_rows_are_looked_for_in_so_many_tables(monkeypatch):
    monkeypatch.setattr(live_database, "MOST_TABLES", 2)
    bundle_with(monkeypatch, ["id"])
    look = search().look
    first, second, third = (look(TABLE, FOUND) for _ in range(3))
    words = "has other values: 1 only in the bundle, 1 only in the database (it has no key)"
    assert (first.what, first == second, third) == (words, True, FOUND)
    assert [(row.side, row.part) for row in first.rows] == [
        ("only in the bundle", "data/app/1"),
        ("only in the database", ""),
    ]


@pytest.mark.parametrize(
    "error", [DamageError("part", expected="a", found="b"), ZeroDivisionError("a  part\nof it")]
)
def test_why_the_rows_of_the_bundle_cannot_be_read_is_said(monkeypatch, error):
    def fail(*_: object) -> None:
        raise error

    bundle_with(monkeypatch, ["id"], fail)
    finding = search().look(TABLE, FOUND)
    reason = " ".join(str(error).split())
    assert finding == replace(FOUND, what=f"has other values; the bundle's rows cannot be read ({reason})")


@pytest.mark.parametrize(("here", "there"), [([], ["id"]), (["id"], [])])
def test_a_side_without_columns_says_no_more(monkeypatch, here, there):
    bundle_with(monkeypatch, here)
    assert search(there).look(TABLE, FOUND) == FOUND


@pytest.mark.parametrize(("size", "at"), [(0, 0), (400, 0), (401, 0), (1000, 60), (1000, 61), (1000, 900)])
def test_of_a_long_value_some_is_shown(size, at):
    value = bytes(48 + number % 10 for number in range(size))
    shown = live_database._shown(value, at)
    if size <= 400:
        assert shown == value.decode()
        return
    start = max(0, at - 60)
    cut = value[start : start + 200].decode()
    digest = hashlib.sha256(value).hexdigest()[:16]
    assert shown == f"{'…' if at > 60 else ''}{cut}… ({size} bytes, SHA-256 {digest}…)"
