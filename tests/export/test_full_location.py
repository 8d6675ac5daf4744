"""Where the location is full, what was exported is sealed, the rest is named, and the next run goes on."""

import sqlite3
from contextlib import closing

from migrate.storage.registry import open_location
from tests.cli.conftest import call
from tests.export.sources import fingerprint
from tests.tools.disks import grow, resize, tiny_disk

__all__ = ["tiny_disk"]


def make_random_file(path, rows):
    """Make a SQLite file of so many rows of 100 kB, which no compression makes smaller."""
    with closing(sqlite3.connect(path)) as connection:
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
        connection.execute(f"CREATE TABLE t AS {numbers} SELECT i, randomblob(100000) AS x FROM n")


def test_finished_sources_are_sealed_and_the_same_command_goes_on(tiny_disk, tmp_path):
    sizes = {"first": 1, "large": 80, "last": 1}
    for name, rows in sizes.items():
        make_random_file(tmp_path / f"{name}.db", rows)
    sources = [f"{name}=sqlite://{tmp_path}/{name}.db" for name in sizes]
    export = ("export", *sources, "--to", tiny_disk / "bundle", "--json")
    ended = call(*export)
    assert ended.code == 3, ended.err
    lines = {line["source"]: line for line in ended.json["result"]["summary"]}
    assert [line["word"] for line in lines.values()] == ["yes", "no", "no"], lines
    assert "the location is full" in lines["large"]["happened"]
    assert "make room there" in lines["last"]["next_step"]
    status = " ".join(call("status", tiny_disk / "bundle").out.split())
    assert status.count("the location is full, so it was not read to its end") == 2, "of large, and of last"
    checked = call("verify", tiny_disk / "bundle", "--level", "full")
    assert (checked.code, "INCOMPLETE" in checked.out) == (3, True), checked
    restored = call("restore", tiny_disk / "bundle", f"first=sqlite://{tmp_path}/new.db")
    assert (restored.code, "first: 1 restored" in restored.out) == (0, True), restored
    before = fingerprint(open_location(str(tiny_disk / "bundle")))
    assert call(*export).code == 3, "still full"
    assert fingerprint(open_location(str(tiny_disk / "bundle"))) == before
    grow(tiny_disk)
    again = call(*export)
    assert again.code == 0, again.err
    assert not (tiny_disk / "bundle/_work").exists()


def test_nothing_is_sealed_where_nothing_had_room(tiny_disk, tmp_path):
    make_random_file(tmp_path / "large.db", 80)
    ended = call("export", f"large=sqlite://{tmp_path}/large.db", "--to", tiny_disk / "bundle")
    assert (ended.code, "make room there" in " ".join(ended.err.split())) == (8, True), ended


def test_on_a_disk_of_a_megabyte_there_is_room_for_the_seal(tiny_disk, tmp_path):
    resize(tiny_disk, "1m")
    sources = []
    for name, rows in {"first": 3, "second": 2, "large": 80}.items():
        make_random_file(tmp_path / f"{name}.db", rows)
        sources.append(f"{name}=sqlite://{tmp_path}/{name}.db")
    sources.append(f"gone=sqlite://{tmp_path}/gone.db")
    ended = call("export", *sources, "--to", tiny_disk / "bundle")
    assert (ended.code, "Sealed, INCOMPLETE" in ended.out) == (3, True), ended
    assert "→ check the path" in ended.out, "more room would not bring it"
    assert call("verify", tiny_disk / "bundle", "--level", "full").code == 3


def test_a_location_too_small_for_its_seal_is_named_so_and_the_same_command_goes_on(tiny_disk, tmp_path):
    resize(tiny_disk, "88k")
    with closing(sqlite3.connect(tmp_path / "first.db")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    export = ("export", f"first=sqlite://{tmp_path}/first.db", "--to", tiny_disk / "bundle")
    ended = call(*export)
    words = " ".join(ended.err.split())
    assert ended.code == 8, ended
    assert (
        "is too small: what was exported lies there, but there is no room for the manifests and reports"
        in words
    )
    assert "make room there, 16.8 MB are enough" in words
    resize(tiny_disk, "20m")
    assert call(*export).code == 0
