"""Files with damaged pages: what can be read leaves, what cannot is a gap by name."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from exporters.errors import SourceError
from exporters.sqlite import chunk_plan, snapshot
from exporters.sqlite.address import parse_url
from exporters.sqlite.catalog import read_catalog
from exporters.sqlite.files.backup import connected
from exporters.sqlite.rows.damaged_pages import Stretch, readable
from exporters.sqlite.source import SqliteExporter
from exporters.testing import StandaloneHost
from tests.cli.conftest import call
from tests.exporters.sqlite.databases import export_file, run_sql
from tests.tools.bundles import read_bundle

PAGE_BYTES = 4096
ROWS = 3000


def database(path: Path, *, bad: str = "") -> dict[str, list[int]]:
    """Make one with two tables; return the pages of each, its root first. ``bad`` ends the definition of one."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    for table in ("good", "bad"):
        ending = bad if table == "bad" else ""
        connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, x TEXT){ending}")
        rows = ((number + 1, f"{table} {number} " + "v" * 90) for number in range(ROWS))
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows)
    connection.commit()
    roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema"))
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.close()
    data = path.read_bytes()
    leaves: dict[str, list[int]] = {table: [root] for table, root in roots.items()}
    for number in range(2, pages + 1):
        page = data[(number - 1) * PAGE_BYTES : number * PAGE_BYTES]
        for table, found in leaves.items():
            if number not in roots.values() and f"{table} ".encode() in page:
                found.append(number)
    return leaves


def overwrite(path: Path, page: int, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES + offset)
        file.write(data)


def after_header(path: Path) -> bytes:
    """Return what a backup does not count in."""
    return path.read_bytes()[100:]


def gaps(location: Path) -> dict[str, str]:
    return {row["item"]: row["reason"] for row in pq.read_table(location / "data/gaps.parquet").to_pylist()}


def counted_copies(path: Path) -> dict[str, int]:
    """The copies of damaged files that a plan counts, with their bytes."""
    items = SqliteExporter().open("app", f"sqlite://{path}", StandaloneHost()).survey().items
    return {item.name: item.size_bytes for item in items if item.name.endswith("damaged/database.sqlite")}


def test_a_table_that_cannot_be_read_costs_that_table(tmp_path: Path) -> None:
    path, location = tmp_path / "app.db", tmp_path / "bundle"
    pages = database(path)
    overwrite(path, pages["bad"][0], 0, b"\xff" * PAGE_BYTES)
    planned = call("plan", f"app=sqlite://{path}")
    assert "bad: it cannot be read" in planned.out + planned.err
    assert counted_copies(path) == {"damaged/database.sqlite": path.stat().st_size}
    assert call("export", f"app=sqlite://{path}", "--to", location).code == 3
    assert gaps(location) == {"main.bad": "it cannot be read: database disk image is malformed"}
    assert call("verify", location, "--level", "full").code == 3
    assert call("restore", location, f"app=sqlite://{tmp_path}/new.db").code == 3
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection, connection:
        assert connection.execute("SELECT count(*) FROM good").fetchone() == (ROWS,)


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        pytest.param(3, b"\xff\xff", marks=pytest.mark.torture),
        pytest.param(0, b"\x07", marks=pytest.mark.torture),
        (PAGE_BYTES // 2, b"\xff" * 400),
    ],
    ids=["a leaf's number of cells", "its kind", "the cells themselves"],
)
def test_damage_further_in_costs_no_other_table(tmp_path: Path, offset: int, data: bytes) -> None:
    """Some of it shows when rows are counted, some when they are read."""
    path, location = tmp_path / "app.db", tmp_path / "bundle"
    pages = database(path)
    overwrite(path, pages["bad"][len(pages["bad"]) // 2], offset, data)
    planned = call("plan", f"app=sqlite://{path}")
    assert planned.code == 0
    assert "cannot be read" in planned.out
    ended = call("export", f"app=sqlite://{path}", "--to", location)
    assert ended.code == 3, ended.err
    assert gaps(location).keys() == {"main.bad"}
    assert after_header(location / "data/app/damaged/database.sqlite") == after_header(path)
    assert call("verify", location, "--level", "full").code == 3
    assert call("restore", location, f"app=sqlite://{tmp_path}/new.db").code in {0, 3}
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection, connection:
        assert connection.execute("SELECT count(*) FROM good").fetchone() == (ROWS,)
        (rows,) = connection.execute("SELECT count(*) FROM bad").fetchone()
    assert ROWS - 2 * PAGE_BYTES // 100 < rows < ROWS, "what lies behind the damage is there, too"


@pytest.mark.parametrize(
    "damage", [b"", pytest.param(b"CREATE TABLE\0bad", marks=pytest.mark.torture), b"CREATE TABLE b\xa1d"]
)
def test_of_a_file_whose_schema_is_damaged_leaves_what_can_be_read_and_the_file_itself(
    tmp_path: Path, damage: bytes
) -> None:
    is_whole = not damage
    path, location = tmp_path / "app.db", tmp_path / "bundle"
    database(path)
    if is_whole:
        overwrite(path, 1, 100, b"\xff" * (PAGE_BYTES - 100))
    else:
        path.write_bytes(path.read_bytes().replace(b"CREATE TABLE bad", damage))
    examined = " ".join(call("doctor", f"app=sqlite://{path}").out.split())
    assert "a part of its schema cannot be read" in examined
    planned = call("plan", f"app=sqlite://{path}")
    assert (planned.code, "cannot be read" in planned.out) == (0, True)
    assert counted_copies(path) == {"damaged/database.sqlite": path.stat().st_size}
    ended = call("export", f"app=sqlite://{path}", "--to", location)
    assert ended.code == 3, ended.err
    assert gaps(location).keys() == {"main.sqlite_schema" if is_whole else "main.bad"}
    assert after_header(location / "data/app/damaged/database.sqlite") == after_header(path)
    assert call("verify", location, "--level", "full").code == 3
    if not is_whole:
        assert call("restore", location, f"app=sqlite://{tmp_path}/new.db").code == 3
        with closing(sqlite3.connect(tmp_path / "new.db")) as connection, connection:
            assert connection.execute("SELECT count(*) FROM good").fetchone() == (ROWS,)


def test_a_row_before_a_damaged_one_is_in_one_chunk_only(tmp_path: Path) -> None:
    """It was in two where the damage begins with the second row of a chunk: its key was there twice."""
    path = tmp_path / "app.db"
    database(path)
    data = bytearray(path.read_bytes())
    row = data.find(b"bad 500 ")  # its rowid is 501; the sizes of its values stand before it
    data[row - 4 : row - 1] = b"\x7f" * 3
    path.write_bytes(data)
    with closing(sqlite3.connect(path)) as connection:
        [table] = [table for table in read_catalog(connection).tables if table.name == "bad"]
        first, second = [readable(connection, table, bounds) for bounds in ((1, 500), (500, None))]
    assert (first.stretches, first.holes) == ([Stretch(1, 499)], [])
    assert (second.stretches, second.holes) == ([Stretch(500, 1), Stretch(502, ROWS - 501)], [(501, 501)])


def test_rows_between_two_damaged_stretches_leave(tmp_path: Path) -> None:
    """The steps to the end of the damage doubled, and so passed over what can be read."""
    path = tmp_path / "app.db"
    _, *leaves = database(path)["bad"]
    page_between = path.read_bytes()[(leaves[15] - 1) * PAGE_BYTES : leaves[15] * PAGE_BYTES]
    for page in [*leaves[5:15], *leaves[16:30]]:
        overwrite(path, page, 0, b"\xff" * 100)
    with closing(sqlite3.connect(path)) as connection:
        [table] = [table for table in read_catalog(connection).tables if table.name == "bad"]
        _, between, _ = readable(connection, table).stretches
    assert between.rows == page_between.count(b"bad ")


@pytest.mark.parametrize("definition", ["", " WITHOUT ROWID"])
def test_rows_to_which_pages_lead_twice_are_named(tmp_path: Path, definition: str) -> None:
    """They were exported and counted twice, and the bundle was complete."""
    path, location = tmp_path / "app.db", tmp_path / "bundle"
    root, *_ = database(path, bad=definition)["bad"]
    start, data = (root - 1) * PAGE_BYTES, path.read_bytes()
    page = data[start : start + PAGE_BYTES]
    cells = [int.from_bytes(page[12 + 2 * cell : 14 + 2 * cell]) for cell in (0, 1)]
    overwrite(
        path, root, cells[1], page[cells[0] : cells[0] + 4]
    )  # the child of a cell is its first four bytes
    ended = call("export", f"app=sqlite://{path}", "--to", location)
    assert ended.code == 3, ended.err
    assert "more than once" in gaps(location)["main.bad"]
    assert after_header(location / "data/app/damaged/database.sqlite") == after_header(path)
    call("restore", location, f"app=sqlite://{tmp_path}/new.db")
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection, connection:
        numbers = connection.execute("SELECT id, count(*) FROM bad GROUP BY id").fetchall()
    assert {count for _, count in numbers} == {1}
    assert ROWS // 3 < len(numbers) < ROWS


def test_what_is_damaged_in_several_chunks_is_named_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a table only what was met first was named."""
    monkeypatch.setattr(chunk_plan, "CHUNK_BYTES", 20 * PAGE_BYTES)
    path, location = tmp_path / "app.db", tmp_path / "bundle"
    _, *leaves = database(path)["bad"]
    for leaf in (leaves[5], leaves[8], leaves[50]):
        overwrite(path, leaf, PAGE_BYTES // 2, b"\xff" * 400)
    assert call("export", f"app=sqlite://{path}", "--to", location).code == 3
    assert gaps(location)["main.bad"].count("its rows from rowid ") == 3


def test_a_file_that_cannot_be_read_costs_that_file(tmp_path: Path) -> None:
    folder, location = tmp_path / "files", tmp_path / "bundle"
    folder.mkdir()
    database(folder / "whole.db")
    (folder / "junk.db").write_bytes(b"SQLite format 3\0" + b"junk" * 2000)
    database(folder / "torn.db")
    overwrite(folder / "torn.db", 1, 100, b"\xff" * (PAGE_BYTES - 100))
    [examined] = call("doctor", f"app=sqlite://{folder}", "--json").json["result"]["examined"]
    named = {finding["object"] for finding in examined["findings"] if finding["check"] == "damage"}
    assert named == {str(folder / "junk.db"), str(folder / "torn.db")}
    assert call("plan", f"app=sqlite://{folder}").code == 0
    assert counted_copies(folder).keys() == {
        f"{name}.db: damaged/database.sqlite" for name in ("junk", "torn")
    }
    assert call("export", f"app=sqlite://{folder}", "--to", location).code == 3
    assert gaps(location).keys() == {"junk.db: main", "torn.db: main.sqlite_schema"}
    kept = (location / "data/app/files").glob("*/damaged/database.sqlite")
    assert {after_header(path) for path in kept} == {
        after_header(folder / name) for name in ("junk.db", "torn.db")
    }
    assert call("restore", location, f"app=sqlite://{tmp_path}/new").code == 3
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["whole.db"]


def test_a_file_that_cannot_be_read_is_closed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "junk.db"
    path.write_bytes(b"SQLite format 3\0" + b"junk" * 2000)
    with pytest.raises(SourceError) as raised, connected(parse_url(f"sqlite://{path}")):
        pass
    assert raised.value  # its traceback would keep the connection
    assert path not in [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]


def test_what_can_be_read_ends_also_where_pages_point_back(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    pages = database(path)
    data = path.read_bytes()
    first, middle = (pages["bad"][place] for place in (1, len(pages["bad"]) // 2))
    overwrite(path, middle, 0, data[(first - 1) * PAGE_BYTES : first * PAGE_BYTES])
    overwrite(path, pages["bad"][-1], 0, b"\xff" * PAGE_BYTES)
    with closing(sqlite3.connect(path)) as connection:
        (table,) = (table for table in read_catalog(connection).tables if table.name == "bad")
        found = readable(connection, table)
    assert found.holes
    assert ROWS // 3 < found.rows < ROWS


def test_the_pages_of_a_table_without_room_for_its_rowids_are_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ", ".join(f"c{number}" for number in range(2000))
    path = run_sql(tmp_path / "a.db", f"CREATE TABLE t ({names})")
    run_sql(path, "INSERT INTO t (c0) VALUES (1), (2)")
    monkeypatch.setattr(chunk_plan, "CHUNK_BYTES", 2000)
    checked: list[str] = []
    monkeypatch.setattr(snapshot, "disorder", lambda _, table: [checked.append(table.name)] * 0)
    assert export_file(path, tmp_path / "bundle").complete
    [table] = read_bundle(tmp_path / "bundle").catalog()
    assert len(table.details["parts"]) > 1
    assert checked == ["t"]
