"""Export, then restore: the destination is the source."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.run import Level, verify
from tests.exporters.sqlite.databases import everything, fetch, restore_file, schema_of, settings, url_of
from tests.tools.bundles import differences, read_bundle


@pytest.fixture(scope="module")
def restored(bundle, tmp_path_factory):
    destination = tmp_path_factory.mktemp("restored") / "new.db"
    outcome = restore_file(bundle, destination)
    assert outcome.findings == ()
    return destination


def test_every_value_has_its_class_its_bytes_and_its_rowid(torture, restored):
    before = everything(torture)
    assert len(before) > 25
    assert everything(restored) == before


def test_definitions_and_settings_are_equal(torture, restored):
    assert schema_of(restored) == schema_of(torture)
    entries = "SELECT rowid, type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid"
    assert fetch(restored, entries) == fetch(torture, entries)
    assert settings(restored) == settings(torture)


def test_full_text_search_triggers_and_counters_work_in_the_destination(restored, tmp_path):
    copy = shutil.copy(restored, tmp_path / "copy.db")
    with closing(sqlite3.connect(copy)) as connection, connection:
        assert connection.execute("SELECT title FROM words WHERE words MATCH 'lazy'").fetchall() == [("two",)]
        assert connection.execute("SELECT id FROM boxes WHERE x1 < 0").fetchall() == [(2,)]
        connection.execute("INSERT INTO keyed (name) VALUES ('next')")
        assert connection.execute("SELECT max(id) FROM keyed").fetchone() == (12,)
        assert connection.execute("SELECT count(*) FROM log WHERE what = 'next'").fetchone() == (1,)


def test_nothing_of_the_restore_stays_in_the_file(restored):
    assert b"moveout" not in restored.read_bytes()
    assert sorted(path.name for path in restored.parent.iterdir()) == ["new.db"]


def test_nothing_is_left_beside_the_source(torture, bundle):
    assert [path.name for path in torture.parent.iterdir()] == [torture.name]


def test_the_bundle_is_whole_and_equal_to_source_and_destination(torture, bundle, restored):
    assert verify(open_location(str(bundle)), Level.FULL, workers=2, progress=Silent()).findings == []
    for path in (torture, restored):
        assert differences(read_bundle(bundle), url_of(path)) == []


def test_a_second_restore_finds_everything_there(bundle, restored):
    before = restored.read_bytes()
    outcome = restore_file(bundle, restored)
    assert (outcome.size_bytes, outcome.skipped_items) == (0, outcome.items)
    assert "already" in outcome.routine[0]
    assert restored.read_bytes() == before
